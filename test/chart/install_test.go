package chart_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

const (
	crdName    = "crd/headscales.headscale.infrado.cloud"
	deployment = "deployment/headscale-operator-controller-manager"
	// chartAddress is where the documentation takes the chart from, and installerAddress
	// the single file.
	chartAddress     = "oci://ghcr.io/infrado/headscale-operator/charts/headscale-operator"
	installerAddress = "https://github.com/infrado/headscale-operator/releases/latest/download/install.yaml"
)

// withHeadscale are values with a Headscale among the extra objects.
const withHeadscale = `
extraObjects:
- apiVersion: headscale.infrado.cloud/v1beta1
  kind: Headscale
  metadata: {name: extra, namespace: default}
  spec: {version: v0.29.3, config: {server_url: "http://headscale.default.svc:8080"}}
`

// noteCommand matches the lines of the chart's notes that are commands: those that are
// indented, as they are printed.
var noteCommand = regexp.MustCompile(`(?m)^ {2}.*$`)

// cluster is a control plane on which nothing is installed, and a major version of Helm.
type cluster struct {
	*env.ControlPlane
	helm string
	path string
}

// startCluster starts a control plane, whose kubectl and Helm are the first in the PATH
// of what runs on it.
func startCluster(helm string) *cluster {
	GinkgoHelper()
	servers, err := serverbuild.Find(serverbuild.Options{Root: root})
	Expect(err).NotTo(HaveOccurred())
	guard, err := process.NewGuard("chart-" + helm + "-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(guard.Close)
	started, err := env.StartControlPlane(env.ControlPlaneOptions{Servers: servers, Guard: guard})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(started.Stop)
	dir := GinkgoT().TempDir()
	Expect(os.Symlink(servers.Kubectl(), filepath.Join(dir, "kubectl"))).To(Succeed())
	Expect(os.Symlink(filepath.Join(root, "bin", helm), filepath.Join(dir, "helm"))).To(Succeed())
	return &cluster{started, helm, dir + string(os.PathListSeparator) + os.Getenv("PATH")}
}

// shell is a command that runs a script as a user's shell would.
func (c *cluster) shell(ctx context.Context, script string) *exec.Cmd {
	command := exec.CommandContext(ctx, "sh", "-eu")
	command.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "PATH="+c.path)
	command.Dir, command.Stdin = root, strings.NewReader(script)
	return command
}

// mustRun runs a script of the documentation from a clone: with the chart and the single
// file of this commit.
func (c *cluster) mustRun(ctx context.Context, script string) string {
	GinkgoHelper()
	installer := filepath.Join(GinkgoT().TempDir(), "install.yaml")
	Expect(os.WriteFile(installer, []byte(renderInstaller(ctx, "some/operator:v1", "some/manager:v1", "")), 0o600)).To(Succeed())
	script = strings.NewReplacer(chartAddress, chartDir(), installerAddress, installer).Replace(script)
	printed, err := c.shell(ctx, script).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s\n%s", script, printed)
	return string(printed)
}

// must runs kubectl.
func (c *cluster) must(ctx context.Context, args ...string) string {
	GinkgoHelper()
	printed, err := c.Kubectl(ctx, args...)
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(printed)
}

// upgrade installs the chart, or upgrades it, and returns what Helm printed.
func (c *cluster) upgrade(ctx context.Context, values string) (string, error) {
	GinkgoHelper()
	return toolOn(ctx, c.Kubeconfig(), c.helm, "upgrade", "--install", releaseName, chartDir(),
		"--namespace", operatorNamespace, "--create-namespace", "--values", valuesFile(values))
}

// mustUpgrade is upgrade that succeeds.
func (c *cluster) mustUpgrade(ctx context.Context, values string) string {
	GinkgoHelper()
	printed, err := c.upgrade(ctx, values)
	Expect(err).NotTo(HaveOccurred())
	return printed
}

// remove uninstalls the chart and deletes the resource with all that is of its kind.
func (c *cluster) remove(ctx context.Context) {
	GinkgoHelper()
	_, err := toolOn(ctx, c.Kubeconfig(), c.helm, "uninstall", releaseName, "--namespace", operatorNamespace)
	Expect(err).NotTo(HaveOccurred())
	c.must(ctx, "delete", crdName)
}

