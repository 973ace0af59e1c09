package headscale

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"infrado.cloud/headscale-operator/internal/resources"
)

var _ = Describe("The watches of what Headscales refer to", func() {
	It("tell of a change to those that refer to the object, for as long as they do", func(ctx context.Context) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "watches-"}}
		Expect(admin.Create(ctx, namespace)).To(Succeed())
		http, err := rest.HTTPClientFor(adminConfig)
		Expect(err).NotTo(HaveOccurred())
		running, stop := context.WithCancel(context.Background())
		defer stop()
		watches, err := newReferenceWatches(running, adminConfig, http)
		Expect(err).NotTo(HaveOccurred())
		first, second := types.NamespacedName{Namespace: namespace.Name, Name: "first"}, types.NamespacedName{Namespace: namespace.Name, Name: "second"}
		references := []resources.Reference{{Field: "secrets.tls", Kind: resources.KindSecret, Name: "shared"}}

		watches.keep(first, references)
		Eventually(watches.events).WithContext(ctx).Should(Receive(HaveField("Object.GetName()", "first")), "what is there when the watch starts")
		watches.keep(second, references)
		Expect(watches.objects).To(HaveLen(1), "one watch for one object")

		heard := func(g Gomega) string {
			var e event.GenericEvent
			g.Eventually(watches.events).WithContext(ctx).Should(Receive(&e))
			return e.Object.GetName()
		}
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "shared"}}
		Expect(admin.Create(ctx, secret)).To(Succeed())
		Expect([]string{heard(NewGomega(Fail)), heard(NewGomega(Fail))}).To(ConsistOf("first", "second"))

		watches.keep(first, nil)
		other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "other"}}
		Expect(admin.Create(ctx, other)).To(Succeed())
		Expect(admin.Delete(ctx, secret)).To(Succeed())
		Expect(heard(NewGomega(Fail))).To(Equal("second"))

		watches.keep(second, nil)
		Expect(watches.objects).To(BeEmpty())
		Consistently(watches.events, "200ms").WithContext(ctx).ShouldNot(Receive())
	})
})
