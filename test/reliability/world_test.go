package reliability_test

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/reliability/apiproxy"
)

// poll is how often something is looked at that is about to happen, and how often a
// consumer reads the Secret.
const poll = 20 * time.Millisecond

// Settings of a manager.
var (
	// calm rotates in half an hour, which no spec sees.
	calm = []string{"--expiration=1h", "--rotation-buffer=30m"}
	// brisk rotates every other second, and leaves keys that are valid for an hour, so
	// that one which is forgotten is seen.
	brisk = []string{"--expiration=1h", "--rotation-buffer=59m58s"}
)

// world is a namespace with a manager in it, which keeps a key of a Headscale.
type world struct {
	namespace string
	headscale installation
	// faults, where there are any, are between the manager and Headscale.
	faults faults
	list   *headscale.Client
	tag    rotation.Tag
	// api is what the manager takes for the API server.
	api *apiproxy.Proxy
	// dir is for files, socket and kubeconfig are the manager's ways to the servers.
	dir, socket, kubeconfig string

	manager *process.Process
	// printed is all that the managers of this world printed.
	printed *process.Log
	// seen are all values that the Secret ever had.
	seen *seenKeys
	// foreign is the prefix of a key that is not ours and that nobody may touch.
	foreign string
	// other is a whole key that somebody else made.
	other headscale.Key
	// heard is how much of what was printed is no news any more.
	heard int
}

// worldOption changes a world before anything runs in it.
type worldOption func(*world)

// faulty has the manager reach Headscale by a socket on which faults can happen.
func faulty(w *world) {
	GinkgoHelper()
	var err error
	w.faults, err = w.headscale.Faults(filepath.Join(w.dir, "faulty.sock"))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(w.faults.Stop)
	w.socket = w.faults.SocketPath()
}

// newWorld makes a world in which nothing has happened yet. After the spec it is
// seen to that the manager printed no key, and left the keys of others alone.
func newWorld(ctx context.Context, h installation, options ...worldOption) *world {
	GinkgoHelper()
	w := &world{
		namespace: newNamespace(ctx), headscale: h, socket: h.SocketPath(),
		list: headscale.NewClient(headscale.UnixSocket(h.SocketPath())), printed: process.NewLog(GinkgoWriter),
	}
	w.dir = newDir()
	for _, option := range options {
		option(w)
	}
	var err error
	w.api, err = apiproxy.Start(plane.Config())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(w.api.Leave)
	w.kubeconfig = writeKubeconfig(ctx, w.namespace, w.dir, w.api.Config())
	w.tag, err = apikey.NewTag(w.api.Config(), w.namespace, v1beta1.DefaultSecretName)
	Expect(err).NotTo(HaveOccurred())
	w.seen = watchKeys(w.namespace)
	w.foreign = w.makeForeignKey(ctx)
	DeferCleanup(w.end)
	return w
}

// makeForeignKey makes a key with Headscale's admin API, as anybody may.
func (w *world) makeForeignKey(ctx context.Context) string {
	GinkgoHelper()
	key, err := w.list.CreateAPIKey(ctx, time.Now().Add(2*time.Hour).Truncate(time.Second))
	Expect(err).NotTo(HaveOccurred())
	prefix, known := key.Prefix()
	Expect(known).To(BeTrue())
	return prefix
}

// end stops the manager and looks at what holds in every spec.
func (w *world) end(ctx SpecContext) {
	w.kill()
	w.seen.stop()
	w.expectSilence()
	keys, err := w.list.ListAPIKeys(ctx)
	Expect(err).NotTo(HaveOccurred())
	for _, key := range keys {
		if key.Prefix == w.foreign {
			Expect(key.Expiration).To(BeTemporally(">", time.Now()), "the key of somebody else was expired")
		}
	}
}

// run starts the manager with these settings.
func (w *world) run(settings ...string) {
	GinkgoHelper()
	w.start(managerBinary, settings)
}

// runUntilKilled runs a manager that kills itself after the step, and waits until it has.
func (w *world) runUntilKilled(ctx context.Context, step rotation.Step, settings ...string) {
	GinkgoHelper()
	w.start(killableBinary, settings, "APIKEY_MANAGER_KILL_AFTER="+string(step))
	Eventually(ctx, w.manager.Exited()).Should(BeClosed(), "the step %s was not reached", step)
	Expect(w.manager.Describe()).To(ContainSubstring("killed"))
}

