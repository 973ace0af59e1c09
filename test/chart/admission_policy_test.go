package chart_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// operatorUser is the operator's identity in config/default.
const operatorUser = "system:serviceaccount:" + operatorNamespace + ":headscale-operator-controller-manager"

// hostileObjects are what somebody with the operator's token could try to create: an object
// of a real Headscale with one change, a value in YAML at a path, and the policy's answer.
var hostileObjects = map[string]struct{ kind, path, value, answer string }{
	"another ServiceAccount":      {"StatefulSet", "spec.template.spec.serviceAccountName", "default", "the ServiceAccount of its name"},
	"a mounted token":             {"StatefulSet", "spec.template.spec.automountServiceAccountToken", "true", "without a mounted token"},
	"many pods":                   {"StatefulSet", "spec.replicas", "100", "one pod at most"},
	"the node's network":          {"StatefulSet", "spec.template.spec.hostNetwork", "true", "shares no namespace"},
	"the node's processes":        {"StatefulSet", "spec.template.spec.hostPID", "true", "shares no namespace"},
	"the node's IPC":              {"StatefulSet", "spec.template.spec.hostIPC", "true", "shares no namespace"},
	"a chosen node":               {"StatefulSet", "spec.template.spec.nodeName", "control-plane", "no node name"},
	"a path of the node":          {"StatefulSet", "spec.template.spec.volumes.0", "{name: config, hostPath: {path: /}}", "only volumes that the restricted"},
	"a root user":                 {"StatefulSet", "spec.template.spec.securityContext.runAsUser", "0", "does not run as root"},
	"no rule against root":        {"StatefulSet", "spec.template.spec.securityContext.runAsNonRoot", "false", "does not run as root"},
	"no seccomp profile":          {"StatefulSet", "spec.template.spec.securityContext.seccompProfile", "{type: Unconfined}", "seccomp profile RuntimeDefault"},
	"a sysctl":                    {"StatefulSet", "spec.template.spec.securityContext.sysctls", "[{name: kernel.msgmax, value: '1'}]", "sets no sysctl"},
	"an AppArmor annotation":      {"StatefulSet", "spec.template.metadata.annotations", "{container.apparmor.security.beta.kubernetes.io/headscale: unconfined}", "no unconfined profile"},
	"a privileged container":      {"StatefulSet", "spec.template.spec.containers.0.securityContext", "{privileged: true}", "is privileged"},
	"privilege escalation":        {"StatefulSet", "spec.template.spec.containers.0.securityContext.allowPrivilegeEscalation", "true", "may escalate privileges"},
	"a container without context": {"StatefulSet", "spec.template.spec.containers.0.securityContext", "null", "is privileged"},
	"an added capability":         {"StatefulSet", "spec.template.spec.containers.0.securityContext.capabilities", "{drop: [ALL], add: [NET_ADMIN]}", "drop all capabilities"},
	"kept capabilities":           {"StatefulSet", "spec.template.spec.containers.0.securityContext.capabilities", "{drop: [CHOWN]}", "drop all capabilities"},
	"a writable root":             {"StatefulSet", "spec.template.spec.containers.0.securityContext.readOnlyRootFilesystem", "false", "read-only root file system"},
	"a container's own user":      {"StatefulSet", "spec.template.spec.containers.0.securityContext.runAsUser", "0", "do not override"},
	"a port of the node":          {"StatefulSet", "spec.template.spec.containers.0.ports.0.hostPort", "443", "no ports or devices"},
	"a privileged init container": {"StatefulSet", "spec.template.spec.initContainers", "[{name: a, image: b, securityContext: {privileged: true}}]", "is privileged"},
	"a copy of a volume":          {"StatefulSet", "spec.volumeClaimTemplates.0.spec.dataSource", "{kind: PersistentVolumeClaim, name: victim}", "an empty data volume"},
	"no owner":                    {"StatefulSet", "metadata.ownerReferences", "[]", "that a Headscale of their name controls"},
	"an owner of another kind":    {"StatefulSet", "metadata.ownerReferences.0.kind", "Deployment", "that a Headscale of their name controls"},
	"an owner of another name":    {"StatefulSet", "metadata.ownerReferences.0.name", "victim", "that a Headscale of their name controls"},
	"an owner of another group":   {"StatefulSet", "metadata.ownerReferences.0.apiVersion", "apps/v1", "that a Headscale of their name controls"},
	"an owner without control":    {"StatefulSet", "metadata.ownerReferences.0.controller", "false", "that a Headscale of their name controls"},
	"other labels":                {"StatefulSet", "metadata.labels", "{a: b}", "with its own labels"},
	"a privileged namespace":      {"StatefulSet", "metadata.namespace", "kube-system", "nothing in kube-system"},
	"another's ServiceAccount":    {"ServiceAccount", "metadata.name", "victim", "that a Headscale of their name controls"},
	"a token for every pod":       {"ServiceAccount", "automountServiceAccountToken", "true", "mounts no token"},
	"a role of a cloud":           {"ServiceAccount", "metadata.annotations", "{eks.amazonaws.com/role-arn: admin}", "sets no annotations"},
	"a Role for everything":       {"Role", "rules", "[{apiGroups: ['*'], resources: ['*'], verbs: ['*']}]", "create Secrets and to read and change one"},
	"a Role for every Secret":     {"Role", "rules", "[{apiGroups: [''], resources: [secrets], verbs: [get, list]}]", "create Secrets and to read and change one"},
	"a Role for two Secrets":      {"Role", "rules.1.resourceNames", "[a, b]", "create Secrets and to read and change one"},
	"a Role to list a Secret":     {"Role", "rules.1.verbs", "[get, list]", "create Secrets and to read and change one"},
	"a Role for one Secret more":  {"Role", "rules", "[{apiGroups: [''], resources: [secrets], resourceNames: [a], verbs: [get]}, {apiGroups: [''], resources: [secrets], resourceNames: [b], verbs: [get]}]", "names one Secret"},
	"a Role to watch an identity": {"Role", "rules", "[{apiGroups: [''], resources: [secrets], resourceNames: [a], verbs: [get]}, {apiGroups: [''], resources: [secrets], resourceNames: [headscale-identity], verbs: [watch]}]", "to get and patch it"},
	"a Role for pods":             {"Role", "rules.0.resources", "[pods]", "create Secrets and to read and change one"},
	"a ClusterRole":               {"RoleBinding", "roleRef", "{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}", "the Role of its name"},
	"rights for a user":           {"RoleBinding", "subjects", "[{apiGroup: rbac.authorization.k8s.io, kind: User, name: me}]", "the ServiceAccount of its name"},
	"rights in another namespace": {"RoleBinding", "subjects.0.namespace", "team-b", "the ServiceAccount of its name"},
	"a captured address":          {"Service", "spec.externalIPs", "[192.0.2.1]", "outside the cluster"},
	"a port of every node":        {"Service", "spec.type", "NodePort", "outside the cluster"},
	"another's pods":              {"Service", "spec.selector", "{app: victim}", "the pods of this Headscale only"},
	"a Job of another name":       {"Job", "metadata.name", "headscale", "the ServiceAccount of its name"},
	"a Job without owner":         {"Job", "metadata.ownerReferences", "[]", "that a Headscale of their name controls"},
	"a Job with another's rights": {"Job", "spec.template.spec.serviceAccountName", "default", "the ServiceAccount of its name"},
	"a Job with a mounted token":  {"Job", "spec.template.spec.automountServiceAccountToken", "true", "without a mounted token"},
	"a Job with a token":          {"Job", "spec.template.spec.volumes.0", "{name: data, projected: {sources: [{serviceAccountToken: {path: token}}]}}", "has no token"},
	"a Job of the node":           {"Job", "spec.template.spec.volumes.0", "{name: data, hostPath: {path: /}}", "only volumes that the restricted"},
	"a Job in the node's network": {"Job", "spec.template.spec.hostNetwork", "true", "shares no namespace"},
	"a privileged Job":            {"Job", "spec.template.spec.containers.0.securityContext", "{privileged: true}", "is privileged"},
	"a root Job":                  {"Job", "spec.template.spec.securityContext.runAsUser", "0", "does not run as root"},
	"a Job of many pods":          {"Job", "spec.parallelism", "100", "one pod once"},
	"a Job that is repeated":      {"Job", "spec.backoffLimit", "100", "one pod once"},
	"a Job without end":           {"Job", "spec.activeDeadlineSeconds", "86400", "not for long"},
	"a Job that a Service finds":  {"Job", "spec.template.metadata.labels", "{app.kubernetes.io/instance: headscale}", "No Service finds"},
	"a Job in kube-system":        {"Job", "metadata.namespace", "kube-system", "nothing in kube-system"},
	"a ConfigMap without owner":   {"ConfigMap", "metadata.ownerReferences", "[]", "that a Headscale of their name controls"},
}

