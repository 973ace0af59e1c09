package kube_test

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"infrado.cloud/headscale-operator/internal/kube/refwatch"
)

var _ = Describe("The watches of references", func() {
	It("tell of a change to those that refer to the object, for as long as they do", func(ctx context.Context) {
		namespace := newNamespace(ctx)
		http, err := rest.HTTPClientFor(config)
		Expect(err).NotTo(HaveOccurred())
		running, stop := context.WithCancel(context.Background())
		defer stop()
		watches, err := refwatch.New(running, config, http)
		Expect(err).NotTo(HaveOccurred())
		first, second := types.NamespacedName{Namespace: namespace, Name: "first"}, types.NamespacedName{Namespace: namespace, Name: "second"}
		references := []refwatch.Reference{{Resource: "secrets", Name: "shared"}}

		watches.Sync(first, references)
		Eventually(watches.Events()).WithContext(ctx).Should(Receive(HaveField("Object.GetName()", "first")), "what is there when the watch starts")
		watches.Sync(second, references)
		Expect(watches.Len()).To(Equal(1), "one watch for one object")

		heard := func(g Gomega) string {
			var e event.GenericEvent
			g.Eventually(watches.Events()).WithContext(ctx).Should(Receive(&e))
			return e.Object.GetName()
		}
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shared"}}
		Expect(admin.Create(ctx, secret)).To(Succeed())
		Expect([]string{heard(NewGomega(Fail)), heard(NewGomega(Fail))}).To(ConsistOf("first", "second"))

		watches.Sync(first, nil)
		other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "other"}}
		Expect(admin.Create(ctx, other)).To(Succeed())
		Expect(admin.Delete(ctx, secret)).To(Succeed())
		Expect(heard(NewGomega(Fail))).To(Equal("second"))

		watches.Sync(second, nil)
		Expect(watches.Len()).To(BeZero())
		Consistently(watches.Events(), "200ms").WithContext(ctx).ShouldNot(Receive())
	})
})
