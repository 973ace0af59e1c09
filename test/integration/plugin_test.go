package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/nodetest"
	"infrado.cloud/headscale-operator/internal/plugin/plugintest"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// said is what a program printed, and its exit status.
type said struct {
	Stdout, Stderr string
	Status         int
}

// installPlugin builds the plugin, and puts it with kubectl and the script that completes
// it into a directory for the PATH.
func installPlugin(ctx context.Context) string {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	Expect(serverbuild.BuildProgram(ctx, root, "./cmd/kubectl-headscale", filepath.Join(dir, "kubectl-headscale"), GinkgoWriter)).To(Succeed())
	Expect(os.Symlink(servers.Kubectl(), filepath.Join(dir, "kubectl"))).To(Succeed())
	script := kubectl(ctx, dir, plane.Kubeconfig(), "headscale", "completion")
	Expect(script.Status).To(BeZero(), script.Stderr)
	Expect(os.WriteFile(filepath.Join(dir, "kubectl_complete-headscale"), []byte(script.Stdout), 0o700)).To(Succeed())
	return dir
}

// kubectl runs kubectl with the plugins of a directory.
func kubectl(ctx context.Context, dir, kubeconfig string, args ...string) said {
	GinkgoHelper()
	command := exec.CommandContext(ctx, filepath.Join(dir, "kubectl"), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "KUBECACHEDIR="+filepath.Join(dir, "cache"), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	var stdout, stderr strings.Builder
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var failed *exec.ExitError
	Expect(err == nil || errors.As(err, &failed)).To(BeTrue(), "kubectl does not run: %v", err)
	return said{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

var _ = Describe("kubectl headscale", Ordered, func() {
	var (
		hs        *server
		dir       string
		namespace string
	)
	// plugin runs the plugin as an administrator, as kubectl does.
	plugin := func(ctx context.Context, args ...string) said {
		GinkgoHelper()
		return kubectl(ctx, dir, plane.Kubeconfig(), append([]string{"headscale", "-n", namespace}, args...)...)
	}
	// reveal is the key that the plugin reveals.
	reveal := func(ctx context.Context) string {
		GinkgoHelper()
		got := plugin(ctx, "key", "--reveal")
		Expect(got).To(And(HaveField("Status", 0), HaveField("Stderr", "")))
		Expect(got.Stdout).To(MatchRegexp(`^hskey-api-\S+\n$`), "the bare key and nothing else")
		return strings.TrimSuffix(got.Stdout, "\n")
	}
	prefixOf := func(ctx context.Context) string {
		GinkgoHelper()
		secret, err := hs.secret(ctx, secretName)
		Expect(err).NotTo(HaveOccurred())
		return secret.Annotations[v1beta1.AnnotationKeyPrefix]
	}

	BeforeAll(func(ctx SpecContext) {
		namespace = newNamespace(ctx)
		dir = installPlugin(ctx)
		hs = runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
	})

	It("says with its exit status when the Headscale is ready", func(ctx SpecContext) {
		Eventually(func() said { return plugin(ctx, "status") }).Should(And(HaveField("Status", 0), HaveField("Stderr", ""), HaveField("Stdout", And(
			HavePrefix("Headscale  "+namespace+"/headscale, "+serverbuild.DefaultHeadscale+": Ready\n"), ContainSubstring("Key        Valid, prefix ")))))
		hs.awaitRest(ctx, secretName)
	})

	It("reveals the key that Headscale accepts, and no part of it otherwise", func(ctx SpecContext) {
		key := reveal(ctx)
		Expect(hs.keyStatus(ctx, key)).To(Equal(http.StatusOK))
		for _, args := range [][]string{{"status"}, {"key"}, {"key", "-o", "yaml"}, {"status", "-o", "json"}, {"events"}} {
			got := plugin(ctx, args...)
			Expect(got.Status).To(BeZero(), got.Stderr)
			Expect(strings.Contains(got.Stdout+got.Stderr, key[len(key)-64:])).To(BeFalse(), "the secret half of the key is printed")
		}
	})

	It("has the key replaced, and the old one is refused by then", func(ctx SpecContext) {
		old, oldPrefix := reveal(ctx), prefixOf(ctx)
		got := plugin(ctx, "rotate", "headscale")
		Expect(got.Status).To(BeZero(), got.Stderr)
		Expect(hs.keyStatus(ctx, old)).To(Equal(http.StatusUnauthorized), "at once: rotate has waited for it")
		renewed := reveal(ctx)
		Expect(renewed).NotTo(Equal(old))
		Expect(hs.keyStatus(ctx, renewed)).To(Equal(http.StatusOK))
		Expect(got.Stdout).To(Equal("Headscale " + namespace + "/headscale has a new API key: " + prefixOf(ctx) + " in place of " + oldPrefix + ", which is revoked.\n"))
		Expect(got.Stderr).To(Equal("Requested a new API key for Headscale " + namespace + "/headscale.\n" +
			"The operator forwarded the request to Secret " + secretName + ".\n" +
			"The API Key Manager stored the new key " + prefixOf(ctx) + ".\n" +
			"The old key " + oldPrefix + " is revoked.\n"))
	})

	It("has the key replaced for several who ask at the same time, and for programs", func(ctx SpecContext) {
		old := prefixOf(ctx)
		answers := make(chan said)
		for range 2 {
			go func() {
				defer GinkgoRecover()
				answers <- plugin(ctx, "rotate", "-o", "json")
			}()
		}
		for range 2 {
			var got said
			Eventually(answers).Should(Receive(&got))
			Expect(got.Status).To(BeZero(), got.Stderr)
			report := map[string]any{}
			Expect(json.Unmarshal([]byte(got.Stdout), &report)).To(Succeed())
			Expect(report).To(And(HaveKeyWithValue("state", "Rotated"), HaveKeyWithValue("oldRevoked", true), HaveKeyWithValue("newPrefix", Not(Equal(old)))))
		}
		hs.awaitRest(ctx, secretName)
		Expect(hs.keyStatus(ctx, reveal(ctx))).To(Equal(http.StatusOK))
	})

	It("has the key replaced for somebody who may not read Secrets", func(ctx SpecContext) {
		const name = "rotator"
		Expect(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})).To(Succeed())
		Expect(admin.Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{v1beta1.GroupName}, Resources: []string{"headscales"}, Verbs: []string{"get", "patch"}},
		}})).To(Succeed())
		Expect(admin.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: name}},
		})).To(Succeed())
		config, err := plane.ServiceAccountKubeconfig(ctx, admin, client.ObjectKey{Namespace: namespace, Name: name}, GinkgoT().TempDir())
		Expect(err).NotTo(HaveOccurred())
		hs.awaitReady(ctx)
		// The API server's authorizer learns of a RoleBinding a moment after it was made.
		Eventually(func() int { return kubectl(ctx, dir, config, "auth", "can-i", "patch", "headscales").Status }).Should(BeZero())
		old := prefixOf(ctx)
		// Who may not read Secrets learns of the old key from the status.
		Eventually(func() *v1beta1.APIKeyStatus { return hs.get(ctx).Status.APIKey }).Should(HaveValue(HaveField("KeyPrefix", old)))
		got := kubectl(ctx, dir, config, "headscale", "rotate", "headscale")
		Expect(got.Status).To(BeZero(), got.Stderr)
		Expect(prefixOf(ctx)).NotTo(Equal(old))
		Expect(got.Stdout).To(Equal("Headscale " + namespace + "/headscale has a new API key: " + prefixOf(ctx) + " in place of " + old + ".\n"))
		hs.awaitRest(ctx, secretName)
	})

	It("lists what happened, the newest last", func(ctx SpecContext) {
		Eventually(func() string { return plugin(ctx, "events").Stdout }).Should(MatchRegexp(
			`(?s)^AGE .*Created +Headscale/headscale +Created StatefulSet headscale\n.*KeyStored.*KeyRotated.*KeyRotated`))
	})

	It("is completed by kubectl", func(ctx SpecContext) {
		Expect(kubectl(ctx, dir, plane.Kubeconfig(), "__complete", "headscale", "rot").Stdout).To(HavePrefix("rotate\t"))
		Expect(kubectl(ctx, dir, plane.Kubeconfig(), "__complete", "headscale", "status", "-n", namespace, "").Stdout).To(HavePrefix("headscale\n:4\n"))
	})

	It("says when the operator does not run, and the request is carried out once it does", func(ctx SpecContext) {
		old, oldPrefix := reveal(ctx), prefixOf(ctx)
		Expect(world.Operator.Stop()).To(Succeed())
		got := plugin(ctx, "rotate", "--timeout=15s")
		Expect(got).To(And(HaveField("Status", 1), HaveField("Stdout", ""), HaveField("Stderr", ContainSubstring(
			"error: no new API key was stored within 15s: the operator did not forward the request to Secret "+secretName+", so it does not seem to run; "))))
		Expect(hs.keyStatus(ctx, old)).To(Equal(http.StatusOK))

		var err error
		world.Operator, err = world.RunOperator(ctx, binaries.Operator, unelected)
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() string { return prefixOf(ctx) }).Should(Not(Equal(oldPrefix)))
		hs.awaitRest(ctx, secretName)
		Expect(hs.keyStatus(ctx, reveal(ctx))).To(Equal(http.StatusOK))
	})

	It("says until when the old key is valid, where it is not revoked at once", func(ctx SpecContext) {
		hs.patch(ctx, `{"spec":{"api_key":{"revocation_delay":"10m"}}}`)
		hs.awaitReady(ctx)
		old := reveal(ctx)
		got := plugin(ctx, "rotate")
		Expect(got.Status).To(BeZero(), got.Stderr)
		Expect(got.Stdout).To(MatchRegexp(`, which is valid until \d{4}-\d\d-\d\dT\S+Z\.\n$`))
		Expect(hs.keyStatus(ctx, old)).To(Equal(http.StatusOK))
		Expect(hs.keyStatus(ctx, reveal(ctx))).To(Equal(http.StatusOK))
		Expect(plugin(ctx, "key").Stdout).To(ContainSubstring("Retiring   prefix "))
	})

	It("refuses at once what nobody would carry out", func(ctx SpecContext) {
		hs.patch(ctx, `{"spec":{"api_key":{"auto_manage":false}}}`)
		hs.awaitReady(ctx)
		got := plugin(ctx, "rotate")
		Expect(got).To(Equal(said{"", "error: the key of Headscale " + namespace + "/headscale is not rotated: set spec.api_key.auto_manage to true first\n", 1}))
		Expect(plugin(ctx, "key", "--reveal")).To(And(HaveField("Status", 0), HaveField("Stderr", ContainSubstring("This key is not rotated"))))
		Expect(plugin(ctx, "status")).To(And(HaveField("Status", 0), HaveField("Stdout", ContainSubstring("Rotation   none: spec.api_key.auto_manage is false"))))
	})
})

