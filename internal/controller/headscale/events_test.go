package headscale

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/test/env"
)

// recorded lists the events in a namespace, which are the operator's but for those of the API
// server, as type, reason and note.
func recorded(ctx context.Context, namespace string) func(Gomega) []string {
	return func(g Gomega) []string {
		list := &eventsv1.EventList{}
		g.Expect(admin.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
		var all []string
		for i := range list.Items {
			e := &list.Items[i]
			if env.ToldByAPIServer(e) {
				continue
			}
			g.Expect(e.Series).To(BeNil(), "%s is recorded again", e.Reason)
			g.Expect(e.Regarding).To(And(HaveField("Kind", "Headscale"), HaveField("Namespace", namespace)))
			g.Expect(e.ReportingController).To(Equal("headscale-operator"))
			all = append(all, e.Type+" "+e.Reason+": "+e.Note)
		}
		return all
	}
}

var _ = Describe("Events", func() {
	It("tell the story of a key, each once", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyPending, ""))
		expiration := o.time().Add(v1beta1.DefaultExpiration)
		secret := keySecret(o.namespace, "headscale-api-key", expiration)
		Expect(admin.Create(ctx, secret)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		story := []any{
			Equal("Normal Created: Created StatefulSet headscale"),
			Equal("Normal KeyStored: Secret headscale-api-key holds the API key abcdefghijkl, valid until " + expiration.UTC().Format(time.RFC3339)),
		}
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(story...))

		o.advance(240*time.Hour + 31*time.Second)
		o.touch(ctx, "headscale")
		story = append(story, HavePrefix("Warning KeyOverdue: The API key in Secret headscale-api-key should have been replaced at"))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(story...))
		o.touch(ctx, "headscale")

		o.advance(1920 * time.Hour)
		o.touch(ctx, "headscale")
		story = append(story, HavePrefix("Warning KeyExpired: The API key in Secret headscale-api-key expired at"))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(story...))

		annotateSecret(ctx, secret, map[string]any{
			v1beta1.AnnotationExpiration: o.time().Add(v1beta1.DefaultExpiration).UTC().Format(time.RFC3339Nano), v1beta1.AnnotationKeyPrefix: "second",
		})
		story = append(story,
			MatchRegexp("^Normal KeyRotated: Secret headscale-api-key holds the API key second, valid until .* in place of abcdefghijkl$"),
			Equal("Normal Recovered: Headscale is running with the desired configuration again, after KeyExpired"))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(story...))
		for range 3 {
			o.touch(ctx, "headscale")
		}
		Consistently(recorded(ctx, o.namespace), "300ms").WithContext(ctx).Should(ConsistOf(story...))
	})

	It("do not warn of a start that goes as it should", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		unready := func(reason corev1.PodConditionType) []corev1.PodCondition {
			at := metav1.Now()
			return []corev1.PodCondition{
				{Type: reason, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "pod has unbound immediate PersistentVolumeClaims", LastTransitionTime: at},
				{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, LastTransitionTime: at},
			}
		}
		sees := func(message string) {
			GinkgoHelper()
			Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, message))
		}
		sees("There is no pod headscale-0")
		pod := makePod(ctx, o.namespace, "headscale")
		claim := makeClaim(ctx, o.namespace, "headscale", "x", corev1.ClaimPending)
		sees("is not bound")
		setPod(ctx, pod, unready(corev1.PodScheduled))
		sees("pod has unbound immediate PersistentVolumeClaims")
		claim.Status.Phase = corev1.ClaimBound
		setClaimStatus(ctx, claim)
		sees("No node accepts pod")
		setPod(ctx, pod, nil)
		sees("is being started")
		setPod(ctx, pod, nil, waiting(server, "ContainerCreating", ""), waiting(sidecar, "ContainerCreating", ""))
		sees("is not ready")
		setPod(ctx, pod, unready(corev1.PodReady), started(metav1.Now()), running(sidecar, true))
		sees("has not passed its health check")
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyPending, ""))
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		for _, later := range []string{v1beta1.AnnotationExpiration, v1beta1.AnnotationKeyPrefix} {
			delete(secret.Annotations, later)
		}
		secret.Annotations[v1beta1.AnnotationPending] = "2027-01-01T00:00:00.123456Z@" + o.time().UTC().Format(time.RFC3339Nano)
		Expect(admin.Create(ctx, secret)).To(Succeed())
		annotateSecret(ctx, secret, map[string]any{
			v1beta1.AnnotationExpiration: o.time().Add(v1beta1.DefaultExpiration).UTC().Format(time.RFC3339Nano),
			v1beta1.AnnotationKeyPrefix:  "abcdefghijkl", v1beta1.AnnotationPending: nil,
		})
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(HavePrefix("Normal KeyStored")))
		Consistently(recorded(ctx, o.namespace), "300ms").WithContext(ctx).Should(ConsistOf(HavePrefix("Normal Created"), HavePrefix("Normal KeyStored")))
	})

	It("tell of a Secret that is left when its key is not managed any more, and not of the same key again", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		key := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)
		Eventually(key).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyPending, ""))
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyValid, ""))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {auto_manage: false}}}`)).To(Succeed())
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonNotManaged, ""))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {auto_manage: true}}}`)).To(Succeed())
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyValid, ""))
		annotateSecret(ctx, keySecret(o.namespace, "headscale-api-key", o.time()), map[string]any{v1beta1.AnnotationKeyPrefix: "second"})
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(
			HavePrefix("Normal Created"), HavePrefix("Normal KeyStored"), HavePrefix("Normal SecretLeft: Secret headscale-api-key is no longer managed"), HavePrefix("Normal KeyRotated")))
	})

	It("tell of config keys that Headscale ignores", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: headscale}
