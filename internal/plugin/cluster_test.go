package plugin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// testKey is a key of the shape that Headscale makes.
const testKey = "hskey-api-9ac3e6a37ae0-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// newHeadscale makes a Headscale that the operator has found in order.
func newHeadscale(ctx context.Context, namespace, name string, changes ...func(*v1beta1.Headscale)) *v1beta1.Headscale {
	GinkgoHelper()
	headscale := &v1beta1.Headscale{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1beta1.HeadscaleSpec{Version: serverbuild.DefaultHeadscale},
	}
	Expect(json.Unmarshal([]byte(`{"server_url": "https://headscale.example.com"}`), &headscale.Spec.Config)).To(Succeed())
	for _, change := range changes {
		change(headscale)
	}
	status := headscaleNamed(name).Status
	expiration := metav1.NewTime(time.Now().Add(2000 * time.Hour).Truncate(time.Second))
	Expect(admin.Create(ctx, headscale)).To(Succeed())
	headscale.Status = status
	headscale.Status.ObservedGeneration = headscale.Generation
	for i := range headscale.Status.Conditions {
		headscale.Status.Conditions[i].ObservedGeneration = headscale.Generation
	}
	headscale.Status.APIKey = nil
	if headscale.Spec.APIKey.Managed() {
		headscale.Status.APIKey = &v1beta1.APIKeyStatus{SecretName: v1beta1.DefaultSecretName, KeyPrefix: "9ac3e6a37ae0", Expiration: &expiration}
	}
	Expect(admin.Status().Update(ctx, headscale)).To(Succeed())
	return headscale
}

// newSecret makes a Secret as the API Key Manager does.
func newSecret(ctx context.Context, namespace string, changes ...func(*corev1.Secret)) {
	GinkgoHelper()
	digest := sha256.Sum256([]byte(testKey))
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: v1beta1.DefaultSecretName,
			Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
			Annotations: map[string]string{
				v1beta1.AnnotationKeyPrefix: "9ac3e6a37ae0", v1beta1.AnnotationKeyDigest: hex.EncodeToString(digest[:]),
				v1beta1.AnnotationCreatedAt:  time.Now().Add(-time.Hour).UTC().Format(time.RFC3339),
				v1beta1.AnnotationExpiration: time.Now().Add(2159 * time.Hour).UTC().Format(time.RFC3339Nano),
			},
		},
		Data: map[string][]byte{v1beta1.SecretDataKey: []byte(testKey)},
	}
	for _, change := range changes {
		change(secret)
	}
	Expect(admin.Create(ctx, secret)).To(Succeed())
}

var _ = Describe("A cluster without the operator", func() {
	It("is told apart from one without a Headscale", func() {
		Expect(withoutKind).To(Equal(result{
			Stderr: "error: the cluster does not know the kind Headscale (headscale.infrado.cloud/v1beta1): install the operator first\n",
			Status: ExitFailure,
		}))
	})
})

var _ = Describe("A list", func() {
	It("is read page by page", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		for _, name := range []string{"a", "b", "c", "other"} {
			newSecret(ctx, namespace, func(s *corev1.Secret) {
				if s.Name = name; name == "other" {
					s.Labels = nil
				}
			})
		}
		c, err := newCluster(plane.Config(), namespace)
		Expect(err).NotTo(HaveOccurred())
		requests := 0
		found, err := listAll[metav1.PartialObjectMetadata](ctx, labels.Set{v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
			func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				Expect(options.Limit).To(BeEquivalentTo(page))
				requests, options.Limit = requests+1, 1
				return c.meta.Resource(secretsResource).Namespace(namespace).List(ctx, options)
			})
		Expect(err).NotTo(HaveOccurred())
		// The API server looks further when a page is full, though nothing else may match.
		Expect(requests).To(BeNumerically(">=", 3))
		Expect(found).To(ConsistOf(HaveField("Name", "a"), HaveField("Name", "b"), HaveField("Name", "c")))
	})
})

