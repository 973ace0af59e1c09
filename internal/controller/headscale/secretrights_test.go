package headscale

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// sidecarIn is a client with the rights of a Headscale's sidecar, as whoever chooses its image
// has them.
func sidecarIn(namespace, name string) client.Client {
	GinkgoHelper()
	config := rest.CopyConfig(adminConfig)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + namespace + ":" + name}
	sidecar, err := client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	return sidecar
}

// victim is a Secret that somebody else has in the namespace.
func victim(namespace, name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string][]byte{"password": []byte("theirs")}}
}

var _ = Describe("The rights of a sidecar", func() {
	// takeOver tries what somebody would who has the sidecar's token, and returns the answers.
	takeOver := func(ctx context.Context, o *operator, name string) func() []error {
		sidecar := sidecarIn(o.namespace, "headscale")
		return func() []error {
			change := client.RawPatch("application/merge-patch+json", []byte(`{"data":{"password":"bWluZQ=="}}`))
			return []error{
				sidecar.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: name}, &corev1.Secret{}),
				sidecar.Patch(ctx, victim(o.namespace, name), change),
				sidecar.Update(ctx, victim(o.namespace, name)),
			}
		}
	}
	refused := HaveEach(MatchError(apierrors.IsForbidden, "forbidden"))
	role := func(ctx context.Context, o *operator) func(Gomega) []string {
		return func(g Gomega) []string { return secretsOf(get[rbacv1.Role](ctx, o.namespace, "headscale")(g)) }
	}
	invalid := `{spec: {config: {listen_addr: "0.0.0.0:9090"}}}`

	It("are none on a Secret that somebody else has, and come when that is deleted", func(ctx context.Context) {
		o := startOperator(ctx)
		theirs := victim(o.namespace, "theirs")
		Expect(admin.Create(ctx, theirs)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest+"  api_key: {secret_name: theirs}\n")).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonConflict, "Secret theirs exists"))
		Expect(role(ctx, o)(NewGomega(Fail))).To(BeEmpty())
		Expect(takeOver(ctx, o, "theirs")()).To(refused)

		Expect(admin.Delete(ctx, theirs)).To(Succeed())
		Eventually(role(ctx, o)).WithContext(ctx).Should(ConsistOf("theirs"))
		Expect(admin.Create(ctx, keySecret(o.namespace, "theirs", o.time().Add(time.Hour)))).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)).WithContext(ctx).Should(HaveField("Status", metav1.ConditionTrue))
		Expect(role(ctx, o)(NewGomega(Fail))).To(ConsistOf("theirs"))
	})

	It("end when somebody else makes the Secret, also where the spec is refused", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(role(ctx, o)).WithContext(ctx).Should(ConsistOf("headscale-api-key"))
		Expect(admin.Create(ctx, victim(o.namespace, "headscale-api-key"))).To(Succeed())
		Eventually(takeOver(ctx, o, "headscale-api-key")).WithContext(ctx).Should(refused)
		Eventually(role(ctx, o)).WithContext(ctx).Should(BeEmpty())

		Expect(admin.Delete(ctx, victim(o.namespace, "headscale-api-key"))).To(Succeed())
		Eventually(role(ctx, o)).WithContext(ctx).Should(ConsistOf("headscale-api-key"))
		Expect(patch(ctx, o.namespace, "headscale", invalid)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, ""))
		Expect(admin.Create(ctx, victim(o.namespace, "headscale-api-key"))).To(Succeed())
		Eventually(takeOver(ctx, o, "headscale-api-key")).WithContext(ctx).Should(refused)
	})

	It("end on the Secret of a former name, too", func(ctx context.Context) {
		o := startOperator(ctx)
		mine := keySecret(o.namespace, "former", o.time().Add(time.Hour))
		Expect(admin.Create(ctx, mine)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest+"  api_key: {secret_name: former}\n")).To(Succeed())
		Eventually(role(ctx, o)).WithContext(ctx).Should(ConsistOf("former"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {secret_name: later}, config: {listen_addr: "0.0.0.0:9090"}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, ""))
		Expect(role(ctx, o)(NewGomega(Fail))).To(ConsistOf("former"), "what cannot be done leaves what runs as it is")

		Expect(admin.Delete(ctx, mine)).To(Succeed())
		Expect(admin.Create(ctx, victim(o.namespace, "former"))).To(Succeed())
		Eventually(takeOver(ctx, o, "former")).WithContext(ctx).Should(refused)
	})

	It("end when its own Secret loses its labels, and come back with them", func(ctx context.Context) {
		o := startOperator(ctx)
		mine := keySecret(o.namespace, "headscale-api-key", o.time().Add(time.Hour))
		labels := mine.Labels
		Expect(admin.Create(ctx, mine)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)).WithContext(ctx).Should(HaveField("Status", metav1.ConditionTrue))
		Expect(role(ctx, o)(NewGomega(Fail))).To(ConsistOf("headscale-api-key"))
		Eventually(func() int { return o.reconciler.watches.Len() }).WithContext(ctx).Should(BeZero(), "the watch of all Secrets with the labels is enough")

		mine.Labels = nil
		Expect(admin.Update(ctx, mine)).To(Succeed())
		Eventually(role(ctx, o)).WithContext(ctx).Should(BeEmpty())
		mine.Labels = labels
		Expect(admin.Update(ctx, mine)).To(Succeed())
		Eventually(role(ctx, o)).WithContext(ctx).Should(ConsistOf("headscale-api-key"))
	})

	It("end when somebody else makes the Secret in the moment in which the operator looks for it", func(ctx context.Context) {
		o := startOperator(ctx)
		// This one keeps the watch of the namespace running.
		Expect(create(ctx, o.namespace, named("other", "never"))).To(Succeed())
		mine := keySecret(o.namespace, "headscale-api-key", o.time().Add(time.Hour))
		Expect(admin.Create(ctx, mine)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)).WithContext(ctx).Should(HaveField("Status", metav1.ConditionTrue))
		Eventually(role(ctx, o)).WithContext(ctx).Should(ConsistOf("headscale-api-key"))

		var once sync.Once
		steal := func(request *http.Request) {
			if strings.HasSuffix(request.URL.Path, "/secrets/headscale-api-key") {
				once.Do(func() {
					defer GinkgoRecover()
					Expect(admin.Create(ctx, victim(o.namespace, "headscale-api-key"))).To(Succeed())
					// The watch has reported it when it reports what was made after it.
					Expect(admin.Create(ctx, victim(o.namespace, "never"))).To(Succeed())
					Eventually(condition(ctx, o.namespace, "other", v1beta1.ConditionAPIKeyReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonConflict, ""))
				})
			}
		}
		// While its cache does not have the Secret, the operator looks for it as it does below.
		Eventually(func() (*metav1.PartialObjectMetadata, error) {
			return readSecret(ctx, o.reconciler.Client, client.ObjectKeyFromObject(mine))
		}).WithContext(ctx).ShouldNot(BeNil())
		o.settle(ctx, "headscale")
		o.answered.Store(&steal)
		Expect(admin.Delete(ctx, mine)).To(Succeed())
		Eventually(missing[corev1.Secret](ctx, o.namespace, "headscale-api-key")).WithContext(ctx).Should(BeFalse())
		Eventually(takeOver(ctx, o, "headscale-api-key")).WithContext(ctx).Should(refused)
	})

	It("are settled with one change each", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(admin.Create(ctx, victim(o.namespace, "headscale-api-key"))).To(Succeed())
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonConflict, ""))
		before := o.settle(ctx, "headscale")
		annotated := victim(o.namespace, "headscale-api-key")
		annotateSecret(ctx, annotated, map[string]any{"theirs": "changes"})
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))
	})
})
