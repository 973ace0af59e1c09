package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const (
	operatorNamespace  = "headscale-operator-system"
	operatorDeployment = "deployment/headscale-operator-controller-manager"
	crdName            = "crd/headscales.headscale.infrado.cloud"
	chartPath          = "charts/headscale-operator"
)

// deleteDefinitions deletes the CustomResourceDefinitions of all our kinds, as many as there are.
func deleteDefinitions(ctx context.Context) {
	GinkgoHelper()
	for name := range strings.FieldsSeq(mustKube(ctx, "get", "crd", "-o", "name")) {
		if strings.HasSuffix(name, ".headscale.infrado.cloud") {
			mustKube(ctx, "delete", "--ignore-not-found", "--timeout=1m", name)
		}
	}
}

// release is an installation with Helm of the chart in a clone.
type release struct{ helm, source string }

// values are the flags that choose images by their tags.
func values(operatorTag, managerTag string) []string {
	flags := []string{
		"--set", "image.repository=" + operatorRepository, "--set", "image.tag=" + operatorTag,
		"--set", "managerImage.repository=" + managerRepository, "--set", "managerImage.tag=" + managerTag,
	}
	if os.Getenv("E2E_PULLS") == "" {
		flags = append(flags, "--set", "test.image="+kubectlImage)
	}
	return flags
}

// install installs the chart, or upgrades what is installed, and returns what was printed.
func (r release) install(ctx context.Context, operatorTag, managerTag string, more ...string) string {
	GinkgoHelper()
	args := []string{"upgrade", "--install", "headscale-operator", filepath.Join(r.source, chartPath),
		"--namespace", operatorNamespace, "--wait", "--timeout", "2m"}
	args = append(append(args, values(operatorTag, managerTag)...), more...)
	printed, err := output(ctx, "", bin(r.helm), args...)
	Expect(err).NotTo(HaveOccurred())
	return printed
}

// test runs the chart's tests.
func (r release) test(ctx context.Context, timeout string) error {
	_, err := output(ctx, "", bin(r.helm), "test", "headscale-operator", "--namespace", operatorNamespace, "--timeout", timeout)
	return err
}

// uninstall removes the release.
func (r release) uninstall(ctx context.Context) {
	GinkgoHelper()
	_, err := output(ctx, "", bin(r.helm), "uninstall", "headscale-operator", "--namespace", operatorNamespace, "--wait")
	Expect(err).NotTo(HaveOccurred())
}

// renderInstaller makes the install.yaml of a clone.
func renderInstaller(ctx context.Context, source, operatorTag, managerTag string) string {
	GinkgoHelper()
	file := filepath.Join(GinkgoT().TempDir(), "install.yaml")
	manifests, err := output(ctx, "", "env", "KUSTOMIZE="+bin("kustomize"), "WATCH_NAMESPACES=",
		"IMG="+operatorRepository+":"+operatorTag, "APIKEY_MANAGER_IMG="+managerRepository+":"+managerTag, filepath.Join(source, "hack", "render-installer"))
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(file, []byte(manifests), 0o600)).To(Succeed())
	return file
}

// applyInstaller does what docs/install.md says to do with an install.yaml.
func applyInstaller(ctx context.Context, file string) {
	GinkgoHelper()
	mustKube(ctx, "apply", "--server-side", "-f", file)
	mustKube(ctx, "rollout", "status", "-n", operatorNamespace, operatorDeployment, "--timeout=1m")
}

// deleteHeadscales deletes all Headscales and waits until what ran for them is gone.
// Once their kind is gone, Kubernetes' garbage collector may not find what was theirs.
func deleteHeadscales(ctx context.Context) {
	GinkgoHelper()
	mustKube(ctx, "delete", "headscaleusers", "--all", "-A", "--timeout=2m")
	mustKube(ctx, "delete", "headscales", "--all", "-A", "--cascade=foreground", "--timeout=2m")
}

