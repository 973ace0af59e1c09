package apikey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/internal/rotation"
)

var _ = Describe("With a real API server", Ordered, func() {
	var (
		environment *envtest.Environment
		admin       client.Client
		restricted  *rest.Config
		namespace   string
	)

	BeforeAll(func() {
		needAssets()
		environment = &envtest.Environment{ControlPlaneStartTimeout: 2 * time.Minute, ControlPlaneStopTimeout: 2 * time.Minute}
		// As on OpenShift.
		environment.ControlPlane.GetAPIServer().Configure().Append("enable-admission-plugins", "OwnerReferencesPermissionEnforcement")
		config, err := environment.Start()
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(environment.Stop)
		admin, err = client.New(config, client.Options{Scheme: scheme.Scheme})
		Expect(err).NotTo(HaveOccurred())
		user, err := environment.AddUser(envtest.User{Name: "sidecar"}, nil)
		Expect(err).NotTo(HaveOccurred())
		restricted = user.Config()
	})

	BeforeEach(func(ctx SpecContext) {
		space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "secrets-"}}
		Expect(admin.Create(ctx, space)).To(Succeed())
		namespace = space.Name
		grant(ctx, admin, namespace)
		// The API server's authorizer learns of a RoleBinding a moment after it was made.
		secrets, err := NewSecrets(restricted, namespace, "key")
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() bool { _, err := secrets.Get(ctx); return apierrors.IsNotFound(err) }).WithContext(ctx).WithTimeout(10 * time.Second).Should(BeTrue())
	})

	It("reads, creates, updates and watches one Secret with rights to that one alone", func(ctx SpecContext) {
		secrets, err := NewSecrets(restricted, namespace, "key")
		Expect(err).NotTo(HaveOccurred())
		_, err = secrets.Get(ctx)
		Expect(apierrors.IsNotFound(err)).To(BeTrue())
		watcher, err := secrets.Watch(ctx, "")
		Expect(err).NotTo(HaveOccurred())
		defer watcher.Stop()

		created, err := secrets.Create(ctx, WriteRecord(rotation.Record{}, &corev1.Secret{Type: corev1.SecretTypeOpaque}))
		Expect(err).NotTo(HaveOccurred())
		expectEvent(watcher, watch.Added, created.ResourceVersion)
		_, err = secrets.Create(ctx, created)
		Expect(err).To(HaveOccurred())

		created.Labels["team"] = "net"
		updated, err := secrets.Update(ctx, created)
		Expect(err).NotTo(HaveOccurred())
		expectEvent(watcher, watch.Modified, updated.ResourceVersion)
		_, err = secrets.Update(ctx, created)
		Expect(apierrors.IsConflict(err)).To(BeTrue())
		read, err := secrets.Get(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(read).To(Equal(updated))

		Expect(admin.Delete(ctx, read)).To(Succeed())
		expectEvent(watcher, watch.Deleted, "")
	})

	It("gives a Secret its owner without the right to delete it, which an owner given later would need", func(ctx SpecContext) {
		secrets, err := NewSecrets(restricted, namespace, "key")
		Expect(err).NotTo(HaveOccurred())
		owned := &secretStore{owner: ownerBefore}
		created, err := secrets.Create(ctx, WriteRecord(rotation.Record{}, owned.newSecret()))
		Expect(err).NotTo(HaveOccurred())
		Expect(created.OwnerReferences).To(Equal(ownedBy(ownerBefore)))
		created.Annotations = map[string]string{"note": "changed"}
		updated, err := secrets.Update(ctx, created)
		Expect(err).NotTo(HaveOccurred())
		Expect(updated.OwnerReferences).To(Equal(ownedBy(ownerBefore)))

		updated.OwnerReferences = ownedBy(ownerAfter)
		_, err = secrets.Update(ctx, updated)
		Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
		Expect(err).To(MatchError(ContainSubstring("cannot set an ownerRef on a resource you can't delete")))
	})

	It("keeps private keys with the rights to get and patch their Secret, and overwrites nobody's write", func(ctx SpecContext) {
		secrets, err := NewSecrets(restricted, namespace, "key")
		Expect(err).NotTo(HaveOccurred())
		identity := &Identity{Secret: secrets.Named("identity"), Headscale: "headscale"}
		comparison, err := identity.keep(ctx, map[string]string{noise: olderKey})
		Expect(err).NotTo(HaveOccurred())
		Expect(comparison).To(Equal(noise + "=Kept"))
		comparison, err = identity.keep(ctx, map[string]string{noise: youngerKey, relay: youngerKey})
		Expect(err).NotTo(HaveOccurred())
		Expect(comparison).To(Equal(relay + "=Kept," + noise + "=Differs"))
		kept, err := identity.Secret.Get(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(kept.Data).To(Equal(map[string][]byte{noise: []byte(olderKey), relay: []byte(youngerKey)}))
		Expect(kept.Annotations).To(HaveKeyWithValue(v1beta1.AnnotationIdentity, comparison))

		_, err = identity.Secret.Patch(ctx, []byte(`{"metadata":{"resourceVersion":"1"},"data":{"a":"YQ=="}}`))
		Expect(apierrors.IsConflict(err)).To(BeTrue(), "%v", err)
		_, err = secrets.Named("identity").Update(ctx, kept)
		Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
	})

	It("tells a refusal from an API server that is not there", func(ctx SpecContext) {
		forbidden, err := NewSecrets(restricted, namespace, "another")
		Expect(err).NotTo(HaveOccurred())
		_, err = forbidden.Get(ctx)
		Expect(reasonOf(err)).To(Equal(ReasonForbidden))
		_, err = forbidden.Watch(ctx, "")
		Expect(reasonOf(err)).To(Equal(ReasonForbidden))

		away, err := NewSecrets(&rest.Config{Host: "https://127.0.0.1:1"}, namespace, "key")
		Expect(err).NotTo(HaveOccurred())
		_, err = away.Get(ctx)
		Expect(reasonOf(err)).To(Equal(ReasonKubernetesUnavailable))
		_, err = away.Watch(ctx, "")
		Expect(reasonOf(err)).To(Equal(ReasonKubernetesUnavailable))
	})

	It("says what is wrong with a configuration that cannot work", func() {
		_, err := NewSecrets(&rest.Config{Host: "https://x", TLSClientConfig: rest.TLSClientConfig{CAFile: "/absent"}}, "n", "s")
		Expect(err).To(MatchError(HavePrefix("making a client for the Kubernetes API: ")))
	})

	DescribeTable("keeps a key of a Headscale that comes, goes and is upgraded",
		func(ctx SpecContext, first, then headscaletest.Release) {
			directory := shortDirectory()
			socket := filepath.Join(directory, "run", "hs.sock") // The directory comes with Headscale.
			secrets, err := NewSecrets(restricted, namespace, "key")
			Expect(err).NotTo(HaveOccurred())
			server := headscaletest.New(socket, first)
			stop := run(socket, secrets)
			defer stop()

			Expect(os.Mkdir(filepath.Dir(socket), 0o700)).To(Succeed())
			Expect(server.Start()).To(Succeed())
			defer server.Stop()
			valid := func() bool {
				secret, err := secrets.Get(ctx)
				return err == nil && server.Validate(string(secret.Data[v1beta1.SecretDataKey]))
			}
			Eventually(valid).WithTimeout(10 * time.Second).Should(BeTrue())
			Expect(server.CreatedKeys()).To(Equal(1))

			By("restarting on an empty database, as another release")
			server.Stop()
			server.SetRelease(then)
			server.SetDatabase(&headscaletest.Database{})
			Expect(server.Start()).To(Succeed())
			Eventually(valid).WithTimeout(10 * time.Second).Should(BeTrue())
			Expect(server.ValidKeys()).To(HaveLen(1))
		},
		Entry("gRPC to HTTP", headscaletest.V028, headscaletest.V030),
		Entry("HTTP to gRPC", headscaletest.V030, headscaletest.V028),
	)
})

