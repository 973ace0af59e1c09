package integration_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
)

const (
	// memoryLimit is the operator's in config/manager, in MiB.
	memoryLimit = 256
	// hostileEach is how many hostile Headscales there are of each kind, and lookAlikes how many
	// ConfigMaps of almost 1 MiB that only have the operator's labels.
	hostileEach, lookAlikes = 10, 250
	// rounds is how often the Headscale of another namespace is made, rotated and changed at
	// each time.
	rounds = 3
)

// hostileKinds make the spec of a Headscale, beside its version, as somebody may write it who
// wants to harm others; in JSON, or in YAML where JSON cannot express it.
var hostileKinds = map[string]func(i int) string{
	"huge": func(int) string { return configOf(`"x":"` + strings.Repeat("x", 1_000_000) + `"`) },
	"deep": func(int) string { return configOf(`"x":` + strings.Repeat("[", 3000) + strings.Repeat("]", 3000)) },
	"wide": func(int) string { return configOf(`"x":[` + strings.Repeat("[],", 330_000) + `[]]`) },
	"long strings": func(i int) string {
		return configOf(fmt.Sprintf(`%q:%q`, fmt.Sprint(strings.Repeat("key", 30_000), i), strings.Repeat("value", 30_000)))
	},
	"many references": func(i int) string {
		name := fmt.Sprintf(`{"name":"missing-%d-%%d","key":"a"}`, i)
		return configOf(`"oidc":{"issuer":"https://a.example"},"database":{"type":"postgres"}`) + `,"secrets":{"database_password":` + fmt.Sprintf(name, 1) +
			`,"oidc_client_secret":` + fmt.Sprintf(name, 2) + `,"noise_private_key":` + fmt.Sprintf(name, 3) + `,"derp_private_key":` + fmt.Sprintf(name, 4) +
			`},"files":{"policy":{"config_map":` + fmt.Sprintf(name, 5) + `},"extra_dns_records":{"secret":` + fmt.Sprintf(name, 6) + `}}`
	},
	"many variables": func(i int) string {
		return configOf(`"a":1`) + `,"pod":{"env":[` + list(64, func(n int) string {
			return fmt.Sprintf(`{"name":"HEADSCALE_%d","value":%q}`, n, strings.Repeat("x", 1900+i*1500))
		}) + `]}`
	},
	"many volumes": func(int) string {
		return configOf(`"a":1`) + `,"pod":{"volumes":[` + list(32, func(n int) string {
			return fmt.Sprintf(`{"name":"v%d","projected":{"sources":[%s]}}`, n, list(64, func(m int) string {
				return fmt.Sprintf(`{"secret":{"name":"s%d","items":[%s]}}`, m, list(12, func(k int) string { return fmt.Sprintf(`{"key":"k%d","path":"p%d"}`, k, k) }))
			}))
		}) + `]}`
	},
	// Every level has the one before eight times. Of some, the API server refuses the aliases.
	"anchors": func(i int) string {
		text := "config:\n  server_url: http://a.example\n  a0: &a0 [x, x, x, x, x, x, x, x]\n"
		for level := range i % 5 {
			text += fmt.Sprintf("  a%d: &a%[1]d [%s]\n", level+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", level), 8), ", "))
		}
		return text
	},
	"unicode": func(int) string {
		return configOf(`"\u202e\u0000\ud83d\ude00\u200b\u001b[31m`+strings.Repeat("\U0001F600", 200)+`":"`+strings.Repeat("\u202e", 20_000)+`"`) +
			`,"pod":{"annotations":{"a":"` + strings.Repeat("\U0001F600", 8000) + `"}}`
	},
	// Its labels are added to its metadata.
	"look-alikes": func(int) string { return configOf(`"a":1`) },
}

// configOf is a config with some further entries, in JSON.
func configOf(entries string) string {
	return `"config":{"server_url":"http://a.example",` + entries + `}`
}

// list is a number of entries in JSON.
func list(number int, entry func(int) string) string {
	entries := make([]string, number)
	for i := range entries {
		entries[i] = entry(i)
	}
	return strings.Join(entries, ",")
}

// hostileManifest is a hostile Headscale of a kind.
func hostileManifest(kind string, i int) string {
	name := fmt.Sprintf("%s-%d", strings.ReplaceAll(kind, " ", "-"), i)
	spec := hostileKinds[kind](i)
	if kind == "anchors" {
		return "apiVersion: headscale.infrado.cloud/v1beta1\nkind: Headscale\nmetadata: {name: " + name + "}\nspec:\n  version: v0.29.3\n" +
			"  api_key: {secret_name: " + name + "}\n  " + strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  ")
	}
	labels := ""
	if kind == "look-alikes" {
		labels = `,"labels":{` + list(20_000, func(n int) string { return fmt.Sprintf(`"label-%d":"a"`, n) }) + `}`
	}
	return `{"apiVersion":"headscale.infrado.cloud/v1beta1","kind":"Headscale","metadata":{"name":"` + name + `"` + labels +
		`},"spec":{"version":"v0.29.3","api_key":{"secret_name":"` + name + `"},` + spec + `}}`
}

var _ = Describe("Hostile objects", Ordered, func() {
	var own *env.World
	var good, bad string
	var before phase

	BeforeAll(func(ctx SpecContext) {
		if _, err := os.Stat("/proc/self/status"); err != nil {
			Skip("the kernel does not say how much memory a process had at most")
		}
		// On a control plane of their own, so that they do not stay where other specs are.
		shared := world
		own = startWorld(ctx, "hs-hostile-")
		use(own)
		DeferCleanup(func() { use(shared) })
		good, bad = newNamespace(ctx), newNamespace(ctx)
		before = measurePhase(ctx, good, "before")
	})

	AfterEach(func() {
		AddReportEntry("the operator so far", fmt.Sprintf("%.1f MiB of memory at most; %s", peakMemory(), world.Operator.Process.Describe()))
	})

	It("are refused or reported, and others work as usual", func(ctx SpecContext) {
		stored := createHostile(ctx, bad)
		Expect(stored).To(BeNumerically(">", len(hostileKinds)*hostileEach/2))
		// The table is short, unlike the objects.
		Eventually(func(g Gomega) {
			table, err := plane.Kubectl(ctx, "get", "headscales", "-n", bad, "--no-headers")
			g.Expect(err).NotTo(HaveOccurred())
			lines := strings.Split(strings.TrimSpace(table), "\n")
			g.Expect(lines).To(HaveLen(stored))
			for _, line := range lines {
				g.Expect(line).To(ContainSubstring(" False "), "its condition Ready")
			}
		}).WithContext(ctx).WithPolling(time.Second).Should(Succeed())
		// A reconcile that failed for a moment is tried again.
		Eventually(func(g Gomega) { expectPlainStatus(ctx, g, bad) }).WithContext(ctx).WithPolling(time.Second).Should(Succeed())
		compare(before, measurePhase(ctx, good, "with all of them"))
		Expect(world.Operator.Process.Running()).To(BeTrue(), "it is still the first one")
		Expect(peakMemory()).To(BeNumerically("<", memoryLimit))
	})

	It("do not prevent a new operator from starting", func(ctx SpecContext) {
		Expect(own.Operator.Stop()).To(Succeed())
		began := time.Now()
		Expect(own.StartOperator(ctx, unelected)).To(Succeed())
		use(own)
		after := measurePhase(ctx, good, "after a restart")
		AddReportEntry("the new operator had made all changes after", time.Since(began).String())
		compare(before, after)
		Expect(world.Operator.Process.Running()).To(BeTrue())
		Expect(peakMemory()).To(BeNumerically("<", memoryLimit))
	})
})

// expectPlainStatus looks for what is in the specs of hostile Headscales in what is said of them.
func expectPlainStatus(ctx context.Context, g Gomega, namespace string) {
	var all v1beta1.HeadscaleList
	g.Expect(admin.List(ctx, &all, client.InNamespace(namespace))).To(Succeed())
	for i := range all.Items {
		status := &all.Items[i].Status
		g.Expect(status.ObservedGeneration).To(Equal(all.Items[i].Generation), all.Items[i].Name)
		g.Expect(status.Conditions).NotTo(BeEmpty(), all.Items[i].Name)
		for _, condition := range status.Conditions {
			g.Expect(condition.Reason).NotTo(Equal(v1beta1.ReasonReconcileFailed), "%s: %.300s", all.Items[i].Name, condition.Message)
			g.Expect(len(condition.Message)).To(BeNumerically("<", 4096), all.Items[i].Name)
			g.Expect(strings.ContainsFunc(condition.Message, func(r rune) bool {
				return unicode.IsControl(r) || unicode.In(r, unicode.Cf)
			})).To(BeFalse(), "%s: %.300q", all.Items[i].Name, condition.Message)
		}
	}
	g.Expect(all.Items).NotTo(BeEmpty())
}

// createHostile creates all hostile objects, and returns how many Headscales the API server
// took. The time that it needs is the API server's.
func createHostile(ctx context.Context, namespace string) (stored int) {
	GinkgoHelper()
	for _, kind := range slices.Sorted(maps.Keys(hostileKinds)) {
		accepted := 0
		took := timed(func() {
			for i := range hostileEach {
				err := untilAnswered(ctx, func() error { return sendHostile(ctx, namespace, kind, hostileManifest(kind, i)) })
				Expect(unlessRefused(err)).To(Succeed(), kind)
				if err == nil {
					accepted++
				} else {
					GinkgoWriter.Printf("%s: %.200s\n", kind, err)
				}
			}
		})
		stored += accepted
		AddReportEntry(kind, fmt.Sprintf("%d of %d stored, in %s each", accepted, hostileEach, (took/hostileEach).Round(time.Millisecond)))
	}
	for i := range lookAlikes {
		Expect(untilAnswered(ctx, func() error { return admin.Create(ctx, lookAlike(namespace, i)) })).To(Succeed())
	}
	return stored
}

// untilAnswered creates something, again where the API server is too busy to answer: it may have stored it.
func untilAnswered(ctx context.Context, create func() error) error {
	err := create()
	for apierrors.IsTimeout(err) && ctx.Err() == nil {
		if err = create(); apierrors.IsAlreadyExists(err) {
			return nil
		}
	}
	return err
}

// unlessRefused is an error that is no refusal of an object: of its contents, of its size, or
// of a request that is larger than etcd takes.
func unlessRefused(err error) error {
	if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) {
		return nil
	}
	return err
}

