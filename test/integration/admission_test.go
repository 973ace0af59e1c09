package integration_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// operatorUser is the identity that the operator of config/default has, and acts as here.
const operatorUser = "system:serviceaccount:headscale-operator-system:headscale-operator-controller-manager"

var _ = Describe("The operator under its admission policies", Ordered, func() {
	var hs *server
	var logged int

	BeforeAll(func(ctx SpecContext) {
		enforcePolicies(ctx)
		logged = len(world.Operator.Process.Log().String())
		namespace := newNamespace(ctx)
		makeStorageClass(ctx, namespace)
		hs = runPod(namespace, "headscale")
		makeDataClaim(ctx, namespace, namespace)
		apply(ctx, namespace, strings.Replace(shortestManifest, "config:", "persistent_volume_claim: {storage_class_name: "+namespace+"}, config:", 1))
	})

	AfterEach(func() {
		Expect(world.Operator.Process.Log().String()[logged:]).NotTo(Or(ContainSubstring("denied request"), ContainSubstring("forbidden")))
	})

	It("creates a Headscale", func(ctx SpecContext) {
		hs.awaitReady(ctx)
		hs.awaitRest(ctx, secretName)
		Eventually(func() (map[string]string, error) {
			claim, err := hs.claim(ctx)
			return claim.Annotations, err
		}).WithContext(ctx).Should(HaveKey(resources.AnnotationVersion), "which version last ran with the volume")
	})

	It("changes it, and requests a new key", func(ctx SpecContext) {
		old := keyOf(hs.awaitRest(ctx, secretName))
		hs.patch(ctx, `{"metadata":{"annotations":{"`+v1beta1.AnnotationRotateRequestedAt+`":"now"}}}`)
		hs.awaitKey(ctx, secretName, old)
		hs.patch(ctx, `{"spec":{"config":{"log":{"level":"debug"},"metrics_listen_addr":""},"pod":{"labels":{"a":"b"}}}}`)
		hs.awaitReady(ctx)
	})

	It("takes the API Key Manager away, and brings it back", func(ctx SpecContext) {
		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: hs.key.Namespace, Name: hs.key.Name}}
		hs.patch(ctx, `{"spec":{"api_key":{"auto_manage":false}}}`)
		Eventually(func() bool { return apierrors.IsNotFound(admin.Get(ctx, hs.key, role)) }).WithContext(ctx).Should(BeTrue())
		hs.patch(ctx, `{"spec":{"api_key":{"auto_manage":true}}}`)
		Eventually(func() error { return admin.Get(ctx, hs.key, role) }).WithContext(ctx).Should(Succeed())
		hs.awaitReady(ctx)
	})

	It("scales it", func(ctx SpecContext) {
		hs.patch(ctx, `{"spec":{"replicas":0}}`)
		Eventually(hs.reason).WithContext(ctx).Should(Equal(v1beta1.ReasonScaledToZero))
		hs.patch(ctx, `{"spec":{"replicas":1}}`)
		hs.awaitReady(ctx)
	})

	It("expands its volume", func(ctx SpecContext) {
		hs.patch(ctx, `{"spec":{"persistent_volume_claim":{"size":"2Gi"}}}`)
		Eventually(func() (string, error) {
			claim, err := hs.claim(ctx)
			return claim.Spec.Resources.Requests.Storage().String(), err
		}).WithContext(ctx).Should(Equal("2Gi"))
		// What the garbage collector does where it runs: it lets go of the pod.
		Eventually(func(g Gomega) {
			set := &appsv1.StatefulSet{}
			g.Expect(admin.Get(ctx, hs.key, set)).To(Succeed())
			if set.DeletionTimestamp != nil {
				pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: hs.key.Namespace, Name: hs.key.Name + "-0"}}
				release := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"ownerReferences":null}}`))
				g.Expect(client.IgnoreNotFound(admin.Patch(ctx, pod, release))).To(Succeed())
				set.Finalizers = nil
				g.Expect(admin.Update(ctx, set)).To(Succeed())
			}
			g.Expect(set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests.Storage().String()).To(Equal("2Gi"))
			g.Expect(set.DeletionTimestamp).To(BeNil())
		}).WithContext(ctx).Should(Succeed())
		hs.awaitReady(ctx)
	})

	It("leaves it to be deleted", func(ctx SpecContext) {
		Expect(admin.Delete(ctx, hs.get(ctx))).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(collectGarbage(ctx, hs.key.Namespace)).To(BeEmpty())
			g.Expect(hs.pod.Process(containerManager)).To(BeNil())
		}).WithContext(ctx).Should(Succeed())
		Expect(asOperator().Create(ctx, foreignSecret(hs.key.Namespace), client.DryRunAll)).
			To(MatchError(ContainSubstring("The operator creates no Secrets")), "the policies were there all the time")
	})
})

// enforcePolicies installs config/admission-policy until the end of the container.
func enforcePolicies(ctx context.Context) {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	config, err := filepath.Rel(dir, filepath.Join(root, "config"))
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(filepath.Join(dir, "kustomization.yaml"),
		[]byte("resources: ["+config+"/default]\ncomponents: ["+config+"/admission-policy]\n"), 0o600)).To(Succeed())
	_, err = plane.Kubectl(ctx, "apply", "--server-side", "-k", dir)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		_, err := plane.Kubectl(ctx, "delete", "--all", "validatingadmissionpolicybindings,validatingadmissionpolicies")
		Expect(err).NotTo(HaveOccurred())
	})
	// A policy takes effect some time after it was created.
	secret := foreignSecret("default")
	Eventually(func() error { return asOperator().Create(ctx, secret.DeepCopy(), client.DryRunAll) }).WithContext(ctx).
		Should(MatchError(ContainSubstring("The operator creates no Secrets")))
}

// asOperator is a client that acts as the operator.
func asOperator() client.Client {
	GinkgoHelper()
	config := plane.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: operatorUser}
	made, err := client.New(config, client.Options{Scheme: admin.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	return made
}

// foreignSecret is one that the operator must not make.
func foreignSecret(namespace string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "foreign"}}
}

// makeStorageClass makes one whose volumes can be expanded.
func makeStorageClass(ctx context.Context, name string) {
	GinkgoHelper()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "example.com/disk", AllowVolumeExpansion: ptr.To(true)}
	Expect(admin.Create(ctx, class)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, class)).To(Succeed()) })
}

// makeDataClaim makes the claim that the StatefulSet controller would, and has it bound.
func makeDataClaim(ctx context.Context, namespace, class string) {
	GinkgoHelper()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "data-headscale-0", Labels: map[string]string{
			v1beta1.LabelManagedBy: v1beta1.ManagedBy, "app.kubernetes.io/instance": "headscale", "app.kubernetes.io/name": "headscale",
		}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	Expect(admin.Create(ctx, claim)).To(Succeed())
	claim.Status.Phase = corev1.ClaimBound
	Expect(admin.Status().Update(ctx, claim)).To(Succeed())
}

// claim reads the claim of the data volume.
func (s *server) claim(ctx context.Context) (*corev1.PersistentVolumeClaim, error) {
	claim := &corev1.PersistentVolumeClaim{}
	err := admin.Get(ctx, client.ObjectKey{Namespace: s.key.Namespace, Name: "data-" + s.key.Name + "-0"}, claim)
	return claim, err
}

// reason is that of the condition Ready, or "".
func (s *server) reason(ctx context.Context) string {
	headscale := &v1beta1.Headscale{}
	if err := admin.Get(ctx, s.key, headscale); err != nil {
		return ""
	}
	ready := meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionReady)
	return ptr.Deref(ready, metav1.Condition{}).Reason
}