// reportAvailable says of the operator's Deployment what a controller and a kubelet would
// say: whether its pod runs.
func (c *cluster) reportAvailable(ctx context.Context, available bool) {
	GinkgoHelper()
	word, pods := "False", 0
	if available {
		word, pods = "True", 1
	}
	generation := c.must(ctx, "get", "-n", operatorNamespace, deployment, "-o", "jsonpath={.metadata.generation}")
	c.must(ctx, "patch", "-n", operatorNamespace, deployment, "--subresource=status", "--type=merge", "-p", fmt.Sprintf(
		`{"status": {"observedGeneration": %s, "replicas": 1, "updatedReplicas": 1, "readyReplicas": %[2]d, "availableReplicas": %[2]d,
		  "conditions": [{"type": "Available", "status": %q, "reason": "Tested", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "lastUpdateTime": "2026-01-01T00:00:00Z"}]}}`,
		generation, pods, word))
}

// reportReady says of a Headscale what the operator would, once there is one.
func (c *cluster) reportReady(ctx context.Context, namespace string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		_, err := c.Kubectl(ctx, "patch", "-n", namespace, "headscale/headscale", "--subresource=status", "--type=merge", "-p",
			`{"status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}`)
		g.Expect(err).NotTo(HaveOccurred())
	}).WithContext(ctx).Should(Succeed())
}

// uid is an object's.
func (c *cluster) uid(ctx context.Context, args ...string) string {
	GinkgoHelper()
	return c.must(ctx, append([]string{"get", "-o", "jsonpath={.metadata.uid}"}, args...)...)
}

var _ = Describe("Installing the chart", func() {
	for _, helm := range helms {
		Context("with "+helm, Ordered, func() { installSpecs(helm) })
	}
})

// installSpecs do with a major version of Helm what the documentation says.
func installSpecs(helm string) {
	var c *cluster

	BeforeAll(func() { c = startCluster(helm) })

	It("is refused with a Headscale where the kind is not known yet, and takes it afterwards", func(ctx SpecContext) {
		_, err := c.upgrade(ctx, withHeadscale)
		Expect(err).To(MatchError(ContainSubstring("extraObjects has a Headscale, and this cluster does not know that kind yet: install the chart without it first, and add it with helm upgrade")))
		c.mustUpgrade(ctx, "")
		Expect(c.AwaitResource(ctx)).To(Succeed())
		c.mustUpgrade(ctx, withHeadscale)
		c.must(ctx, "get", "headscale/extra")
		c.remove(ctx)
	})

	for namespace, values := range map[string]string{"default": "", "team-n": "{watchNamespaces: [team-n]}"} {
		It("prints notes whose commands work as they are printed, for the namespace "+namespace, func(ctx SpecContext) {
			if namespace != "default" {
				c.must(ctx, "create", "namespace", namespace)
			}
			notes := c.mustUpgrade(ctx, values)
			Expect(c.AwaitResource(ctx)).To(Succeed())
			c.must(ctx, "create", "secret", "generic", "-n", namespace, "headscale-api-key", "--from-literal=api-key=some-key")
			c.reportAvailable(ctx, true)
			timed, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			script := c.shell(timed, strings.Join(noteCommand.FindAllString(notes, -1), "\n"))
			var printed, complaints strings.Builder
			script.Stdout, script.Stderr = &printed, &complaints
			Expect(script.Start()).To(Succeed())
			c.reportReady(timed, namespace)
			Expect(script.Wait()).To(Succeed(), complaints.String())
			Expect(printed.String()).To(And(ContainSubstring("successfully rolled out"), ContainSubstring("headscale.headscale.infrado.cloud/headscale condition met"), HaveSuffix("some-key")))
			c.remove(ctx)
		})
	}

	It("warns of losing every Headscale only where that is so", func(ctx SpecContext) {
		for values, warned := range map[string]bool{
			"": false, "{crds: {keep: false}}": true, "{crds: {enabled: false}}": false, "{crds: {enabled: false, keep: false}}": false,
		} {
			notes, err := toolOn(ctx, c.Kubeconfig(), helm, "install", releaseName, chartDir(), "--namespace", operatorNamespace, "--dry-run=server", "--values", valuesFile(values))
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.Contains(notes, "Warning: uninstalling this release removes")).To(Equal(warned), values)
		}
	})

	It("has a test that succeeds where the operator runs and the resource is there, and fails elsewhere", func(ctx SpecContext) {
		c.mustUpgrade(ctx, "")
		hooks, err := toolOn(ctx, c.Kubeconfig(), helm, "get", "hooks", releaseName, "--namespace", operatorNamespace)
		Expect(err).NotTo(HaveOccurred())
		test := c.testPod(ctx, hooks)
		Expect(c.AwaitResource(ctx)).To(Succeed())
		c.reportAvailable(ctx, false)
		Expect(test(ctx, "operator")).To(MatchError(ContainSubstring("timed out")))
		c.reportAvailable(ctx, true)
		Expect(test(ctx, "operator")).To(Succeed())
		Expect(test(ctx, "resource")).To(Succeed())
		c.must(ctx, "delete", crdName)
		Eventually(func() error { return test(ctx, "resource") }).WithContext(ctx).Should(
			MatchError(Or(ContainSubstring("doesn't have a resource type"), ContainSubstring("could not find the requested resource"))))
		_, err = toolOn(ctx, c.Kubeconfig(), helm, "uninstall", releaseName, "--namespace", operatorNamespace)
		Expect(err).NotTo(HaveOccurred())
	})

	changeSpecs(helm, func() *cluster { return c })
}

