package headscale

import (
	"context"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

const labelOfArgo = "app.kubernetes.io/instance"

// prunable lists the objects of a namespace that Argo CD, with tracking by label, takes for
// parts of an application of that name and prunes where its repository does not have them:
// those with the label and without an owner. It fails the assertion that asks where it is told of
// a kind that is gone: a spec that has ended may have made one.
func prunable(ctx context.Context, namespace, application string) func(Gomega) []string {
	return func(g Gomega) []string {
		connection, err := discovery.NewDiscoveryClientForConfig(adminConfig)
		g.Expect(err).NotTo(HaveOccurred())
		kinds, err := connection.ServerPreferredNamespacedResources()
		g.Expect(err).NotTo(HaveOccurred())
		var found []string
		for _, group := range kinds {
			version, err := schema.ParseGroupVersion(group.GroupVersion)
			g.Expect(err).NotTo(HaveOccurred())
			for i := range group.APIResources {
				if !slices.Contains(group.APIResources[i].Verbs, "list") {
					continue
				}
				objects := &metav1.PartialObjectMetadataList{}
				objects.SetGroupVersionKind(version.WithKind(group.APIResources[i].Kind + "List"))
				g.Expect(admin.List(ctx, objects, client.InNamespace(namespace), client.MatchingLabels{labelOfArgo: application})).To(Succeed())
				for j := range objects.Items {
					if len(objects.Items[j].OwnerReferences) == 0 {
						found = append(found, group.APIResources[i].Kind+" "+objects.Items[j].Name)
					}
				}
			}
		}
		return found
	}
}

var _ = Describe("The claim of the data volume", func() {
	It("and everything else is out of reach of an application of Argo CD with the Headscale's name", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		Expect(claim.Labels).To(HaveKeyWithValue(labelOfArgo, "headscale"), "as the StatefulSet controller makes it")
		Expect(claim.Annotations).To(HaveKeyWithValue("argocd.argoproj.io/sync-options", "Prune=false,Delete=false"), "from its first moment")
		runPod(ctx, o.namespace, "headscale", 1)
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("True", v1beta1.ReasonReady, ""))
		Eventually(prunable(ctx, o.namespace, "headscale")).WithContext(ctx).Should(BeEmpty())
		Expect(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)(NewGomega(Fail)).Labels).To(
			HaveKeyWithValue(resources.LabelHeadscale, "headscale"))
	})

	It("that an older release made is brought there once", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		claim := makeClaim(ctx, o.namespace, "headscale", o.namespace, corev1.ClaimBound)
		Eventually(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)).WithContext(ctx).Should(HaveField("Labels", HaveKey(resources.LabelHeadscale)))
		o.stop()
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(claim), claim)).To(Succeed())
		claim.Labels = map[string]string{labelOfArgo: "headscale", "app.kubernetes.io/name": "headscale", v1beta1.LabelManagedBy: v1beta1.ManagedBy, "mine": "stays"}
		claim.Annotations = map[string]string{"mine": "stays"}
		Expect(admin.Update(ctx, claim)).To(Succeed())

		again := startOperatorIn(o.namespace)
		live := get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)
		Eventually(live).WithContext(ctx).Should(And(
			HaveField("Labels", And(Not(HaveKey(labelOfArgo)), HaveKeyWithValue("mine", "stays"))),
			HaveField("Annotations", And(HaveKeyWithValue("argocd.argoproj.io/sync-options", "Prune=false,Delete=false"), HaveKeyWithValue("mine", "stays"))),
		))

		again.settle(ctx, "headscale")
		By("leaving what somebody writes there afterwards")
		tracked := live(NewGomega(Fail))
		tracked.Labels[labelOfArgo] = "headscale"
		tracked.Annotations["argocd.argoproj.io/sync-options"] = "Prune=true"
		Expect(admin.Update(ctx, tracked)).To(Succeed())
		again.touch(ctx, "headscale")
		again.touch(ctx, "headscale")
		Expect(live(NewGomega(Fail))).To(And(
			HaveField("Labels", HaveKeyWithValue(labelOfArgo, "headscale")),
			HaveField("Annotations", HaveKeyWithValue("argocd.argoproj.io/sync-options", "Prune=true"))))
	})

	It("of a StatefulSet of somebody else is left alone", func(ctx context.Context) {
		o := startOperator(ctx)
		claim := keepClaim(ctx, o.namespace, nil)
		labels := map[string]string{"app": "theirs"}
		foreign := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "headscale"}, Spec: appsv1.StatefulSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "theirs", Image: "theirs"}}},
			},
		}}
		Expect(admin.Create(ctx, foreign)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonConflict, "StatefulSet headscale"))
		o.touch(ctx, "headscale")
		Expect(get[corev1.PersistentVolumeClaim](ctx, o.namespace, claim.Name)(NewGomega(Fail)).Labels).To(BeEmpty())
	})

	It("triggers a reconcile when it had no labels", func(ctx context.Context) {
		o := startOperator(ctx)
		claim := keepClaim(ctx, o.namespace, nil)
		claim.Status.Phase = corev1.ClaimPending
		setClaimStatus(ctx, claim)
		Expect(create(ctx, o.namespace, shortest+"  persistent_volume_claim: {size: 5Gi}\n")).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).Should(be("False", v1beta1.ReasonVolumeWaiting, "must be bound"))
		claim.Status.Phase = corev1.ClaimBound
		setClaimStatus(ctx, claim)
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReady)).WithContext(ctx).ShouldNot(HaveField("Reason", v1beta1.ReasonVolumeWaiting))
	})
})
