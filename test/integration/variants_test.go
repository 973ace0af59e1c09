package integration_test

import (
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/retry"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// shortestManifest has what is required and nothing else.
const shortestManifest = `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: headscale}
spec: {version: ` + serverbuild.DefaultHeadscale + `, config: {server_url: "https://headscale.example.com"}}
`

var _ = Describe("The shortest manifest", func() {
	for _, version := range []string{"v0.26.1", "v0.27.1", "v0.28.0", "v0.29.3"} {
		It("gets a working key from Headscale "+version+", and another one after it", func(ctx SpecContext) {
			namespace := newNamespace(ctx)
			hs := runPod(namespace, "headscale")
			apply(ctx, namespace, strings.Replace(shortestManifest, serverbuild.DefaultHeadscale, version, 1))
			hs.awaitReady(ctx)
			old := keyOf(hs.awaitRest(ctx, secretName))
			Expect(hs.keyStatus(ctx, old)).To(Equal(http.StatusOK))

			hs.patch(ctx, `{"metadata":{"annotations":{"api-key.headscale.infrado.cloud/rotate-requested-at":"now"}}}`)
			renewed := keyOf(hs.awaitKey(ctx, secretName, old))
			Expect(hs.keyStatus(ctx, renewed)).To(Equal(http.StatusOK))
			Eventually(hs.keyStatus).WithContext(ctx).WithArguments(old).Should(Equal(http.StatusUnauthorized))
		})
	}
})

var _ = Describe("auto_manage", func() {
	containers := func(ctx SpecContext, hs *server) []string {
		GinkgoHelper()
		set := &appsv1.StatefulSet{}
		Expect(admin.Get(ctx, hs.key, set)).To(Succeed())
		var names []string
		for i := range set.Spec.Template.Spec.Containers {
			names = append(names, set.Spec.Template.Spec.Containers[i].Name)
		}
		return names
	}
	expectNoRights := func(ctx SpecContext, hs *server) {
		GinkgoHelper()
		Eventually(func() bool {
			return apierrors.IsNotFound(admin.Get(ctx, hs.key, &rbacv1.Role{})) &&
				apierrors.IsNotFound(admin.Get(ctx, hs.key, &rbacv1.RoleBinding{}))
		}).Should(BeTrue())
	}

	It("that is off from the start leaves Headscale alone, and may be turned on later", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest[:len(shortestManifest)-2]+", api_key: {auto_manage: false}}\n")
		hs.awaitReady(ctx)
		Expect(containers(ctx, hs)).To(ConsistOf(containerHeadscale))
		expectNoRights(ctx, hs)
		Expect(hs.keyStatus(ctx, "hskey-api-000000000000-0")).To(Equal(http.StatusUnauthorized), "Headscale answers")
		condition := meta.FindStatusCondition(hs.get(ctx).Status.Conditions, v1beta1.ConditionAPIKeyReady)
		Expect(condition).To(HaveField("Reason", v1beta1.ReasonNotManaged))
		_, err := hs.secret(ctx, secretName)
		Expect(apierrors.IsNotFound(err)).To(BeTrue())

		hs.patch(ctx, `{"spec":{"api_key":{"auto_manage":true}}}`)
		key := keyOf(hs.awaitKey(ctx, secretName, ""))
		Eventually(hs.keyStatus).WithContext(ctx).WithArguments(key).Should(Equal(http.StatusOK))
	})

	It("that is turned off removes the sidecar and its rights; Headscale, the Secret and its key stay", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)
		before := hs.awaitRest(ctx, secretName)

		hs.patch(ctx, `{"spec":{"api_key":{"auto_manage":false}}}`)
		hs.awaitReady(ctx)
		expectNoRights(ctx, hs)
		Expect(containers(ctx, hs)).To(ConsistOf(containerHeadscale))
		Expect(hs.pod.Process(containerManager)).To(BeNil())
		Expect(hs.keyStatus(ctx, keyOf(before))).To(Equal(http.StatusOK))
		Expect(hs.secret(ctx, secretName)).To(HaveField("ResourceVersion", before.ResourceVersion))

		By("turning it on again")
		hs.patch(ctx, `{"spec":{"api_key":{"auto_manage":true}}}`)
		hs.awaitReady(ctx)
		Expect(hs.keyStatus(ctx, keyOf(before))).To(Equal(http.StatusOK))
		Expect(keyOf(hs.awaitRest(ctx, secretName))).To(Equal(keyOf(before)), "a good key is not replaced")
	})
})

