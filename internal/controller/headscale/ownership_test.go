package headscale

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("Ownership", func() {
	It("is written on every object", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		headscale := get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail))
		yes := true
		want := metav1.OwnerReference{
			APIVersion: "headscale.infrado.cloud/v1beta1", Kind: "Headscale", Name: "headscale", UID: headscale.UID,
			Controller: &yes, BlockOwnerDeletion: &yes,
		}
		lists := map[string]client.ObjectList{
			"ServiceAccount": &corev1.ServiceAccountList{}, "Role": &rbacv1.RoleList{}, "RoleBinding": &rbacv1.RoleBindingList{},
			"ConfigMap": &corev1.ConfigMapList{}, "Service": &corev1.ServiceList{}, "StatefulSet": &appsv1.StatefulSetList{},
		}
		var names []string
		for kind, list := range lists {
			Expect(admin.List(ctx, list, client.InNamespace(o.namespace), client.MatchingLabels{v1beta1.LabelManagedBy: v1beta1.ManagedBy})).To(Succeed())
			for _, item := range itemsOf(list) {
				names = append(names, kind+" "+item.GetName())
				Expect(item.GetOwnerReferences()).To(Equal([]metav1.OwnerReference{want}), "%s %s", kind, item.GetName())
			}
		}
		Expect(names).To(ConsistOf(
			"ServiceAccount headscale", "Role headscale", "RoleBinding headscale", "ConfigMap headscale",
			"Service headscale", "Service headscale-metrics", "StatefulSet headscale"))
	})

	It("of an object by someone else is respected and reported", func(ctx context.Context) {
		o := startOperator(ctx)
		foreign := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "headscale", Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy}},
			Data:       map[string]string{"mine": "yes"},
		}
		unlabelled := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "headscale-metrics"},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1}}},
		}
		Expect(admin.Create(ctx, foreign)).To(Succeed())
		Expect(admin.Create(ctx, unlabelled)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())

		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(And(
			be("False", v1beta1.ReasonConflict, "ConfigMap headscale, Service headscale-metrics exists already and does not belong to this Headscale"),
		))
		o.touch(ctx, "headscale")
		Expect(o.written()).To(HaveEach(HaveSuffix("/status")), "nothing may be written while a name is taken")
		Expect(get[corev1.ConfigMap](ctx, o.namespace, "headscale")(NewGomega(Fail)).ResourceVersion).To(Equal(foreign.ResourceVersion))
		Expect(get[corev1.Service](ctx, o.namespace, "headscale-metrics")(NewGomega(Fail)).ResourceVersion).To(Equal(unlabelled.ResourceVersion))

		Expect(admin.Delete(ctx, foreign)).To(Succeed())
		Expect(admin.Delete(ctx, unlabelled)).To(Succeed())
		o.touch(ctx, "headscale")
		Eventually(get[corev1.ConfigMap](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Data", HaveKey("config.yaml")))
	})

	It("of an object that is not wanted and not ours is respected", func(ctx context.Context) {
		o := startOperator(ctx)
		foreign := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "headscale", Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy}}}
		Expect(admin.Create(ctx, foreign)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest+"  api_key: {auto_manage: false}\n")).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Expect(get[rbacv1.Role](ctx, o.namespace, "headscale")(NewGomega(Fail)).ResourceVersion).To(Equal(foreign.ResourceVersion))
	})

	It("of two Headscales in one namespace is kept apart", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Expect(create(ctx, o.namespace, strings.ReplaceAll(shortest, "name: headscale", "name: second")+"  api_key: {secret_name: second-key}\n")).To(Succeed())
		for _, name := range []string{"headscale", "second"} {
			runPod(ctx, o.namespace, name, 1)
			Eventually(condition(ctx, o.namespace, name, v1beta1.ConditionAvailable)).WithContext(ctx).Should(be("True", v1beta1.ReasonAvailable, name+"-0"))
		}
		Expect(get[appsv1.StatefulSet](ctx, o.namespace, "second")(NewGomega(Fail)).Spec.Selector.MatchLabels).To(
			HaveKeyWithValue("app.kubernetes.io/instance", "second"))
	})

	It("of one Secret by two Headscales is refused for the younger one", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).ShouldNot(BeNil())
		second := strings.ReplaceAll(shortest, "name: headscale", "name: second")
		second = strings.Replace(second, "metadata:", "metadata:\n  annotations: {api-key.headscale.infrado.cloud/rotate-requested-at: now}", 1)
		Expect(create(ctx, o.namespace, second)).To(Succeed())

		const sentence = "Secret headscale-api-key is already managed for Headscale headscale: set spec.api_key.secret_name to another name"
		Eventually(condition(ctx, o.namespace, "second", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonConflict, sentence))
		Expect(condition(ctx, o.namespace, "second", v1beta1.ConditionAPIKeyReady)(NewGomega(Fail))).To(be("False", v1beta1.ReasonConflict, sentence))
		Expect(missing[appsv1.StatefulSet](ctx, o.namespace, "second")()).To(BeTrue())
		Expect(get[corev1.Secret](ctx, o.namespace, "headscale-api-key")(NewGomega(Fail)).Annotations).NotTo(HaveKey(v1beta1.AnnotationRotateRequestedAt))

		Expect(patch(ctx, o.namespace, "second", `{spec: {api_key: {secret_name: second-key}}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "second")).WithContext(ctx).ShouldNot(BeNil())
	})

	It("of the data volume cannot be changed, which is said", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		runPod(ctx, o.namespace, "headscale", 1)
		for change, sentence := range map[string]string{
			`{size: 500Mi}`:              `spec.persistent_volume_claim.size cannot be changed from "1Gi" to "500Mi"`,
			`{storage_class_name: fast}`: `spec.persistent_volume_claim.storage_class_name cannot be changed from "" to "fast"`,
		} {
			Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 1Gi, storage_class_name: null}}}`)).To(Succeed())
			Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: `+change+`}}`)).To(Succeed())
			Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(
				be("False", v1beta1.ReasonInvalidConfig, sentence))
		}
		before := o.settle(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before), "what cannot be done is not tried again and again")

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {persistent_volume_claim: {size: 1024Mi, storage_class_name: null}}}`)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).ShouldNot(HaveField("Reason", v1beta1.ReasonInvalidConfig))
	})
})

// itemsOf are the items of a list.
func itemsOf(list client.ObjectList) []client.Object {
	GinkgoHelper()
	var items []client.Object
	objects, err := meta.ExtractList(list)
	Expect(err).NotTo(HaveOccurred())
	for _, object := range objects {
		item, ok := object.(client.Object)
		Expect(ok).To(BeTrue(), "%T", object)
		items = append(items, item)
	}
	return items
}