// sendHostile sends a manifest as it stands.
func sendHostile(ctx context.Context, namespace, kind, manifest string) error {
	config := plane.Config()
	config.GroupVersion = &schema.GroupVersion{Group: v1beta1.GroupName, Version: v1beta1.GroupVersion.Version}
	config.APIPath, config.NegotiatedSerializer, config.QPS = "/apis", clientgoscheme.Codecs.WithoutConversion(), -1
	connection, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}
	contents := "application/json"
	if kind == "anchors" {
		contents = "application/yaml"
	}
	return connection.Post().Namespace(namespace).Resource("headscales").
		SetHeader("Content-Type", contents).Body([]byte(manifest)).Do(ctx).Error()
}

// lookAlike is a ConfigMap that is nobody's, or says that it is a Headscale's.
func lookAlike(namespace string, i int) *corev1.ConfigMap {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: fmt.Sprintf("look-alike-%d", i),
		Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, "app.kubernetes.io/instance": "look-alikes-1"},
	}, Data: map[string]string{"x": strings.Repeat("x", 1_000_000)}}
	if i%2 == 0 {
		controller := true
		object.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: v1beta1.GroupVersion.String(), Kind: v1beta1.Kind, Name: "look-alikes-1", UID: "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", Controller: &controller,
		}}
	}
	return object
}

