package instancetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
)

// Server is a Headscale with all that the operator finds it by.
type Server struct {
	ServerOptions
	// Direct asks it past the operator.
	Direct *headscale.Client
	// Lists counts the lists of users that operators asked for.
	Lists atomic.Int32

	cluster *Cluster
	address string

	lock  sync.Mutex
	token string
	// refused is the answer in place of a call, and refusedWrite in place of a write; nil: none.
	refused, refusedWrite error
	// lose is whether the answer of the next write is lost.
	lose bool
}

// ServerOptions say what is behind a Headscale resource.
type ServerOptions struct {
	Namespace, Version string
	// Dial connects to what answers in its place.
	Dial headscale.Dialer
	// Config is what its config has besides a server_url, as entries of a YAML flow mapping.
	Config []string
	// Spec is what its spec has besides version and config, in the same form.
	Spec []string
	// API is what an operator calls, given a connection; nil: the connection itself.
	API func(*Endpoint) instance.API
}

// servers are those that operators can reach, by their address.
var servers sync.Map

// addresses counts the addresses of pods.
var addresses atomic.Int32

// NewServer creates a Headscale resource named headscale, with its pod and its Secret.
func (c *Cluster) NewServer(ctx context.Context, options *ServerOptions) *Server {
	GinkgoHelper()
	s := &Server{
		ServerOptions: *options, cluster: c, token: "key-of-" + options.Namespace, Direct: headscale.NewClient(options.Dial),
		address: fmt.Sprintf("192.0.2.%d", addresses.Add(1)),
	}
	DeferCleanup(s.Direct.Close)
	servers.Store(s.address+":9102", s)
	config := strings.Join(append([]string{"server_url: http://headscale.example"}, s.Config...), ", ")
	spec := strings.Join(append([]string{"version: " + s.Version, "config: {" + config + "}"}, s.Spec...), ", ")
	c.Apply(ctx, s.Namespace, "{apiVersion: headscale.infrado.cloud/v1beta1, kind: Headscale, metadata: {name: headscale}, spec: {"+spec+"}}")
	s.createPod(ctx)
	Expect(c.Admin.Create(ctx, s.Secret())).To(Succeed())
	return s
}

// createPod creates the pod, which is ready.
func (s *Server) createPod(ctx context.Context) {
	GinkgoHelper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "headscale-0", Labels: map[string]string{
			"app.kubernetes.io/managed-by": "headscale-operator", "app.kubernetes.io/instance": "headscale",
		}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: resources.ContainerHeadscale, Image: "headscale"}}},
	}
	Expect(s.cluster.Admin.Create(ctx, pod)).To(Succeed())
	s.SetReady(ctx, true)
}

// SetReady has the pod be ready, or not.
func (s *Server) SetReady(ctx context.Context, ready bool) {
	GinkgoHelper()
	pod := &corev1.Pod{}
	Expect(s.cluster.Admin.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: "headscale-0"}, pod)).To(Succeed())
	pod.Status.PodIP, pod.Status.PodIPs = s.address, []corev1.PodIP{{IP: s.address}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerHeadscale, Ready: ready}}
	Expect(s.cluster.Admin.Status().Update(ctx, pod)).To(Succeed())
}

// Secret is the Secret with the API key that the server takes.
func (s *Server) Secret() *corev1.Secret {
	s.lock.Lock()
	defer s.lock.Unlock()
	return Secret(s.Namespace, s.token)
}

// Secret is the Secret with the API key of the Headscale of a namespace.
func Secret(namespace, token string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "headscale-api-key", Annotations: map[string]string{v1beta1.AnnotationAdminCertificate: pinOf(token)},
			Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
		},
		Data: map[string][]byte{v1beta1.SecretDataKey: []byte(token)},
	}
}

// pinOf is the pin of the certificate that a server has with a key.
func pinOf(token string) string {
	digest := sha256.Sum256([]byte(token))
	return hex.EncodeToString(digest[:])
}

// set changes how the server answers.
func (s *Server) set(change func()) {
	s.lock.Lock()
	defer s.lock.Unlock()
	change()
}

// SetToken has the server take another key only.
func (s *Server) SetToken(token string) { s.set(func() { s.token = token }) }

// SetRefused has the server answer with an error; nil: as usual.
func (s *Server) SetRefused(err error) { s.set(func() { s.refused = err }) }

// SetRefusedWrite has the server answer writes with an error; nil: as usual. See Write.
func (s *Server) SetRefusedWrite(err error) { s.set(func() { s.refusedWrite = err }) }

// LoseAnswer has the answer of the next write be lost. See Write.
func (s *Server) LoseAnswer() { s.set(func() { s.lose = true }) }

// nextWrite is how the next write ends.
func (s *Server) nextWrite() (lose bool, refused error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	refused, lose = s.refusedWrite, s.lose
	s.lose = false
	return lose, refused
}

// Endpoint stands for the connection to an admin endpoint: it takes the key that the server's
// Secret has, and the certificate that says so.
type Endpoint struct {
	*headscale.Client
	server *Server
	pin    headscale.Pin
	key    headscale.Key
}

// connect connects to the server of an address, if there is one.
func connect(address string, pin headscale.Pin, key headscale.Key) instance.API {
	found, known := servers.Load(address)
	if !known {
		return &Endpoint{}
	}
	s, _ := found.(*Server) // nothing else is stored
	endpoint := &Endpoint{server: s, pin: pin, key: key, Client: headscale.NewClient(s.Dial)}
	if s.API == nil {
		return endpoint
	}
	return s.API(endpoint)
}

// Check is what the API Key Manager's endpoint checks.
func (e *Endpoint) Check() error {
	if e.server == nil {
		return fmt.Errorf("%w: connection refused", headscale.ErrUnavailable)
	}
	e.server.lock.Lock()
	defer e.server.lock.Unlock()
	switch {
	case e.server.refused != nil:
		return e.server.refused
	case e.pin.String() != pinOf(e.server.token):
		return headscale.ErrPinMismatch
	case e.key.Reveal() != e.server.token:
		return headscale.ErrUnauthorized
	default:
		return nil
	}
}

// ListUsers is the call that every snapshot begins with.
func (e *Endpoint) ListUsers(ctx context.Context) ([]headscale.User, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	e.server.Lists.Add(1)
	return e.Client.ListUsers(ctx)
}

// Close closes the connection.
func (e *Endpoint) Close() error {
	if e.Client == nil {
		return nil
	}
	return e.Client.Close()
}

// Write makes a call through an endpoint that creates or sets something: it may be refused, or its
// answer be lost, as the spec has the server do.
func Write[T any](e *Endpoint, call func() (T, error)) (T, error) {
	var none T
	if err := e.Check(); err != nil {
		return none, err
	}
	lose, refused := e.server.nextWrite()
	if refused != nil {
		return none, refused
	}
	answer, err := call()
	if lose {
		return none, fmt.Errorf("%w: connection reset", headscale.ErrUnavailable)
	}
	return answer, err
}
