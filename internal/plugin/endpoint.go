package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
)

// apiKeySecret reads the Secret with the API key of a Headscale, if it has a usable key.
func (c *cluster) apiKeySecret(ctx context.Context, hs *v1beta1.Headscale, now time.Time) (*corev1.Secret, error) {
	name := hs.Spec.APIKey.EffectiveSecretName()
	secret, err := c.secret(ctx, hs.Namespace, name)
	switch {
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("you are not allowed to read Secret %s with the API key (get secrets)", name)
	case err != nil && !apierrors.IsNotFound(err):
		return nil, errors.New(explain(err))
	}
	view := secretView{}
	if err == nil {
		view.metadata = &metav1.PartialObjectMetadata{ObjectMeta: secret.ObjectMeta}
	}
	key := describeKey(hs, view, now)
	if wrong := key.complaint(hs); wrong != "" {
		return nil, errors.New(wrong)
	}
	_, err = storedKey(secret)
	return secret, err
}

// endpoint is the admin endpoint of an API Key Manager, behind a port that the API server forwards.
type endpoint struct {
	*headscale.Client
	dialer httpstream.Dialer

	lock sync.Mutex
	// failure is why the port was not forwarded: nil where that is not known.
	failure error
}

// connectTo connects to the admin endpoint of a Headscale, with the key that the person may read. The
// error is a sentence without an end.
func (a *app) connectTo(ctx context.Context, c *cluster, hs *v1beta1.Headscale) (*endpoint, error) {
	secret, err := c.apiKeySecret(ctx, hs, a.Now())
	if err != nil {
		return nil, err
	}
	return a.adminEndpoint(hs, secret)
}

// adminEndpoint connects to the admin endpoint of a Headscale with the key and the pin in a Secret.
func (a *app) adminEndpoint(hs *v1beta1.Headscale, secret *corev1.Secret) (*endpoint, error) {
	pin, err := headscale.ParsePin(secret.Annotations[v1beta1.AnnotationAdminCertificate])
	if err != nil {
		return nil, fmt.Errorf("the API Key Manager has not reported its admin endpoint: Secret %s has no annotation %s", secret.Name, v1beta1.AnnotationAdminCertificate)
	}
	config, err := a.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	e := &endpoint{}
	if e.dialer, err = portDialer(config, hs.Namespace, resources.PodName(hs)); err != nil {
		return nil, err
	}
	key := headscale.NewKey(string(secret.Data[v1beta1.SecretDataKey]))
	e.Client = headscale.NewClient(headscale.AdminEndpointBehind(e.connect, pin), headscale.WithBearerToken(key))
	return e, nil
}

// portDialer dials the ports of a pod: by WebSocket, or by SPDY if the API server is too old for
// WebSocket.
func portDialer(config *rest.Config, namespace, pod string) (httpstream.Dialer, error) {
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	url := core.RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	tunnel, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, config)
	if err != nil {
		return nil, err
	}
	older := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	return portforward.NewFallbackDialerForStreaming(tunnel, older, httpstream.IsUpgradeFailure), nil
}

// connect forwards the port of the admin endpoint.
func (e *endpoint) connect(ctx context.Context) (net.Conn, error) {
	type dialed struct {
		connection httpstream.Connection
		err        error
	}
	result := make(chan dialed, 1)
	go func() {
		connection, _, err := e.dialer.Dial(portforward.PortForwardProtocolV1Name)
		result <- dialed{connection, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err() // the process ends before the connection
	case made := <-result:
		if made.err != nil {
			e.note(made.err)
			return nil, made.err
		}
		return e.forward(made.connection)
	}
}

// forward turns the streams to the port into a connection.
func (e *endpoint) forward(connection httpstream.Connection) (net.Conn, error) {
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(resources.AdminPort))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failures, err := connection.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, connection.Close())
	}
	_ = failures.Close() // nothing is written to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := connection.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, connection.Close())
	}
	ours, theirs := net.Pipe()
	go e.copyFrom(failures, data, theirs)
	go func() {
		_, _ = io.Copy(data, theirs)
		_ = connection.Close()
	}()
	return ours, nil
}

// copyFrom copies the data from the port. The kubelet's message about an unreachable port is
// recorded before the connection ends.
func (e *endpoint) copyFrom(failures, data io.Reader, to io.WriteCloser) {
	_, _ = io.Copy(to, data)
	if words, _ := io.ReadAll(failures); len(words) > 0 {
		e.note(errors.New(string(words)))
	}
	_ = to.Close()
}

// note records why the port was not forwarded.
func (e *endpoint) note(err error) {
	e.lock.Lock()
	defer e.lock.Unlock()
	e.failure = err
}

// explain says why Headscale could not be called.
func (e *endpoint) explain(hs *v1beta1.Headscale, err error) error {
	e.lock.Lock()
	defer e.lock.Unlock()
	pod := resources.PodName(hs)
	switch {
	case e.answered("is forbidden: "):
		return fmt.Errorf("you are not allowed to forward a port of pod %s (create pods/portforward)", pod)
	case e.answered(fmt.Sprintf("pods %q not found", pod)):
		return fmt.Errorf("there is no pod %s", pod)
	case e.failure != nil:
		return fmt.Errorf("port %d of pod %s cannot be forwarded: %w", resources.AdminPort, pod, e.failure)
	default:
		return err
	}
}

// answered reports whether the API server refused to forward the port with this message. A failed
// upgrade request returns nothing but a message.
func (e *endpoint) answered(words string) bool {
	return e.failure != nil && strings.Contains(e.failure.Error(), words)
}
