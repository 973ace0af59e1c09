package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const (
	operatorNamespace  = "headscale-operator-system"
	operatorDeployment = "deployment/headscale-operator-controller-manager"
	crdName            = "crd/headscales.headscale.infrado.cloud"
	// readyWithin is how long a new Headscale may take, as docs/install.md says.
	readyWithin = time.Minute
)

// release is an installation with Helm.
type release struct{ helm string }

// values are the flags that choose images by their tags.
func values(operatorTag, managerTag string) []string {
	return []string{
		"--set", "image.repository=" + operatorRepository, "--set", "image.tag=" + operatorTag,
		"--set", "managerImage.repository=" + managerRepository, "--set", "managerImage.tag=" + managerTag,
		"--set", "test.image=" + kubectlImage,
	}
}

// install installs the chart, or upgrades what is installed, and returns the notes.
func (r release) install(ctx context.Context, operatorTag, managerTag string, more ...string) string {
	GinkgoHelper()
	args := []string{"upgrade", "--install", "headscale-operator", filepath.Join(root, "charts", "headscale-operator"),
		"--namespace", operatorNamespace, "--wait", "--timeout", "2m"}
	args = append(append(args, values(operatorTag, managerTag)...), more...)
	notes, err := output(ctx, "", bin(r.helm), args...)
	Expect(err).NotTo(HaveOccurred())
	return notes
}

// uninstall removes the release.
func (r release) uninstall(ctx context.Context) {
	GinkgoHelper()
	_, err := output(ctx, "", bin(r.helm), "uninstall", "headscale-operator", "--namespace", operatorNamespace, "--wait")
	Expect(err).NotTo(HaveOccurred())
}

// renderInstaller makes install.yaml with the images of this commit.
func renderInstaller(ctx context.Context) string {
	GinkgoHelper()
	file := filepath.Join(GinkgoT().TempDir(), "install.yaml")
	manifests, err := output(ctx, "", "env", "KUSTOMIZE="+bin("kustomize"),
		"IMG="+operatorRepository+":"+currentTag, "APIKEY_MANAGER_IMG="+managerRepository+":"+currentTag, filepath.Join(root, "hack", "render-installer"))
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(file, []byte(manifests), 0o600)).To(Succeed())
	return file
}

// deleteHeadscales deletes all Headscales and waits until what ran for them is gone.
// Once their kind is gone, Kubernetes' garbage collector may not find what was theirs.
func deleteHeadscales(ctx context.Context) {
	GinkgoHelper()
	mustKube(ctx, "delete", "headscales", "--all", "-A", "--cascade=foreground", "--timeout=2m")
}

// leftovers lists what is in the cluster that has to do with the operator.
func leftovers(ctx context.Context) []string {
	var found []string
	for _, kinds := range []string{
		"customresourcedefinitions,clusterroles,clusterrolebindings",
		"statefulsets,deployments,pods,services,configmaps,secrets,serviceaccounts,roles,rolebindings,leases,persistentvolumeclaims",
	} {
		printed, err := kube(ctx, "get", kinds, "-A", "--no-headers", "-o", `custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name,L:.metadata.labels`)
		if err != nil {
			found = append(found, err.Error())
		}
		for line := range strings.Lines(printed) {
			fields := strings.Fields(line)
			if strings.Contains(strings.Join(fields[2:], " "), "headscale") {
				found = append(found, strings.Join(fields[:3], " "))
			}
		}
	}
	return found
}

