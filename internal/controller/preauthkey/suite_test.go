package preauthkey

import (
	"context"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/test/env"
)

var (
	cluster      = &instancetest.Cluster{}
	newNamespace = cluster.NewNamespace
	apply        = cluster.Apply
	// admin acts as the user of a cluster.
	admin client.Client
)

func TestController(t *testing.T) { instancetest.Run(t, "HeadscalePreAuthKeys") }

var _ = cluster.ExpectKstatus(v1beta1.KindPreAuthKey)

var _ = BeforeSuite(func(ctx SpecContext) {
	cluster.Start(ctx, "key")
	admin = cluster.Admin
})

// reached is where specs cut rotations off; nil: nowhere.
var reached func(client.ObjectKey, rotation.Step)

// startOperator starts an operator that watches all namespaces, or some. It returns what stops it.
func startOperator(namespaces ...string) (stop func()) {
	GinkgoHelper()
	cached := CachedObjects()
	cached[&corev1.Secret{}] = cache.ByObject{Label: labels.SelectorFromSet(labels.Set{v1beta1.LabelManagedBy: v1beta1.ManagedBy})}
	return cluster.StartOperator(&instancetest.Operator{
		Cached: cached, Namespaces: namespaces, Wrap: rights.Wrap,
		SetUp: func(running context.Context, m manager.Manager, instances *instance.Instances) error {
			r := &Reconciler{Reached: reached, Client: m.GetClient(), Live: m.GetAPIReader(), Now: time.Now, Instances: instances}
			return r.SetupWithManager(running, m)
		},
	})
}

// server is a Headscale with all that the operator finds it by.
type server struct {
	*instancetest.Server
	// used are the ids of keys that are shown as used. (A real node would need a Tailscale.)
	used sync.Map
}

// newServer creates a Headscale named headscale in a namespace, behind which is what a dialer
// connects to.
func newServer(ctx context.Context, namespace, version string, dial headscale.Dialer, spec ...string) *server {
	GinkgoHelper()
	s := &server{}
	s.Server = cluster.NewServer(ctx, &instancetest.ServerOptions{
		Namespace: namespace, Version: version, Dial: dial, Spec: spec,
		API: func(connection *instancetest.Endpoint) instance.API { return &endpoint{connection, s} },
	})
	return s
}

// endpoint is a connection to a server.
type endpoint struct {
	*instancetest.Endpoint
	server *server
}

func (e *endpoint) ListPreAuthKeys(ctx context.Context, users []uint64) ([]headscale.PreAuthKey, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	keys, err := e.Client.ListPreAuthKeys(ctx, users)
	for i := range keys {
		if _, used := e.server.used.Load(keys[i].ID); used {
			keys[i].Used = true
		}
	}
	return keys, err
}

func (e *endpoint) CreatePreAuthKey(ctx context.Context, key headscale.NewPreAuthKey) (headscale.PreAuthKey, error) {
	return instancetest.Write(e.Endpoint, func() (headscale.PreAuthKey, error) { return e.Client.CreatePreAuthKey(ctx, key) })
}

func (e *endpoint) ExpirePreAuthKey(ctx context.Context, key headscale.PreAuthKey) error {
	if err := e.Check(); err != nil {
		return err
	}
	return e.Client.ExpirePreAuthKey(ctx, key)
}

// startHeadscale starts a real Headscale for one container of specs.
func startHeadscale(ctx context.Context, version string) *env.Headscale {
	GinkgoHelper()
	return cluster.StartHeadscale(ctx, version, map[string]any{"policy": map[string]any{"mode": "database"}})
}

// keyManifest is a HeadscalePreAuthKey with a spec besides its reference.
func keyManifest(name, spec string) string {
	return "{apiVersion: headscale.infrado.cloud/v1beta1, kind: HeadscalePreAuthKey, metadata: {name: " + name + "}, spec: {headscaleRef: headscale, " + spec + "}}"
}

// get reads a HeadscalePreAuthKey; nil: there is none.
func get(ctx context.Context, namespace, name string) func(g Gomega) *v1beta1.HeadscalePreAuthKey {
	return instancetest.Get[v1beta1.HeadscalePreAuthKey](ctx, cluster, namespace, name)
}

// condition reads the condition Ready.
func condition(ctx context.Context, namespace, name string) func(g Gomega) string {
	return func(g Gomega) string {
		key := get(ctx, namespace, name)(g)
		g.Expect(key).NotTo(BeNil())
		return instancetest.Ready(key.Status.Conditions)
	}
}

// events are the reasons and messages of the events about a HeadscalePreAuthKey.
func events(ctx context.Context, namespace, name string) func(g Gomega) []string {
	return cluster.Events(ctx, v1beta1.KindPreAuthKey, namespace, name)
}

// deleteKey deletes a HeadscalePreAuthKey.
func deleteKey(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	Expect(admin.Delete(ctx, &v1beta1.HeadscalePreAuthKey{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})).To(Succeed())
}
