package docs_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/pages"
)

// describePages makes a spec of every block that does something.
func describePages() {
	Describe("Every block of", Ordered, ContinueOnFailure, func() {
		BeforeAll(startWorld)
		for i := range allPages {
			p := &allPages[i]
			if slices.ContainsFunc(p.Blocks, runsHere) {
				Context(p.Path, Ordered, func() { describeBlocks(p) })
			}
		}
	})
}

func runsHere(b pages.Block) bool {
	i, err := readInstruction(b)
	return err == nil && i.runsHere()
}

// describeBlocks makes the specs of one page.
func describeBlocks(p *pages.Page) {
	var r *reader
	var before []string
	BeforeAll(func(ctx SpecContext) {
		before = namespaces(ctx)
		needCurl(p)
		r = newReader()
		if p.Begin != "" {
			begin(ctx, p.Begin)
		}
	})
	AfterAll(func(ctx SpecContext) { cleanUp(ctx, before) })
	for _, b := range p.Blocks {
		if runsHere(b) {
			It(b.Name(), func(ctx SpecContext) { r.follow(ctx, b) })
		}
	}
}

// needCurl skips the specs of a page with commands that call curl on a machine without it.
func needCurl(p *pages.Page) {
	_, err := exec.LookPath("curl")
	calls := func(b pages.Block) bool { return runsHere(b) && strings.Contains(b.Text, "curl ") }
	if err != nil && slices.ContainsFunc(p.Blocks, calls) {
		Skip("this machine has no curl, which commands of the page call")
	}
}

// begin runs the sample in a namespace, which it makes.
func begin(ctx context.Context, namespace string) {
	GinkgoHelper()
	if namespace != workNamespace {
		_, err := plane.Kubectl(ctx, "create", "namespace", namespace)
		Expect(err).NotTo(HaveOccurred())
	}
	for _, args := range [][]string{
		{"apply", "-n", namespace, "-k", filepath.Join(root, "config", "samples")},
		{"wait", "-n", namespace, "--for=condition=Ready", "headscale/headscale", "--timeout=2m"},
	} {
		_, err := plane.Kubectl(ctx, args...)
		Expect(err).NotTo(HaveOccurred())
	}
}

// namespaces are the names of all namespaces.
func namespaces(ctx context.Context) []string {
	GinkgoHelper()
	list := &corev1.NamespaceList{}
	Expect(admin.List(ctx, list)).To(Succeed())
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return names
}

// cleanUp removes what a page left, as the controllers of a cluster would.
func cleanUp(ctx context.Context, before []string) {
	GinkgoHelper()
	_, err := plane.Kubectl(ctx, "delete", "headscalepolicies,headscaleusers,headscales", "--all", "--all-namespaces")
	Expect(err).NotTo(HaveOccurred())
	_, err = plane.Kubectl(ctx, "delete", "--all", "validatingadmissionpolicies,validatingadmissionpolicybindings")
	Expect(err).NotTo(HaveOccurred())
	left := slices.DeleteFunc(namespaces(ctx), func(namespace string) bool { return namespace != workNamespace && slices.Contains(before, namespace) })
	for _, namespace := range left {
		_, err := plane.Kubectl(ctx, "delete", "--all", "--wait=false", "-n", namespace, "statefulsets")
		Expect(err).NotTo(HaveOccurred())
	}
	node.clear() // A pod that runs makes its Secrets again, and a StatefulSet its pod.
	for _, namespace := range left {
		_, err := plane.Kubectl(ctx, "delete", "--all", "--wait=false", "-n", namespace,
			"deployments,jobs,pods,configmaps,secrets,roles,rolebindings,networkpolicies,persistentvolumeclaims")
		Expect(err).NotTo(HaveOccurred())
		_, err = plane.Kubectl(ctx, "delete", "--wait=false", "-n", namespace, "-l",
			"app.kubernetes.io/managed-by="+v1beta1.ManagedBy, "services,serviceaccounts")
		Expect(err).NotTo(HaveOccurred())
		if !slices.Contains(before, namespace) {
			finalize(ctx, namespace)
		}
	}
	node.clear()
}

// workNamespace is where the pages work.
const workNamespace = "default"

// finalize removes a namespace, which a controller would do.
func finalize(ctx context.Context, name string) {
	GinkgoHelper()
	namespace := &corev1.Namespace{}
	namespace.Name = name
	Expect(client.IgnoreNotFound(admin.Delete(ctx, namespace))).To(Succeed())
	Eventually(func(g Gomega) {
		err := admin.Get(ctx, client.ObjectKey{Name: name}, namespace)
		if err == nil {
			namespace.Spec.Finalizers = nil
			err = admin.SubResource("finalize").Update(ctx, namespace)
		}
		g.Expect(apierrors.IsNotFound(err)).To(BeTrue(), "namespace %s: %v", name, err)
	}).Should(Succeed())
}

// linkedToClone are what the pages name in a clone.
var linkedToClone = []string{"charts", "config", "docs", "hack", "test"}

// newReader makes the directory in which a page is followed.
func newReader() *reader {
	GinkgoHelper()
	dir, err := os.MkdirTemp(guard.Dir(), "page-")
	Expect(err).NotTo(HaveOccurred())
	r := &reader{dir: filepath.Join(dir, "work"), state: filepath.Join(dir, "state"), pods: filepath.Join(dir, "pods"), bin: filepath.Join(dir, "bin")}
	for _, made := range []string{r.dir, r.pods, r.bin} {
		Expect(os.Mkdir(made, 0o700)).To(Succeed())
	}
	for _, name := range linkedToClone {
		Expect(os.Symlink(filepath.Join(root, name), filepath.Join(r.dir, name))).To(Succeed())
	}
	Expect(os.Symlink(filepath.Join(root, "test", "docs", "testdata", "kubectl"), filepath.Join(r.bin, "kubectl"))).To(Succeed())
	Expect(os.Symlink(filepath.Join(guard.Dir(), pluginName), filepath.Join(r.bin, pluginName))).To(Succeed())
	return r
}

// describeBlock says where a block is, for a failure.
func describeBlock(b pages.Block) string {
	return fmt.Sprintf("the block at line %d:\n%s", b.Line, b.Text)
}
