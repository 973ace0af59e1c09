package headscale

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// referring is a Headscale that refers to a Secret and a ConfigMap.
const referring = shortest + `
  secrets: {noise_private_key: {name: keys, key: noise}}
  files: {policy: {config_map: {name: policy, key: policy.hujson}}}
`

var _ = Describe("A Headscale that refers to Secrets and ConfigMaps", func() {
	var o *operator
	var keys *corev1.Secret
	var policy *corev1.ConfigMap

	BeforeEach(func(ctx context.Context) {
		o = startOperator(ctx)
		keys = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "keys"}, Data: map[string][]byte{"noise": []byte("private-value")}}
		policy = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "policy"}, Data: map[string]string{"policy.hujson": "{}"}}
	})

	digest := func(ctx context.Context) func(Gomega) string {
		return func(g Gomega) string {
			return get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g).Spec.Template.Annotations[resources.AnnotationReferences]
		}
	}

	It("says which one is missing, and starts when it is there", func(ctx context.Context) {
		Expect(create(ctx, o.namespace, referring)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			"spec.secrets.noise_private_key names Secret keys, which does not exist: create it, or name another"))
		Expect(missing[appsv1.StatefulSet](ctx, o.namespace, "headscale")()).To(BeTrue())

		Expect(admin.Create(ctx, keys)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			"spec.files.policy names ConfigMap policy, which does not exist: create it, or name another"))

		Expect(admin.Create(ctx, policy)).To(Succeed())
		Eventually(digest(ctx)).WithContext(ctx).Should(MatchRegexp("^[0-9a-f]{64}$"))
		Expect(get[corev1.ConfigMap](ctx, o.namespace, "headscale")(NewGomega(Fail)).Data["config.yaml"]).NotTo(ContainSubstring("private-value"))
	})

	It("reads each object once, and again only where it changed", func(ctx context.Context) {
		Expect(admin.Create(ctx, keys)).To(Succeed())
		Expect(admin.Create(ctx, policy)).To(Succeed())
		Expect(create(ctx, o.namespace, referring+`
  pod:
    env: [{name: NOISE, valueFrom: {secretKeyRef: {name: keys, key: noise}}}]
    volumes: [{name: a, secret: {secretName: keys}}, {name: b, secret: {secretName: keys}}]
`)).To(Succeed())
		headscale := get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail))
		reads := &readCounter{Reader: admin, of: map[string]int{}}
		r := &Reconciler{Live: reads}
		first, err := r.readReferences(ctx, headscale)
		Expect(err).NotTo(HaveOccurred())
		Expect(reads.of).To(Equal(map[string]int{"keys metadata": 1, "keys": 1, "policy metadata": 1, "policy": 1}))

		r.references.remember(client.ObjectKeyFromObject(headscale), first, "")
		reads.of = map[string]int{}
		Expect(admin.Patch(ctx, policy, client.RawPatch(types.MergePatchType, []byte(`{"data": {"policy.hujson": "{ }"}}`)))).To(Succeed())
		second, err := r.readReferences(ctx, headscale)
		Expect(err).NotTo(HaveOccurred())
		Expect(reads.of).To(Equal(map[string]int{"keys metadata": 1, "policy metadata": 1, "policy": 1}))
		Expect(changedParts(first, second)).To(Equal([]string{"ConfigMap policy"}))
	})

	It("is refused where it refers to too many", func(ctx context.Context) {
		sources := make([]string, resources.MaxReferences)
		for i := range sources {
			sources[i] = fmt.Sprintf("{secret: {name: secret-%d}}", i)
		}
		Expect(create(ctx, o.namespace, shortest+"  pod:\n    volumes:\n    - {name: a, secret: {secretName: secret-more}}\n"+
			"    - {name: b, projected: {sources: ["+strings.Join(sources, ", ")+"]}}\n")).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			"spec.pod.volumes names more than 64 Secrets and ConfigMaps: name fewer"))
		for _, request := range o.asked() {
			Expect(request.URL.RequestURI()).NotTo(ContainSubstring("secret-"), "neither read nor watched")
		}
	})

	// referTo makes the objects and a Headscale that refers to them, with a pod that is ready.
	referTo := func(ctx context.Context, more string) (first string) {
		GinkgoHelper()
		Expect(admin.Create(ctx, keys)).To(Succeed())
		Expect(admin.Create(ctx, policy)).To(Succeed())
		Expect(create(ctx, o.namespace, referring+more)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(be("True", v1beta1.ReasonAvailable, ""))
		return digest(ctx)(NewGomega(Fail))
	}
	// change merges into an object.
	change := func(ctx context.Context, object client.Object, patch string) {
		GinkgoHelper()
		Expect(admin.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
	}
	// replaced waits until the StatefulSet asks for another pod and the event says for what.
	replaced := func(ctx context.Context, old, what string) (digestNow string) {
		GinkgoHelper()
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(Equal(old))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(
			ContainElement("Normal ReferenceChanged: " + what + " changed: replacing pod headscale-0"))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(be("True", v1beta1.ReasonAvailable, ""))
		o.touch(ctx, "headscale")
		return digest(ctx)(NewGomega(Fail))
	}

	It("gets a new pod when the data of one changes, and says for which", func(ctx context.Context) {
		first := referTo(ctx, "")
		before := o.settle(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))

		change(ctx, keys, `{"stringData": {"noise": "another"}}`)
		second := replaced(ctx, first, "Secret keys")
		change(ctx, policy, `{"data": {"policy.hujson": "{\"acls\": []}"}}`)
		Expect(replaced(ctx, second, "ConfigMap policy")).NotTo(Equal(first))
	})

	It("keeps its pod while only metadata, or entries that it does not use, are written again and again", func(ctx context.Context) {
		first := referTo(ctx, "")
		for i := range 20 {
			// By the manager that wrote the data, too.
			change(ctx, keys, fmt.Sprintf(`{"metadata": {"annotations": {"refreshed": "%d"}, "labels": {"backup": "%[1]d"}}, "stringData": {"other": "%[1]d"}}`, i))
			change(ctx, policy, fmt.Sprintf(`{"metadata": {"annotations": {"refreshed": "%d"}}}`, i))
			o.touch(ctx, "headscale")
			Expect(digest(ctx)(NewGomega(Fail))).To(Equal(first))
		}
		By("in another operator, too")
		o.stop()
		change(ctx, keys, `{"metadata": {"annotations": {"refreshed": "yes"}}}`)
		again := startOperatorIn(o.namespace)
		again.touch(ctx, "headscale")
		again.touch(ctx, "headscale")
		Expect(digest(ctx)(NewGomega(Fail))).To(Equal(first))
	})

	It("keeps its pod when the file of DNS records changes, which Headscale reads again by itself", func(ctx context.Context) {
		records := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "records"}, Data: map[string]string{"records.json": "[]"}}
		Expect(admin.Create(ctx, records)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest+`
  files: {extra_dns_records: {config_map: {name: records, key: records.json}}}
`)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(be("True", v1beta1.ReasonAvailable, ""))
		first := digest(ctx)(NewGomega(Fail))
		change(ctx, records, `{"data": {"records.json": "[{}]"}}`)
		o.touch(ctx, "headscale")
		Expect(digest(ctx)(NewGomega(Fail))).To(Equal(first))
		change(ctx, records, `{"data": {"records.json": null}}`)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			`spec.files.extra_dns_records names the entry "records.json" of ConfigMap records, which does not have it`))
	})

	It("names all that may have changed while no operator ran", func(ctx context.Context) {
		first := referTo(ctx, "")
		o.stop()
		change(ctx, keys, `{"stringData": {"noise": "another"}}`)
		o = startOperatorIn(o.namespace)
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(Equal(first))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElements(
			"Normal ReferenceChanged: ConfigMap policy may have changed while the operator was not running: replacing pod headscale-0",
			"Normal ReferenceChanged: Secret keys may have changed while the operator was not running: replacing pod headscale-0"))
	})

	It("gets a new pod for what its variables and volumes come from", func(ctx context.Context) {
		Expect(admin.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "roots"}})).To(Succeed())
		first := referTo(ctx, `
  pod:
    env: [{name: PGHOST, valueFrom: {secretKeyRef: {name: database, key: host, optional: true}}}]
    volumes:
    - {name: ca, configMap: {name: roots}}
    volume_mounts: [{name: ca, mountPath: /ca}]
`)
		database := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "database"}, StringData: map[string]string{"host": "pg-rw"}}
		Expect(admin.Create(ctx, database)).To(Succeed())
		second := replaced(ctx, first, "Secret database")
		change(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "roots"}}, `{"data": {"ca.crt": "renewed"}}`)
		replaced(ctx, second, "ConfigMap roots")
	})

	It("does not read an API key that it refers to, nor gets a new pod for another one", func(ctx context.Context) {
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		Expect(admin.Create(ctx, secret)).To(Succeed())
		first := referTo(ctx, `
  pod: {env: [{name: OWN_KEY, valueFrom: {secretKeyRef: {name: headscale-api-key, key: api-key}}}]}
`)
		change(ctx, secret, `{"stringData": {"api-key": "hskey-api-bbbbbbbbbbbb-rest"}}`)
		o.touch(ctx, "headscale")
		Expect(digest(ctx)(NewGomega(Fail))).To(Equal(first))
		for _, request := range o.asked() {
			if strings.HasSuffix(request.URL.Path, "/secrets/headscale-api-key") {
				Expect(request.Header.Get("Accept")).To(ContainSubstring("as=PartialObjectMetadata"))
			}
		}
	})

	It("says which entry is missing before the pod is replaced", func(ctx context.Context) {
		first := referTo(ctx, "")
		change(ctx, keys, `{"data": {"noise": null}}`)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			`spec.secrets.noise_private_key names the entry "noise" of Secret keys, which does not have it: add it, or name another`))
		Expect(digest(ctx)(NewGomega(Fail))).To(Equal(first))
	})

	It("lets a pod become ready before another change replaces it", func(ctx context.Context) {
		first := referTo(ctx, "")
		change(ctx, keys, `{"stringData": {"noise": "second"}}`)
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(Equal(first))
		second := digest(ctx)(NewGomega(Fail))
		runPod(ctx, o.namespace, "headscale", 0)
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "is not ready"))

		change(ctx, keys, `{"stringData": {"noise": "third"}}`)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing,
			"Secret keys changed, and pod headscale-0 is replaced once it is ready or has failed; kubectl delete pod headscale-0 replaces it now"))
		o.touch(ctx, "headscale")
		Expect(digest(ctx)(NewGomega(Fail))).To(Equal(second))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(Equal(second))
	})

	It("makes the pod with the change where the one that waits is deleted, and does not replace that again", func(ctx context.Context) {
		first := referTo(ctx, "")
		change(ctx, keys, `{"stringData": {"noise": "second"}}`)
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(Equal(first))
		second := digest(ctx)(NewGomega(Fail))
		runPod(ctx, o.namespace, "headscale", 0)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "is not ready"))
		change(ctx, keys, `{"stringData": {"noise": "third"}}`)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "kubectl delete pod headscale-0 replaces it now"))
		Expect(admin.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "headscale-0"}})).To(Succeed())
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(Equal(second))
		third := digest(ctx)(NewGomega(Fail))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(be("True", v1beta1.ReasonAvailable, ""))
		o.touch(ctx, "headscale")
		Expect(digest(ctx)(NewGomega(Fail))).To(Equal(third))
	})

	It("puts right a digest that somebody wrote by hand, while the pod starts, too", func(ctx context.Context) {
		first := referTo(ctx, "")
		runPod(ctx, o.namespace, "headscale", 0)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, "is not ready"))
		change(ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "headscale"}},
			`{"spec": {"template": {"metadata": {"annotations": {"`+resources.AnnotationReferences+`": "by hand"}}}}}`)
		Eventually(digest(ctx)).WithContext(ctx).Should(Equal(first))
	})

	It("does not wait for a pod that has failed, because the change may help", func(ctx context.Context) {
		first := referTo(ctx, "")
		setPod(ctx, makePod(ctx, o.namespace, "headscale"), nil, crashed(server, "bad key"), running(sidecar, true))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonCrashing, ""))
		change(ctx, keys, `{"stringData": {"noise": "good"}}`)
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(Equal(first))
	})

	It("leaves the running pod alone when one is deleted", func(ctx context.Context) {
		Expect(admin.Create(ctx, keys)).To(Succeed())
		Expect(admin.Create(ctx, policy)).To(Succeed())
		Expect(create(ctx, o.namespace, referring)).To(Succeed())
		Eventually(digest(ctx)).WithContext(ctx).ShouldNot(BeEmpty())
		first := digest(ctx)(NewGomega(Fail))
		Expect(admin.Delete(ctx, keys)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "names Secret keys, which does not exist"))
		Expect(digest(ctx)(NewGomega(Fail))).To(Equal(first))
	})

	It("warns of a secret in plain text", func(ctx context.Context) {
		Expect(create(ctx, o.namespace, shortest+`
    oidc: {issuer: "https://sso.example.com", client_secret: in-plain-text}
  api_key: {auto_manage: false}
`)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady,
			"but spec.config.oidc.client_secret is in plain text in the ConfigMap: put it into a Secret and name that in spec.secrets.oidc_client_secret"))
	})
})

// readCounter counts the reads of objects, by their names.
type readCounter struct {
	client.Reader
	of map[string]int
}

func (c *readCounter) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	name := key.Name
	if _, isMetadata := object.(*metav1.PartialObjectMetadata); isMetadata {
		name += " metadata"
	}
	c.of[name]++
	return c.Reader.Get(ctx, key, object, options...)
}