// changeSpecs go from one installation to another.
func changeSpecs(helm string, get func() *cluster) {
	It("takes the choice of a leader away and gives it back", func(ctx SpecContext) {
		c := get()
		for _, step := range []struct{ values, strategy string }{
			{"{leaderElection: {enabled: true}}", "RollingUpdate"}, {"{leaderElection: {enabled: false}}", "Recreate"}, {"{leaderElection: {enabled: true}}", "RollingUpdate"},
		} {
			c.mustUpgrade(ctx, step.values)
			Expect(c.must(ctx, "get", "-n", operatorNamespace, deployment, "-o", "jsonpath={.spec.strategy.type}")).To(Equal(step.strategy))
		}
		c.remove(ctx)
	})

	It("puts a second operator beside the first as documented", func(ctx SpecContext) {
		c := get()
		c.must(ctx, "create", "namespace", "team-b")
		c.mustUpgrade(ctx, "{watchNamespaces: [default]}")
		c.mustRun(ctx, documented("sh", "Several operators in one cluster")[0])
		c.must(ctx, "get", "-n", "team-b", "deployment/headscale-operator-b-controller-manager")
		c.must(ctx, "get", "clusterrole", "headscale-operator-b-headscale-viewer-role", "headscale-operator-headscale-viewer-role")
		_, err := toolOn(ctx, c.Kubeconfig(), helm, "uninstall", "headscale-operator-b", "--namespace", "team-b")
		Expect(err).NotTo(HaveOccurred())
		c.remove(ctx)
	})

	It("takes over from install.yaml and gives back, as documented, and no Headscale goes", func(ctx SpecContext) {
		c := get()
		ways := documented("sh", "From one way to the other")
		Expect(ways).To(HaveLen(3))
		toChart := map[string]string{"helm3": ways[0], "helm4": ways[1]}[helm]
		c.mustRun(ctx, "kubectl apply --server-side -f "+installerAddress)
		Expect(c.AwaitResource(ctx)).To(Succeed())
		c.mustRun(ctx, strings.Split(documented("sh", "The first Headscale")[0], "kubectl wait")[0])
		headscale, crd := c.uid(ctx, "headscale/headscale"), c.uid(ctx, crdName)
		instance := func() string {
			return c.must(ctx, "get", "-n", operatorNamespace, deployment, "-o", `jsonpath={.spec.selector.matchLabels.app\.kubernetes\.io/instance}`)
		}
		for range 2 {
			Expect(instance()).To(BeEmpty())
			c.mustRun(ctx, toChart)
			Expect(instance()).To(Equal(releaseName))
			Expect(c.uid(ctx, "headscale/headscale")).To(Equal(headscale))
			c.mustRun(ctx, ways[2])
		}
		Expect(c.uid(ctx, "headscale/headscale")).To(Equal(headscale))
		Expect(c.uid(ctx, crdName)).To(Equal(crd))
	})
}

// testPod makes what the pod of helm test runs as, and returns how one of its containers
// ends when kubectl does what the container says, with the rights that the pod has.
func (c *cluster) testPod(ctx context.Context, hooks string) func(context.Context, string) error {
	GinkgoHelper()
	c.must(ctx, "apply", "-f", valuesFile(hooks))
	object := objectsAndHooks(hooks)["Pod "+operatorNamespace+"/headscale-operator-test"]
	Expect(object).NotTo(BeNil())
	var pod corev1.Pod
	Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod)).To(Succeed())
	admin, err := client.New(c.Config(), client.Options{})
	Expect(err).NotTo(HaveOccurred())
	kubeconfig, err := c.ServiceAccountKubeconfig(ctx, admin, client.ObjectKey{Namespace: operatorNamespace, Name: pod.Spec.ServiceAccountName}, GinkgoT().TempDir())
	Expect(err).NotTo(HaveOccurred())
	return func(ctx context.Context, name string) error {
		for _, container := range pod.Spec.Containers {
			if container.Name != name {
				continue
			}
			args := []string{"--kubeconfig", kubeconfig}
			for _, arg := range container.Args {
				args = append(args, strings.Replace(arg, "--timeout=60s", "--timeout=2s", 1))
			}
			_, err := c.Kubectl(ctx, args...)
			return err
		}
		return fmt.Errorf("the pod has no container %q", name)
	}
}