// manifestSpecs install with the single file, and do what the README says.
func manifestSpecs() {
	const namespace = "e2e-manifest"
	var installer string

	BeforeAll(func(ctx SpecContext) {
		installer = renderInstaller(ctx)
		DeferCleanup(func(ctx SpecContext) { mustKube(ctx, "delete", "--ignore-not-found", "-f", installer) })
		mustKube(ctx, "apply", "--server-side", "-f", installer)
		mustKube(ctx, "rollout", "status", "-n", operatorNamespace, operatorDeployment, "--timeout=1m")
		newNamespaces(ctx, "restricted", namespace)
	})

	It("runs in a namespace that enforces the restricted Pod Security Standard", func(ctx SpecContext) {
		Expect(mustKube(ctx, "get", "namespace", operatorNamespace, "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`)).To(Equal("restricted"))
	})

	readmeSpecs(namespace)

	It("leaves nothing but the volume when it is uninstalled", func(ctx SpecContext) {
		deleteHeadscales(ctx)
		mustKube(ctx, "delete", "-f", installer)
		Eventually(func() []string { return leftovers(ctx) }).Should(ConsistOf("PersistentVolumeClaim " + namespace + " data-headscale-0"))
	})
}

// readmeSpecs do what a user does with the sample, word for word.
func readmeSpecs(namespace string) {
	It("makes the sample ready in time, with the commands of the README", func(ctx SpecContext) {
		begin := time.Now()
		mustKube(ctx, "apply", "-n", namespace, "-f", "config/samples/headscale_v1beta1_headscale.yaml")
		mustKube(ctx, "wait", "-n", namespace, "--for=condition=Ready", "headscale/headscale", "--timeout="+readyWithin.String())
		AddReportEntry("ready after", time.Since(begin).Round(100*time.Millisecond).String())
		columns := strings.Split(mustKube(ctx, "get", "headscale", "-n", namespace), "\n")
		Expect(strings.Join(strings.Fields(columns[0]), " ")).To(Equal("NAME VERSION READY REASON SECRET KEY EXPIRES AGE"))
		Expect(strings.Fields(columns[1])).To(HaveExactElements(
			Equal("headscale"), Equal(newerHeadscale), Equal("True"), Equal("Ready"), Equal("headscale-api-key"), MatchRegexp(`^20\d\d-.*Z$`), Not(BeEmpty())))
		Expect(mustKube(ctx, "logs", "-n", namespace, "headscale-0", "-c", "apikey-manager")).To(ContainSubstring("Stored a new API key"))
		Expect(mustKube(ctx, "get", "secret", "-n", namespace, "headscale-api-key", "-o",
			`jsonpath={.metadata.annotations.api-key\.headscale\.infrado\.cloud/expiration}`)).To(MatchRegexp(`^20\d\d-.*Z$`))
		account := "--as=system:serviceaccount:" + namespace + ":headscale"
		for _, question := range [][]string{{"create", "secrets"}, {"update", "secrets/headscale-api-key"}} {
			Expect(mustKube(ctx, append([]string{"auth", "can-i", "-n", namespace, account}, question...)...)).To(Equal("yes"))
		}
	})

	It("stores a key that works from another pod through the Service", func(ctx SpecContext) {
		(&server{namespace: namespace, name: "headscale", secret: "headscale-api-key"}).keepsItsPromises(ctx)
	})
}

// noteCommand matches the commands in the chart's notes, which are indented.
var noteCommand = regexp.MustCompile(`(?m)^ {2}(.*)$`)

// helm3Specs install with Helm 3 and do what its notes say.
func helm3Specs() {
	helm := release{"helm3"}

	BeforeAll(func(ctx SpecContext) {
		newNamespaces(ctx, "restricted", operatorNamespace, "e2e-notes")
		DeferCleanup(func(ctx SpecContext) { mustKube(ctx, "delete", "--ignore-not-found", crdName) })
	})

	It("prints notes whose commands work as they are, when it looks after one namespace only", func(ctx SpecContext) {
		notes := helm.install(ctx, currentTag, currentTag, "--set", "watchNamespaces={e2e-notes}")
		var script []string
		for _, line := range noteCommand.FindAllStringSubmatch(notes, -1) {
			script = append(script, line[1])
		}
		printed, err := output(ctx, strings.Join(script, "\n"), "sh", "-eu")
		Expect(err).NotTo(HaveOccurred())
		Expect(printed).To(ContainSubstring("successfully rolled out"))
		Expect(printed).To(MatchRegexp(`hskey-api-\S{77}$`))
	})

	It("passes helm test", func(ctx SpecContext) {
		_, err := output(ctx, "", bin("helm3"), "test", "headscale-operator", "--namespace", operatorNamespace, "--timeout", "1m")
		Expect(err).NotTo(HaveOccurred())
	})

	It("keeps the resource and what runs for it when it is uninstalled", func(ctx SpecContext) {
		s := &server{namespace: "e2e-notes", name: "headscale", secret: "headscale-api-key"}
		pod := s.mustPod(ctx).UID
		helm.uninstall(ctx)
		mustKube(ctx, "get", crdName, "headscale/headscale", "-n", "e2e-notes")
		Expect(statusOf(ctx, s.url()+"/api/v1/user", s.readKey(ctx))).To(Equal(200))
		Expect(s.mustPod(ctx).UID).To(Equal(pod))
	})

	It("leaves nothing but the volume when the resource is deleted too", func(ctx SpecContext) {
		deleteHeadscales(ctx)
		mustKube(ctx, "delete", crdName, "--timeout=1m")
		Eventually(func() []string { return leftovers(ctx) }).Should(ConsistOf(
			"PersistentVolumeClaim e2e-notes data-headscale-0",
			fmt.Sprintf("Lease %s headscale-operator.infrado.cloud", operatorNamespace)))
	})
}