spec:
  version: v0.29.3
  api_key: {auto_manage: false}
  config: {server_url: "http://headscale.example.com", ip_prefixes: [100.64.0.0/10], dns: {magic_dsn: true}}
`)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		const said = "Headscale v0.29.3 does not know and ignores in spec.config: dns.magic_dsn (did you mean dns.magic_dns?), ip_prefixes (write prefixes.v4 and prefixes.v6)"
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, "; but "+said))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(HavePrefix("Normal Created"), Equal("Warning ConfigWarning: "+said)))
	})

	It("tell of a conflict, of a crash and of a manager that does not run", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		runPod(ctx, o.namespace, "headscale", 1)
		for range 3 {
			setPod(ctx, pod, nil, crashed(server, "Error: no"), running(sidecar, true))
			o.touch(ctx, "headscale")
		}
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonCrashing, ""))
		setPod(ctx, pod, nil, running(server, true), waiting(sidecar, "ImagePullBackOff", "not found"))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(
			HavePrefix("Normal Created"),
			Equal("Warning Crashing: Headscale in pod headscale-0 is crash-looping: Error: no"),
			MatchRegexp("^Warning ManagerFailing: No API key is in .* The API Key Manager cannot start: failed to pull image .*: ImagePullBackOff: not found$"),
		))
	})

	It("tell once of a conflict, and of a Secret that is left", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Expect(create(ctx, o.namespace, `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: second}
spec: {version: v0.29.3, config: {server_url: "http://second.example.com"}}
`)).To(Succeed())
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(
			HavePrefix("Warning Conflict: Secret headscale-api-key is already managed for Headscale headscale")))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonKeyPending, ""))
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(HavePrefix("Normal KeyStored")))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {secret_name: other}}}`)).To(Succeed())
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(
			"Normal SecretLeft: Secret headscale-api-key is no longer managed; it is not changed, and its key stays valid: delete it when nothing reads it"))
	})
})

func TestEventsOf(t *testing.T) {
	g := NewWithT(t)
	with := func(reasons ...string) *v1beta1.HeadscaleStatus {
		reported := &v1beta1.HeadscaleStatus{}
		for i, kind := range warningConditions[:len(reasons)] {
			reported.Conditions = append(reported.Conditions, metav1.Condition{Type: kind, Reason: reasons[i], Message: "words"})
		}
		return reported
	}
	crash := status.Event{Warning: true, Reason: v1beta1.ReasonCrashing, Note: "words"}
	g.Expect(eventsOf(with(), with(v1beta1.ReasonCrashing, v1beta1.ReasonCrashing))).To(Equal([]status.Event{crash}), "one thing is reported once")
	g.Expect(eventsOf(with(v1beta1.ReasonCrashing), with(v1beta1.ReasonCrashing))).To(BeEmpty())
	g.Expect(eventsOf(with(), with(v1beta1.ReasonProgressing))).To(BeEmpty())
	g.Expect(eventsOf(with(v1beta1.ReasonReady), with(v1beta1.ReasonReady))).To(BeEmpty())
}

