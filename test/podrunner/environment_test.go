package podrunner

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
)

var _ = DescribeTable("Variables are expanded as Kubernetes does",
	func(text, expected string) {
		Expect(expand(text, map[string]string{"A": "1", "B": "$(A)", "EMPTY": ""})).To(Equal(expected))
	},
	Entry("a known one", "x$(A)y", "x1y"),
	Entry("not twice", "$(B)", "$(A)"),
	Entry("an empty one", "[$(EMPTY)]", "[]"),
	Entry("an unknown one stays", "$(C) $(A)", "$(C) 1"),
	Entry("an escaped one", "$$(A)", "$(A)"),
	Entry("two dollars and one", "$$$(A)", "$1"),
	Entry("an open bracket", "$(A", "$(A"),
	Entry("a lonely dollar", "5$ $x", "5$ $x"),
)

var _ = Describe("The downward API", func() {
	It("knows the fields of the pod", func() {
		p := &pod{name: "web-0", namespace: "shop", template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{ServiceAccountName: "web"}}}
		p.template.Labels = map[string]string{"app": "shop"}
		for path, expected := range map[string]string{
			"metadata.name": "web-0", "metadata.namespace": "shop", "spec.serviceAccountName": "web",
			"metadata.labels['app']": "shop", "metadata.annotations['none']": "", "status.podIP": "127.0.0.1",
		} {
			Expect(p.field(path)).To(Equal(expected), path)
		}
		_, err := p.field("spec.nodeName")
		Expect(err).To(MatchError(ContainSubstring("not emulated")))
	})
})
