package kube_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/kube/status"
)

var _ = Describe("A status", func() {
	statusOf := func(pod *corev1.Pod) any { return &pod.Status }
	say := func(message string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Status.Message = message }
	}

	It("is written where only the cache, which is behind, says the same", func(ctx SpecContext) {
		cached := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(ctx), Name: "reported-on"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "one", Image: "example.com/one"}}},
		}
		Expect(admin.Create(ctx, cached)).To(Succeed())
		patch := func(message string) (changed bool) {
			GinkgoHelper()
			before, _, err := status.Patch(ctx, admin, admin, cached, "test", statusOf, say(message))
			Expect(err).NotTo(HaveOccurred())
			return before != nil
		}
		Expect(patch("ready")).To(BeTrue())
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(cached), cached)).To(Succeed())
		Expect(patch("ready")).To(BeFalse())
		Expect(patch("not ready")).To(BeTrue())
		Expect(patch("ready")).To(BeTrue())
		live := &corev1.Pod{}
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(cached), live)).To(Succeed())
		Expect(live.Status.Message).To(Equal("ready"))
	})
})
