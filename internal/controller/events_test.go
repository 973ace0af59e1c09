package controller

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("Events", func() {
	// recorded lists the events in a namespace as type, reason and note.
	recorded := func(ctx context.Context, namespace string) func(Gomega) []string {
		return func(g Gomega) []string {
			list := &eventsv1.EventList{}
			g.Expect(admin.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
			var all []string
			for _, e := range list.Items {
				g.Expect(e.Series).To(BeNil(), "%s is recorded again", e.Reason)
				g.Expect(e.Regarding).To(And(HaveField("Kind", "Headscale"), HaveField("Namespace", namespace)))
				g.Expect(e.ReportingController).To(Equal("headscale-operator"))
				all = append(all, e.Type+" "+e.Reason+": "+e.Note)
			}
			return all
		}
	}

	It("tell the story of a key, each once", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		expiration := o.time().Add(v1beta1.DefaultExpiration)
		secret := keySecret(o.namespace, "headscale-api-key", expiration)
		Expect(admin.Create(ctx, secret)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		story := []any{
			Equal("Normal Created: StatefulSet headscale was made"),
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
			Equal("Normal Recovered: Headscale is running as asked for again, after KeyExpired"))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(story...))
		for range 3 {
			o.touch(ctx, "headscale")
		}
		Consistently(recorded(ctx, o.namespace), "300ms").WithContext(ctx).Should(ConsistOf(story...))
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
		setPod(ctx, pod, nil, running(server, true), waiting(sidecar, "ImagePullBackOff", "not found"))
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ConsistOf(
			HavePrefix("Normal Created"),
			Equal("Warning Crashing: Headscale in pod headscale-0 does not stay up: Error: no"),
			MatchRegexp("^Warning ManagerFailing: No API key is in .* cannot be had: ImagePullBackOff: not found$"),
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
			HavePrefix("Warning Conflict: Secret headscale-api-key is already looked after for Headscale headscale")))
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(HavePrefix("Normal KeyStored")))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {secret_name: other}}}`)).To(Succeed())
		Eventually(recorded(ctx, o.namespace)).WithContext(ctx).Should(ContainElement(
			"Normal SecretLeft: Secret headscale-api-key is not looked after any more and stays as it is, with its key: delete it when nobody reads it"))
	})
})

func TestOccurrences(t *testing.T) {
	g := NewWithT(t)
	with := func(reasons ...string) *v1beta1.HeadscaleStatus {
		status := &v1beta1.HeadscaleStatus{}
		for i, kind := range []string{v1beta1.ConditionReady, v1beta1.ConditionAvailable, v1beta1.ConditionAPIKeyReady}[:len(reasons)] {
			status.Conditions = append(status.Conditions, metav1.Condition{Type: kind, Reason: reasons[i], Message: "words"})
		}
		return status
	}
	crash := occurrence{true, v1beta1.ReasonCrashing, "words"}
	g.Expect(occurrences(with(), with(v1beta1.ReasonCrashing, v1beta1.ReasonCrashing))).To(Equal([]occurrence{crash}), "one thing is told once")
	g.Expect(occurrences(with(v1beta1.ReasonCrashing), with(v1beta1.ReasonCrashing))).To(BeEmpty())
	g.Expect(occurrences(with(), with(v1beta1.ReasonProgressing))).To(BeEmpty())
	g.Expect(occurrences(with(v1beta1.ReasonReady), with(v1beta1.ReasonReady))).To(BeEmpty())
	g.Expect(occurrences(with(v1beta1.ReasonConflict), with(v1beta1.ReasonReady))).To(Equal([]occurrence{{false, v1beta1.EventRecovered, "Headscale is running as asked for again, after Conflict"}}))
}
