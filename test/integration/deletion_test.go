package integration_test

import (
	"context"
	"net/http"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("A Headscale that is deleted", func() {
	It("takes its Secret along; one of its name on the same data gets a Secret and a key of its own", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)
		first := hs.awaitRest(ctx, secretName)
		Expect(first.OwnerReferences).To(Equal(ownedBy(hs.get(ctx))))

		Expect(admin.Delete(ctx, hs.get(ctx))).To(Succeed())
		Eventually(func(g Gomega) {
			// The manager may make the Secret anew before it ends: that one goes too.
			running := hs.pod.Process(containerManager)
			g.Expect(collectGarbage(ctx, namespace)).To(BeEmpty())
			g.Expect(running).To(BeNil())
		}).Should(Succeed())
		_, err := hs.secret(ctx, secretName)
		Expect(apierrors.IsNotFound(err)).To(BeTrue())

		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)
		second := hs.awaitRest(ctx, secretName)
		Expect(second.OwnerReferences).To(Equal(ownedBy(hs.get(ctx))))
		Expect(second.OwnerReferences).NotTo(Equal(first.OwnerReferences))
		Expect(hs.keyStatus(ctx, keyOf(second))).To(Equal(http.StatusOK))
		Expect(hs.keyStatus(ctx, keyOf(first))).To(Equal(http.StatusUnauthorized), "its database is still the one of before")
	})

	It("has its Secret collected late: the manager of the next one makes another", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		leftover := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: secretName,
			Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey},
			OwnerReferences: ownedBy(&v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{
				Name: "headscale", UID: "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"}}),
		}}
		Expect(admin.Create(ctx, leftover)).To(Succeed())
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)
		first := hs.awaitRest(ctx, secretName)
		Expect(first.OwnerReferences).To(Equal(leftover.OwnerReferences), "who owns a Secret that is there is left alone")

		Expect(collectGarbage(ctx, namespace)).To(ConsistOf("Secret " + secretName))
		second := hs.awaitKey(ctx, secretName, keyOf(first))
		Expect(second.OwnerReferences).To(Equal(ownedBy(hs.get(ctx))))
		Eventually(hs.keyStatus).WithContext(ctx).WithArguments(keyOf(first)).Should(Equal(http.StatusUnauthorized))
		Expect(hs.keyStatus(ctx, keyOf(second))).To(Equal(http.StatusOK))
		Expect(collectGarbage(ctx, namespace)).To(BeEmpty())
	})

	It("leaves a Secret that was there before it", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		apply(ctx, namespace, `
apiVersion: v1
kind: Secret
metadata:
  name: `+secretName+`
  labels: {app.kubernetes.io/managed-by: headscale-operator, app.kubernetes.io/component: api-key}
`)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)
		key := keyOf(hs.awaitRest(ctx, secretName))
		Expect(hs.keyStatus(ctx, key)).To(Equal(http.StatusOK))
		Expect(admin.Delete(ctx, hs.get(ctx))).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(collectGarbage(ctx, namespace)).To(BeEmpty())
			g.Expect(hs.pod.Process(containerManager)).To(BeNil())
		}).Should(Succeed())
		Expect(keyOf(hs.awaitKey(ctx, secretName, ""))).To(Equal(key))
	})
})

// ownedBy is what the Secret says of the Headscale that it was made for.
func ownedBy(headscale *v1beta1.Headscale) []metav1.OwnerReference {
	return []metav1.OwnerReference{{
		APIVersion: "headscale.infrado.cloud/v1beta1", Kind: "Headscale", Name: headscale.Name, UID: headscale.UID,
	}}
}

// collectGarbage deletes what is owned by nothing but Headscales that are gone, as
// Kubernetes' garbage collector does, which does not run here. It returns what it was.
func collectGarbage(ctx context.Context, namespace string) []string {
	GinkgoHelper()
	headscales := &v1beta1.HeadscaleList{}
	Expect(admin.List(ctx, headscales, client.InNamespace(namespace))).To(Succeed())
	var live []types.UID
	for i := range headscales.Items {
		live = append(live, headscales.Items[i].UID)
	}
	var deleted []string
	for _, kind := range []schema.GroupVersionKind{
		appsv1.SchemeGroupVersion.WithKind("StatefulSet"), corev1.SchemeGroupVersion.WithKind("Secret"),
		corev1.SchemeGroupVersion.WithKind("Service"), corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		rbacv1.SchemeGroupVersion.WithKind("RoleBinding"), rbacv1.SchemeGroupVersion.WithKind("Role"),
		corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
	} {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(kind)
		Expect(admin.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
		for i := range list.Items {
			item := &list.Items[i]
			solid := slices.ContainsFunc(item.OwnerReferences, func(owner metav1.OwnerReference) bool { return slices.Contains(live, owner.UID) })
			if len(item.OwnerReferences) == 0 || solid {
				continue
			}
			item.SetGroupVersionKind(kind)
			Expect(client.IgnoreNotFound(admin.Delete(ctx, item, client.Preconditions{UID: &item.UID}))).To(Succeed())
			deleted = append(deleted, kind.Kind+" "+item.Name)
		}
	}
	return deleted
}
