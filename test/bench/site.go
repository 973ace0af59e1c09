package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/keyuse"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

const (
	// identityName is the name of the Headscale that a manager belongs to, and so of its
	// ServiceAccount.
	identityName = "headscale"
	// managerGrace is how long a manager may take to end.
	managerGrace = 5 * time.Second
	// storeLimit is how long a key may take to be in the Secret.
	storeLimit = time.Minute
)

// site is a namespace in which an API Key Manager has the rights that the operator gives it,
// and the socket of a Headscale.
type site struct {
	*stage
	binary                        string
	namespace, kubeconfig, socket string
	// metrics is where the manager's metrics are.
	metrics string
	manager *process.Process
}

// newSite makes a site, in which no manager runs yet.
func (l *lab) newSite(ctx context.Context, s *stage, socket string) (*site, error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}
	if err := s.admin.Create(ctx, namespace); err != nil {
		return nil, err
	}
	account := client.ObjectKey{Namespace: namespace.Name, Name: identityName}
	if err := env.GrantManager(ctx, s.admin, account); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.guard.Dir(), "site-")
	if err != nil {
		return nil, err
	}
	kubeconfig, err := s.plane.ServiceAccountKubeconfig(ctx, s.admin, account, dir)
	if err != nil {
		return nil, err
	}
	metrics, err := env.FreeAddress()
	return &site{stage: s, binary: l.manager, namespace: namespace.Name, kubeconfig: kubeconfig, socket: socket, metrics: metrics}, err
}

// atSite starts Headscale, and ends it and the manager after something was done at a site
// beside it.
func (l *lab) atSite(ctx context.Context, s *stage, do func(*env.Headscale, *site) error) (err error) {
	h, err := l.startHeadscale(ctx, s)
	if err != nil {
		return err
	}
	defer h.Kill()
	site, err := l.newSite(ctx, s, h.SocketPath())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.stop()) }()
	return do(h, site)
}

// user is who the manager is for the API server.
func (s *site) user() string {
	return fmt.Sprintf("system:serviceaccount:%s:%s", s.namespace, identityName)
}

// start starts the manager.
func (s *site) start(settings ...string) (err error) {
	s.manager, err = process.Start(process.Command{
		Name: "apikey-manager", Path: s.binary, Guard: s.guard,
		Args: append([]string{
			"--socket-path=" + s.socket, "--secret-name=" + v1beta1.DefaultSecretName, "--metrics-bind-address=" + s.metrics,
		}, settings...),
		Env: []string{"KUBECONFIG=" + s.kubeconfig, "POD_NAMESPACE=" + s.namespace},
	})
	return err
}

// stop ends the manager, if it runs.
func (s *site) stop() error {
	if s.manager == nil || !s.manager.Running() {
		return nil
	}
	return s.manager.Stop(managerGrace)
}

// whenStored returns when a key is in the Secret for the first time, as soon as it is.
func (s *site) whenStored(ctx context.Context) (func() (time.Time, error), error) {
	stored, err := keyuse.WhenStored(ctx, s.admin, s.namespace)
	return func() (time.Time, error) {
		select {
		case at := <-stored:
			return at, nil
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-s.manager.Exited():
			return time.Time{}, fmt.Errorf("the manager ended; it said:\n%s", s.manager.Log().Tail(5))
		case <-time.After(storeLimit):
			return time.Time{}, fmt.Errorf("no key came; the manager said:\n%s", s.manager.Log().Tail(5))
		}
	}, err
}

// clear ends the manager and deletes the Secret.
func (s *site) clear(ctx context.Context) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: v1beta1.DefaultSecretName}}
	return errors.Join(s.stop(), client.IgnoreNotFound(s.admin.Delete(ctx, secret)))
}

// record is what the Secret says.
func (s *site) record(ctx context.Context) (rotation.Record, error) {
	secret := &corev1.Secret{}
	err := s.admin.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: v1beta1.DefaultSecretName}, secret)
	return apikey.ReadRecord(secret), client.IgnoreNotFound(err)
}

// readKey is the key in the Secret, as its users read it.
func (s *site) readKey(ctx context.Context) (string, error) {
	record, err := s.record(ctx)
	return record.Text.Reveal(), err
}

// expired tells whether Headscale lists the key as expired.
func expired(ctx context.Context, admin *headscale.Client, prefix string) (bool, error) {
	keys, err := admin.ListAPIKeys(ctx)
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		if key.Prefix == prefix {
			return !key.Expiration.After(time.Now()), nil
		}
	}
	return true, nil
}

// startHeadscale starts the real Headscale.
func (l *lab) startHeadscale(ctx context.Context, s *stage) (*env.Headscale, error) {
	servers, err := serverbuild.Find(serverbuild.Options{Root: l.root, Headscale: []string{headscaleVersion}})
	if err != nil {
		return nil, err
	}
	return env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: servers.Headscale[headscaleVersion], Guard: s.guard})
}