// grant gives the sidecar's user what the operator gives the sidecar.
func grant(ctx context.Context, admin client.Client, namespace string) {
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "sidecar"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"key"}, Verbs: []string{"get", "watch", "update", "patch"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"identity"}, Verbs: []string{"get", "patch"}},
	}}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "sidecar"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "sidecar"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "sidecar"}}}
	Expect(admin.Create(ctx, role)).To(Succeed())
	Expect(admin.Create(ctx, binding)).To(Succeed())
}

func expectEvent(watcher watch.Interface, kind watch.EventType, version string) {
	GinkgoHelper()
	var event watch.Event
	Eventually(func() watch.EventType {
		Eventually(watcher.ResultChan()).WithTimeout(10 * time.Second).Should(Receive(&event))
		return event.Type
	}).WithTimeout(10 * time.Second).ShouldNot(Equal(watch.Bookmark))
	Expect(event.Type).To(Equal(kind))
	if version != "" {
		Expect(event.Object).To(HaveField("ResourceVersion", version))
	}
}

// shortDirectory is one whose path leaves room for a socket's name.
func shortDirectory() string {
	directory, err := os.MkdirTemp("", "hs")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, directory)
	return directory
}

// run starts a Manager and returns what ends it.
func run(socket string, secrets Secrets) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	admin := headscale.NewClient(headscale.UnixSocket(socket))
	manager := New(Config{Admin: admin, Secrets: secrets, SocketPath: socket, Clock: time.Now, Tag: testTag,
		Settings: defaults, Log: slog.New(slog.NewTextHandler(GinkgoWriter, nil))})
	done := make(chan error, 1)
	go func() { done <- manager.Start(ctx) }()
	return func() {
		cancel()
		Eventually(done).Should(Receive(BeNil()))
		Expect(admin.Close()).To(Succeed())
	}
}

