package headscale

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
)

// editor is the field manager of who edits objects by hand in these specs.
const editor = client.FieldOwner("kubectl-edit")

// change edits an object of the operator by hand, as kubectl edit does.
func change[T any, O apply.Object[T]](ctx context.Context, namespace, name string, edit func(O)) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		live := get[T, O](ctx, namespace, name)(g)
		edit(live)
		g.Expect(admin.Update(ctx, live, editor)).To(Succeed())
	}).WithContext(ctx).Should(Succeed())
}

var _ = Describe("What somebody changed in an object", func() {
	begin := func(ctx context.Context) *operator {
		GinkgoHelper()
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		return o
	}
	ports := func(service *corev1.Service) map[string]int32 {
		named := map[string]int32{}
		for i := range service.Spec.Ports {
			named[service.Spec.Ports[i].Name] = service.Spec.Ports[i].Port
		}
		return named
	}

	It("is put right where it is in the place of ours, and is left where it is not", func(ctx context.Context) {
		o := begin(ctx)
		want := ports(get[corev1.Service](ctx, o.namespace, "headscale")(NewGomega(Fail)))
		want["extra"] = 7070
		change(ctx, o.namespace, "headscale", func(service *corev1.Service) {
			service.Spec.Ports[0].Port = 9999
			service.Spec.Ports[0].TargetPort = intstr.FromInt32(1)
			service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: "extra", Port: 7070})
		})
		Eventually(get[corev1.Service](ctx, o.namespace, "headscale")).WithContext(ctx).Should(WithTransform(ports, Equal(want)))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)(NewGomega(Fail))).To(be("False", v1beta1.ReasonProgressing, ""))
	})

	It("is no second API Key Manager or Headscale, also without its ports", func(ctx context.Context) {
		o := begin(ctx)
		change(ctx, o.namespace, "headscale", func(live *appsv1.StatefulSet) {
			for i, container := range live.Spec.Template.Spec.Containers {
				live.Spec.Template.Spec.Containers[i].Name = "renamed-" + container.Name
				live.Spec.Template.Spec.Containers[i].Image = "elsewhere/" + container.Name
				live.Spec.Template.Spec.Containers[i].Args = append([]string{"--log-level=debug"}, container.Args...)
				live.Spec.Template.Spec.Containers[i].Ports = nil
				live.Spec.Template.Spec.Containers[i].LivenessProbe = nil
				live.Spec.Template.Spec.Containers[i].ReadinessProbe = nil
				live.Spec.Template.Spec.Containers[i].StartupProbe = nil
			}
			live.Spec.Template.Spec.Containers = append(live.Spec.Template.Spec.Containers,
				corev1.Container{Name: "theirs", Image: "theirs", Args: []string{"serve", "--socket-path=/var/run/headscale/headscale.sock"}})
		})
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(WithTransform(containers, ConsistOf("headscale", "apikey-manager", "theirs")))
	})

	It("is no second API Key Manager, whatever it is called and runs", func(ctx context.Context) {
		o := begin(ctx)
		change(ctx, o.namespace, "headscale", func(live *appsv1.StatefulSet) {
			live.Spec.Template.Spec.Containers[1].Name = "renamed"
			live.Spec.Template.Spec.Containers[1].Image = "elsewhere/apikey-manager"
			live.Spec.Template.Spec.Containers = append(live.Spec.Template.Spec.Containers, corev1.Container{Name: "theirs", Image: "theirs"})
		})
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(WithTransform(containers, ConsistOf("headscale", "apikey-manager", "theirs")))
	})

	It("is no second entry with the key of one of ours", func(ctx context.Context) {
		o := begin(ctx)
		env := func(live *appsv1.StatefulSet) []corev1.EnvVar { return live.Spec.Template.Spec.Containers[1].Env }
		want := env(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail)))
		Expect(want).NotTo(BeEmpty())
		change(ctx, o.namespace, "headscale", func(live *appsv1.StatefulSet) {
			manager := &live.Spec.Template.Spec.Containers[1]
			manager.Env = append(manager.Env, corev1.EnvVar{Name: want[0].Name, Value: "elsewhere"})
		})
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(WithTransform(env, Equal(want)))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, ""))
	})

	It("does not keep a part of what is taken away", func(ctx context.Context) {
		o := begin(ctx)
		change(ctx, o.namespace, "headscale", func(live *appsv1.StatefulSet) {
			manager := &live.Spec.Template.Spec.Containers[1]
			manager.Env = append(manager.Env, corev1.EnvVar{Name: "HTTPS_PROXY", Value: "http://proxy"})
		})
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {api_key: {auto_manage: false}}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(withoutSidecar())
		Eventually(missing[rbacv1.Role](ctx, o.namespace, "headscale")).WithContext(ctx).Should(BeTrue())
	})

	It("and cannot be undone is reported with who did it, and holds up what needs the object alone", func(ctx context.Context) {
		o := begin(ctx)
		change(ctx, o.namespace, "headscale", func(config *corev1.ConfigMap) { config.Immutable = new(true) })
		change(ctx, o.namespace, "headscale", func(role *rbacv1.Role) { role.Rules = nil })
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {log: {level: debug}}}}`)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonConflict,
			"The ConfigMap headscale was changed by kubectl-edit, and the API server rejects it together with that change: applying the ConfigMap headscale: "))
		Expect(ready(NewGomega(Fail)).Message).To(And(
			ContainSubstring("undo the change: kubectl get configmap headscale -n "+o.namespace+" -o yaml --show-managed-fields shows it"),
			HaveSuffix(" (StatefulSet headscale waits for it)")))
		Eventually(get[rbacv1.Role](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Rules", HaveLen(2)))
		hash := get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(NewGomega(Fail)).Spec.Template.Annotations

		before := len(o.written())
		Consistently(func() int { return len(o.written()) - before }, "1s").WithContext(ctx).Should(BeNumerically("<", 10), "it is not tried all the time")

		Expect(admin.Delete(ctx, get[corev1.ConfigMap](ctx, o.namespace, "headscale")(NewGomega(Fail)))).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Spec.Template.Annotations", Not(Equal(hash))))
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonProgressing, ""))
	})

	It("is put right while the spec is refused, and nothing else is changed", func(ctx context.Context) {
		o := begin(ctx)
		Expect(patch(ctx, o.namespace, "headscale",
			`{spec: {config: {listen_addr: "0.0.0.0:8000"}, api_key: {secret_name: other}, pod: {labels: {team: no label}}}}`)).To(Succeed())
		ready := condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "(Role headscale, ConfigMap headscale, Service headscale wait for it)"))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {listen_addr: null}, api_key: {secret_name: null}}}`)).To(Succeed())
		Eventually(ready).WithContext(ctx).Should(be("False", v1beta1.ReasonInvalidConfig, "labels"))
		change(ctx, o.namespace, "headscale", func(role *rbacv1.Role) { role.Rules = nil })
		change(ctx, o.namespace, "headscale", func(config *corev1.ConfigMap) { config.Data = nil })
		change(ctx, o.namespace, "headscale", func(service *corev1.Service) { service.Spec.Selector = map[string]string{"none": ""} })
		Eventually(get[rbacv1.Role](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Rules", HaveLen(2)))
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKey("config.yaml")))
		Eventually(get[corev1.Service](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Spec.Selector", HaveKey("app.kubernetes.io/instance")))
	})
})