var _ = Describe("Two Headscales in a namespace", func() {
	It("have each their own key, with sockets wherever they are told to put them", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		first, second := runPod(namespace, "first"), runPod(namespace, "second")
		apply(ctx, namespace, strings.NewReplacer("name: headscale", "name: first").Replace(shortestManifest))
		apply(ctx, namespace, `
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: second}
spec:
  version: `+serverbuild.DefaultHeadscale+`
  config:
    server_url: http://second.example.com:8000
    listen_addr: "[::]:8000"
    unix_socket: /run/second/admin.sock
    database: {type: sqlite, sqlite: {path: /data/second.sqlite}}
  api_key: {secret_name: second.key, expiration: 720h}
`)
		first.awaitReady(ctx)
		second.awaitReady(ctx)
		one, two := keyOf(first.awaitRest(ctx, secretName)), keyOf(second.awaitRest(ctx, "second.key"))
		Expect(first.keyStatus(ctx, one)).To(Equal(http.StatusOK))
		Expect(second.keyStatus(ctx, two)).To(Equal(http.StatusOK))
		Expect(first.keyStatus(ctx, two)).To(Equal(http.StatusUnauthorized))
		Expect(second.pod.HostPath(containerHeadscale, "/data/second.sqlite")).To(BeARegularFile())
	})
})

var _ = Describe("The data of a Headscale", func() {
	It("outlives its pod: after replicas 0 and 1 the same key works", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		hs.awaitReady(ctx)
		key := keyOf(hs.awaitRest(ctx, secretName))

		hs.patch(ctx, `{"spec":{"replicas":0}}`)
		Eventually(func() any { return hs.pod.Process(containerHeadscale) }).Should(BeNil())
		hs.patch(ctx, `{"spec":{"replicas":1}}`)
		Eventually(hs.keyStatus).WithContext(ctx).WithArguments(key).Should(Equal(http.StatusOK))
		hs.awaitReady(ctx)
		Expect(keyOf(hs.awaitRest(ctx, secretName))).To(Equal(key))
	})
})

var _ = Describe("The Secret of somebody else", func() {
	It("is left alone, and taken over when its owner marks it as ours", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		apply(ctx, namespace, "apiVersion: v1\nkind: Secret\nmetadata: {name: "+secretName+"}\nstringData: {api-key: mine}\n")
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, shortestManifest)
		Eventually(func() string { return hs.pod.Log(containerManager) }).Should(ContainSubstring(secretName))
		Eventually(func() any {
			return meta.FindStatusCondition(hs.get(ctx).Status.Conditions, v1beta1.ConditionAvailable)
		}).Should(HaveField("Status", BeEquivalentTo("True")))
		secret, err := hs.secret(ctx, secretName)
		Expect(err).NotTo(HaveOccurred())
		Expect(keyOf(secret)).To(Equal("mine"))

		Expect(retry.RetryOnConflict(retry.DefaultRetry, func() error {
			secret, err = hs.secret(ctx, secretName)
			if err != nil {
				return err
			}
			secret.Labels = map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy, v1beta1.LabelComponent: v1beta1.ComponentAPIKey}
			return admin.Update(ctx, secret)
		})).To(Succeed())
		key := keyOf(hs.awaitKey(ctx, secretName, "mine"))
		Expect(hs.keyStatus(ctx, key)).To(Equal(http.StatusOK))
		hs.awaitReady(ctx)
	})
})