func (w *world) start(binary string, settings []string, environment ...string) {
	GinkgoHelper()
	Expect(w.manager == nil || !w.manager.Running()).To(BeTrue(), "the manager runs")
	var err error
	command := env.ManagerCommand(binary, w.socket, w.kubeconfig, w.namespace, settings...)
	command.Env = append(command.Env, environment...)
	command.Output, command.Guard = w.printed, guard
	w.manager, err = process.Start(command)
	Expect(err).NotTo(HaveOccurred())
}

// kill ends the manager as a power failure would.
func (w *world) kill() {
	if w.manager != nil {
		w.manager.Kill()
	}
}

// grace is how long a manager may take to end where nothing is promised about that: most of what the
// kubelet gives it, for a busy machine.
const grace = 20 * time.Second

// terminate ends the manager as the kubelet does.
func (w *world) terminate() {
	GinkgoHelper()
	Expect(w.manager.Stop(grace)).To(Succeed())
	Expect(w.manager.ExitCode()).To(BeZero())
}

// managed runs the manager until it is at rest with its first key.
func (w *world) managed(ctx context.Context, settings ...string) *world {
	GinkgoHelper()
	w.run(settings...)
	w.heals(ctx)
	return w
}

// news is what the managers printed since the last hear.
func (w *world) news() string { return w.printed.String()[w.heard:] }

// hear takes note of what was printed.
func (w *world) hear() { w.heard = len(w.printed.String()) }

func countLines(text string) int { return strings.Count(text, "\n") }

// saying is how a reason stands in the log.
func saying(reason rotation.Reason) string { return "reason=" + string(reason) }

func (w *world) secretKey() client.ObjectKey {
	return client.ObjectKey{Namespace: w.namespace, Name: v1beta1.DefaultSecretName}
}

// secret reads the Secret.
func (w *world) secret(ctx context.Context) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	return secret, admin.Get(ctx, w.secretKey(), secret)
}

// stored is the key in the Secret.
func (w *world) stored(ctx context.Context) headscale.Key {
	GinkgoHelper()
	secret, err := w.secret(ctx)
	Expect(err).NotTo(HaveOccurred())
	return apikey.ReadKey(secret)
}

// edit changes the Secret as somebody else, whatever else happens to it meanwhile.
func (w *world) edit(ctx context.Context, change func(*corev1.Secret)) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		secret, err := w.secret(ctx)
		if err != nil {
			return err
		}
		change(secret)
		return admin.Update(ctx, secret)
	}).Should(Succeed())
}

// deleteSecret deletes the Secret, if there is one.
func (w *world) deleteSecret(ctx context.Context) {
	GinkgoHelper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: v1beta1.DefaultSecretName}}
	Expect(client.IgnoreNotFound(admin.Delete(ctx, secret))).To(Succeed())
}

// annotate sets an annotation of the Secret.
func (w *world) annotate(ctx context.Context, name, value string) {
	GinkgoHelper()
	w.edit(ctx, func(secret *corev1.Secret) { metav1.SetMetaDataAnnotation(&secret.ObjectMeta, name, value) })
}

// requestRotation asks for a new key.
func (w *world) requestRotation(ctx context.Context) {
	GinkgoHelper()
	w.annotate(ctx, v1beta1.AnnotationRotateRequestedAt, time.Now().Format(time.RFC3339Nano))
}

// census is what there was at one moment.
type census struct {
	listed map[string]bool // by prefix
	made   int             // by way of the socket on which faults happen
}

// count takes note of the keys that there are.
func (w *world) count(ctx context.Context) census {
	GinkgoHelper()
	keys, err := w.list.ListAPIKeys(ctx)
	Expect(err).NotTo(HaveOccurred())
	c := census{listed: map[string]bool{}}
	for _, key := range keys {
		c.listed[key.Prefix] = true
	}
	if w.faults != nil {
		c.made = len(w.faults.Texts())
	}
	return c
}

// createdSince is how many keys were made since the count. Where no socket of our own
// tells which keys are this world's, all keys in the list must be.
func (w *world) createdSince(ctx context.Context, before census) int {
	GinkgoHelper()
	now := w.count(ctx)
	if w.faults != nil {
		return now.made - before.made
	}
	maps.DeleteFunc(now.listed, func(prefix string, _ bool) bool { return before.listed[prefix] })
	return len(now.listed)
}

// live are our keys that Headscale has not expired.
func (w *world) live(ctx context.Context) ([]headscale.APIKey, error) {
	keys, err := w.list.ListAPIKeys(ctx)
	return slices.DeleteFunc(keys, func(key headscale.APIKey) bool {
		return !w.tag.Owns(key.Expiration) || !key.Expiration.After(time.Now())
	}), err
}