var _ = Describe("The NAME", func() {
	It("is not needed where there is one Headscale, and is asked for where there are several", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		Expect(run(ctx, namespace, "key")).To(Equal(result{"", "error: there is no Headscale in namespace " + namespace + "; -n names another namespace\n", ExitFailure}))
		Expect(run(ctx, namespace, "status")).To(Equal(result{"", "There is no Headscale in namespace " + namespace + "; -A shows those of all namespaces.\n", 0}))
		Expect(run(ctx, namespace, "status", "-o", "json")).To(Equal(result{"{\n  \"items\": []\n}\n", "", 0}))

		newHeadscale(ctx, namespace, "first")
		newSecret(ctx, namespace)
		Expect(run(ctx, namespace, "key")).To(And(HaveField("Status", 0), HaveField("Stdout", ContainSubstring(namespace+"/first"))))
		Expect(run(ctx, namespace, "status")).To(And(HaveField("Status", 0), HaveField("Stdout", HavePrefix("Headscale  "+namespace+"/first, v0.29.3: Ready\n"))))

		newHeadscale(ctx, namespace, "second")
		for _, command := range []string{"key", "rotate", "events"} {
			Expect(run(ctx, namespace, command)).To(Equal(result{"", "error: namespace " + namespace + " has 2 Headscales, so say which one: first, second\n", ExitUsage}), command)
		}
		Expect(run(ctx, namespace, "status").Stdout).To(MatchRegexp(`(?s)^NAME .*\nfirst .*\nsecond `))
		Expect(run(ctx, namespace, "status", "-A").Stdout).To(MatchRegexp(`(?s)^NAMESPACE .*\n` + namespace + ` +first .*\n` + namespace + ` +second `))
		Expect(run(ctx, namespace, "__complete", "status", "")).To(HaveField("Stdout", "first\nsecond\n:4\n"))
		Expect(run(ctx, namespace, "__complete", "rotate", "s")).To(HaveField("Stdout", "second\n:4\n"))
		Expect(run(ctx, namespace, "__complete", "rotate", "second", "")).To(HaveField("Stdout", ":4\n"))
	})

	It("that there is not is said to be missing", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		for _, command := range []string{"status", "key", "rotate", "events"} {
			Expect(run(ctx, namespace, command, "absent")).To(Equal(result{"", "error: there is no Headscale \"absent\" in namespace " + namespace +
				"; kubectl headscale status -A shows all that there are\n", ExitFailure}), command)
		}
	})
})

var _ = Describe("Completion", func() {
	It("offers namespaces, contexts and formats, and nothing where the cluster is away", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		Expect(run(ctx, "default", "__complete", "status", "--namespace", namespace[:len(namespace)-1])).To(HaveField("Stdout", ContainSubstring(namespace+"\n")))
		Expect(run(ctx, "default", "__complete", "status", "--context", "")).To(HaveField("Stdout", MatchRegexp(`^\S+\n:4\n$`)))
		Expect(run(ctx, "default", "__complete", "key", "-o", "")).To(HaveField("Stdout", "json\nyaml\n:4\n"))
		Expect(run(ctx, "default", "--server=https://127.0.0.1:1", "__complete", "status", "")).To(HaveField("Status", BeNumerically("<=", 1)))
		Expect(run(ctx, "default", "completion")).To(HaveField("Stdout", ContainSubstring(`exec kubectl headscale __complete "$@"`)))
	})
})

