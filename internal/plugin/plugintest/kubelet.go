// Package plugintest emulates the kubelet of a node, to which the API server forwards the requests
// of a kubectl plugin. Only tests import it.
package plugintest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// Kubelet forwards ports of the pods of a node.
type Kubelet struct {
	// Ports is what is behind a port; what is missing refuses connections.
	Ports map[string]string
}

// Start starts the kubelet. It returns its node, which is to be created with its status, and what stops
// it.
func (k *Kubelet) Start() (node *corev1.Node, stop func()) {
	server := httptest.NewTLSServer(k)
	node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "node-"}}
	if address, is := server.Listener.Addr().(*net.TCPAddr); is {
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address.IP.String()}}
		node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(address.Port) //nolint:gosec // a port
	}
	return node, server.Close
}

// ServeHTTP serves a request for ports of a pod.
func (k *Kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return // it has been answered
	}
	streams := make(chan httpstream.Stream, 2)
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		streams <- stream
		return nil
	})
	if connection == nil {
		return // it has been answered
	}
	defer func() { _ = connection.Close() }()
	failures, data := <-streams, <-streams
	k.forward(data.Headers().Get(corev1.PortHeader), failures, data)
	<-connection.CloseChan()
}

// forward connects a stream with a port.
func (k *Kubelet) forward(port string, failures, data httpstream.Stream) {
	defer func() { _, _ = failures.Close(), data.Close() }()
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", k.Ports[port])
	if err != nil {
		_, _ = fmt.Fprintf(failures, "error forwarding port %s: connection refused", port)
		return
	}
	go func() {
		_, _ = io.Copy(conn, data)
		_ = conn.Close()
	}()
	_, _ = io.Copy(data, conn)
}
