package headscale

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// identityOf is the Secret for private keys as the API Key Manager makes it, with what it says of
// the keys.
func identityOf(namespace, state string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: "headscale-identity",
		Labels:      map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentIdentity},
		Annotations: map[string]string{v1beta1.AnnotationIdentity: state},
	}}
}

var _ = Describe("Private keys of a Headscale with a backup", func() {
	const noise, relay = v1beta1.EntryNoiseKey, v1beta1.EntryDERPKey
	const bothKept = relay + "=Kept," + noise + "=Kept"
	now := time.Date(2026, 11, 27, 6, 0, 0, 0, time.UTC)

	DescribeTable("that would be lost are said to be",
		func(keys []string, state string, available time.Duration, sentences []string, later time.Duration) {
			headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Name: "headscale"}}
			if available > 0 {
				headscale.Status.Conditions = []metav1.Condition{{Type: v1beta1.ConditionAvailable, Status: metav1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-available))}}
			}
			o := &observed{identityKeys: keys, pod: &corev1.Pod{}}
			switch state {
			case "none":
			case "foreign":
				o.identity = &metav1.PartialObjectMetadata{}
			default:
				o.identity = &metav1.PartialObjectMetadata{ObjectMeta: identityOf("", state).ObjectMeta}
			}
			warnings, at := identityWarnings(scope{headscale: headscale, now: now}, o)
			Expect(warnings).To(HaveLen(len(sentences)))
			for i, sentence := range sentences {
				Expect(warnings[i]).To(ContainSubstring(sentence))
			}
			if later == 0 {
				Expect(at).To(BeZero())
				return
			}
			Expect(at).To(Equal(now.Add(later)))
		},
		Entry("no keys", nil, "none", time.Hour, nil, time.Duration(0)),
		Entry("kept", []string{noise, relay}, bothKept, time.Hour, nil, time.Duration(0)),
		Entry("one that is not wanted", []string{noise}, noise+"=Kept", time.Hour, nil, time.Duration(0)),
		Entry("not kept while Headscale starts", []string{noise, relay}, "none", time.Duration(0), nil, time.Minute),
		Entry("not kept yet", []string{noise, relay}, "", 20*time.Second, nil, 40*time.Second),
		Entry("not kept", []string{noise, relay}, relay+"=Kept", time.Hour, []string{"Headscale's private keys (noise_private.key) are not in Secret headscale-identity and would be lost"}, time.Duration(0)),
		Entry("not there", []string{noise, relay}, "none", time.Hour, []string{"(noise_private.key, derp_server_private.key) are not in Secret"}, time.Duration(0)),
		Entry("another one", []string{noise, relay}, relay+"=Kept,"+noise+"=Differs", time.Second, []string{"the data volume has another noise_private.key than Secret headscale-identity, and neither is overwritten"}, time.Duration(0)),
		Entry("somebody else's Secret", []string{noise, relay}, "foreign", time.Second, []string{"Secret headscale-identity exists and was not created by the API Key Manager"}, time.Duration(0)),
	)

	It("are kept with rights on their Secret alone, and what is wrong with them is in Ready", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  backup: {replica: {type: s3, bucket: b}}\n")).To(Succeed())
		rights := func(g Gomega) []string { return secretsOf(get[rbacv1.Role](ctx, o.namespace, "headscale")(g)) }
		Eventually(rights).WithContext(ctx).Should(ConsistOf("headscale-api-key", "headscale-identity"))
		Expect(admin.Create(ctx, identityOf(o.namespace, bothKept))).To(Succeed())
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		holder := sidecarIn(o.namespace, "headscale")
		key := client.ObjectKey{Namespace: o.namespace, Name: "headscale-identity"}
		Eventually(func() error { return holder.Get(ctx, key, &corev1.Secret{}) }).WithContext(ctx).Should(Succeed())
		Expect(holder.Update(ctx, identityOf(o.namespace, ""))).To(MatchError(apierrors.IsForbidden, "forbidden"))
		Expect(holder.Delete(ctx, identityOf(o.namespace, ""))).To(MatchError(apierrors.IsForbidden, "forbidden"))

		passed := corev1.ContainerStatus{Name: resources.ContainerRestore, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
		runPod := func() {
			pod := makePod(ctx, o.namespace, "headscale")
			rollOut(ctx, o.namespace, "headscale", 1)
			setPod(ctx, pod, nil, running(server, true), running(sidecar, true), running(resources.ContainerBackup, true), passed)
		}
		runPod()
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Expect(ready(NewGomega(Fail)).Message).NotTo(ContainSubstring("private"))

		annotateSecret(ctx, identityOf(o.namespace, ""), map[string]any{v1beta1.AnnotationIdentity: relay + "=Kept," + noise + "=Differs"})
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, "the data volume has another noise_private.key than Secret headscale-identity"))
		annotateSecret(ctx, identityOf(o.namespace, ""), map[string]any{v1beta1.AnnotationIdentity: bothKept})
		Eventually(ready).WithContext(ctx).ShouldNot(be("True", v1beta1.ReasonReady, "private"))

		By("a Secret of somebody else")
		Expect(admin.Delete(ctx, identityOf(o.namespace, ""))).To(Succeed())
		Expect(admin.Create(ctx, victim(o.namespace, "headscale-identity"))).To(Succeed())
		mounted := func(g Gomega) (names []string) {
			for _, volume := range get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g).Spec.Template.Spec.Volumes {
				if volume.Secret != nil {
					names = append(names, volume.Secret.SecretName)
				}
			}
			return names
		}
		its := ContainElement("headscale-identity")
		Eventually(mounted).WithContext(ctx).ShouldNot(its)
		runPod()
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, "Secret headscale-identity exists and was not created by the API Key Manager"))
		Eventually(rights).WithContext(ctx).Should(ConsistOf("headscale-api-key"))
		Eventually(func() error { return holder.Get(ctx, key, &corev1.Secret{}) }).WithContext(ctx).Should(MatchError(apierrors.IsForbidden, "forbidden"))
		Expect(admin.Delete(ctx, victim(o.namespace, "headscale-identity"))).To(Succeed())
		Eventually(rights).WithContext(ctx).Should(ConsistOf("headscale-api-key", "headscale-identity"))
		Eventually(mounted).WithContext(ctx).Should(its)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, ""))
		runPod()
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		o.advance(failingAfter)
		o.touch(ctx, "headscale")
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, "are not in Secret headscale-identity and would be lost with the data volume"))

		By("an API Key Manager that may be older")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {manager_image: "registry.example/apikey-manager:v0.0.1"}}}`)).To(Succeed())
		Eventually(rights).WithContext(ctx).Should(ConsistOf("headscale-api-key"))
		Eventually(mounted).WithContext(ctx).ShouldNot(its)
		runPod()
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, "because spec.api_key.manager_image names another image than the operator's"))

		By("no backup")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {backup: null}}`)).To(Succeed())
		Eventually(rights).WithContext(ctx).Should(ConsistOf("headscale-api-key"))
		Eventually(ready).WithContext(ctx).ShouldNot(HaveField("Message", ContainSubstring("private")))
	})

	It("are looked for only where they are kept", func() {
		headscale := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Name: "headscale"}}
		identitySecret := (&Reconciler{Options: resources.Options{ManagerImage: "own"}}).identitySecret
		Expect(identitySecret(headscale)).To(BeEmpty(), "without a backup")
		headscale.Spec.Backup = &v1beta1.BackupSpec{}
		Expect(identitySecret(headscale)).To(ConsistOf("headscale-identity"))
		headscale.Spec.APIKey.ManagerImage = "older"
		Expect(identitySecret(headscale)).To(BeEmpty(), "that one may not keep them")
		headscale.Spec.APIKey.ManagerImage = "own"
		headscale.Spec.Secrets.NoisePrivateKey = &v1beta1.KeyReference{}
		Expect(identitySecret(headscale)).To(ConsistOf("headscale-identity"), "the relay's")
		headscale.Spec.Secrets.DERPPrivateKey = &v1beta1.KeyReference{}
		Expect(identitySecret(headscale)).To(BeEmpty(), "both are in Secrets of the user's")
	})

	It("do not keep a Headscale without a backup from the Secret of its API key, whatever its name", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {secret_name: headscale-identity}\n")).To(Succeed())
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-identity", o.time().Add(time.Hour)))).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)).WithContext(ctx).Should(HaveField("Status", metav1.ConditionTrue))
		role := get[rbacv1.Role](ctx, o.namespace, "headscale")(NewGomega(Fail))
		Expect(secretsOf(role)).To(ConsistOf("headscale-identity"))
		o.touch(ctx, "headscale")
		Expect(get[rbacv1.Role](ctx, o.namespace, "headscale")(NewGomega(Fail)).UID).To(Equal(role.UID), "it is not deleted and made again")

		By("another name for the key, and a spec that is refused")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {secret_name: other}, config: {listen_addr: "0.0.0.0:9090"}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, ""))
		Expect(get[rbacv1.Role](ctx, o.namespace, "headscale")(NewGomega(Fail)).UID).To(Equal(role.UID), "the pod that runs still has the key there")
	})
})