var _ = Describe("The rights of", func() {
	It("a namespace's editor are enough for everything", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		headscale := newHeadscale(ctx, namespace, "headscale")
		newSecret(ctx, namespace)
		config := person(ctx, namespace, editor...)
		Expect(as(ctx, config, "status")).To(And(HaveField("Status", 0), HaveField("Stdout", Not(ContainSubstring("Unread")))))
		Expect(as(ctx, config, "key").Status).To(BeZero())
		Expect(as(ctx, config, "key", "--reveal")).To(Equal(result{testKey + "\n", "", 0}))
		Expect(as(ctx, config, "events").Status).To(BeZero())
		Expect(as(ctx, config, "rotate", "--wait=false")).To(HaveField("Status", 0))
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(headscale), headscale)).To(Succeed())
		Expect(headscale.Annotations).To(HaveKey(v1beta1.AnnotationRotateRequestedAt))
		Expect(as(ctx, config, "status", "-A")).To(And(HaveField("Status", ExitFailure),
			HaveField("Stderr", MatchRegexp(`^error: you are not allowed to do this: headscales.headscale.infrado.cloud is forbidden: .* at the cluster scope\n$`))))
	})

	It("a viewer, who may not read Secrets, are enough for what the Headscale's status says", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		newHeadscale(ctx, namespace, "headscale")
		newSecret(ctx, namespace)
		config := person(ctx, namespace, viewer...)
		for _, command := range []string{"status", "key"} {
			Expect(as(ctx, config, command)).To(And(HaveField("Status", 0), HaveField("Stdout", And(
				ContainSubstring("Valid, prefix 9ac3e6a37ae0, Secret headscale-api-key"), ContainSubstring("Rotation"),
				ContainSubstring("you are not allowed to read Secret headscale-api-key")))), command)
		}
		Expect(as(ctx, config, "events").Status).To(BeZero())
		Expect(as(ctx, config, "key", "--reveal")).To(And(HaveField("Status", ExitFailure), HaveField("Stdout", ""),
			HaveField("Stderr", ContainSubstring(`you are not allowed to do this: secrets "headscale-api-key" is forbidden`))))
		Expect(as(ctx, config, "rotate")).To(And(HaveField("Status", ExitFailure),
			HaveField("Stderr", ContainSubstring(`cannot patch resource "headscales"`))))

		newHeadscale(ctx, namespace, "second")
		Expect(as(ctx, config, "status")).To(And(HaveField("Status", 0), HaveField("Stdout", MatchRegexp(`headscale +v0\.29\.3 +Ready +9ac3e6a37ae0`))))
	})

	It("nobody are enough for nothing, which is said", func(ctx SpecContext) {
		config := person(ctx, newNamespace(ctx))
		for _, command := range []string{"status", "key", "rotate", "events"} {
			Expect(as(ctx, config, command)).To(And(HaveField("Status", ExitFailure),
				HaveField("Stderr", MatchRegexp(`^error: you are not allowed to do this: .*cannot list resource "headscales".*\n$`))), command)
		}
		Expect(as(ctx, config, "status", "--token=nonsense", "a")).To(And(HaveField("Status", ExitFailure),
			HaveField("Stderr", Or(ContainSubstring("does not accept your credentials"), ContainSubstring("you are not allowed")))))
	})
})

var _ = DescribeTable("A key that a script could not use is not revealed",
	func(ctx SpecContext, words string, change func(*corev1.Secret), changes ...func(*v1beta1.Headscale)) {
		namespace := newNamespace(ctx)
		newHeadscale(ctx, namespace, "headscale", changes...)
		if change != nil {
			newSecret(ctx, namespace, change)
		}
		for _, format := range [][]string{nil, {"-o", "json"}} {
			Expect(run(ctx, namespace, append([]string{"key", "--reveal"}, format...)...)).To(And(
				HaveField("Stdout", ""), HaveField("Status", ExitFailure), HaveField("Stderr", And(ContainSubstring(words), Not(ContainSubstring(testKey))))))
		}
	},
	Entry("because there is none", "no API key is in Secret headscale-api-key yet", nil),
	Entry("because there will be none", "none will be: spec.api_key.auto_manage is false", nil, turnedOff),
	Entry("because the Secret is somebody else's", "was not created by the API Key Manager", func(s *corev1.Secret) { s.Labels = nil }),
	Entry("because it is being made", "no API key is in Secret", func(s *corev1.Secret) { s.Data, s.Annotations = nil, nil }),
	Entry("because it has expired", "expired at 2026-01-01T00:00:00Z", func(s *corev1.Secret) {
		s.Annotations[v1beta1.AnnotationExpiration] = "2026-01-01T00:00:00Z"
	}),
	Entry("because somebody changed it", "somebody changed it", func(s *corev1.Secret) { s.Data[v1beta1.SecretDataKey] = []byte(testKey + "x") }),
	Entry("because it is none", "holds something that is no API key", func(s *corev1.Secret) {
		s.Data[v1beta1.SecretDataKey] = []byte("\x1b]0;title\a")
		delete(s.Annotations, v1beta1.AnnotationKeyDigest)
	}),
)

