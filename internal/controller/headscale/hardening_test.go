package headscale

import (
	"context"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("The pod", func() {
	DescribeTable("passes the restricted Pod Security Standard",
		func(ctx context.Context, config string) {
			o := startOperator(ctx)
			Expect(create(ctx, o.namespace, shortest+config)).To(Succeed())
			var live *appsv1.StatefulSet
			Eventually(func(g Gomega) { live = get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g) }).WithContext(ctx).Should(Succeed())
			restricted := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
				GenerateName: "restricted-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
			}}
			Expect(admin.Create(ctx, restricted)).To(Succeed())
			pod := &corev1.Pod{ObjectMeta: live.Spec.Template.ObjectMeta, Spec: live.Spec.Template.Spec}
			pod.Namespace, pod.Name = restricted.Name, "headscale-0"
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-headscale-0"},
			}})
			Expect(admin.Create(ctx, pod)).To(Succeed())
			for _, container := range pod.Spec.Containers {
				Expect(container.SecurityContext.ReadOnlyRootFilesystem).To(HaveValue(BeTrue()), container.Name)
			}
		},
		Entry("by default", ""),
		Entry("with a privileged port", "    listen_addr: 0.0.0.0:443\n"),
	)

	It("may do with its account what the sidecar needs and nothing else", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[rbacv1.RoleBinding](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		may := func(verb, resource, name string) bool {
			GinkgoHelper()
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User:               "system:serviceaccount:" + o.namespace + ":headscale",
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: o.namespace, Verb: verb, Resource: resource, Name: name},
			}}
			Expect(admin.Create(ctx, review)).To(Succeed())
			return review.Status.Allowed
		}
		Eventually(func() bool { return may("create", "secrets", "") }).WithContext(ctx).Should(BeTrue())
		for _, verb := range []string{"get", "patch", "update", "watch"} {
			Expect(may(verb, "secrets", "headscale-api-key")).To(BeTrue(), verb)
			Expect(may(verb, "secrets", "another")).To(BeFalse(), verb)
			Expect(may(verb, "secrets", "")).To(BeFalse(), verb)
		}
		for _, verb := range []string{"delete", "list", "deletecollection"} {
			Expect(may(verb, "secrets", "headscale-api-key")).To(BeFalse(), verb)
		}
		for _, resource := range []string{"configmaps", "pods", "serviceaccounts", "events"} {
			for _, verb := range []string{"get", "list", "create", "update", "delete"} {
				Expect(may(verb, resource, "headscale")).To(BeFalse(), "%s %s", verb, resource)
			}
		}
	})
})

var _ = Describe("The samples", func() {
	It("are accepted as they stand", func(ctx context.Context) {
		o := startOperator(ctx)
		files, err := filepath.Glob(filepath.Join("..", "..", "..", "config", "samples", "headscale_*.yaml"))
		Expect(err).NotTo(HaveOccurred())
		Expect(files).NotTo(BeEmpty())
		for _, file := range files {
			text, err := os.ReadFile(file)
			Expect(err).NotTo(HaveOccurred())
			Expect(create(ctx, o.namespace, string(text))).To(Succeed(), file)
		}
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(WithTransform(containers, HaveLen(2)))
	})
})

var _ = Describe("Deletion", func() {
	It("is the garbage collector's job, and nothing is made again meanwhile", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		var service *corev1.Service
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		Eventually(func(g Gomega) { service = get[corev1.Service](ctx, o.namespace, "headscale")(g) }).WithContext(ctx).Should(Succeed())
		headscale := get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail))
		Expect(headscale.Finalizers).To(BeEmpty())
		Expect(admin.Delete(ctx, headscale, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
		Expect(admin.Delete(ctx, service)).To(Succeed())
		Consistently(missing[corev1.Service](ctx, o.namespace, "headscale"), "300ms").WithContext(ctx).Should(BeTrue())
	})
})
