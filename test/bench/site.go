package main

import (
	"context"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
)

const (
	// managerGrace is how long a manager may take to end, and keyLimit a key to be in the Secret.
	managerGrace = 5 * time.Second
	keyLimit     = time.Minute
)

// site is a namespace in which an API Key Manager has the rights that the operator gives it,
// and the socket of a Headscale.
type site struct {
	*lab
	namespace, kubeconfig, socket string
	// metrics is where the manager's metrics are.
	metrics string
	manager *process.Process
	secrets watch.Interface
	// key is the one that nextKey has seen last.
	key rotation.Record
}

// newSite makes a site, in which no manager runs yet.
func (l *lab) newSite(ctx context.Context, socket string) *site {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}
	check(l.Admin.Create(ctx, namespace))
	account := client.ObjectKey{Namespace: namespace.Name, Name: "headscale"}
	check(env.GrantManager(ctx, l.Admin, account))
	dir := must(os.MkdirTemp(l.Guard.Dir(), "site-"))
	return &site{
		lab: l, namespace: namespace.Name, socket: socket, metrics: must(env.FreeAddress()),
		kubeconfig: must(l.Plane.ServiceAccountKubeconfig(ctx, l.Admin, account, dir)),
		secrets:    must(l.Admin.Watch(ctx, &corev1.SecretList{}, client.InNamespace(namespace.Name))),
	}
}

// atSite starts Headscale, and ends it and the manager after something was done at a site
// beside it.
func (l *lab) atSite(ctx context.Context, do func(*env.Headscale, *site)) {
	h := must(env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: l.Servers.Headscale[headscaleVersion], Guard: l.Guard}))
	defer h.Kill()
	s := l.newSite(ctx, h.SocketPath())
	defer s.stop()
	do(h, s)
}

// start starts the manager.
func (s *site) start(settings ...string) {
	s.manager = must(process.Start(process.Command{
		Name: "apikey-manager", Path: s.Binaries.Manager, Guard: s.Guard,
		Args: append([]string{
			"--socket-path=" + s.socket, "--secret-name=" + v1beta1.DefaultSecretName, "--metrics-bind-address=" + s.metrics,
		}, settings...),
		Env: []string{"KUBECONFIG=" + s.kubeconfig, "POD_NAMESPACE=" + s.namespace},
	}))
}

// stop ends the manager, if it runs.
func (s *site) stop() {
	if s.manager != nil && s.manager.Running() {
		check(s.manager.Stop(managerGrace))
	}
}

// clear ends the manager and deletes the Secret.
func (s *site) clear(ctx context.Context) {
	s.stop()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: v1beta1.DefaultSecretName}}
	check(client.IgnoreNotFound(s.Admin.Delete(ctx, secret)))
}

// nextKey waits until another key than the last is in the Secret, and returns when it came.
func (s *site) nextKey(ctx context.Context) (at time.Time) {
	last := s.key.ID
	with(s.manager, func() {
		at = until(ctx, s.secrets, keyLimit, func(secret *corev1.Secret) bool {
			s.key = apikey.ReadRecord(secret)
			return s.key.Text.Reveal() != "" && s.key.ID != last
		})
	})
	return at
}

// readKey is the key in the Secret, as its users read it.
func (s *site) readKey(ctx context.Context) (string, error) {
	secret := &corev1.Secret{}
	err := s.Admin.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: v1beta1.DefaultSecretName}, secret)
	return apikey.ReadRecord(secret).Text.Reveal(), client.IgnoreNotFound(err)
}