// turnedOff has no API Key Manager.
func turnedOff(headscale *v1beta1.Headscale) {
	no := false
	headscale.Spec.APIKey.AutoManage = &no
}

var _ = Describe("key", func() {
	It("has the key in it with --reveal, and without it neither the key nor its secret half", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		newHeadscale(ctx, namespace, "headscale")
		newSecret(ctx, namespace)
		for _, format := range []string{"json", "yaml"} {
			Expect(run(ctx, namespace, "key", "--reveal", "-o", format).Stdout).To(ContainSubstring(testKey))
			for _, command := range []string{"key", "status"} {
				got := run(ctx, namespace, command, "-o", format)
				Expect(got.Status).To(BeZero())
				Expect(got.Stdout).To(And(ContainSubstring("9ac3e6a37ae0"), Not(ContainSubstring("hskey-api")), Not(ContainSubstring("aaaa"))))
			}
		}
	})

	It("is not revealed before the operator knows whose it is", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		headscale := newHeadscale(ctx, namespace, "headscale")
		newSecret(ctx, namespace)
		headscale.Status = v1beta1.HeadscaleStatus{ObservedGeneration: -1}
		Expect(admin.Status().Update(ctx, headscale)).To(Succeed())
		Expect(run(ctx, namespace, "key", "--reveal")).To(And(HaveField("Status", ExitFailure), HaveField("Stdout", ""),
			HaveField("Stderr", ContainSubstring("the operator has not observed Headscale headscale yet"))))
	})

	It("is not revealed, nor shown, where it is another Headscale's", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		first := newHeadscale(ctx, namespace, "first")
		newHeadscale(ctx, namespace, "second", turnedOff)
		newHeadscale(ctx, namespace, "third", func(h *v1beta1.Headscale) { h.Spec.APIKey.SecretName = "third" })
		newSecret(ctx, namespace, func(s *corev1.Secret) {
			s.OwnerReferences = []metav1.OwnerReference{{APIVersion: v1beta1.GroupVersion.String(), Kind: v1beta1.Kind, Name: first.Name, UID: first.UID}}
		})
		By("turning to its Secret while the operator is away")
		third := &v1beta1.Headscale{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "third"}, third)).To(Succeed())
		third.Status.APIKey.SecretName = "third"
		Expect(admin.Status().Update(ctx, third)).To(Succeed())
		third.Spec.APIKey.SecretName = v1beta1.DefaultSecretName
		Expect(admin.Update(ctx, third)).To(Succeed())

		Expect(run(ctx, namespace, "key", "first", "--reveal")).To(Equal(result{testKey + "\n", "", 0}))
		for _, name := range []string{"second", "third"} {
			Expect(run(ctx, namespace, "key", name, "--reveal")).To(Equal(result{"", "error: Secret headscale-api-key is that of Headscale first, and so is the API key in it: " +
				"set spec.api_key.secret_name to another name\n", ExitFailure}))
			Expect(run(ctx, namespace, "key", name)).To(And(HaveField("Status", ExitNotReady), HaveField("Stdout", And(
				ContainSubstring("NotOurs, Secret headscale-api-key"), Not(ContainSubstring("9ac3e6a37ae0"))))))
			Expect(run(ctx, namespace, "status", name, "-o", "json").Stdout).To(And(ContainSubstring(`"state": "NotOurs"`), Not(ContainSubstring("9ac3e6a37ae0"))))
		}

		By("not knowing its owner")
		secret := &corev1.Secret{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1beta1.DefaultSecretName}, secret)).To(Succeed())
		secret.OwnerReferences = nil
		Expect(admin.Update(ctx, secret)).To(Succeed())
		Expect(run(ctx, namespace, "key", "third", "--reveal")).To(And(HaveField("Status", ExitFailure), HaveField("Stdout", ""),
			HaveField("Stderr", ContainSubstring("the operator has not observed Headscale third yet"))))
		Expect(run(ctx, namespace, "key", "third").Stdout).To(And(ContainSubstring("Unknown, Secret"), Not(ContainSubstring("9ac3e6a37ae0"))))
	})

	It("is revealed where it is no longer managed, with a word about it", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		newHeadscale(ctx, namespace, "headscale", turnedOff)
		newSecret(ctx, namespace)
		Expect(run(ctx, namespace, "key", "--reveal")).To(Equal(result{testKey + "\n", "This key is not rotated: spec.api_key.auto_manage is false.\n", 0}))
		Expect(run(ctx, namespace, "rotate")).To(Equal(result{"", "error: the key of Headscale " + namespace + "/headscale is not rotated: set spec.api_key.auto_manage to true first\n", ExitFailure}))
	})

	It("that is missing is a status of its own", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		newHeadscale(ctx, namespace, "headscale")
		Expect(run(ctx, namespace, "key")).To(And(HaveField("Status", ExitNotReady), HaveField("Stderr", ""), HaveField("Stdout", ContainSubstring("Problem    no API key is in Secret headscale-api-key yet"))))
		Expect(run(ctx, namespace, "status", "headscale", "-o", "json")).To(And(HaveField("Status", ExitNotReady), HaveField("Stdout", ContainSubstring(`"state": "Missing"`))))
	})
})

