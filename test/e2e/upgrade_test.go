package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// operatorLabels select the operator's pods.
var operatorLabels = client.MatchingLabels{"app.kubernetes.io/component": "controller-manager"}

// upgrade is an upgrade of the operator, in two steps: the operator alone, and then the
// API Key Manager beside each Headscale.
type upgrade struct {
	operator, manager func(context.Context)
}

// expectLittleNoticed carries out the upgrade while Headscale runs and is used. A new
// operator leaves the pod alone, unless this release changes the pod's template; a new
// API Key Manager restarts it once.
func (u upgrade) expectLittleNoticed(ctx context.Context, hs *server) {
	GinkgoHelper()
	user := startAPIConsumer(ctx, hs)
	old, pod, template := operatorPods(ctx), hs.mustPod(ctx).UID, templateGeneration(ctx, hs)
	u.operator(ctx)
	for i := range old {
		mustKube(ctx, "wait", "-n", old[i].Namespace, "--for=delete", "--timeout=1m", "pod/"+old[i].Name)
	}
	// Only an operator that has gone through all its work hands the request on.
	key := hs.readKey(ctx)
	hs.requestRotation(ctx)
	hs.awaitOtherKey(ctx, key)
	if templateChanges() {
		AddReportEntry("the new operator changes the pod's template")
		hs.awaitRestart(ctx, pod)
		Expect(templateGeneration(ctx, hs)).To(BeNumerically(">", template))
		hs.keepsItsPromises(ctx)
		user.noticedRestart(ctx)
	} else {
		hs.keepsItsPromises(ctx)
		Expect(templateGeneration(ctx, hs)).To(Equal(template), "the pod's template need not change")
		Expect(hs.mustPod(ctx).UID).To(Equal(pod), "the pod was not restarted")
		user.noticedNothing(ctx)
	}

	user.restart(ctx)
	pod, template = hs.mustPod(ctx).UID, templateGeneration(ctx, hs)
	u.manager(ctx)
	hs.awaitRestart(ctx, pod)
	hs.keepsItsPromises(ctx)
	Expect(templateGeneration(ctx, hs)).To(Equal(template+1), "the pod was restarted once")
	Expect(hs.mustPod(ctx).Spec.Containers).To(ContainElement(HaveField("Image", managerRepository+":"+currentTag)))
	user.noticedRestart(ctx)
	user.remove(ctx)
}

// operatorPods lists the operator's pods, of which there must be some.
func operatorPods(ctx context.Context) []corev1.Pod {
	GinkgoHelper()
	pods := &corev1.PodList{}
	Expect(admin.List(ctx, pods, client.InNamespace(operatorNamespace), operatorLabels)).To(Succeed())
	Expect(pods.Items).NotTo(BeEmpty())
	return pods.Items
}

// templateGeneration counts the changes to what the StatefulSet is to run.
func templateGeneration(ctx context.Context, s *server) int64 {
	GinkgoHelper()
	set := &appsv1.StatefulSet{}
	Expect(admin.Get(ctx, s.key(s.name), set)).To(Succeed())
	return set.Generation
}

// templateChanges reports whether this revision changes the pod's template from that of the
// revision before: a changed file of what is to be built is the declaration that it must.
func templateChanges() bool {
	GinkgoHelper()
	return goldenTemplate(previousRoot) != goldenTemplate(root)
}

// goldenTemplate is the template of the pod that a revision is to build for the shortest
// Headscale, as YAML.
func goldenTemplate(source string) string {
	GinkgoHelper()
	content, err := os.ReadFile(filepath.Join(source, "internal", "resources", "testdata", "shortest.yaml"))
	Expect(err).NotTo(HaveOccurred())
	for document := range strings.SplitSeq(string(content), "\n---\n") {
		var object struct {
			Kind string
			Spec struct{ Template map[string]any }
		}
		Expect(yaml.Unmarshal([]byte(document), &object)).To(Succeed())
		if object.Kind == "StatefulSet" {
			template, err := yaml.Marshal(object.Spec.Template)
			Expect(err).NotTo(HaveOccurred())
			Expect(object.Spec.Template).NotTo(BeEmpty())
			return string(template)
		}
	}
	Fail("no StatefulSet in the golden files of " + source)
	return ""
}
