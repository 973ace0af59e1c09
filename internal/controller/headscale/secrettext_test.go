package headscale

import (
	"context"
	"encoding/json"
	"strings"
	"time"
	"unicode"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// The annotations of an API key's Secret are written by the API Key Manager, from what Headscale
// answered, and by whoever may write the Secret.
var _ = Describe("The text in a Secret's annotations", func() {
	const deceit = "\x1b[31mhs\u202e$(id); rm -rf x\nReady: True"
	long := strings.Repeat("x", 20_000)

	DescribeTable("is in the status and the events without what would deceive, and not too long", func(ctx context.Context, name, text string) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		pod := makePod(ctx, o.namespace, "headscale")
		manager := running(sidecar, true)
		manager.State.Running.StartedAt = metav1.NewTime(o.time().Add(-time.Hour))
		setPod(ctx, pod, nil, running(server, true), manager)
		runPod(ctx, o.namespace, "headscale", 1)
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		secret.Annotations[name] = text
		Expect(admin.Create(ctx, secret)).To(Succeed())
		key := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)
		Eventually(key).WithContext(ctx).ShouldNot(HaveField("Status", metav1.ConditionUnknown))
		o.advance(failingAfter)
		o.touch(ctx, "headscale")
		expectNoDeceit(ctx, o.namespace)

		By("leaving the Secret, of which an event tells")
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {auto_manage: false}}}`)).To(Succeed())
		Eventually(key).WithContext(ctx).Should(HaveField("Reason", v1beta1.ReasonNotManaged))
		o.touch(ctx, "headscale")
		expectNoDeceit(ctx, o.namespace)
	},
		Entry("as a prefix", v1beta1.AnnotationKeyPrefix, deceit),
		Entry("as a long prefix", v1beta1.AnnotationKeyPrefix, long),
		Entry("as a time of creation", v1beta1.AnnotationCreatedAt, deceit),
		Entry("as an expiration", v1beta1.AnnotationExpiration, deceit),
		Entry("as a key that is retiring", v1beta1.AnnotationRetiring, deceit+"@2020-01-01T00:00:00Z"),
		Entry("as a key with a long name that is retiring", v1beta1.AnnotationRetiring, long+"@2020-01-01T00:00:00Z"),
		Entry("as a key that is being created", v1beta1.AnnotationPending, deceit+"@2020-01-01T00:00:00Z"),
		Entry("as a request", v1beta1.AnnotationRotateRequestedAt, deceit),
		Entry("as a long request", v1beta1.AnnotationRotateRequestedAt, long),
		Entry("as a request that was handled", v1beta1.AnnotationRotateHandled, deceit),
	)
})

// expectNoDeceit looks at all that is said of the Headscale.
func expectNoDeceit(ctx context.Context, namespace string) {
	GinkgoHelper()
	said := get[v1beta1.Headscale](ctx, namespace, "headscale")(NewGomega(Fail)).Status
	events := &eventsv1.EventList{}
	Expect(admin.List(ctx, events, client.InNamespace(namespace))).To(Succeed())
	var texts []string
	for _, c := range said.Conditions {
		texts = append(texts, c.Message)
	}
	for i := range events.Items {
		texts = append(texts, events.Items[i].Note)
	}
	if said.APIKey != nil {
		content, err := json.Marshal(said.APIKey)
		Expect(err).NotTo(HaveOccurred())
		var fields map[string]string
		Expect(json.Unmarshal(content, &fields)).To(Succeed())
		for _, value := range fields {
			texts = append(texts, value)
		}
	}
	for _, text := range texts {
		Expect(len(text)).To(BeNumerically("<=", 1024), "%.100s", text)
		Expect(strings.IndexFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Cf) })).To(Equal(-1), "%q", text)
		Expect(text).NotTo(ContainSubstring("--prefix hs$"), "a command to copy")
	}
}