var _ = Describe("rotate", func() {
	It("says that the operator does not run, and leaves the request", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		headscale := newHeadscale(ctx, namespace, "headscale")
		newSecret(ctx, namespace)
		Expect(run(ctx, namespace, "rotate", "--timeout=10s")).To(Equal(result{
			Stderr: "Requested a new API key for Headscale " + namespace + "/headscale.\n" +
				"error: no new API key was stored within 10s: the operator did not forward the request to Secret headscale-api-key, so it does not seem to run; " + whereOperator +
				". The request stays, and is executed when this is fixed\n",
			Status: ExitFailure,
		}))
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(headscale), headscale)).To(Succeed())
		Expect(headscale.Annotations).To(HaveKey(v1beta1.AnnotationRotateRequestedAt))
	})

	It("ends at once when the Headscale is deleted, and when it is interrupted", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		headscale := newHeadscale(ctx, namespace, "headscale")
		ended := make(chan result, 1)
		rotate := func(ctx context.Context) *lines {
			said := &lines{}
			go func() {
				status := Run(ctx, []string{"--kubeconfig", plane.Kubeconfig(), "-n", namespace, "rotate", "--timeout=5m"},
					Environment{Streams: genericiooptions.IOStreams{Out: GinkgoWriter, ErrOut: said}, Getenv: variables(nil), Now: time.Now})
				ended <- result{Stderr: said.String(), Status: status}
			}()
			return said
		}
		interruptible, interrupt := context.WithCancel(ctx)
		Eventually(rotate(interruptible).String).Should(ContainSubstring("Requested a new API key"))
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(headscale), headscale)).To(Succeed())
		Expect(headscale.Annotations).To(HaveKey(v1beta1.AnnotationRotateRequestedAt))
		interrupt()
		Eventually(ended).Should(Receive(And(HaveField("Status", ExitInterrupted), HaveField("Stderr", ContainSubstring("interrupted; the request for a new key stays")))))

		rotate(ctx)
		Expect(admin.Delete(ctx, headscale)).To(Succeed())
		Eventually(ended).Should(Receive(And(HaveField("Status", ExitFailure), HaveField("Stderr", Or(
			ContainSubstring("was deleted before it had a new key"), ContainSubstring("there is no Headscale"), ContainSubstring("not found"))))))
	})
})

// lines is a writer that others read while it is written to.
type lines struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (l *lines) Write(text []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(text)
}

func (l *lines) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

