package preauthkeys_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
)

// tailnet is a namespace with a Headscale in it: the resource, whose objects the operator makes, a
// real Headscale and its API Key Manager, which run as processes, and the pod that says so.
type tailnet struct {
	namespace, version string
	server             *env.Headscale
	dir                string
	// socket is between the API Key Manager and Headscale, and loses what it is told to.
	socket  *socket
	manager process.Command
	// metrics is where that one serves its metrics, and printed takes what it prints.
	metrics string
	printed *process.Log
	// direct asks Headscale past all of that.
	direct *headscale.Client
}

// newTailnet starts a Headscale, which the operators will watch.
func newTailnet(ctx context.Context, o *operators, version string) *tailnet {
	GinkgoHelper()
	t := &tailnet{version: version, printed: o.printed}
	o.tailnets = append(o.tailnets, t)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "pak-"}}
	Expect(admin.Create(ctx, namespace)).To(Succeed())
	t.namespace = namespace.Name
	o.namespaces = append(o.namespaces, t.namespace)
	var err error
	t.dir, err = os.MkdirTemp(guard.Dir(), "t-")
	Expect(err).NotTo(HaveOccurred())
	t.server, err = env.StartHeadscale(ctx, env.HeadscaleOptions{
		Binary: world.Servers.Headscale[version], Guard: guard, Dir: t.dir, Output: GinkgoWriter,
		Config: map[string]any{"policy": map[string]any{"mode": "database"}},
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(t.server.Stop)
	t.direct = headscale.NewClient(headscale.UnixSocket(t.server.SocketPath()))
	DeferCleanup(t.direct.Close)
	t.socket, err = startSocket(filepath.Join(t.dir, "lossy.sock"), t.server.SocketPath())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(t.socket.stop)
	t.apply(ctx, "{kind: Headscale, metadata: {name: headscale}, spec: {version: "+version+", config: {server_url: 'http://headscale.example', policy: {mode: database}}}}")
	return t
}

// join starts the API Key Manager, with the rights that the operator has given it, and has the pod
// be ready.
func (t *tailnet) join(ctx context.Context) {
	GinkgoHelper()
	name := client.ObjectKey{Namespace: t.namespace, Name: "headscale"}
	Eventually(func() error {
		binding := &unstructured.Unstructured{}
		binding.SetAPIVersion("rbac.authorization.k8s.io/v1")
		binding.SetKind("RoleBinding")
		return errors.Join(admin.Get(ctx, name, binding), admin.Get(ctx, name, &corev1.ServiceAccount{}))
	}).WithContext(ctx).Should(Succeed())
	kubeconfig, err := world.Plane.ServiceAccountKubeconfig(ctx, admin, name, t.dir)
	Expect(err).NotTo(HaveOccurred())
	t.metrics, err = env.FreeAddress()
	Expect(err).NotTo(HaveOccurred())
	ip := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	t.manager = env.ManagerCommand(world.Binaries.Manager, t.socket.path, kubeconfig, t.namespace, "--metrics-bind-address="+t.metrics, "--admin-bind-address="+net.JoinHostPort(ip, fmt.Sprint(resources.AdminPort)))
	t.manager.Output, t.manager.Guard = t.printed, guard
	t.startManager()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.namespace, Name: "headscale-0", Labels: map[string]string{
			v1beta1.LabelManagedBy: v1beta1.ManagedBy, "app.kubernetes.io/instance": "headscale",
		}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: resources.ContainerHeadscale, Image: "headscale"}}},
	}
	Expect(admin.Create(ctx, pod)).To(Succeed())
	pod.Status.PodIP, pod.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerHeadscale, Ready: true}}
	Expect(admin.Status().Update(ctx, pod)).To(Succeed())
}

// startManager starts the API Key Manager.
func (t *tailnet) startManager() *process.Process {
	GinkgoHelper()
	p, err := process.Start(t.manager)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(p.Kill)
	return p
}

// newTailnets starts an operator and a Headscale of each version.
func newTailnets(ctx context.Context, o *operators, releases []string) []*tailnet {
	GinkgoHelper()
	tailnets := make([]*tailnet, len(releases))
	for i, version := range releases {
		tailnets[i] = newTailnet(ctx, o, version)
	}
	o.start()
	together(tailnets, func(t *tailnet) { t.join(ctx) })
	return tailnets
}

// apply applies a manifest of one of our kinds, as a user does.
func (t *tailnet) apply(ctx context.Context, manifest string) {
	GinkgoHelper()
	object := &unstructured.Unstructured{}
	Expect(yaml.UnmarshalStrict([]byte(manifest), &object.Object)).To(Succeed())
	object.SetAPIVersion(v1beta1.GroupVersion.String())
	object.SetNamespace(t.namespace)
	Expect(admin.Patch(ctx, object, client.Apply, client.FieldOwner("test"), client.ForceOwnership)).To(Succeed()) //nolint:staticcheck // of any kind
}

