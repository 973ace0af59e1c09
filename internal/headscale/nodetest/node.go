// Package nodetest is a node of Tailscale, as far as Headscale sees one: it registers with a pre-auth
// key and stays connected, over the protocol of nodes and on the address of nodes.
package nodetest

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// registerTimeout is how long a node waits for Headscale.
const registerTimeout = 10 * time.Second

// Node is a machine with a key of its own, by which Headscale knows it again.
type Node struct {
	// Hostname is the name of the machine, and Routes are what it announces.
	Hostname string
	Routes   []string

	machine, node *ecdh.PrivateKey
	// server is the public key that it goes on with, or nil.
	server *ecdh.PublicKey
}

// New returns a node that no Headscale has seen.
func New(hostname string, routes ...string) (*Node, error) {
	machine, machineErr := ecdh.X25519().GenerateKey(rand.Reader)
	node, nodeErr := ecdh.X25519().GenerateKey(rand.Reader)
	return &Node{Hostname: hostname, Routes: routes, machine: machine, node: node}, errors.Join(machineErr, nodeErr)
}

// Register registers a new node with a pre-auth key, and reports whether Headscale took the key; an
// error is that it did not answer.
func Register(ctx context.Context, url, key string) (bool, error) {
	n, err := New("node")
	if err != nil {
		return false, err
	}
	return n.Register(ctx, url, key)
}

// Register asks Headscale, as Tailscale does when it starts, to let the node in: with a pre-auth key,
// or with none because Headscale knows the node. It reports whether Headscale does; an error is that
// it did not answer.
func (n *Node) Register(ctx context.Context, url, key string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	request := n.request()
	if key != "" {
		request["Auth"] = map[string]any{"AuthKey": key}
	}
	response, leave, err := n.post(ctx, url, "/machine/register", request) //nolint:bodyclose // leave closes it
	if err != nil {
		return false, err
	}
	defer leave()
	return accepted(response)
}

// RunOn has the node go on with the Noise key that Headscale has now, as Tailscale does while it
// runs. Restart has it ask for the key again.
func (n *Node) RunOn(ctx context.Context, url string) (err error) {
	n.server, err = serverKey(ctx, url)
	return err
}

// Restart has the node ask for Headscale's Noise key whenever it connects.
func (n *Node) Restart() { n.server = nil }

// Connect has Headscale show the node as online, until what it returns is called.
func (n *Node) Connect(ctx context.Context, url string) (leave func(), err error) {
	request := n.request()
	request["Stream"], request["KeepAlive"] = true, true
	request["DiscoKey"] = "discokey:" + hex.EncodeToString(n.machine.PublicKey().Bytes())
	response, leave, err := n.post(ctx, url, "/machine/map", request) //nolint:bodyclose // leave closes it
	if err != nil {
		return nil, err
	}
	if _, err = response.Body.Read(make([]byte, 1)); err == nil && response.StatusCode == http.StatusOK {
		return leave, nil
	}
	leave()
	return nil, fmt.Errorf("connecting: %s: %w", response.Status, err)
}

// Filter is what Headscale tells the node to let in: the packet filter of the first map that it gets.
func (n *Node) Filter(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	request := n.request()
	request["Stream"] = true
	response, leave, err := n.post(ctx, url, "/machine/map", request) //nolint:bodyclose // leave closes it
	if err != nil {
		return "", err
	}
	defer leave()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("asking for a map: %s", response.Status)
	}
	var length uint32
	if err := binary.Read(response.Body, binary.LittleEndian, &length); err != nil {
		return "", err
	}
	var told struct{ PacketFilters, PacketFilter json.RawMessage }
	err = json.NewDecoder(io.LimitReader(response.Body, int64(length))).Decode(&told)
	return string(told.PacketFilters) + string(told.PacketFilter), err
}

// request is what every request of the node says.
func (n *Node) request() map[string]any {
	return map[string]any{
		"Version": capability, "NodeKey": "nodekey:" + hex.EncodeToString(n.node.PublicKey().Bytes()),
		"Hostinfo": map[string]any{"Hostname": n.Hostname, "RoutableIPs": n.Routes},
	}
}

// post sends a request, by HTTP/2 over a connection that is encrypted already. What it returns ends
// the connection.
func (n *Node) post(ctx context.Context, url, path string, content any) (*http.Response, func(), error) {
	server, err := n.server, error(nil)
	if server == nil {
		server, err = serverKey(ctx, url)
	}
	if err != nil {
		return nil, nil, err
	}
	conn, err := dialNoise(ctx, url, server, n.machine)
	if err != nil {
		return nil, nil, err
	}
	response, err := postOver(ctx, conn, path, content)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return response, func() { _, _ = response.Body.Close(), conn.Close() }, nil
}

func postOver(ctx context.Context, conn net.Conn, path string, content any) (*http.Response, error) {
	if deadline, set := ctx.Deadline(); set {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	body, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://headscale"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return transport.RoundTrip(request)
}

// accepted reads Headscale's answer to a registration.
func accepted(response *http.Response) (bool, error) {
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return false, err
	}
	var answer struct {
		MachineAuthorized bool
		Error             string
	}
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		return false, nil
	case response.StatusCode != http.StatusOK:
		return false, fmt.Errorf("registering: %s: %s", response.Status, text)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return false, err
	}
	return answer.MachineAuthorized && answer.Error == "", nil
}
