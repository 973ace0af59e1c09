package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
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
}

// listed is a node as Headscale lists it.
type listed struct {
	GivenName, NodeKey, RegisterMethod string
	IPAddresses                        []string
	Online                             bool
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
	result, err := callHeadscale(ctx, http.MethodGet, n.server.url()+"/api/v1/node", n.server.readKey(ctx), "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result.Status).To(Equal(http.StatusOK))
	var list struct{ Nodes []listed }
	g.Expect(json.Unmarshal([]byte(result.Body), &list)).To(Succeed())
	g.Expect(list.Nodes).To(HaveLen(1), result.Body)
	g.Expect(list.Nodes[0]).To(And(HaveField("GivenName", "laptop"), HaveField("RegisterMethod", "REGISTER_METHOD_AUTH_KEY"),
		HaveField("IPAddresses", ContainElement(firstAddress))))
	printed, err := kube(ctx, "logs", "-n", n.namespace, "laptop", "--tail=1")
	g.Expect(err).NotTo(HaveOccurred())
	var itself struct {
		State     string
		Addresses []string
		Lost      int
	}
	g.Expect(json.Unmarshal([]byte(strings.TrimSpace(printed)), &itself)).To(Succeed(), printed)
	g.Expect(itself.State).To(Equal("Running"))
	g.Expect(itself.Addresses).To(ContainElement(firstAddress))
	g.Expect(itself.Lost).To(BeZero())
	return list.Nodes[0]
}

// isRegistered sees that the node is registered as at first, and was not started again. That
// it is connected is not waited for: a client whose connection went away with Headscale's pod
// hears nothing of that, and looks for another only after minutes.
func (n *node) isRegistered(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) { g.Expect(n.look(ctx, g).NodeKey).To(Equal(n.key)) }).Should(Succeed())
	Expect(mustKube(ctx, "get", "pod", "-n", n.namespace, "laptop", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")).To(Equal("0"))
}