// phase is how long everything took in each round.
type phase struct {
	name string
	// made is from a new Headscale to its key, rotated from a request to the next key, and
	// changed from a change of the config to the changed StatefulSet.
	made, rotated, changed []time.Duration
}

// measurePhase makes, rotates and changes Headscales with their pods, one after another.
func measurePhase(ctx context.Context, namespace, name string) phase {
	GinkgoHelper()
	p := phase{name: name}
	for i := range rounds {
		hs := runPod(namespace, fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), i))
		secret := hs.key.Name + "-key"
		p.made = append(p.made, timed(func() {
			apply(ctx, namespace, strings.NewReplacer("name: headscale", "name: "+hs.key.Name, "config:", "api_key: {secret_name: "+secret+"}, config:").Replace(shortestManifest))
			hs.awaitReady(ctx)
		}))
		old := keyOf(hs.awaitRest(ctx, secret))
		p.rotated = append(p.rotated, timed(func() {
			hs.patch(ctx, `{"metadata":{"annotations":{"`+v1beta1.AnnotationRotateRequestedAt+`":"now"}}}`)
			hs.awaitKey(ctx, secret, old)
		}))
		template := func() (string, error) {
			set := &appsv1.StatefulSet{}
			err := admin.Get(ctx, hs.key, set)
			return set.Spec.Template.Annotations[v1beta1.GroupName+"/config-hash"], err
		}
		hash, err := template()
		Expect(err).NotTo(HaveOccurred())
		p.changed = append(p.changed, timed(func() {
			hs.patch(ctx, `{"spec":{"config":{"log":{"level":"debug"}}}}`)
			Eventually(template).WithContext(ctx).ShouldNot(Equal(hash))
		}))
	}
	return p
}

// timed is how long something took.
func timed(do func()) time.Duration {
	began := time.Now()
	do()
	return time.Since(began)
}

// What may take longer beside hostile objects than before, and is no noise of a busy machine.
const (
	slowerTimes = 5
	slowerBy    = 10 * time.Second
)

// compare reports how long everything took, and fails where that was much longer than before.
func compare(before phase, others ...phase) {
	GinkgoHelper()
	for _, part := range []struct {
		name string
		of   func(phase) []time.Duration
	}{
		{"made and ready", func(p phase) []time.Duration { return p.made }},
		{"rotated", func(p phase) []time.Duration { return p.rotated }},
		{"StatefulSet changed", func(p phase) []time.Duration { return p.changed }},
	} {
		usual := median(part.of(before))
		text := fmt.Sprintf("%s: %s %s", part.name, before.name, usual.Round(time.Millisecond))
		for _, p := range others {
			took := median(part.of(p))
			Expect(took).To(BeNumerically("<", slowerTimes*usual+slowerBy), "%s %s; before: %s", part.name, p.name, usual)
			text += fmt.Sprintf(", %s %s (%.2f times)", p.name, took.Round(time.Millisecond), took.Seconds()/usual.Seconds())
		}
		AddReportEntry("median", text)
	}
}

// median is the one in the middle.
func median(all []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

// peakMemory is how much memory the operator had at most since it was started, in MiB: its
// resident set, with the pages of its binary, which the limit of a container does not count.
func peakMemory() float64 {
	GinkgoHelper()
	usage, err := world.Operator.Process.Usage()
	Expect(err).NotTo(HaveOccurred())
	return usage.Peak
}