// manifestSpecs install with the single file, upgrade with it, and move on to the chart.
func manifestSpecs() {
	const namespace = "e2e-manifest"
	var (
		before []string
		hs     *server
	)

	BeforeAll(func(ctx SpecContext) {
		newNamespaces(ctx, "restricted", namespace)
		before = everything(ctx)
		file := renderInstaller(ctx, previousRoot, previousTag, previousTag)
		DeferCleanup(func(ctx SpecContext) { mustKube(ctx, "delete", "--ignore-not-found", "-f", file) })
		applyInstaller(ctx, file)
		hs = newServer(ctx, namespace, "headscale", newerHeadscale, "")
		hs.keepsItsPromises(ctx)
	})

	It("runs in a namespace that enforces the restricted Pod Security Standard", func(ctx SpecContext) {
		Expect(mustKube(ctx, "get", "namespace", operatorNamespace, "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`)).To(Equal("restricted"))
	})

	It("is upgraded by applying the new file, and Headscale is restarted for a new API Key Manager only", func(ctx SpecContext) {
		upgrade{
			operator: func(ctx context.Context) { applyInstaller(ctx, renderInstaller(ctx, root, currentTag, previousTag)) },
			manager:  func(ctx context.Context) { applyInstaller(ctx, renderInstaller(ctx, root, currentTag, currentTag)) },
		}.expectLittleNoticed(ctx, hs)
	})

	It("goes over to the chart, back, and over again as documented, and Headscale notices nothing", func(ctx SpecContext) {
		pod := hs.mustPod(ctx).UID
		user := startAPIConsumer(ctx, hs)
		ways, err := documented("docs/install.md", "From one way to the other")
		Expect(err).NotTo(HaveOccurred())
		Expect(ways).To(HaveLen(3), "to the chart with Helm 3 and with Helm 4, and from the chart")
		for _, way := range []struct{ helm, script string }{{"helm3", ways[0]}, {"helm3", ways[2]}, {"helm4", ways[1]}} {
			key := hs.keepsItsPromises(ctx)
			goOver(ctx, way.helm, way.script)
			hs.requestRotation(ctx)
			hs.awaitOtherKey(ctx, key)
		}
		hs.keepsItsPromises(ctx)
		Expect(hs.mustPod(ctx).UID).To(Equal(pod))
		user.noticedNothing(ctx)
	})

	It("leaves nothing but the volume when it is uninstalled", func(ctx SpecContext) {
		removeOurs(ctx, namespace)
		deleteHeadscales(ctx)
		release{"helm4", root}.uninstall(ctx)
		deleteDefinitions(ctx)
		// The chart does not make the namespace, and so leaves it.
		mustKube(ctx, "delete", "namespace", operatorNamespace, "--timeout=1m")
		expectOnlyKept(ctx, before, kept(hs)...)
	})
}

var (
	chartAddress     = regexp.MustCompile(`oci://\S+`)
	installerAddress = regexp.MustCompile(`https://\S+/install\.yaml`)
)

// goOver does what docs/install.md says to change the way of the installation, with the
// chart and the install.yaml of this clone in the places of the released ones.
func goOver(ctx context.Context, helm, script string) {
	GinkgoHelper()
	script = chartAddress.ReplaceAllString(script, strings.Join(append([]string{filepath.Join(root, chartPath)}, values(currentTag, currentTag)...), " "))
	script = installerAddress.ReplaceAllString(script, renderInstaller(ctx, root, currentTag, currentTag))
	programs := GinkgoT().TempDir()
	Expect(os.Symlink(bin(helm), filepath.Join(programs, "helm"))).To(Succeed())
	run(ctx, `PATH="`+programs+`:$PATH"`+"\n"+script)
	mustKube(ctx, "rollout", "status", "-n", operatorNamespace, operatorDeployment, "--timeout=1m")
}

// helmCase is how the chart is installed.
type helmCase struct {
	helm string
	// namespace is where the notes have their Headscale.
	namespace string
	values    []string
	// removesCRD says that uninstalling removes the CustomResourceDefinition.
	removesCRD bool
}

// helmSpecs install with Helm and do what its notes say.
func helmSpecs(c helmCase) {
	helm := release{helm: c.helm}
	hs := &server{namespace: c.namespace, name: "headscale", secret: "headscale-api-key"}
	var before []string

	BeforeAll(func(ctx SpecContext) {
		helm.source = root
		newNamespaces(ctx, "restricted", operatorNamespace)
		if c.namespace != "default" {
			newNamespaces(ctx, "restricted", c.namespace)
		}
		before = everything(ctx)
		DeferCleanup(func(ctx SpecContext) {
			deleteDefinitions(ctx)
			deleteVolume(ctx, hs)
		})
	})

	It("prints notes whose commands work as they are", func(ctx SpecContext) {
		printed := run(ctx, noteCommands(helm.install(ctx, currentTag, currentTag, c.values...)))
		Expect(printed).To(ContainSubstring("successfully rolled out"))
		Expect(printed).To(MatchRegexp(`hskey-api-\S{77}$`))
		hs.keepsItsPromises(ctx)
	})

	It("passes helm test, which clears away one that failed before", func(ctx SpecContext) {
		helm.install(ctx, currentTag, currentTag, append(c.values, "--set", "test.image=headscale-operator/missing:e2e")...)
		// In the words of Helm 3, and of Helm 4.
		Expect(helm.test(ctx, "10s")).To(MatchError(Or(ContainSubstring("timed out"), ContainSubstring("context deadline exceeded"))))
		helm.install(ctx, currentTag, currentTag, c.values...)
		Expect(helm.test(ctx, "1m")).To(Succeed())
	})

	if !c.removesCRD {
		It("keeps the resource and what runs for it when it is uninstalled", func(ctx SpecContext) {
			pod := hs.mustPod(ctx).UID
			helm.uninstall(ctx)
			mustKube(ctx, "get", crdName, "headscale/headscale", "-n", c.namespace)
			Expect(statusOf(ctx, hs.url()+"/api/v1/user", hs.readKey(ctx))).To(Equal(200))
			Expect(hs.mustPod(ctx).UID).To(Equal(pod))
		})
	}

	It("leaves nothing but the volume when all is removed", func(ctx SpecContext) {
		deleteHeadscales(ctx)
		if c.removesCRD {
			helm.uninstall(ctx)
		} else {
			deleteDefinitions(ctx)
		}
		expectOnlyKept(ctx, before, append(kept(hs), operatorLease)...)
	})
}

// noteCommand matches a line of the commands in the chart's notes, which are indented.
var noteCommand = regexp.MustCompile(`(?m)^ {2}.*$`)

// noteCommands are the commands in what Helm printed, just as they stand there.
func noteCommands(printed string) string {
	GinkgoHelper()
	_, notes, found := strings.Cut(printed, "NOTES:\n")
	Expect(found).To(BeTrue(), printed)
	commands := strings.Join(noteCommand.FindAllString(notes, -1), "\n")
	Expect(commands).NotTo(BeEmpty())
	return commands + "\n"
}
