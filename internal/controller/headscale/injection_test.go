package headscale

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("The API Key Manager", func() {
	It("is injected next to Headscale", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())

		var live *appsv1.StatefulSet
		Eventually(func(g Gomega) { live = get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g) }).WithContext(ctx).Should(Succeed())
		pod := live.Spec.Template.Spec
		Expect(pod.ServiceAccountName).To(Equal("headscale"))
		Expect(pod.AutomountServiceAccountToken).To(HaveValue(BeFalse()))
		Expect(pod.Containers).To(HaveLen(2))

		server, manager := pod.Containers[0], pod.Containers[1]
		Expect(server.Name).To(Equal("headscale"))
		Expect(server.Image).To(Equal("headscale/headscale:v0.29.3"))
		Expect(server.Args).To(Equal([]string{"serve", "--config=/etc/headscale/config.yaml"}))
		Expect(mounts(server)).To(Equal(map[string]string{
			"config": "/etc/headscale", "data": "/var/lib/headscale", "socket": "/var/run/headscale", "tmp": "/tmp",
		}))

		Expect(manager.Name).To(Equal("apikey-manager"))
		Expect(manager.Image).To(Equal(managerImage))
		Expect(manager.Args).To(Equal([]string{
			"--socket-path=/var/run/headscale/headscale.sock",
			"--secret-name=headscale-api-key",
			"--owner=headscale/" + string(live.OwnerReferences[0].UID),
			"--expiration=2160h",
			"--rotation-buffer=1920h",
			"--metrics-bind-address=:9101",
			"--admin-bind-address=:9102",
			"--headscale-version=v0.29.3",
		}))
		Expect(manager.Env).To(HaveExactElements(And(
			HaveField("Name", "POD_NAMESPACE"),
			HaveField("ValueFrom.FieldRef.FieldPath", "metadata.namespace"),
		)))
		Expect(manager.ReadinessProbe).To(BeNil())
		Expect(mounts(manager)).To(Equal(map[string]string{
			"socket": "/var/run/headscale", "token": "/var/run/secrets/kubernetes.io/serviceaccount",
		}))

		volumes := map[string]corev1.VolumeSource{}
		for _, volume := range pod.Volumes {
			volumes[volume.Name] = volume.VolumeSource
		}
		Expect(volumes["socket"].EmptyDir).NotTo(BeNil())
		Expect(volumes["token"].Projected.Sources).To(HaveLen(3))
		Expect(volumes["token"].Projected.Sources[0].ServiceAccountToken).To(And(
			HaveField("Path", "token"), HaveField("ExpirationSeconds", HaveValue(BeEquivalentTo(3600)))))
	})

	It("has the rights that it needs and no others", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[rbacv1.RoleBinding](ctx, o.namespace, "headscale")).WithContext(ctx).Should(And(
			HaveField("RoleRef", rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "headscale"}),
			HaveField("Subjects", []rbacv1.Subject{{Kind: "ServiceAccount", Name: "headscale", Namespace: o.namespace}}),
		))
		Expect(get[rbacv1.Role](ctx, o.namespace, "headscale")(NewGomega(Fail)).Rules).To(Equal([]rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}},
			{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"headscale-api-key"}, Verbs: []string{"get", "patch", "update", "watch"}},
		}))
	})

	It("finds the socket and the Secret where the resource says", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: other}
spec:
  version: v0.28.0
  image: registry.example:5000/headscale
  config:
    server_url: https://headscale.example.com
    unix_socket: /run/hs/admin.sock
    database: {sqlite: {path: /data/headscale.db}}
  api_key: {secret_name: admin-key, expiration: 720h, revocation_delay: 1m, manager_image: "registry.example/manager@sha256:0123"}
`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "other")).WithContext(ctx).Should(WithTransform(
			func(live *appsv1.StatefulSet) []corev1.Container { return live.Spec.Template.Spec.Containers },
			HaveExactElements(
				And(
					HaveField("Image", "registry.example:5000/headscale:v0.28.0"),
					WithTransform(mounts, And(HaveKeyWithValue("socket", "/run/hs"), HaveKeyWithValue("data", "/data"))),
				),
				And(
					HaveField("Image", "registry.example/manager@sha256:0123"),
					HaveField("Args", ContainElements(
						"--socket-path=/run/hs/admin.sock", "--secret-name=admin-key", HavePrefix("--owner=other/"),
						"--expiration=720h", "--rotation-buffer=640h", "--revocation-delay=1m",
					)),
					WithTransform(mounts, HaveKeyWithValue("socket", "/run/hs")),
				),
			)))
		Eventually(get[rbacv1.Role](ctx, o.namespace, "other")).WithContext(ctx).Should(
			HaveField("Rules", ContainElement(HaveField("ResourceNames", []string{"admin-key"}))))
	})

	It("is taken away and brought back", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		secret := keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration))
		Expect(admin.Create(ctx, secret)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(WithTransform(containers, HaveLen(2)))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {auto_manage: false}}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(withoutSidecar())
		Eventually(missing[rbacv1.Role](ctx, o.namespace, "headscale")).WithContext(ctx).Should(BeTrue())
		Eventually(missing[rbacv1.RoleBinding](ctx, o.namespace, "headscale")).WithContext(ctx).Should(BeTrue())
		Consistently(get[corev1.Secret](ctx, o.namespace, "headscale-api-key"), "200ms").WithContext(ctx).Should(HaveField("Data", secret.Data))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {auto_manage: true}}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(WithTransform(containers, HaveLen(2)))
		Eventually(get[rbacv1.Role](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Rules", HaveLen(2)))
		Eventually(get[rbacv1.RoleBinding](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Subjects", HaveLen(1)))
	})

	It("is not there when it was never wanted", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(withoutSidecar())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonNotManaged, "auto_manage is false"))
		Expect(missing[rbacv1.Role](ctx, o.namespace, "headscale")()).To(BeTrue())
		Expect(missing[rbacv1.RoleBinding](ctx, o.namespace, "headscale")()).To(BeTrue())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
	})
})

// mounts maps the volumes of a container to where they are mounted.
func mounts(container corev1.Container) map[string]string {
	paths := map[string]string{}
	for _, mount := range container.VolumeMounts {
		paths[mount.Name] = mount.MountPath
	}
	return paths
}

// containers are the names of the containers of a StatefulSet's pod.
func containers(live *appsv1.StatefulSet) []string {
	var names []string
	for i := range live.Spec.Template.Spec.Containers {
		names = append(names, live.Spec.Template.Spec.Containers[i].Name)
	}
	return names
}

// withoutSidecar matches a StatefulSet that runs Headscale alone, which still has a
// volume for its socket and has no token.
func withoutSidecar() types.GomegaMatcher {
	return And(
		WithTransform(containers, Equal([]string{"headscale"})),
		HaveField("Spec.Template.Spec.Volumes", And(
			ContainElement(And(HaveField("Name", "socket"), HaveField("EmptyDir", Not(BeNil())))),
			Not(ContainElement(HaveField("Name", "token"))),
		)),
		HaveField("Spec.Template.Spec.Containers", ContainElement(WithTransform(mounts, HaveKeyWithValue("socket", "/var/run/headscale")))),
	)
}
