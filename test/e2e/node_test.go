package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// node is a Tailscale client that has registered with a pre-auth key.
type node struct {
	server *server
	// namespace is where its pod is.
	namespace string
	// key is the node's public key, which a node that registers again would not have.
	key string
	// restarts is how often it was restarted on purpose.
	restarts int
}

// listed is a node as Headscale lists it.
type listed struct {
	ID, GivenName, NodeKey, RegisterMethod string
	IPAddresses, Tags, ApprovedRoutes      []string
	Online                                 bool
	CreatedAt                              time.Time
	User                                   struct{ Name string }
	PreAuthKey                             struct{ Ephemeral bool }
}

// nodeReport is what a node says of itself.
type nodeReport struct {
	State              string
	Addresses, Reached []string
	Lost, Rounds       int
}

// lastReport is the last one of the node in a pod.
func lastReport(ctx context.Context, g Gomega, namespace, pod string) nodeReport {
	printed, err := kube(ctx, "logs", "-n", namespace, pod, "--tail=1")
	g.Expect(err).NotTo(HaveOccurred())
	var last nodeReport
	g.Expect(json.Unmarshal([]byte(strings.TrimSpace(printed)), &last)).To(Succeed(), printed)
	return last
}

// nodes lists the nodes of a Headscale.
func (s *server) nodes(ctx context.Context) ([]listed, error) {
	result, err := callHeadscale(ctx, http.MethodGet, s.url()+"/api/v1/node", s.readKey(ctx), "")
	if err != nil {
		return nil, err
	}
	if result.Status != http.StatusOK {
		return nil, fmt.Errorf("listing nodes: %d %s", result.Status, result.Body)
	}
	var list struct{ Nodes []listed }
	err = json.Unmarshal([]byte(result.Body), &list)
	return list.Nodes, err
}

// firstUser is whose the node is.
const firstUser = "somebody"

// firstAddress is what the first node of a Headscale gets.
const firstAddress = "100.64.0.1"

// registerNode makes a user and a pre-auth key, and runs a node that registers with it.
func registerNode(ctx context.Context, s *server) *node {
	GinkgoHelper()
	user := s.addUser(ctx, firstUser)
	var made struct{ PreAuthKey struct{ Key string } }
	expiration := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	s.mustPost(ctx, "/api/v1/preauthkey", fmt.Sprintf(`{"user":%q,"expiration":%q}`, user, expiration), &made)
	_, err := output(ctx, made.PreAuthKey.Key, kubectl, "create", "secret", "generic", "pre-auth-key", "-n", s.namespace, "--from-file=auth-key=/dev/stdin")
	Expect(err).NotTo(HaveOccurred())
	mustKube(ctx, "label", "-n", s.namespace, "secret/pre-auth-key", strings.ReplaceAll(ours, ": ", "="))
	apply(ctx, podManifest(s.namespace, "laptop", nodeImage, `    volumeMounts: [{name: key, mountPath: /key, readOnly: true}, {name: state, mountPath: /state}, {name: state, mountPath: /tmp}]
  automountServiceAccountToken: false
  volumes: [{name: key, secret: {secretName: pre-auth-key}}, {name: state, emptyDir: {}}]
`, "--url="+s.url(), "--hostname=laptop", "--state=/state", "--auth-key-file=/key/auth-key"))
	n := &node{server: s, namespace: s.namespace}
	Eventually(func(g Gomega) {
		seen := n.look(ctx, g)
		g.Expect(seen.Online).To(BeTrue())
		n.key = seen.NodeKey
	}).Should(Succeed())
	return n
}

// addUser makes a user of Headscale, and returns its ID.
func (s *server) addUser(ctx context.Context, name string) string {
	GinkgoHelper()
	var created struct{ User struct{ ID string } }
	s.mustPost(ctx, "/api/v1/user", fmt.Sprintf(`{"name":%q}`, name), &created)
	return created.User.ID
}

// mustPost sends a request to Headscale with the key, and reads the answer.
func (s *server) mustPost(ctx context.Context, path, body string, into any) {
	GinkgoHelper()
	result, err := callHeadscale(ctx, http.MethodPost, s.url()+path, s.readKey(ctx), body)
	Expect(err).NotTo(HaveOccurred())
	Expect(result.Status).To(Equal(http.StatusOK), path+": "+result.Body)
	Expect(json.Unmarshal([]byte(result.Body), into)).To(Succeed())
}

// look sees that the node is registered, as Headscale says, and that it was never logged
// out, as it says itself.
func (n *node) look(ctx context.Context, g Gomega) listed {
	nodes, err := n.server.nodes(ctx)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(nodes).To(ConsistOf(And(HaveField("GivenName", "laptop"), HaveField("RegisterMethod", "REGISTER_METHOD_AUTH_KEY"),
		HaveField("IPAddresses", ContainElement(firstAddress)))))
	itself := lastReport(ctx, g, n.namespace, "laptop")
	g.Expect(itself.State).To(Equal("Running"))
	g.Expect(itself.Addresses).To(ContainElement(firstAddress))
	g.Expect(itself.Lost).To(BeZero())
	return nodes[0]
}

// isRegistered sees that the node is registered as at first, and was not started again. That
// it is connected is not waited for: of an address that is http:// and a host name, as here, a
// client tries port 443 only when it was cut off (docs/troubleshooting.md).
func (n *node) isRegistered(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) { g.Expect(n.look(ctx, g).NodeKey).To(Equal(n.key)) }).Should(Succeed())
	Expect(mustKube(ctx, "get", "pod", "-n", n.namespace, "laptop", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")).To(Equal(strconv.Itoa(n.restarts)))
}

// reconnect has the node look for Headscale at once, with the state that it has: it is restarted.
func (n *node) reconnect(ctx context.Context) {
	GinkgoHelper()
	n.restarts++
	endProcess(ctx, mustKube(ctx, "get", "pod", "-n", n.namespace, "laptop", "-o", "jsonpath={.metadata.uid}"), "node")
	Eventually(func(g Gomega) {
		g.Expect(n.look(ctx, g)).To(And(HaveField("Online", true), HaveField("NodeKey", n.key)))
	}).Should(Succeed())
}