var _ = Describe("events", func() {
	record := func(ctx context.Context, headscale *v1beta1.Headscale, reason string) {
		GinkgoHelper()
		Expect(admin.Create(ctx, &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: headscale.Namespace, GenerateName: "e-"}, EventTime: metav1.NowMicro(),
			Type: "Normal", Reason: reason, Action: "Test", Note: "a note of " + reason, ReportingController: "test", ReportingInstance: "test-0",
			Regarding: corev1.ObjectReference{APIVersion: v1beta1.GroupVersion.String(), Kind: "Headscale", Namespace: headscale.Namespace, Name: headscale.Name, UID: headscale.UID},
		})).To(Succeed())
	}

	It("are those of the Headscale, the newest last, and with --watch those that come", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		headscale, other := newHeadscale(ctx, namespace, "headscale"), newHeadscale(ctx, namespace, "other")
		Expect(run(ctx, namespace, "events", "headscale")).To(Equal(result{"", "There are no events of Headscale " + namespace + "/headscale.\n", 0}))
		record(ctx, headscale, "First")
		record(ctx, other, "Foreign")
		record(ctx, headscale, "Second")
		Expect(run(ctx, namespace, "events", "headscale")).To(And(HaveField("Status", 0), HaveField("Stdout", And(
			MatchRegexp(`(?s)^AGE .*First +Headscale/headscale +a note of First\n.*Second `), Not(ContainSubstring("Foreign"))))))
		Expect(run(ctx, namespace, "events", "headscale", "-o", "json").Stdout).To(ContainSubstring(`"reason": "First"`))

		for _, format := range []string{"", "json", "yaml"} {
			watching, stop := context.WithCancel(ctx)
			out := &lines{}
			ended := make(chan int, 1)
			args := []string{"--kubeconfig", plane.Kubeconfig(), "-n", namespace, "events", "headscale", "--watch"}
			if format != "" {
				args = append(args, "-o", format)
			}
			go func() {
				ended <- Run(watching, args, Environment{Streams: genericiooptions.IOStreams{Out: out, ErrOut: GinkgoWriter}, Getenv: variables(nil), Now: time.Now})
			}()
			Eventually(out.String).Should(ContainSubstring("Second"))
			record(ctx, other, "Foreign")
			record(ctx, headscale, "Third"+format)
			Eventually(out.String).Should(ContainSubstring("a note of Third" + format))
			Expect(out.String()).NotTo(ContainSubstring("Foreign"))
			stop()
			Eventually(ended).Should(Receive(BeZero()))
		}
	})

	It("are forgotten when Kubernetes forgets them", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		headscale := newHeadscale(ctx, namespace, "headscale")
		record(ctx, headscale, "First")
		c, err := newCluster(plane.Config(), namespace)
		Expect(err).NotTo(HaveOccurred())
		shown := make(chan string, 10)
		w := &eventWatch{source: c.events(namespace), headscale: headscale, show: func(r *eventReport) error { shown <- r.Reason; return nil },
			shown: map[types.UID]string{"of one before the last list": "1"}}
		watching, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- w.run(watching) }()
		Eventually(shown).Should(Receive(Equal("First")))
		Expect(admin.DeleteAllOf(ctx, &eventsv1.Event{}, client.InNamespace(namespace))).To(Succeed())
		record(ctx, headscale, "Second")
		Eventually(shown).Should(Receive(Equal("Second")))
		stop()
		Eventually(ended).Should(Receive(BeNil()))
		Expect(w.shown).To(HaveLen(1))
	})

	It("are read by the older API where events.k8s.io is forbidden", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		headscale := newHeadscale(ctx, namespace, "headscale")
		record(ctx, headscale, "First")
		role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: namespace}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"list", "watch"}},
		}}
		Expect(admin.Create(ctx, role)).To(Succeed())
		config := person(ctx, namespace, "headscale-operator-headscale-viewer-role", role.Name)
		Expect(as(ctx, config, "events")).To(And(HaveField("Status", 0), HaveField("Stdout", MatchRegexp(`First +Headscale/headscale +a note of First\n`))))
		watching, stop := context.WithCancel(ctx)
		defer stop()
		out := &lines{}
		ended := make(chan int, 1)
		go func() {
			ended <- Run(watching, []string{"--kubeconfig", config, "events", "-w"}, Environment{
				Streams: genericiooptions.IOStreams{Out: out, ErrOut: GinkgoWriter}, Getenv: variables(nil), Now: time.Now})
		}()
		Eventually(out.String).Should(ContainSubstring("a note of First"))
		record(ctx, headscale, "Second")
		Eventually(out.String).Should(ContainSubstring("a note of Second"))
		stop()
		Eventually(ended).Should(Receive(BeZero()))
	})
})
