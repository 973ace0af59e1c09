package headscale

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/policy"
	"infrado.cloud/headscale-operator/internal/resources"
)

// preflightJob is the name of the Job in these specs.
const preflightJob = "headscale-preflight"

// overrideWithout is a change that Headscale does not start with, and its words about it.
const (
	overrideWithout = `{spec: {config: {dns: {magic_dns: true, base_domain: tail.internal, override_local_dns: true}}}}`
	overrideWords   = "dns.nameservers.global must be set when dns.override_local_dns is true"
)

// ends is a pod whose container ended with some words.
func ends(words string) *corev1.PodStatus {
	return &corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{
		Name:  resources.ContainerHeadscale,
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: words}},
	}}}
}

var _ = Describe("A preflight", func() {
	var o *operator
	// objects are the StatefulSet and the ConfigMap, as they were before a change.
	type objects struct {
		statefulSet *appsv1.StatefulSet
		config      *corev1.ConfigMap
	}
	observe := func(ctx context.Context) objects {
		GinkgoHelper()
		g := NewGomega(Fail)
		return objects{get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g), get[corev1.ConfigMap](ctx, o.namespace, "headscale")(g)}
	}
	// untouched fails where one of them was changed.
	untouched := func(ctx context.Context, before objects) {
		GinkgoHelper()
		now := observe(ctx)
		Expect(now.statefulSet.Spec).To(Equal(before.statefulSet.Spec))
		Expect(now.config.ResourceVersion).To(Equal(before.config.ResourceVersion))
	}
	change := func(ctx context.Context, text string) {
		GinkgoHelper()
		Expect(patch(ctx, o.namespace, "headscale", text)).To(Succeed())
	}
	ready := func(ctx context.Context) func(Gomega) metav1.Condition {
		return condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
	}
	job := func(ctx context.Context) func(Gomega) *batchv1.Job {
		return get[batchv1.Job](ctx, o.namespace, preflightJob)
	}
	nothingLeft := func(ctx context.Context) {
		GinkgoHelper()
		Eventually(missing[batchv1.Job](ctx, o.namespace, preflightJob)).WithContext(ctx).Should(BeTrue())
		Eventually(missing[corev1.ConfigMap](ctx, o.namespace, preflightJob)).WithContext(ctx).Should(BeTrue())
	}
	status := func(ctx context.Context) func(Gomega) v1beta1.HeadscaleStatus {
		return func(g Gomega) v1beta1.HeadscaleStatus {
			return get[v1beta1.Headscale](ctx, o.namespace, "headscale")(g).Status
		}
	}
	applied := func(ctx context.Context, generation int) {
		GinkgoHelper()
		Eventually(status(ctx)).WithContext(ctx).Should(HaveField("AppliedGeneration", BeEquivalentTo(generation)))
	}
	jobsCreated := func() int {
		created := 0
		for _, write := range o.changed() {
			if write == "POST /apis/batch/v1/namespaces/"+o.namespace+"/jobs" {
				created++
			}
		}
		return created
	}
	hash := func(live *appsv1.StatefulSet) string {
		return live.Spec.Template.Annotations[resources.AnnotationConfigHash]
	}

	BeforeEach(func(ctx context.Context) {
		o = startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Expect(jobsCreated()).To(BeZero(), "a first start needs none")
	})

	It("that passes lets the change go on", func(ctx context.Context) {
		restricted := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: o.namespace}}
		Expect(admin.Patch(ctx, restricted, client.RawPatch("application/merge-patch+json",
			[]byte(`{"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}`)))).To(Succeed())
		before := observe(ctx)
		o.preflight.Store(noPod)
		change(ctx, `{spec: {config: {log: {level: debug}}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing,
			"Job headscale-preflight checks that Headscale v0.29.3 starts with generation 2 of the spec; meanwhile pod headscale-0 keeps running generation 1"))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionProgressing)(NewGomega(Fail)).Status).To(Equal(metav1.ConditionTrue))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)(NewGomega(Fail)).Status).To(Equal(metav1.ConditionTrue))
		live := job(ctx)(NewGomega(Fail))
		Expect(get[corev1.ConfigMap](ctx, o.namespace, preflightJob)(NewGomega(Fail)).Data["config.yaml"]).To(ContainSubstring("level: debug"))
		untouched(ctx, before)

		runJob(ctx, live, &corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{running(resources.ContainerHeadscale, true)}})
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(HaveField("Spec.Template.Annotations", HaveKeyWithValue(resources.AnnotationConfigHash, hash(before.statefulSet))))
		Expect(get[corev1.ConfigMap](ctx, o.namespace, "headscale")(NewGomega(Fail)).Data["config.yaml"]).To(ContainSubstring("level: debug"))
		nothingLeft(ctx)
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Expect(status(ctx)(NewGomega(Fail))).To(And(HaveField("AppliedGeneration", BeEquivalentTo(2)), HaveField("Preflight.Outcome", v1beta1.PreflightPassed)))
		Expect(jobsCreated()).To(Equal(1))
	})

	It("that is refused leaves everything as it is, with the words of Headscale", func(ctx context.Context) {
		before := observe(ctx)
		o.preflight.Store(ends("2026-11-26T19:06:15Z INF Opening database\nError: initializing: loading configuration: " + overrideWords + "\n"))
		change(ctx, overrideWithout)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			"Headscale v0.29.3 does not start with generation 2 of the spec, so pod headscale-0 keeps running generation 1: Error: initializing: loading configuration: "+overrideWords))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionProgressing)(NewGomega(Fail))).To(be("False", v1beta1.ReasonInvalidConfig, overrideWords))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionStalled)(NewGomega(Fail)).Status).To(Equal(metav1.ConditionTrue))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)(NewGomega(Fail)).Status).To(Equal(metav1.ConditionTrue))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(And(HavePrefix("Warning InvalidConfig: "), ContainSubstring(overrideWords))))
		Expect(status(ctx)(NewGomega(Fail))).To(And(HaveField("AppliedGeneration", BeEquivalentTo(1)), HaveField("ObservedGeneration", BeEquivalentTo(2)),
			HaveField("Preflight", And(HaveField("Generation", BeEquivalentTo(2)), HaveField("Outcome", v1beta1.PreflightRefused), HaveField("Attempts", BeEquivalentTo(1))))))
		nothingLeft(ctx)
		untouched(ctx, before)

		By("not running it again, whoever looks at it")
		writes := len(o.settle(ctx, "headscale"))
		o.touch(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(withoutDryRuns(o.written()[writes:])).To(BeEmpty())
		o.stop()
		second := startOperatorIn(o.namespace)
		second.preflight.Store(noPod)
		second.touch(ctx, "headscale")
		second.touch(ctx, "headscale")
		Expect(second.changed()).To(BeEmpty())
		untouched(ctx, before)
		o = second

		By("going on by itself once it is corrected")
		o.preflight.Store(nil)
		change(ctx, `{spec: {config: {dns: {nameservers: {global: [1.1.1.1]}}}}}`)
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKeyWithValue("config.yaml", ContainSubstring("1.1.1.1"))))
		applied(ctx, 3)
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(HavePrefix("Normal Recovered: ")))
		nothingLeft(ctx)
	})

	It("that is refused is forgotten with the change", func(ctx context.Context) {
		before := observe(ctx)
		o.preflight.Store(ends("Error: no"))
		change(ctx, overrideWithout)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, ""))
		change(ctx, `{spec: {config: {dns: null}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Expect(status(ctx)(NewGomega(Fail))).To(And(HaveField("Preflight", BeNil()), HaveField("AppliedGeneration", BeEquivalentTo(3))))
		untouched(ctx, before)
		nothingLeft(ctx)
		// While its cache has the Job, the operator takes what that has shown for the same change.
		o.settle(ctx, "headscale")

		change(ctx, overrideWithout)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, ""))
		Expect(jobsCreated()).To(Equal(2))
		By("or where the operator itself refuses what comes next")
		o.preflight.Store(noPod)
		change(ctx, `{spec: {config: {log: {level: debug}}}}`)
		Eventually(job(ctx)).WithContext(ctx).ShouldNot(BeNil())
		change(ctx, `{spec: {config: {randomize_client_port: true}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "randomize_client_port"))
		nothingLeft(ctx)
	})

	It("that is refused counts until a change is applied, whatever the operator refuses meanwhile", func(ctx context.Context) {
		before := observe(ctx)
		o.preflight.Store(ends("Error: no"))
		change(ctx, overrideWithout)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "Error: no"))
		change(ctx, `{spec: {config: {randomize_client_port: true}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "randomize_client_port"))
		Expect(status(ctx)(NewGomega(Fail))).To(HaveField("Preflight.Outcome", v1beta1.PreflightRefused))
		By("having the next one checked, although Headscale is down for another reason")
		runPod(ctx, o.namespace, "headscale", 0)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(HaveField("Status", metav1.ConditionFalse))
		o.advance(startGrace)
		change(ctx, `{spec: {config: {randomize_client_port: null}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "Error: no"))
		untouched(ctx, before)
	})

	It("behind a Job that stays names its finalizers", func(ctx context.Context) {
		o.preflight.Store(noPod)
		change(ctx, overrideWithout)
		Eventually(job(ctx)).WithContext(ctx).ShouldNot(BeNil())
		first := job(ctx)(NewGomega(Fail))
		finalizers := func(value string) {
			Expect(admin.Patch(ctx, first.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"finalizers": `+value+`}}`)))).To(Succeed())
		}
		finalizers(`["example.com/audit"]`)
		change(ctx, `{spec: {config: {log: {level: debug}}}}`)
		Eventually(job(ctx)).WithContext(ctx).Should(HaveField("DeletionTimestamp", Not(BeNil())))
		o.advance(stuckAfter)
		o.touch(ctx, "headscale")
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonPreflightUnknown, "and remains because of its finalizers (example.com/audit): remove them with kubectl edit job headscale-preflight"))
		finalizers("null")
		Eventually(func(g Gomega) *batchv1.Job {
			o.advance(firstPreflightRetry)
			o.touch(ctx, "headscale")
			return job(ctx)(g)
		}).WithContext(ctx).Should(HaveField("UID", Not(Equal(first.UID))))
	})

	It("of an upgrade waits until it is known which policy is stored", func(ctx context.Context) {
		change(ctx, `{spec: {config: {policy: {mode: database}}}}`)
		applied(ctx, 2)
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		before, jobs := observe(ctx), jobsCreated()
		const text = `{"acls": []}`
		stored, err := policy.Parse(text)
		Expect(err).NotTo(HaveOccurred())
		rules := &v1beta1.HeadscalePolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "rules"},
			Spec:       v1beta1.HeadscalePolicySpec{HeadscaleRef: "headscale", HuJSON: `{"acls": [], "groups": {"group:a": []}}`},
		}
		Expect(admin.Create(ctx, rules)).To(Succeed())
		accepted := `{"status": {"appliedDigest": "` + stored.Digest() + `", "policyDigest": "` + stored.Digest() + `"}}`
		Expect(admin.Status().Patch(ctx, rules.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(accepted)))).To(Succeed())
		change(ctx, `{spec: {version: v0.29.2}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonPreflightUnknown, "HeadscalePolicy rules has changed, and that is not in force yet"))
		untouched(ctx, before)
		Expect(jobsCreated()).To(Equal(jobs))

		o.preflight.Store(noPod)
		Expect(admin.Patch(ctx, rules.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"spec": {"hujson": "{\"acls\": []}"}}`)))).To(Succeed())
		Eventually(func(g Gomega) map[string]string {
			o.touch(ctx, "headscale")
			return get[corev1.ConfigMap](ctx, o.namespace, preflightJob)(g).Data
		}).WithContext(ctx).Should(HaveKeyWithValue("policy.hujson", ContainSubstring("acls")))
	})

	It("that is refused stays so while the pod is restarted, and lets Headscale be stopped", func(ctx context.Context) {
		before := observe(ctx)
		o.preflight.Store(ends("Error: no"))
		change(ctx, overrideWithout)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, ""))
		runPod(ctx, o.namespace, "headscale", 0)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(HaveField("Status", metav1.ConditionFalse))
		o.touch(ctx, "headscale")
		untouched(ctx, before)
		change(ctx, `{spec: {replicas: 0}}`)
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Spec.Replicas", HaveValue(BeEquivalentTo(0))))
	})

	It("that is refused keeps a pod that lost its StatefulSet", func(ctx context.Context) {
		before := observe(ctx)
		o.preflight.Store(ends("Error: no"))
		change(ctx, overrideWithout)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, ""))
		pod := get[corev1.Pod](ctx, o.namespace, "headscale-0")(NewGomega(Fail))
		Expect(admin.Patch(ctx, pod, client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"ownerReferences": null}}`)))).To(Succeed())
		Expect(admin.Delete(ctx, before.statefulSet, client.PropagationPolicy(metav1.DeletePropagationBackground))).To(Succeed())
		o.touch(ctx, "headscale")
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "Error: no"))
		Expect(missing[appsv1.StatefulSet](ctx, o.namespace, "headscale")()).To(BeTrue())
		Expect(get[corev1.ConfigMap](ctx, o.namespace, "headscale")(NewGomega(Fail)).ResourceVersion).To(Equal(before.config.ResourceVersion))
		o.preflight.Store(nil)
		change(ctx, `{spec: {config: {dns: null}}}`)
		Eventually(missing[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(BeFalse())
	})

	It("that has begun goes on while the pod is restarted", func(ctx context.Context) {
		before := observe(ctx)
		o.preflight.Store(noPod)
		change(ctx, overrideWithout)
		Eventually(job(ctx)).WithContext(ctx).ShouldNot(BeNil())
		Eventually(status(ctx)).WithContext(ctx).Should(HaveField("Preflight.Outcome", v1beta1.PreflightRunning))
		runPod(ctx, o.namespace, "headscale", 0)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(HaveField("Status", metav1.ConditionFalse))
		o.touch(ctx, "headscale")
		untouched(ctx, before)
	})

	It("starts over with a spec that changes meanwhile", func(ctx context.Context) {
		before := observe(ctx)
		o.preflight.Store(noPod)
		change(ctx, overrideWithout)
		var first *batchv1.Job
		Eventually(func(g Gomega) { first = job(ctx)(g) }).WithContext(ctx).Should(Succeed())
		change(ctx, `{spec: {config: {log: {level: debug}}}}`)
		Eventually(job(ctx)).WithContext(ctx).Should(HaveField("UID", Not(Equal(first.UID))))
		Expect(get[corev1.ConfigMap](ctx, o.namespace, preflightJob)(NewGomega(Fail)).Data["config.yaml"]).To(ContainSubstring("level: debug"))
		By("having what the first one says count for nothing")
		runJob(ctx, first, &corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{running(resources.ContainerHeadscale, true)}})
		o.touch(ctx, "headscale")
		untouched(ctx, before)
		By("ending with the wish for it")
		change(ctx, `{spec: {config: {dns: null, log: null}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		nothingLeft(ctx)
		untouched(ctx, before)
	})

	It("is not run twice by operators that hand over", func(ctx context.Context) {
		o.preflight.Store(noPod)
		change(ctx, overrideWithout)
		var first *batchv1.Job
		Eventually(func(g Gomega) { first = job(ctx)(g) }).WithContext(ctx).Should(Succeed())
		second := startOperatorIn(o.namespace)
		second.preflight.Store(noPod)
		second.touch(ctx, "headscale")
		o.stop()
		second.touch(ctx, "headscale")
		Expect(job(ctx)(NewGomega(Fail)).UID).To(Equal(first.UID))
		runJob(ctx, first, ends("Error: no"))
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "Error: no"))
	})

	It("of an image that cannot be pulled is refused, and tried again", func(ctx context.Context) {
		before := observe(ctx)
		o.preflight.Store(&corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{waiting(resources.ContainerHeadscale, "ErrImagePull", "manifest unknown")}})
		change(ctx, `{spec: {image: registry.example/nothing}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonImagePullFailed, "ErrImagePull: manifest unknown. It is tried again every 5 minutes"))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionProgressing)(NewGomega(Fail)).Status).To(Equal(metav1.ConditionFalse))
		nothingLeft(ctx)
		o.advance(20 * time.Minute)
		o.touch(ctx, "headscale")
		Eventually(status(ctx)).WithContext(ctx).Should(HaveField("Preflight.Attempts", And(BeNumerically(">=", 2), BeNumerically("<=", 4))))
		Expect(ready(ctx)(NewGomega(Fail))).To(be("False", v1beta1.ReasonImagePullFailed, ""), "it is never applied without a preflight")
		untouched(ctx, before)
		o.preflight.Store(nil)
		o.advance(20 * time.Minute)
		// By the operator's clock a Job is late at once: an attempt whose pod is not in the cache yet cannot tell.
		Eventually(func(g Gomega) *appsv1.StatefulSet {
			o.advance(time.Minute)
			o.touch(ctx, "headscale")
			return get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g)
		}).WithContext(ctx).Should(HaveField("Spec.Template.Spec.Containers", ContainElement(HaveField("Image", "registry.example/nothing:v0.29.3"))))
		nothingLeft(ctx)
	})

	unanswered := `Error: creating OIDC provider from issuer config: Get "http://i/": dial tcp 127.0.0.1:9: connect: connection refused`

	It("that is inconclusive is retried, and skipped in the end with a warning", func(ctx context.Context) {
		before := observe(ctx)
		o.preflight.Store(ends(unanswered))
		change(ctx, `{spec: {config: {oidc: {issuer: "http://i", client_id: a, client_secret: b}}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonPreflightUnknown, "connect: connection refused. It is tried again at "))
		Expect(ready(ctx)(NewGomega(Fail)).Message).To(ContainSubstring("; the change is applied without a preflight if that is still so after "))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionProgressing)(NewGomega(Fail)).Status).To(Equal(metav1.ConditionTrue))
		nothingLeft(ctx)
		o.advance(time.Minute)
		o.touch(ctx, "headscale")
		Eventually(status(ctx)).WithContext(ctx).Should(HaveField("Preflight.Attempts", And(BeNumerically(">=", 2), BeNumerically("<=", 4))))
		nothingLeft(ctx)
		untouched(ctx, before)
		o.advance(10 * time.Minute)
		o.touch(ctx, "headscale")
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKeyWithValue("config.yaml", ContainSubstring("issuer"))))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(And(HavePrefix("Warning PreflightSkipped: Generation 2 of the spec is applied without a completed preflight after"),
			// By the operator's clock, which is ahead of the API server's, a Job that has not ended is late at once.
			Or(ContainSubstring("connection refused"), ContainSubstring("has not ended within")))))
		Eventually(status(ctx)).WithContext(ctx).Should(And(HaveField("Preflight.Outcome", v1beta1.PreflightSkipped), HaveField("AppliedGeneration", BeEquivalentTo(2))))
		nothingLeft(ctx)
		Expect(jobsCreated()).To(And(BeNumerically(">=", 3), BeNumerically("<=", 5)), "it is tried once more before")
	})

	It("that is inconclusive holds the change up for good where the user wants that, until the user does not", func(ctx context.Context) {
		before := observe(ctx)
		o.preflight.Store(ends(unanswered))
		change(ctx, `{spec: {preflight: Always, config: {oidc: {issuer: "http://i", client_id: a, client_secret: b}}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonPreflightUnknown, "spec.preflight: Never applies the change without a preflight"))
		nothingLeft(ctx)
		o.advance(11 * time.Minute)
		o.touch(ctx, "headscale")
		Eventually(status(ctx)).WithContext(ctx).Should(HaveField("Preflight.Attempts", And(BeNumerically(">=", 2), BeNumerically("<=", 4))))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionStalled)).WithContext(ctx).Should(be("True", v1beta1.ReasonPreflightUnknown, ""))
		untouched(ctx, before)
		change(ctx, `{spec: {preflight: Never}}`)
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKeyWithValue("config.yaml", ContainSubstring("issuer"))))
		nothingLeft(ctx)
	})

	It("that Kubernetes does not let run cannot tell", func(ctx context.Context) {
		By("because of a quota for Jobs")
		quota := &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "jobs"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/jobs.batch": *zero()}},
		}
		Expect(admin.Create(ctx, quota)).To(Succeed())
		quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: quota.Spec.Hard}
		Expect(admin.Status().Update(ctx, quota)).To(Succeed())
		// The API server reads quotas from a cache, also below.
		dryRun := func() error { return admin.Create(ctx, emptyJob(o.namespace, "accepted"), client.DryRunAll) }
		Eventually(dryRun).WithContext(ctx).WithTimeout(45 * time.Second).Should(MatchError(ContainSubstring("exceeded quota")))
		o.preflight.Store(noPod)
		change(ctx, `{spec: {config: {log: {level: debug}}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonPreflightUnknown, "exceeded quota"))
		Expect(admin.Delete(ctx, quota)).To(Succeed())

		By("because of a quota for pods")
		Eventually(dryRun).WithContext(ctx).WithTimeout(45 * time.Second).Should(Succeed())
		// The operator's clock is put forward to the next attempt and not beyond: a Job that seems to be minutes old
		// is overdue.
		Eventually(func(g Gomega) *batchv1.Job {
			if last := status(ctx)(g).Preflight; last != nil && last.RetryAt != nil {
				o.advance(max(0, last.RetryAt.Sub(o.time())))
			}
			o.touch(ctx, "headscale")
			return job(ctx)(g)
		}).WithContext(ctx).ShouldNot(BeNil())
		Eventually(func(g Gomega) metav1.Condition {
			// Where its cache is behind, the operator makes the Job once more; and a reconcile that has not seen
			// it yet looks for no event.
			live := job(ctx)(g)
			g.Expect(admin.Create(ctx, &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{Namespace: o.namespace, GenerateName: "job-"},
				InvolvedObject: corev1.ObjectReference{Kind: "Job", APIVersion: "batch/v1", Namespace: o.namespace, Name: live.Name, UID: live.UID},
				Type:           corev1.EventTypeWarning, Reason: reasonFailedCreate, Message: "Error creating: pods is forbidden: exceeded quota: pods",
				LastTimestamp: metav1.NewTime(o.time()), Source: corev1.EventSource{Component: "job-controller"},
			})).To(Succeed())
			o.touch(ctx, "headscale")
			return ready(ctx)(g)
		}).WithContext(ctx).Should(be("False", v1beta1.ReasonPreflightUnknown, "exceeded quota: pods"))
	})

	It("whose name is taken cannot tell", func(ctx context.Context) {
		Expect(admin.Create(ctx, emptyJob(o.namespace, preflightJob))).To(Succeed())
		change(ctx, `{spec: {config: {log: {level: debug}}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonPreflightUnknown, "Job headscale-preflight"))
		o.advance(11 * time.Minute)
		o.touch(ctx, "headscale")
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKeyWithValue("config.yaml", ContainSubstring("level: debug"))))
		Expect(job(ctx)(NewGomega(Fail)).Spec.Template.Spec.Containers[0].Image).To(Equal("b"), "it is left alone")
	})

	It("holds up neither what does not touch Headscale nor what else the spec says", func(ctx context.Context) {
		o.preflight.Store(ends("Error: no"))
		change(ctx, `{spec: {pod: {resources: {requests: {cpu: 10m}}, labels: {team: network}}, api_key: {secret_name: other, manager_image: "other:v1"}}}`)
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Spec.Template.Labels", HaveKeyWithValue("team", "network")))
		Expect(jobsCreated()).To(BeZero())
		applied(ctx, 2)
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(HaveField("Status", metav1.ConditionTrue))
		before := observe(ctx)
		change(ctx, `{spec: {version: v0.29.2, service: {app_protocol: tcp}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "Headscale v0.29.2 does not start with generation"))
		Expect(get[corev1.Service](ctx, o.namespace, "headscale")(NewGomega(Fail)).Spec.Ports[0].AppProtocol).To(HaveValue(Equal("tcp")))
		untouched(ctx, before)
	})

	It("is of a Secret that changed, too", func(ctx context.Context) {
		keys := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "keys"}, StringData: map[string]string{"noise": "first"}}
		Expect(admin.Create(ctx, keys)).To(Succeed())
		change(ctx, `{spec: {secrets: {noise_private_key: {name: keys, key: noise}}}}`)
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKeyWithValue("config.yaml", ContainSubstring("/etc/headscale-files/"))))
		applied(ctx, 2)
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		before := observe(ctx)
		o.preflight.Store(ends("Error: reading private key: no"))
		Expect(admin.Patch(ctx, keys, client.RawPatch("application/merge-patch+json", []byte(`{"stringData": {"noise": "second"}}`)))).To(Succeed())
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			"does not start with the changed Secret keys, so pod headscale-0 keeps running as it was started, until something restarts it: Error: reading private key: no"))
		nothingLeft(ctx)
		untouched(ctx, before)
		Expect(jobsCreated()).To(Equal(2))
	})

	It("is of a backup that is turned on or changed, and not of one that is turned off", func(ctx context.Context) {
		refuses := &corev1.PodStatus{
			Phase:                 corev1.PodFailed,
			ContainerStatuses:     []corev1.ContainerStatus{waiting(resources.ContainerHeadscale, reasonInitializing, "")},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: resources.ContainerBackup, State: failedWith("time=2026-11-27T22:22:30.779Z level=ERROR msg=\"failed to run\" error=\"yaml: no\"\n")}},
		}
		// goesOn waits until the change of a number is applied after a preflight, and runs its pod.
		goesOn := func(generation int) {
			GinkgoHelper()
			applied(ctx, generation)
			runPod(ctx, o.namespace, "headscale", 1)
			Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
			nothingLeft(ctx)
		}
		before := observe(ctx)
		o.preflight.Store(refuses)
		credentials := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "storage"}, StringData: map[string]string{"KEY": "first"}}
		Expect(admin.Create(ctx, credentials)).To(Succeed())
		change(ctx, `{spec: {backup: {replica: {type: s3, bucket: b, sync-interval: abc}, credentials: {name: storage}}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig,
			"pod headscale-0 keeps running generation 1: Litestream refuses spec.backup: yaml: no. It is tried again every 5 minutes"))
		nothingLeft(ctx)
		untouched(ctx, before)
		o.preflight.Store(nil)
		change(ctx, `{spec: {backup: {replica: {sync-interval: 5s}}}}`)
		goesOn(3)
		Expect(jobsCreated()).To(Equal(2))

		By("one whose settings change, which what runs does not get before")
		before = observe(ctx)
		o.preflight.Store(refuses)
		change(ctx, `{spec: {backup: {replica: {sync-interval: def}}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "Litestream refuses spec.backup: yaml: no"))
		untouched(ctx, before)
		Expect(get[corev1.ConfigMap](ctx, o.namespace, "headscale-backup")(NewGomega(Fail)).Data["litestream.yml"]).To(ContainSubstring("sync-interval: 5s"))
		change(ctx, `{spec: {backup: {replica: {sync-interval: 5s}}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		nothingLeft(ctx)
		Expect(jobsCreated()).To(Equal(3))

		By("its image")
		o.preflight.Store(&corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{waiting(resources.ContainerBackup, "ErrImagePull", "manifest unknown")}})
		change(ctx, `{spec: {backup: {image: registry.example/none}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonImagePullFailed, "failed to pull Litestream's image"))
		untouched(ctx, before)
		change(ctx, `{spec: {backup: {image: null}}}`)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		nothingLeft(ctx)

		By("the data of its credentials")
		o.preflight.Store(refuses)
		Expect(admin.Patch(ctx, credentials, client.RawPatch("application/merge-patch+json", []byte(`{"stringData": {"KEY": "second"}}`)))).To(Succeed())
		Eventually(ready(ctx)).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "with the changed Secret storage"))
		untouched(ctx, before)
		o.preflight.Store(nil)
		change(ctx, `{spec: {backup: {credentials: null}}}`)
		goesOn(8)
		created := jobsCreated()

		By("its end")
		o.preflight.Store(noPod)
		change(ctx, `{spec: {backup: null}}`)
		goesOn(9)
		Expect(jobsCreated()).To(Equal(created))
	})

	It("is not needed where nothing can be lost, or the user wants none", func(ctx context.Context) {
		o.preflight.Store(noPod)
		By("while Headscale is not ready")
		runPod(ctx, o.namespace, "headscale", 0)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAvailable)).WithContext(ctx).Should(HaveField("Status", metav1.ConditionFalse))
		o.advance(startGrace)
		change(ctx, `{spec: {config: {log: {level: debug}}}}`)
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKeyWithValue("config.yaml", ContainSubstring("level: debug"))))
		By("for a spec that says so")
		applied(ctx, 2)
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready(ctx)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		change(ctx, `{spec: {preflight: Never, config: {log: {level: trace}}}}`)
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKeyWithValue("config.yaml", ContainSubstring("level: trace"))))
		By("while Headscale is stopped")
		applied(ctx, 3)
		runPod(ctx, o.namespace, "headscale", 1)
		change(ctx, `{spec: {preflight: Always, replicas: 0, config: {log: {level: info}}}}`)
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKeyWithValue("config.yaml", ContainSubstring("level: info"))))
		change(ctx, `{spec: {replicas: 1, config: {log: {level: warn}}}}`)
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKeyWithValue("config.yaml", ContainSubstring("level: warn"))))
		Expect(jobsCreated()).To(BeZero())
	})

	It("is for one of three modes", func(ctx context.Context) {
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {preflight: Sometimes}}`)).To(MatchError(ContainSubstring("preflight must be Always, WhenPossible or Never")))
	})
})
