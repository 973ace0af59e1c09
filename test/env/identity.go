package env

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// GrantManager applies what the operator makes for the identity of the API Key Manager of a
// Headscale, with the default settings: its ServiceAccount, of the Headscale's name, and its
// rights. There need be no such Headscale.
func GrantManager(ctx context.Context, admin client.Client, name client.ObjectKey) error {
	owner := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, UID: "0"}}
	owner.Spec.Version = serverbuild.DefaultHeadscale
	owner.Spec.Config.ServerURL = "https://headscale.example.com"
	objects, err := resources.Build(owner, resources.Options{ManagerImage: ManagerImage})
	if err != nil {
		return err
	}
	for _, wanted := range []runtime.ApplyConfiguration{objects.ServiceAccount, objects.Role, objects.RoleBinding} {
		if err := admin.Apply(ctx, wanted, client.FieldOwner("test"), client.ForceOwnership); err != nil {
			return fmt.Errorf("granting the rights of the API Key Manager in namespace %s: %w", name.Namespace, err)
		}
	}
	return nil
}