// A config key that Headscale ignores is reported once, and again when it is another one.
func TestConfigWarnings(t *testing.T) {
	g := NewWithT(t)
	ready := func(message string) *v1beta1.HeadscaleStatus {
		return &v1beta1.HeadscaleStatus{Conditions: []metav1.Condition{{
			Type: v1beta1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1beta1.ReasonReady, Message: message,
		}}}
	}
	const well = "Headscale is running with the desired configuration"
	warning := func(note string) []status.Event {
		return []status.Event{{Warning: true, Reason: v1beta1.EventConfigWarning, Note: note}}
	}
	g.Expect(eventsOf(&v1beta1.HeadscaleStatus{}, ready(well))).To(BeEmpty())
	g.Expect(eventsOf(ready(well), ready(well+"; but a; b"))).To(Equal(warning("a; b")))
	g.Expect(eventsOf(ready(well+"; but a; b"), ready(well+"; but a; b"))).To(BeEmpty())
	g.Expect(eventsOf(ready(well+"; but a; b"), ready(well+"; but c"))).To(Equal(warning("c")))
	g.Expect(eventsOf(ready(well+"; but c"), ready(well))).To(BeEmpty())
}

// What is wrong is over when all is well again, whatever comes in between.
func TestRecovered(t *testing.T) {
	g := NewWithT(t)
	var told []string
	reported := &v1beta1.HeadscaleStatus{}
	for _, reason := range []string{
		v1beta1.ReasonProgressing, v1beta1.ReasonReady, v1beta1.ReasonCrashing, v1beta1.ReasonProgressing, v1beta1.ReasonImagePullFailed,
		v1beta1.ReasonProgressing, v1beta1.ReasonKeyPending, v1beta1.ReasonReady, v1beta1.ReasonProgressing, v1beta1.ReasonReady,
	} {
		before := reported.DeepCopy()
		reported.Conditions = []metav1.Condition{{Type: v1beta1.ConditionReady, Reason: reason}}
		reported.Warning = openWarning(reported)
		for _, event := range eventsOf(before, reported) {
			told = append(told, event.Reason+" "+event.Note)
		}
	}
	g.Expect(told).To(Equal([]string{"Crashing ", "ImagePullFailed ", "Recovered Headscale is running with the desired configuration again, after ImagePullFailed"}))
}

func TestKeyChanges(t *testing.T) {
	key := func(secret, prefix string) *v1beta1.APIKeyStatus {
		return &v1beta1.APIKeyStatus{SecretName: secret, KeyPrefix: prefix}
	}
	for name, test := range map[string]struct {
		before, after *v1beta1.APIKeyStatus
		want          []string
	}{
		"the first look":                   {nil, key("a", ""), nil},
		"the first key":                    {key("a", ""), key("a", "one"), []string{v1beta1.EventKeyStored}},
		"the next key":                     {key("a", "one"), key("a", "two"), []string{v1beta1.EventKeyRotated}},
		"the same key":                     {key("a", "one"), key("a", "one"), nil},
		"a key that was lost":              {key("a", "one"), key("a", ""), nil},
		"another Secret":                   {key("a", "one"), key("b", ""), []string{v1beta1.EventSecretLeft}},
		"another Secret with a key":        {key("a", "one"), key("b", "two"), []string{v1beta1.EventSecretLeft}},
		"another Secret, the old empty":    {key("a", ""), key("b", ""), nil},
		"auto_manage off":                  {key("a", "one"), nil, []string{v1beta1.EventSecretLeft}},
		"auto_manage off before a key":     {key("a", ""), nil, nil},
		"auto_manage on again, a key left": {nil, key("a", "one"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, event := range keyChanges(test.before, test.after) {
				got = append(got, event.Reason)
			}
			NewWithT(t).Expect(got).To(Equal(test.want))
		})
	}
}
