package user

import (
	"context"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// person is somebody who has a role of config/rbac in a namespace, and the role's labels.
func person(ctx context.Context, namespace, file string) (client.Client, map[string]string) {
	GinkgoHelper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "config", "rbac", file))
	Expect(err).NotTo(HaveOccurred())
	role := &rbacv1.ClusterRole{}
	Expect(yaml.UnmarshalStrict(raw, role)).To(Succeed())
	Expect(admin.Create(ctx, role)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, role)).To(Succeed()) })
	Expect(admin.Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: role.Name}},
	})).To(Succeed())
	config := rest.CopyConfig(cluster.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: role.Name}
	acts, err := client.New(config, client.Options{Scheme: cluster.Scheme})
	Expect(err).NotTo(HaveOccurred())
	// The API server's authorizer learns of a RoleBinding a moment after it was made.
	Eventually(func() error { return acts.List(ctx, &v1beta1.HeadscaleUserList{}, client.InNamespace(namespace)) }).WithContext(ctx).Should(Succeed())
	return acts, role.Labels
}

var _ = Describe("The roles for people", func() {
	It("are part of the cluster's roles edit and view, and allow what these should", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		editor, labels := person(ctx, namespace, "headscaleuser_editor_role.yaml")
		Expect(labels).To(And(HaveKeyWithValue("rbac.authorization.k8s.io/aggregate-to-edit", "true"), HaveKeyWithValue("rbac.authorization.k8s.io/aggregate-to-admin", "true")))
		viewer, labels := person(ctx, namespace, "headscaleuser_viewer_role.yaml")
		Expect(labels).To(HaveKeyWithValue("rbac.authorization.k8s.io/aggregate-to-view", "true"))

		user := &v1beta1.HeadscaleUser{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "user"}, Spec: v1beta1.HeadscaleUserSpec{HeadscaleRef: "headscale", Username: "alice"},
		}
		denied := WithTransform(apierrors.IsForbidden, BeTrue())
		Expect(viewer.Create(ctx, user.DeepCopy())).To(denied)
		Expect(editor.Create(ctx, user)).To(Succeed())
		for _, who := range []client.Client{viewer, editor} {
			Expect(who.Get(ctx, client.ObjectKeyFromObject(user), user)).To(Succeed())
			Expect(who.List(ctx, &v1beta1.HeadscaleUserList{}, client.InNamespace(namespace))).To(Succeed())
			Expect(who.List(ctx, &v1beta1.HeadscaleUserList{})).To(denied, "in other namespaces")
		}
		user.Spec.Username = "bob"
		Expect(viewer.Update(ctx, user.DeepCopy())).To(denied)
		Expect(editor.Update(ctx, user)).To(Succeed())
		Expect(viewer.Delete(ctx, user)).To(denied)
		Expect(editor.Delete(ctx, user)).To(Succeed())
	})
})