// hostileClaimChanges are what somebody with the operator's token could try on claims, which are
// nobody's but keep the data of all.
var hostileClaimChanges = map[string]struct{ patch, refusal string }{
	"another's":          {`{"spec": {"resources": {"requests": {"storage": "2Gi"}}}}`, "only the claims of data volumes"},
	"its labels":         {`{"metadata": {"labels": {"app.kubernetes.io/instance": "other"}}}`, "nothing of a claim but its size, annotations and own labels"},
	"whose it is":        {`{"metadata": {"labels": {"headscale.infrado.cloud/headscale": "other"}}}`, "nothing of a claim but its size, annotations and own labels"},
	"that it has none":   {`{"metadata": {"labels": null}}`, "nothing of a claim but its size, annotations and own labels"},
	"its owner":          {`{"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"}]}}`, "nothing of a claim but its size, annotations and own labels"},
	"what keeps it":      {`{"metadata": {"finalizers": null}}`, "nothing of a claim but its size, annotations and own labels"},
	"what else keeps it": {`{"metadata": {"finalizers": ["kubernetes.io/pvc-protection", "example.com/mine"]}}`, "nothing of a claim but its size, annotations and own labels"},
}

// claimOf makes a claim that is bound, of a class whose volumes can be expanded, for one spec.
func claimOf(ctx context.Context, admin client.Client, name string) *unstructured.Unstructured {
	GinkgoHelper()
	class, claim := &unstructured.Unstructured{}, &unstructured.Unstructured{}
	Expect(yaml.Unmarshal([]byte(`{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {generateName: expandable-}, provisioner: example.com/disk, allowVolumeExpansion: true}`), &class.Object)).To(Succeed())
	Expect(admin.Create(ctx, class)).To(Succeed())
	Expect(yaml.Unmarshal([]byte(`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {namespace: team-a, name: `+name+
		`, labels: {app.kubernetes.io/managed-by: headscale-operator, app.kubernetes.io/instance: headscale}, finalizers: [kubernetes.io/pvc-protection]}, `+
		`spec: {accessModes: [ReadWriteOnce], storageClassName: `+class.GetName()+`, resources: {requests: {storage: 1Gi}}}}`), &claim.Object)).To(Succeed())
	Expect(admin.Create(ctx, claim)).To(Succeed())
	Expect(admin.Status().Patch(ctx, claim, client.RawPatch("application/merge-patch+json", []byte(`{"status": {"phase": "Bound"}}`)))).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		// Nothing runs here that would take the finalizer away.
		Expect(admin.Patch(ctx, claim, client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"finalizers": null}}`)))).To(Succeed())
		Expect(admin.Delete(ctx, claim)).To(Succeed())
		Expect(admin.Delete(ctx, class)).To(Succeed())
	})
	return claim
}

var _ = Describe("The admission policies", Ordered, func() {
	var operator, admin, stolen client.Client

	BeforeAll(func(ctx SpecContext) {
		applyPolicies(ctx)
		admin = clientOf("")
		operator = clientOf(operatorUser)
		// RBAC allows everything here: what is refused, the policies refuse.
		stolen = clientOf(operatorUser, "system:masters")
		// A policy takes effect some time after it was created.
		secret := victim("Secret", "team-a")
		Eventually(func() error { return operator.Create(ctx, secret, client.DryRunAll) }).WithContext(ctx).
			Should(MatchError(ContainSubstring("The operator creates no Secrets")))
	})

	for name, hostile := range hostileObjects {
		It("refuse to create "+name, func(ctx SpecContext) {
			golden := "shortest"
			if hostile.kind == "Job" {
				golden = "preflight"
			}
			object := goldenObject(golden, hostile.kind)
			var value any
			Expect(yaml.Unmarshal([]byte(hostile.value), &value)).To(Succeed())
			set(object.Object, value, strings.Split(hostile.path, ".")...)
			Eventually(func() error { return stolen.Create(ctx, object.DeepCopy(), client.DryRunAll) }).WithContext(ctx).WithTimeout(5 * time.Second).
				Should(MatchError(ContainSubstring(hostile.answer)))
		})
	}

	for _, kind := range []string{"ConfigMap", "Job", "Service", "ServiceAccount", "StatefulSet"} {
		It("refuse to change, and to delete, another owner's "+kind, func(ctx SpecContext) {
			object := victim(kind, "team-a")
			Expect(admin.Create(ctx, object)).To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, object)).To(Succeed()) })
			// More than one policy refuses it; the API server names any of them.
			refused := MatchError(And(ContainSubstring("ValidatingAdmissionPolicy"), ContainSubstring("denied request")))
			if kind != "Job" { // The operator's role has no right to change one.
				Expect(operator.Patch(ctx, object.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"labels": {"a": "b"}}}`)))).To(refused)
			}
			if kind != "ServiceAccount" { // The operator's role has no right to delete one.
				Expect(operator.Delete(ctx, object.DeepCopy())).To(refused)
			}
		})
	}

	It("allow to write the key into the Secret of a pre-auth key, and nothing else", func(ctx SpecContext) {
		secret := victim("Secret", "team-a")
		secret.SetName("web-key")
		secret.SetLabels(map[string]string{"app.kubernetes.io/managed-by": "headscale-operator", "app.kubernetes.io/component": "pre-auth-key"})
		secret.SetAnnotations(map[string]string{"pre-auth-key.headscale.infrado.cloud/entry": "key"})
		Expect(operator.Create(ctx, secret)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, secret)).To(Succeed()) })
		patch := func(as client.Client, change string) error {
			return as.Patch(ctx, secret.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(change)))
		}
		Expect(patch(admin, `{"stringData": {"profile": "state"}}`)).To(Succeed())
		Expect(patch(operator, `{"stringData": {"key": "a key"}}`)).To(Succeed())
		Expect(patch(operator, `{"stringData": {"profile": "other"}}`)).To(MatchError(ContainSubstring("no entry of the Secret of a pre-auth key but the one with the key")))
		Expect(patch(operator, `{"data": {"profile": null}}`)).To(MatchError(ContainSubstring("no entry of the Secret of a pre-auth key but the one with the key")))
		Expect(patch(operator, `{"stringData": {"more": "x"}}`)).To(MatchError(ContainSubstring("adds no entry to the Secret of a pre-auth key")))
		Expect(patch(operator, `{"immutable": true}`)).To(MatchError(ContainSubstring("no type, finalizer or immutability")))
		moved := `{"metadata": {"annotations": {"pre-auth-key.headscale.infrado.cloud/entry": "authkey"}}, "data": {"key": null}, "stringData": {"authkey": "a key"}}`
		Expect(patch(operator, moved)).To(Succeed())
		left := `{"metadata": {"labels": null, "annotations": null}, "data": {"authkey": null}}`
		Expect(patch(operator, left)).To(Succeed())
		Expect(patch(operator, `{"data": {"profile": null}}`)).To(MatchError(ContainSubstring("The operator changes nothing of a Secret but its annotations")))
	})

	It("allow to annotate an API key's Secret, and nothing else of it", func(ctx SpecContext) {
		secret := victim("Secret", "team-a")
		secret.SetLabels(map[string]string{"app.kubernetes.io/managed-by": "headscale-operator", "app.kubernetes.io/component": "api-key"})
		Expect(admin.Create(ctx, secret)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, secret)).To(Succeed()) })
		patch := func(text string) error {
			return operator.Patch(ctx, secret.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(text)))
		}
		Expect(patch(`{"metadata": {"annotations": {"api-key.headscale.infrado.cloud/rotate-requested-at": "now"}}}`)).To(Succeed())
		Expect(patch(`{"stringData": {"a": "b"}}`)).To(MatchError(ContainSubstring("nothing of a Secret but its annotations")))
		Expect(patch(`{"metadata": {"labels": {"a": "b"}}}`)).To(MatchError(ContainSubstring("nothing of a Secret but its annotations")))
	})

	for change, answer := range hostileClaimChanges {
		It("refuse to change of a claim "+change, func(ctx SpecContext) {
			name := "data-headscale-0"
			if change == "another's" {
				name = "victim"
			}
			claim := claimOf(ctx, admin, name)
			// RBAC allows the operator to patch all claims.
			err := operator.Patch(ctx, claim, client.RawPatch("application/merge-patch+json", []byte(answer.patch)))
			Expect(err).To(MatchError(ContainSubstring(answer.refusal)))
		})
	}

	It("allow to label the claim of a data volume as the operator's", func(ctx SpecContext) {
		claim := claimOf(ctx, admin, "data-headscale-0")
		Expect(operator.Patch(ctx, claim, client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"labels": {
			"app.kubernetes.io/instance": null, "app.kubernetes.io/name": "headscale", "app.kubernetes.io/managed-by": "headscale-operator", "headscale.infrado.cloud/headscale": "headscale"}}}`)))).To(Succeed())
	})

	It("allow to enlarge and to annotate the claim of a data volume", func(ctx SpecContext) {
		claim := claimOf(ctx, admin, "data-headscale-0")
		patch := client.RawPatch("application/merge-patch+json",
			[]byte(`{"metadata": {"annotations": {"headscale.infrado.cloud/version": "v0.29.3"}}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}}`))
		Expect(operator.Patch(ctx, claim, patch)).To(Succeed())
		Expect(operator.Delete(ctx, claim.DeepCopy())).To(MatchError(ContainSubstring("forbidden")), "the operator's role does not allow it")
		Expect(admin.Patch(ctx, claim, client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"labels": {"a": "b"}}}`)))).
			To(Succeed(), "whoever else may do that")
	})

	for _, name := range []string{"preflight", "preflight-additions", "verify"} {
		It("accept all objects of a preflight or a verification: "+name, func(ctx SpecContext) {
			for _, object := range goldenObjects(name) {
				object.SetNamespace("team-a")
				Expect(operator.Create(ctx, object)).To(Succeed(), "%s", object.GetKind())
				Expect(operator.Delete(ctx, object, client.PropagationPolicy("Background"))).To(Succeed(), "%s", object.GetKind())
			}
		})
	}

	It("limit the operator to its own finalizer and annotations of a HeadscaleUser", func(ctx SpecContext) {
		user := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal([]byte(`{apiVersion: headscale.infrado.cloud/v1beta1, kind: HeadscaleUser, metadata: {namespace: team-a, name: alice, finalizers: [example.com/mine]}, `+
			`spec: {headscaleRef: headscale, username: alice}}`), &user.Object)).To(Succeed())
		Expect(admin.Create(ctx, user)).To(Succeed())
		patch := func(text string) error {
			return operator.Patch(ctx, user.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(text)))
		}
		DeferCleanup(func(ctx SpecContext) {
			Expect(admin.Patch(ctx, user, client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"finalizers": null}}`)))).To(Succeed())
			Expect(admin.Delete(ctx, user)).To(Succeed())
		})
		Expect(patch(`{"metadata": {"finalizers": ["example.com/mine", "headscale.infrado.cloud/user"], "annotations": {"headscale.infrado.cloud/creating": "x"}}}`)).To(Succeed())
		Expect(patch(`{"spec": {"username": "mallory"}}`)).To(MatchError(ContainSubstring("nothing in the spec of a HeadscaleUser")))
		Expect(patch(`{"spec": {"deletionPolicy": "Delete"}}`)).To(MatchError(ContainSubstring("nothing in the spec of a HeadscaleUser")))
		Expect(patch(`{"metadata": {"finalizers": null}}`)).To(MatchError(ContainSubstring("no finalizer of a HeadscaleUser but its own")))
		Expect(patch(`{"metadata": {"labels": {"a": "b"}}}`)).To(MatchError(ContainSubstring("no labels and no owner of a HeadscaleUser")))
		Expect(patch(`{"metadata": {"finalizers": ["example.com/mine"]}}`)).To(Succeed())
	})

	for _, name := range []string{"shortest", "references", "additions", "backup", "unmanaged", "everything"} {
		It("accept all objects of a Headscale: "+name, func(ctx SpecContext) {
			all := goldenObjects(name)
			Expect(len(all)).To(BeNumerically(">=", 4))
			for _, object := range all {
				object.SetNamespace("team-a")
				Expect(operator.Create(ctx, object)).To(Succeed(), "%s", object.GetKind())
				labels := object.GetLabels()
				labels["app.kubernetes.io/version"] = "v0.99.0"
				object.SetLabels(labels)
				patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"labels": {"app.kubernetes.io/version": "v0.99.0"}}}`))
				Expect(operator.Patch(ctx, object, patch)).To(Succeed(), "%s", object.GetKind())
			}
			for _, object := range all {
				by := operator
				if object.GetKind() == "ServiceAccount" {
					by = admin // The operator's role has no right to delete one.
				}
				Expect(by.Delete(ctx, object)).To(Succeed(), "%s", object.GetKind())
			}
		})
	}

	It("let the operator undo what somebody else did to a pod, and do nothing of the kind", func(ctx SpecContext) {
		object := goldenObject("shortest", "StatefulSet")
		set(object.Object, map[string]any{"name": "tmp", "hostPath": map[string]any{"path": "/"}}, "spec", "template", "spec", "volumes", "2")
		Expect(admin.Create(ctx, object)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, object)).To(Succeed()) })
		patch := func(kind types.PatchType, text string) error {
			return operator.Patch(ctx, object.DeepCopy(), client.RawPatch(kind, []byte(text)), client.DryRunAll)
		}
		Expect(patch(types.MergePatchType, `{"metadata": {"annotations": {"a": "b"}}}`)).To(Succeed())
		Expect(patch(types.MergePatchType, `{"spec": {"replicas": 0}}`)).To(MatchError(ContainSubstring("only volumes that the restricted")))
		Expect(patch(types.StrategicMergePatchType, `{"spec": {"template": {"spec": {"volumes": [{"name": "tmp", "hostPath": null, "emptyDir": {}}]}}}}`)).To(Succeed())
	})

	It("limit nobody but the operator", func(ctx SpecContext) {
		Expect(admin.Create(ctx, victim("StatefulSet", "team-a"), client.DryRunAll)).To(Succeed())
	})

	It("are the same in the chart, and follow its names", func(ctx SpecContext) {
		rendered, err := render(ctx, "helm4", `{admissionPolicy: {enabled: true}}`)
		Expect(err).NotTo(HaveOccurred())
		ofChart, ofKustomize := objects(rendered), policyOverlay(ctx)
		compared := 0
		for name, object := range objects(ofKustomize) {
			if strings.HasPrefix(name, "ValidatingAdmissionPolicy") {
				Expect(ofChart).To(HaveKey(name))
				Expect(withoutLabels(ofChart[name])).To(Equal(withoutLabels(object)), name)
				compared++
			}
		}
		Expect(compared).To(Equal(22))
		rendered, err = render(ctx, "helm4", `{fullnameOverride: other, serviceAccount: {name: mine}, admissionPolicy: {enabled: true}}`)
		Expect(err).NotTo(HaveOccurred())
		Expect(rendered).To(ContainSubstring("'system:serviceaccount:" + operatorNamespace + ":mine'"))
		Expect(objects(rendered)).To(HaveKey("ValidatingAdmissionPolicyBinding other-pods"))
		rendered, err = render(ctx, "helm4", "")
		Expect(err).NotTo(HaveOccurred())
		Expect(rendered).NotTo(ContainSubstring("ValidatingAdmissionPolicy"), "off by default")
	})
})

