package user

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
)

var (
	cluster      = &instancetest.Cluster{}
	newNamespace = cluster.NewNamespace
	apply        = cluster.Apply
	// admin acts as the user of a cluster.
	admin client.Client
)

func TestController(t *testing.T) { instancetest.Run(t, "HeadscaleUsers") }

var _ = cluster.ExpectKstatus(v1beta1.KindUser)

var _ = BeforeSuite(func(ctx SpecContext) {
	cluster.Start(ctx, "user")
	admin = cluster.Admin
})

// startOperator starts an operator that watches all namespaces, or some.
func startOperator(namespaces ...string) {
	GinkgoHelper()
	cluster.StartOperator(&instancetest.Operator{
		Cached: CachedObjects(), Namespaces: namespaces,
		Wrap: rights.Wrap,
		SetUp: func(running context.Context, m manager.Manager, instances *instance.Instances) error {
			r := &Reconciler{Client: m.GetClient(), Live: m.GetAPIReader(), Now: time.Now, Instances: instances}
			return r.SetupWithManager(running, m)
		},
	})
}

// server is a Headscale with all that the operator finds it by.
type server struct{ *instancetest.Server }

// newServer creates a Headscale named headscale in a namespace, behind which is what a dialer
// connects to.
func newServer(ctx context.Context, namespace, version string, dial headscale.Dialer, spec ...string) *server {
	GinkgoHelper()
	return &server{cluster.NewServer(ctx, &instancetest.ServerOptions{
		Namespace: namespace, Version: version, Dial: dial, Spec: spec,
		API: func(connection *instancetest.Endpoint) instance.API { return endpoint{connection} },
	})}
}

// endpoint is a connection to a server.
type endpoint struct{ *instancetest.Endpoint }

func (e endpoint) CreateUser(ctx context.Context, user headscale.NewUser) (headscale.User, error) {
	return instancetest.Write(e.Endpoint, func() (headscale.User, error) { return e.Client.CreateUser(ctx, user) })
}

func (e endpoint) RenameUser(ctx context.Context, id uint64, name string) (headscale.User, error) {
	if err := e.Check(); err != nil {
		return headscale.User{}, err
	}
	return e.Client.RenameUser(ctx, id, name)
}

// names are those of all users in Headscale.
func (s *server) names(ctx context.Context) func(g Gomega) []string {
	return func(g Gomega) []string {
		users, err := s.Direct.ListUsers(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		var names []string
		for i := range users {
			names = append(names, users[i].Name)
		}
		slices.Sort(names)
		return names
	}
}

// named is the user of a name.
func (s *server) named(ctx context.Context, name string) headscale.User {
	GinkgoHelper()
	users, err := s.Direct.ListUsers(ctx)
	Expect(err).NotTo(HaveOccurred())
	for i := range users {
		if users[i].Name == name {
			return users[i]
		}
	}
	Fail("there is no user " + name)
	return headscale.User{}
}

// startHeadscale starts a real Headscale for one container of specs.
func startHeadscale(ctx context.Context, version string) *env.Headscale {
	GinkgoHelper()
	return cluster.StartHeadscale(ctx, version, nil)
}

// stub asks a Headscale what the operator does not.
func stub(hs *env.Headscale) v1.HeadscaleServiceClient {
	GinkgoHelper()
	connection, err := grpc.NewClient("unix:"+hs.SocketPath(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(connection.Close)
	return v1.NewHeadscaleServiceClient(connection)
}

// registerNode has a user have a node, as a developer of Headscale would, and returns its id.
func registerNode(ctx context.Context, hs *env.Headscale, version, user string) uint64 {
	GinkgoHelper()
	key := fmt.Sprintf("%024d", time.Now().UnixNano())
	if version == "v0.29.3" {
		key = "hskey-authreq-" + key
	}
	asks := stub(hs)
	_, err := asks.DebugCreateNode(ctx, &v1.DebugCreateNodeRequest{User: user, Key: key, Name: "web"})
	Expect(err).NotTo(HaveOccurred())
	registered, err := asks.RegisterNode(ctx, &v1.RegisterNodeRequest{User: user, Key: key})
	Expect(err).NotTo(HaveOccurred())
	return registered.GetNode().GetId()
}

// userManifest is a HeadscaleUser with a spec besides its reference.
func userManifest(name, spec string) string {
	return "{apiVersion: headscale.infrado.cloud/v1beta1, kind: HeadscaleUser, metadata: {name: " + name + "}, spec: {headscaleRef: headscale, " + spec + "}}"
}

// get reads a HeadscaleUser; nil: there is none.
func get(ctx context.Context, namespace, name string) func(g Gomega) *v1beta1.HeadscaleUser {
	return instancetest.Get[v1beta1.HeadscaleUser](ctx, cluster, namespace, name)
}

// condition reads the condition Ready.
func condition(ctx context.Context, namespace, name string) func(g Gomega) string {
	return func(g Gomega) string {
		user := get(ctx, namespace, name)(g)
		g.Expect(user).NotTo(BeNil())
		return instancetest.Ready(user.Status.Conditions)
	}
}

// events are the reasons and messages of the events about a HeadscaleUser.
func events(ctx context.Context, namespace, name string) func(g Gomega) []string {
	return cluster.Events(ctx, v1beta1.KindUser, namespace, name)
}

// deleteUser deletes a HeadscaleUser.
func deleteUser(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	Expect(admin.Delete(ctx, &v1beta1.HeadscaleUser{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})).To(Succeed())
}
