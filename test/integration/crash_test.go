package integration_test

import (
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// terminationMessage is how much of a container's log the kubelet keeps, in bytes.
const terminationMessage = 2048

var _ = DescribeTable("A Headscale that does not start says why in the status",
	func(ctx SpecContext, config, words string) {
		namespace := newNamespace(ctx)
		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, strings.Replace(shortestManifest, "config: {", "config: {"+config+", ", 1))
		set := &appsv1.StatefulSet{}
		Eventually(func() error { return admin.Get(ctx, hs.key, set) }).Should(Succeed())
		over := regexp.MustCompile(`(?m)^Error: | FTL `)
		Eventually(func() string { return hs.pod.Log(containerHeadscale) }).Should(MatchRegexp(over.String()))

		By("saying what the kubelet says of such a container")
		log := hs.pod.Log(containerHeadscale)
		yes := true
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: "headscale-0", Labels: set.Spec.Template.Labels,
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: set.Name, UID: set.UID, Controller: &yes}},
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: containerHeadscale, Image: "headscale/headscale"}}},
		}
		Expect(admin.Create(ctx, pod)).To(Succeed())
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name:  containerHeadscale,
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 1, Reason: "Error", Message: log[max(0, len(log)-terminationMessage):],
			}},
		}}
		Expect(admin.Status().Update(ctx, pod)).To(Succeed())
		for _, kind := range []string{v1beta1.ConditionReady, v1beta1.ConditionAvailable} {
			Eventually(func() any { return meta.FindStatusCondition(hs.get(ctx).Status.Conditions, kind) }).Should(And(
				HaveField("Reason", v1beta1.ReasonCrashing), HaveField("Message", ContainSubstring(words))))
		}
	},
	Entry("a prefix that is none", `prefixes: {v4: 300.64.0.0/10}`, `parsing IPv4 prefix from config`),
	Entry("a policy that is not there", `policy: {mode: file, path: /nonexistent/policy.hujson}`, `loading policy: open /nonexistent/policy.hujson: no such file or directory`),
	Entry("no name server", `dns: {override_local_dns: true, magic_dns: true, base_domain: tail.example.org}`, `dns.nameservers.global must be set when dns.override_local_dns is true`),
	Entry("no relay", `derp: {server: {enabled: false}, urls: [], auto_update_enabled: false}`, `initial DERPMap is empty`),
	Entry("a database that does not answer", `database: {type: postgres, postgres: {host: 127.0.0.1, port: 1, name: headscale, user: headscale}}`, `failed to connect to`),
)