var _ = Describe("kubectl headscale nodes", func() {
	It("shows and changes a node that registered, through a forwarded port of the API Key Manager", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		dir := installPlugin(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		apply(ctx, namespace, userManifest("alice", ", deletionPolicy: Retain"))
		hs.awaitReady(ctx)
		user := readyUser(ctx, namespace, "alice")
		plugin := func(args ...string) said {
			GinkgoHelper()
			return kubectl(ctx, dir, plane.Kubeconfig(), append([]string{"headscale", "-n", namespace}, args...)...)
		}

		By("registering a node as Tailscale does")
		asks := headscale.NewClient(headscale.UnixSocket(hs.pod.HostPath(containerManager, v1beta1.DefaultSocketPath)))
		defer func() { _ = asks.Close() }()
		key, err := asks.CreatePreAuthKey(ctx, headscale.NewPreAuthKey{UserID: user.Status.UserID, Expiration: time.Now().Add(time.Hour)})
		Expect(err).NotTo(HaveOccurred())
		router, err := nodetest.New("router", "10.1.0.0/24", "10.2.0.0/24")
		Expect(err).NotTo(HaveOccurred())
		url := "http://" + hs.pod.Address(containerHeadscale, "http")
		Expect(router.Register(ctx, url, key.Key.Reveal())).To(BeTrue())

		By("having no kubelet yet, and then one")
		Expect(plugin("nodes")).To(And(HaveField("Status", 1), HaveField("Stdout", ""), HaveField("Stderr", MatchRegexp(`^error: .*, so Headscale `+namespace+`/headscale cannot be queried\n$`))))
		bindToKubelet(ctx, hs, &plugintest.Kubelet{Ports: map[string]string{"9102": hs.pod.Address(containerManager, "apikey-admin")}})
		Expect(plugin("nodes")).To(And(HaveField("Status", 0), HaveField("Stderr", ""), HaveField("Stdout", MatchRegexp(`\n1 +router +alice +100\.64\.0\.1\S* .* - +10\.1\.0\.0/24,10\.2\.0\.0/24\n$`))))

		By("approving its routes, expiring and deleting it")
		Expect(plugin("nodes", "approve-routes", "router")).To(And(HaveField("Status", 2), HaveField("Stderr", HaveSuffix("use --yes to skip the question\n"))))
		Expect(plugin("nodes", "approve-routes", "router", "10.2.0.0/24", "--yes")).To(And(HaveField("Status", 0), HaveField("Stdout", HavePrefix("Approved 10.2.0.0/24 for node router (id 1, user alice, 100.64.0.1"))))
		Expect(hs.nodes(ctx)).To(ConsistOf(HaveField("ApprovedRoutes", ConsistOf("10.2.0.0/24"))))
		Expect(kubectl(ctx, dir, plane.Kubeconfig(), "__complete", "headscale", "nodes", "-n", namespace, "approve-routes", "router", "").Stdout).To(HavePrefix("10.1.0.0/24\n:4\n"))
		Expect(router.Register(ctx, url, "")).To(BeTrue())
		Expect(plugin("nodes", "expire", "router", "--yes")).To(HaveField("Status", 0))
		Expect(router.Register(ctx, url, "")).To(BeFalse(), "it has to log in again")
		Expect(plugin("nodes", "delete", "router", "--yes")).To(And(HaveField("Status", 0), HaveField("Stdout", HavePrefix("Deleted node router (id 1"))))
		Expect(hs.nodes(ctx)).To(BeEmpty())
		Expect(plugin("backup")).To(Equal(said{"Headscale  " + namespace + "/headscale\nBackup     Off: spec.backup is not set\n", "", 0}))
	})
})

// bindToKubelet has the pod of a Headscale be on the node of a kubelet.
func bindToKubelet(ctx context.Context, hs *server, k *plugintest.Kubelet) {
	GinkgoHelper()
	node, stop := k.Start()
	DeferCleanup(stop)
	status := node.Status
	Expect(admin.Create(ctx, node)).To(Succeed())
	node.Status = status
	Expect(admin.Status().Update(ctx, node)).To(Succeed())
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: hs.key.Namespace, Name: hs.key.Name + "-0"}}
	Expect(admin.SubResource("binding").Create(ctx, pod, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node.Name}})).To(Succeed())
}