var _ = Describe("The watch on the socket", func() {
	It("tells when the socket comes and goes, and its directory too", func() {
		leaks := goleak.IgnoreCurrent()
		directory := filepath.Join(shortDirectory(), "run")
		path := filepath.Join(directory, "hs.sock")
		ctx, cancel := context.WithCancel(context.Background())
		wake, done := newWaker(), make(chan struct{})
		go func() { defer close(done); watchSocket(ctx, path, wake, slog.New(slog.DiscardHandler)) }()

		for round := range 2 {
			By(fmt.Sprintf("round %d", round))
			Expect(os.Mkdir(directory, 0o700)).To(Succeed())
			Eventually(func() error { // It may come late to a new directory.
				listener, err := net.Listen("unix", path)
				Expect(err).NotTo(HaveOccurred())
				defer func() { _ = listener.Close() }()
				return told(wake.socket)
			}).WithTimeout(10 * time.Second).Should(Succeed())
			Eventually(wake.socket).Should(Receive(), "the socket went")
			settle(wake.socket)
			Expect(os.WriteFile(filepath.Join(directory, "another"), nil, 0o600)).To(Succeed())
			Expect(told(wake.socket)).NotTo(Succeed())
			Expect(os.RemoveAll(directory)).To(Succeed())
			settle(wake.socket)
		}
		cancel()
		Eventually(done).Should(BeClosed())
		Eventually(func() error { return goleak.Find(leaks) }).Should(Succeed())
	})
})

var _ = Describe("The look at the socket, where it cannot be watched", func() {
	It("tells when it is another one", func() {
		leaks := goleak.IgnoreCurrent()
		path := filepath.Join(shortDirectory(), "hs.sock")
		ctx, cancel := context.WithCancel(context.Background())
		wake, done := newWaker(), make(chan struct{})
		go func() { defer close(done); pollSocket(ctx, path, wake) }()
		listener, err := net.Listen("unix", path)
		Expect(err).NotTo(HaveOccurred())
		drainAfter(wake.socket, 2*time.Second) // It may or may not have been there at first.
		Expect(listener.Close()).To(Succeed())
		Eventually(wake.socket).Should(Receive(), "it went")
		listener, err = net.Listen("unix", path)
		Expect(err).NotTo(HaveOccurred())
		Eventually(wake.socket).Should(Receive(), "it came")
		Expect(listener.Close()).To(Succeed())
		cancel()
		Eventually(done).Should(BeClosed())
		Eventually(func() error { return goleak.Find(leaks) }).Should(Succeed())
	})
})

// told waits a moment for news.
func told(channel chan struct{}) error {
	select {
	case <-channel:
		return nil
	case <-time.After(100 * time.Millisecond):
		return errors.New("nothing was told")
	}
}

// drainAfter takes a token that may come within a time.
func drainAfter(channel chan struct{}, limit time.Duration) {
	select {
	case <-channel:
	case <-time.After(limit):
	}
}

// settle takes the tokens that are still to come: each event of a socket may give one of its own.
func settle(channel chan struct{}) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Consistently(channel).WithTimeout(time.Second).ShouldNot(Receive())
	}).Should(Succeed())
}