// policyOverlay is config/default with the component.
func policyOverlay(ctx context.Context) string {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	relative, err := filepath.Rel(dir, filepath.Join(root, "config"))
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("resources: ["+relative+"/default]\ncomponents: ["+relative+"/admission-policy]\n"), 0o600)).To(Succeed())
	printed, err := tool(ctx, "kustomize", "build", dir)
	Expect(err).NotTo(HaveOccurred())
	return printed
}

// applyPolicies installs the operator's account, its rights and the policies, without the
// operator, on the API server that other specs use, too. The policies are deleted in the end.
func applyPolicies(ctx context.Context) {
	GinkgoHelper()
	documents := slices.DeleteFunc(strings.Split(policyOverlay(ctx), "\n---\n"), func(document string) bool {
		return strings.Contains("\n"+document, "\nkind: Deployment\n")
	})
	DeferCleanup(func(ctx SpecContext) {
		_, err := plane.Kubectl(ctx, "delete", "--all", "validatingadmissionpolicybindings,validatingadmissionpolicies")
		Expect(err).NotTo(HaveOccurred())
	})
	_, err := plane.Kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-f", valuesFile(strings.Join(documents, "\n---\n")))
	Expect(err).NotTo(HaveOccurred())
}

// clientOf is a client that impersonates a user, or an administrator's.
func clientOf(user string, groups ...string) client.Client {
	GinkgoHelper()
	config := plane.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	made, err := client.New(config, client.Options{})
	Expect(err).NotTo(HaveOccurred())
	return made
}

