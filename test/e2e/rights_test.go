package e2e_test

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// rightsSpecs take rights away and give them back.
func rightsSpecs(get func() *server) {
	It("waits while the sidecar's rights are gone, and goes on when they are back", func(ctx SpecContext) {
		hs := get()
		key := hs.keepsItsPromises(ctx)
		scaleOperator(ctx, 0)
		DeferCleanup(func(ctx SpecContext) { scaleOperator(ctx, 1) })
		mustKube(ctx, "delete", "-n", hs.namespace, "rolebinding/headscale")
		mustKube(ctx, "annotate", "-n", hs.namespace, "secret/"+hs.secret, "--overwrite", "api-key.headscale.infrado.cloud/rotate-requested-at=without-rights")
		pod := hs.mustPod(ctx)
		endProcess(ctx, string(pod.UID), "apikey-manager")
		Eventually(func() (string, error) {
			return kube(ctx, "logs", "-n", hs.namespace, "headscale-0", "-c", "apikey-manager")
		}).Should(ContainSubstring("SecretForbidden"))
		Expect(hs.readKey(ctx)).To(Equal(key))
		Expect(statusOf(ctx, hs.url()+"/api/v1/user", key)).To(Equal(200))
		scaleOperator(ctx, 1)
		hs.awaitOtherKey(ctx, key)
		hs.keepsItsPromises(ctx)
		Expect(hs.mustPod(ctx).UID).To(Equal(pod.UID), "the pod was never taken down")
	})

	It("waits while the operator's rights are gone, and goes on when they are back", func(ctx SpecContext) {
		hs := get()
		key, pod := hs.keepsItsPromises(ctx), hs.mustPod(ctx).UID
		bindings := &rbacv1.ClusterRoleBindingList{}
		Expect(admin.List(ctx, bindings, client.MatchingLabels{"app.kubernetes.io/instance": "headscale-operator"})).To(Succeed())
		Expect(bindings.Items).NotTo(BeEmpty())
		giveBack := func(ctx context.Context) {
			for i := range bindings.Items {
				binding := bindings.Items[i].DeepCopy()
				binding.ResourceVersion, binding.UID = "", ""
				Expect(client.IgnoreAlreadyExists(admin.Create(ctx, binding))).To(Succeed())
			}
		}
		DeferCleanup(func(ctx SpecContext) { giveBack(ctx) })
		for i := range bindings.Items {
			Expect(admin.Delete(ctx, &bindings.Items[i])).To(Succeed())
		}
		hs.requestRotation(ctx)
		Eventually(func() (string, error) {
			return kube(ctx, "logs", "-n", operatorNamespace, operatorDeployment)
		}).Should(ContainSubstring("forbidden"))
		Expect(hs.readKey(ctx)).To(Equal(key), "nobody handed the request on")
		Expect(statusOf(ctx, hs.url()+"/api/v1/user", key)).To(Equal(200))
		giveBack(ctx)
		hs.awaitOtherKey(ctx, key)
		hs.keepsItsPromises(ctx)
		Expect(hs.mustPod(ctx).UID).To(Equal(pod), "the pod was never taken down")
	})
}

// scaleOperator runs as many operators, and waits until it is so.
func scaleOperator(ctx context.Context, replicas int) {
	GinkgoHelper()
	if replicas > 0 {
		mustKube(ctx, "scale", "-n", operatorNamespace, operatorDeployment, "--replicas=1")
		mustKube(ctx, "rollout", "status", "-n", operatorNamespace, operatorDeployment, "--timeout=1m")
		return
	}
	mustKube(ctx, "scale", "-n", operatorNamespace, operatorDeployment, "--replicas=0")
	mustKube(ctx, "wait", "-n", operatorNamespace, "--for=delete", "pod", "-l", "app.kubernetes.io/component=controller-manager", "--timeout=1m")
}
