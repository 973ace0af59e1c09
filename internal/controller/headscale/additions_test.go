package headscale

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// withAdditions is a Headscale that adds everything that can be added to its pod.
const withAdditions = shortest + `
  pod:
    resources: {requests: {cpu: "0.1", memory: 128Mi}, limits: {cpu: "1000m", memory: 512Mi}}
    manager_resources: {requests: {cpu: "0.0001"}}
    affinity:
      nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a]}]}]}}
      podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: zone, labelSelector: {matchLabels: {a: b}}}}]}
    tolerations: [{key: dedicated, operator: Exists, effect: NoExecute, tolerationSeconds: 5}, {key: x, value: on-call}]
    topology_spread_constraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
    node_selector: {disk: ssd}
    annotations: {mesh.example/inject: "false"}
    labels: {team: network}
    env:
    - {name: HEADSCALE_LOG_LEVEL, value: debug}
    - {name: EMPTY}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: CPUS, valueFrom: {resourceFieldRef: {containerName: headscale, resource: limits.cpu}}}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: some, key: token, optional: true}}}
    volumes:
    - {name: ca, configMap: {name: ca, optional: true, items: [{key: ca.crt, path: ca.crt}]}}
    - {name: drivers, csi: {driver: secrets-store.csi.k8s.io, readOnly: true, volumeAttributes: {secretProviderClass: a}}}
    - {name: me, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}, {path: cpu, resourceFieldRef: {containerName: headscale, resource: limits.cpu}}]}}
    - {name: scratch, emptyDir: {sizeLimit: 1Gi, medium: Memory}}
    - {name: claim, persistentVolumeClaim: {claimName: backup}}
    - {name: all, projected: {sources: [{serviceAccountToken: {path: t, audience: vault}}, {secret: {name: s, optional: true}}, {downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}]}}
    - {name: some, secret: {secretName: some, optional: true}}
    - {name: no-sources, projected: {}}
    - {name: no-items, downwardAPI: {}}
    - {name: empty-items, downwardAPI: {items: []}}
    volume_mounts:
    - {name: ca, mountPath: /etc/ssl/certs, readOnly: true}
    - {name: scratch, mountPath: /scratch, subPathExpr: $(POD_IP)}
`

var _ = Describe("What a user adds to the pod", func() {
	It("is in the pod, passes the restricted standard, and causes no write at rest", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, withAdditions)).To(Succeed())
		var live *appsv1.StatefulSet
		Eventually(func(g Gomega) { live = get[appsv1.StatefulSet](ctx, o.namespace, "headscale")(g) }).WithContext(ctx).Should(Succeed())
		before := o.settle(ctx, "headscale")
		o.touch(ctx, "headscale")
		o.touch(ctx, "headscale")
		Expect(o.written()).To(Equal(before))

		restricted := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			GenerateName: "restricted-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
		}}
		Expect(admin.Create(ctx, restricted)).To(Succeed())
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: restricted.Name, Name: "headscale"}}
		Expect(admin.Create(ctx, account)).To(Succeed())
		pod := &corev1.Pod{ObjectMeta: live.Spec.Template.ObjectMeta, Spec: live.Spec.Template.Spec}
		pod.Namespace, pod.Name = restricted.Name, "headscale-0"
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(pod.Labels).To(And(HaveKeyWithValue("team", "network"), HaveKeyWithValue("app.kubernetes.io/name", "headscale")))
		Expect(pod.Annotations).To(HaveKeyWithValue("mesh.example/inject", "false"))
		Expect(pod.Spec.NodeSelector).To(HaveKeyWithValue("disk", "ssd"))
		Expect(pod.Spec.Containers[0].Resources.Limits.Cpu().String()).To(Equal("1"))
		Expect(pod.Spec.Containers[1].Resources.Requests.Cpu().String()).To(Equal("1m"))
		Expect(mounts(pod.Spec.Containers[0])).To(And(HaveKeyWithValue("ca", "/etc/ssl/certs"), HaveKeyWithValue("scratch", "/scratch")))
		Expect(mounts(pod.Spec.Containers[1])).NotTo(HaveKey("ca"))
	})

	It("is taken away again", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, withAdditions)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(HaveField("Spec.Template.Labels", HaveKey("team")))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {pod: null}}`)).To(Succeed())
		Eventually(get[appsv1.StatefulSet](ctx, o.namespace, "headscale")).WithContext(ctx).Should(And(
			HaveField("Spec.Template.Labels", Not(HaveKey("team"))),
			HaveField("Spec.Template.Spec.Affinity", BeNil()),
			HaveField("Spec.Template.Spec.Tolerations", BeEmpty()),
			HaveField("Spec.Template.Spec.Volumes", HaveLen(4)),
			HaveField("Spec.Template.Spec.Containers", HaveEach(HaveField("Resources.Limits", Not(HaveKey(corev1.ResourceCPU))))),
		))
	})

	It("is quoted without what would deceive a terminal or a reader", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+`  pod: {volumes: [{name: a, emptyDir: {}}], volume_mounts: [{name: a, mountPath: "/etc/headscale/\e[31mx\u202e\ny"}]}`+"\n")).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", "Ready")).WithContext(ctx).Should(be("False", "InvalidConfig", "spec.pod.volume_mounts has the mountPath /etc/headscale/x y, which"))
		Eventually(func(g Gomega) {
			list := &eventsv1.EventList{}
			g.Expect(admin.List(ctx, list, client.InNamespace(o.namespace))).To(Succeed())
			g.Expect(list.Items).To(ContainElement(HaveField("Note", ContainSubstring("has the mountPath /etc/headscale/x y, which"))))
		}).WithContext(ctx).Should(Succeed())
	})

	It("is refused where the API server refuses it, in its own words", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  pod: {labels: {team: no label}}\n")).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", "Ready")).WithContext(ctx).Should(be("False", "InvalidConfig",
			`The API server rejected an object built from spec: applying the StatefulSet headscale: StatefulSet.apps "headscale" is invalid: spec.template.labels: Invalid value: "no label"`))
	})

	It("is refused where it is no valid pod, in the API server's words", func(ctx context.Context) {
		if !validatesTemplates(ctx) {
			Skip("this API server does not validate the pod of a StatefulSet")
		}
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"  pod: {tolerations: [{key: a, effect: Sometimes}]}\n")).To(Succeed())
		Eventually(condition(ctx, o.namespace, "headscale", "Ready")).WithContext(ctx).Should(be("False", "InvalidConfig",
			`The API server rejected an object built from spec: applying the StatefulSet headscale: StatefulSet.apps "headscale" is invalid: spec.template.spec.tolerations[0].effect: Unsupported value: "Sometimes"`))
	})
})