// goldenObjects are the objects of a Headscale of internal/resources/testdata.
func goldenObjects(name string) []*unstructured.Unstructured {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(root, "internal", "resources", "testdata", name+".yaml"))
	Expect(err).NotTo(HaveOccurred())
	var all []*unstructured.Unstructured
	for _, object := range objects(strings.ReplaceAll(string(text), "namespace: test", "namespace: team-a")) {
		all = append(all, object)
	}
	// A Role comes before its RoleBinding.
	slices.SortFunc(all, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetKind(), b.GetKind()) })
	return all
}

// goldenObject is the one of a kind, in a namespace that exists. Of two Services it is any.
func goldenObject(name, kind string) *unstructured.Unstructured {
	GinkgoHelper()
	for _, object := range goldenObjects(name) {
		if object.GetKind() == kind {
			return object
		}
	}
	Fail("there is no " + kind)
	return nil
}

// victim is an object that is nobody's business.
func victim(kind, namespace string) *unstructured.Unstructured {
	GinkgoHelper()
	object := &unstructured.Unstructured{Object: map[string]any{}}
	text := map[string]string{
		"ConfigMap":      "{apiVersion: v1}",
		"Job":            "{apiVersion: batch/v1, spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}}",
		"Secret":         "{apiVersion: v1}",
		"ServiceAccount": "{apiVersion: v1}",
		"Service":        "{apiVersion: v1, spec: {selector: {a: b}, ports: [{port: 80}]}}",
		"StatefulSet":    "{apiVersion: apps/v1, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}}}",
	}[kind]
	Expect(yaml.Unmarshal([]byte(text), &object.Object)).To(Succeed())
	object.SetKind(kind)
	object.SetNamespace(namespace)
	object.SetName("victim")
	return object
}

// set puts a value at a path, whose numbers are places in lists.
func set(in, value any, path ...string) {
	GinkgoHelper()
	switch at := in.(type) {
	case map[string]any:
		if len(path) == 1 {
			at[path[0]] = value
			return
		}
		set(at[path[0]], value, path[1:]...)
	case []any:
		place := int(path[0][0] - '0')
		Expect(len(at)).To(BeNumerically(">", place))
		if len(path) == 1 {
			at[place] = value
			return
		}
		set(at[place], value, path[1:]...)
	default:
		Fail("there is nothing at " + strings.Join(path, "."))
	}
}