// database is the path of Headscale's database.
func (t *tailnet) database() string { return filepath.Join(t.dir, t.server.Database) }

// backup copies the database of a Headscale, which it stops and starts for that.
func (t *tailnet) backup(ctx context.Context) {
	GinkgoHelper()
	t.whileStopped(ctx, func() { copyFiles(t.database(), t.database()+".backup") })
}

// restore goes back to the copy.
func (t *tailnet) restore(ctx context.Context) {
	GinkgoHelper()
	t.whileStopped(ctx, func() {
		removeFiles(t.database())
		copyFiles(t.database()+".backup", t.database())
	})
}

// empty begins with an empty database.
func (t *tailnet) empty(ctx context.Context) {
	GinkgoHelper()
	t.whileStopped(ctx, func() { removeFiles(t.database()) })
}

// whileStopped does something while Headscale is stopped.
func (t *tailnet) whileStopped(ctx context.Context, do func()) {
	GinkgoHelper()
	Expect(t.server.Stop()).To(Succeed())
	do()
	Expect(t.server.Start(ctx)).To(Succeed())
}

// suffixes are those of the files of a SQLite database.
var suffixes = []string{"", "-wal", "-shm"}

func copyFiles(from, to string) {
	GinkgoHelper()
	for _, suffix := range suffixes {
		raw, err := os.ReadFile(from + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(to+suffix, raw, 0o600)).To(Succeed())
	}
}

func removeFiles(path string) {
	GinkgoHelper()
	for _, suffix := range suffixes {
		if err := os.Remove(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			Expect(err).NotTo(HaveOccurred())
		}
	}
}

// object is a HeadscalePreAuthKey of a user of its own, so that all keys of that user are its.
type object struct {
	t    *tailnet
	name string
}

// newObject makes a HeadscaleUser and a HeadscalePreAuthKey with more in its spec.
func (t *tailnet) newObject(ctx context.Context, name string, spec ...string) *object {
	GinkgoHelper()
	k := &object{t, name}
	k.makeUser(ctx)
	k.set(ctx, spec...)
	return k
}

// makeUser makes the HeadscaleUser.
func (k *object) makeUser(ctx context.Context) {
	GinkgoHelper()
	k.t.apply(ctx, "{kind: HeadscaleUser, metadata: {name: "+k.name+"}, spec: {headscaleRef: headscale, username: "+k.name+"}}")
}

// set gives the HeadscalePreAuthKey another spec.
func (k *object) set(ctx context.Context, spec ...string) {
	GinkgoHelper()
	k.t.apply(ctx, "{kind: HeadscalePreAuthKey, metadata: {name: "+k.name+"}, spec: {"+
		strings.Join(append([]string{"headscaleRef: headscale", "headscaleUserRef: " + k.name}, spec...), ", ")+"}}")
}

// key names the object, and its Secret.
func (k *object) key() client.ObjectKey {
	return client.ObjectKey{Namespace: k.t.namespace, Name: k.name}
}

// secret reads the Secret.
func (k *object) secret(ctx context.Context) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	return secret, admin.Get(ctx, k.key(), secret)
}

// stored is the key in the Secret, "" where there is none.
func (k *object) stored(ctx context.Context) (string, error) {
	secret, err := k.secret(ctx)
	return string(secret.Data["key"]), client.IgnoreNotFound(err)
}

// edit changes the Secret as somebody else, whatever else happens to it meanwhile.
func (k *object) edit(ctx context.Context, change func(*corev1.Secret)) {
	GinkgoHelper()
	Eventually(func() error {
		secret, err := k.secret(ctx)
		if err != nil {
			return err
		}
		change(secret)
		return admin.Update(ctx, secret)
	}).WithContext(ctx).Should(Succeed())
}

// request asks for another key.
func (k *object) request(ctx context.Context, value string) {
	GinkgoHelper()
	k.edit(ctx, func(secret *corev1.Secret) {
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, v1beta1.AnnotationPreAuthKeyRequested, value)
	})
}

// ledger is what the Secret says of keys on their way and of keys to retire.
func (k *object) ledger(ctx context.Context) string {
	GinkgoHelper()
	secret, err := k.secret(ctx)
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	return secret.Annotations[v1beta1.AnnotationPreAuthKeyPending] + secret.Annotations[v1beta1.AnnotationPreAuthKeyRetiring]
}

// resource reads the HeadscalePreAuthKey.
func (k *object) resource(ctx context.Context) *v1beta1.HeadscalePreAuthKey {
	GinkgoHelper()
	read := &v1beta1.HeadscalePreAuthKey{}
	Expect(admin.Get(ctx, k.key(), read)).To(Succeed())
	return read
}
