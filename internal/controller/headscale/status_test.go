package headscale

import (
	"context"
	"time"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("The status", func() {
	It("follows a key through its life", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		available := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)
		key := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)

		By("starting")
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "There is no pod headscale-0"))
		Expect(available(NewGomega(Fail))).To(be("False", v1beta1.ReasonProgressing, "kubectl describe statefulset headscale"))
		Expect(key(NewGomega(Fail))).To(be("False", v1beta1.ReasonKeyPending, "No API key is in Secret headscale-api-key yet; the API Key Manager stores a key when it runs in pod headscale-0"))

		By("the pod being ready")
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(available).WithContext(ctx).Should(be("True", v1beta1.ReasonAvailable, "Headscale in pod headscale-0 is ready"))
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyPending, "No API key is in Secret headscale-api-key"))

		By("the Secret being there without a key")
		expiration := o.time().Add(v1beta1.DefaultExpiration)
		secret := keySecret(o.namespace, "headscale-api-key", expiration)
		delete(secret.Annotations, v1beta1.AnnotationExpiration)
		Expect(admin.Create(ctx, secret)).To(Succeed())
		o.touch(ctx, "headscale")
		Expect(key(NewGomega(Fail))).To(HaveField("Reason", v1beta1.ReasonKeyPending))

		By("the key being stored")
		annotateSecret(ctx, secret, map[string]any{v1beta1.AnnotationExpiration: expiration.UTC().Format(time.RFC3339Nano)})
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyValid, "valid until "+expiration.UTC().Format(time.RFC3339)))
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Expect(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)).Status).To(And(
			HaveField("ObservedGeneration", BeEquivalentTo(1)),
			HaveField("APIKey", And(
				HaveField("SecretName", "headscale-api-key"),
				HaveField("KeyPrefix", "abcdefghijkl"),
				HaveField("Expiration.Time", BeTemporally("==", expiration.Truncate(time.Second))),
				HaveField("NextRotation.Time", BeTemporally("==", expiration.Add(-1920*time.Hour).Truncate(time.Second))),
			)),
		))

		By("the rotation being overdue")
		o.advance(240*time.Hour + 31*time.Second)
		o.touch(ctx, "headscale")
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyOverdue, "should have been replaced at"))
		Expect(ready(NewGomega(Fail))).To(be("True", v1beta1.ReasonKeyOverdue, ""))

		By("the key having expired")
		o.advance(1920 * time.Hour)
		o.touch(ctx, "headscale")
		Eventually(key).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyExpired, "expired at"))
		Expect(ready(NewGomega(Fail))).To(be("False", v1beta1.ReasonKeyExpired, ""))

		By("the key being replaced")
		expiration = o.time().Add(v1beta1.DefaultExpiration)
		annotateSecret(ctx, secret, map[string]any{v1beta1.AnnotationExpiration: expiration.UTC().Format(time.RFC3339Nano), v1beta1.AnnotationKeyPrefix: "second"})
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Expect(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)).Status.APIKey.KeyPrefix).To(Equal("second"))

		By("the Secret being deleted")
		Expect(admin.Delete(ctx, secret)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyPending, ""))
		Expect(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)).Status.APIKey).To(HaveValue(Equal(v1beta1.APIKeyStatus{SecretName: "headscale-api-key"})))
	})

	It("shows an expired key without anyone touching the object", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {expiration: 3s, rotation_buffer: 1s}\n")).To(Succeed())
		key := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)
		Eventually(key).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyPending, ""))
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(10*time.Second)))).To(Succeed())
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyValid, ""))
		Eventually(key).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyExpired, ""))
	})

	It("reports a Secret that is somebody else's", func(ctx context.Context) {
		o := startOperator(ctx)
		foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "headscale-api-key"}}
		Expect(admin.Create(ctx, foreign)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be("False", v1beta1.ReasonConflict, "Secret headscale-api-key exists already and was not created by the API Key Manager"))
	})

	It("says that Headscale was stopped", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  replicas: 0\n")).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 0)
		for _, kind := range []string{v1beta1.ConditionReady, v1beta1.ConditionAvailable} {
			Eventually(condition(ctx, o.namespace, "headscale", kind)).WithContext(ctx).Should(be("False", v1beta1.ReasonScaledToZero, "spec.replicas is 0"))
		}
	})

	It("is not ready while the pod is being replaced", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {log: {level: debug}}}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "The pod is being replaced"))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
	})

	It("says that the API server fails, and recovers by itself", func(ctx context.Context) {
		errors := errorsSoFar()
		o := startOperator(ctx)
		o.refuse.Store(new("/statefulsets/"))
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be("False", v1beta1.ReasonReconcileFailed, "applying the StatefulSet headscale"))
		Eventually(errorsSoFar).WithContext(ctx).Should(BeNumerically(">", errors), "it is counted after the status is written")
		o.refuse.Store(nil)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(HaveField("Reason", v1beta1.ReasonProgressing))
	})

	It("is written though the pass took too long, and not when the operator is being stopped", func(ctx context.Context) {
		o := startOperator(ctx)
		o.stop()
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		live := get[v1beta1.Headscale](ctx, o.namespace, "headscale")
		var lines []string
		logger := funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{})

		stopped, stop := context.WithCancel(ctx)
		stop()
		result, err := o.reconciler.report(stopped, scope{live(NewGomega(Fail)), o.time()}, observed{}, stopped.Err())
		Expect(err).NotTo(HaveOccurred())
		Expect(result).To(BeZero())
		Expect(live(NewGomega(Fail)).Status.Conditions).To(BeEmpty())

		late, end := context.WithDeadline(log.IntoContext(ctx, logger), time.Now())
		defer end()
		_, err = o.reconciler.report(late, scope{live(NewGomega(Fail)), o.time()}, observed{}, late.Err())
		Expect(err).To(MatchError(context.DeadlineExceeded), "it is tried again, and logged by whoever does so")
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)(NewGomega(Fail))).To(be("False", v1beta1.ReasonReconcileFailed, "context deadline exceeded"))
		Expect(lines).To(BeEmpty(), "an error is logged once")

		_, err = o.reconciler.report(log.IntoContext(ctx, logger), scope{live(NewGomega(Fail)), o.time()}, observed{}, nil)
		Expect(err).NotTo(HaveOccurred())
		Expect(lines).To(HaveExactElements(ContainSubstring("Status changed")))
	})

	It("does not tell of a write that came too late", func(ctx context.Context) {
		errors := errorsSoFar()
		o := startOperator(ctx)
		o.conflictOnce.Store(new("/statefulsets/"))
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(o.conflictOnce.Load).WithContext(ctx).Should(BeNil())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(HaveField("Reason", v1beta1.ReasonProgressing))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(HavePrefix("Normal Created")))
		Expect(errorsSoFar()).To(Equal(errors))
		Consistently(recorded(ctx, o.namespace), "300ms").WithContext(ctx).Should(HaveEach(HavePrefix("Normal ")))
	})

	It("reports a conflict that lasts, and goes on when it is over", func(ctx context.Context) {
		o := startOperator(ctx)
		o.conflict.Store(new("/statefulsets/"))
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(
			be("False", v1beta1.ReasonReconcileFailed, "Writes keep failing with an optimistic-lock conflict: applying the StatefulSet headscale: "))
		before := len(o.written())
		Consistently(func() int { return len(o.written()) - before }, time.Second).WithContext(ctx).Should(BeNumerically("<", 15))
		o.conflict.Store(nil)
		Eventually(ready).WithContext(ctx).Should(HaveField("Reason", v1beta1.ReasonProgressing))
	})

	It("reports a conflict that lasts beside something else, and tries again less and less often", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		o.conflict.Store(new("/statefulsets/"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {version: v0.29.2, persistent_volume_claim: {size: 500Mi}}}`)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			"Writes keep failing with an optimistic-lock conflict: applying the StatefulSet headscale: "))
		Expect(ready(NewGomega(Fail)).Message).To(ContainSubstring("spec.persistent_volume_claim.size cannot be changed"))
	})

	It("is written later when it cannot be written now", func(ctx context.Context) {
		o := startOperator(ctx)
		o.refuse.Store(new("/status"))
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(o.written).WithContext(ctx).Should(ContainElement(HaveSuffix("/headscales/headscale/status")))
		o.refuse.Store(nil)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(HaveField("Reason", v1beta1.ReasonProgressing))
	})

	It("says what of an admitted spec cannot be carried out", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"    unix_socket: /var/lib/headscale/headscale.sock\n")).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
			be("False", v1beta1.ReasonInvalidConfig, "spec.config.unix_socket must be outside the data directory /var/lib/headscale"))
		Expect(o.written()).To(HaveEach(HaveSuffix("/status")))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {unix_socket: null}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(HaveField("Reason", v1beta1.ReasonProgressing))
	})
})
