package e2e_test

import (
	"context"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// refusedChange is a change that Headscale does not start with, and how it is taken back.
type refusedChange struct{ name, patch, undo, reason, words string }

// refusedChanges are the changes, with URL for the address of the Headscale, and PORTLESS for the
// same without its port: with a port, Headscale takes a server_url that is below base_domain.
var refusedChanges = []refusedChange{
	{
		"an upgrade with a base domain that contains the server",
		`{"spec":{"version":"` + newerHeadscale + `","config":{"server_url":"PORTLESS","dns":{"magic_dns":true,"base_domain":"svc.cluster.local","override_local_dns":false}}}}`,
		`{"spec":{"version":"` + olderHeadscale + `","config":{"server_url":"URL","dns":null}}}`, v1beta1.ReasonInvalidConfig, "server_url cannot be part of base_domain",
	},
	{
		"an upgrade with a removed key", `{"spec":{"version":"` + newerHeadscale + `","config":{"randomize_client_port":true}}}`,
		`{"spec":{"version":"` + olderHeadscale + `","config":{"randomize_client_port":null}}}`, v1beta1.ReasonInvalidConfig, "is no longer a key of Headscale",
	},
	{
		"DNS without name servers", `{"spec":{"config":{"dns":{"magic_dns":true,"base_domain":"tail.internal","override_local_dns":true}}}}`,
		`{"spec":{"config":{"dns":null}}}`, v1beta1.ReasonInvalidConfig, "dns.nameservers.global must be set",
	},
	{
		"a bad DERP map", `{"spec":{"config":{"derp":{"server":{"enabled":false},"paths":["/files/garbage"]}},"pod":` + badFiles + `}}`,
		`{"spec":{"config":{"derp":null},"pod":null}}`, v1beta1.ReasonInvalidConfig, "DERPMap",
	},
	{
		"a policy that cannot be read", `{"spec":{"config":{"policy":{"mode":"file","path":"/files"}},"pod":` + badFiles + `}}`,
		`{"spec":{"config":{"policy":null},"pod":null}}`, v1beta1.ReasonInvalidConfig, "is a directory",
	},
	{
		"a wrong OIDC issuer", `{"spec":{"config":{"oidc":{"issuer":"URL","client_id":"a","client_secret":"b"}}}}`,
		`{"spec":{"config":{"oidc":null}}}`, v1beta1.ReasonInvalidConfig, "creating OIDC provider from issuer config",
	},
	{
		"an image that does not exist", `{"spec":{"image":"registry.invalid/nothing"}}`,
		`{"spec":{"image":null}}`, v1beta1.ReasonImagePullFailed, "registry.invalid/nothing",
	},
}

// badFiles mounts the files of the ConfigMap.
const badFiles = `{"volumes":[{"name":"bad","configMap":{"name":"bad-files"}}],"volume_mounts":[{"name":"bad","mountPath":"/files"}]}`

// preflightSpecs change a Headscale to what it does not start with, while a node is connected.
func preflightSpecs(get func() *server, laptop func() *node) {
	It("goes on running, with its node connected, through changes that Headscale does not start with", func(ctx SpecContext) {
		hs := get()
		apply(ctx, `
apiVersion: v1
kind: ConfigMap
metadata: {name: bad-files, namespace: `+hs.namespace+`, labels: {`+ours+`}}
data: {garbage: "{garbage: ["}
`)
		laptop().reconnect(ctx)
		user := startAPIConsumer(ctx, hs)
		unharmed := hs.unharmed(ctx, laptop())
		addresses := strings.NewReplacer("URL", hs.url(), "PORTLESS", strings.TrimSuffix(hs.url(), ":8080"))
		for _, change := range refusedChanges {
			By(change.name)
			hs.patch(ctx, addresses.Replace(change.patch))
			Eventually(hs.readyNow).WithContext(ctx).Should(And(
				HaveField("Status", metav1.ConditionFalse), HaveField("Reason", change.reason), HaveField("Message", ContainSubstring(change.words))))
			unharmed(ctx)
			hs.patch(ctx, addresses.Replace(change.undo))
		}
		hs.awaitReady(ctx)
		unharmed(ctx)
		hs.hasNoPreflight(ctx)
		user.noticedNothing(ctx)
		user.remove(ctx)
	})

	It("is changed to what it starts with, once that was checked", func(ctx SpecContext) {
		hs := get()
		pod := hs.mustPod(ctx).UID
		hs.patch(ctx, `{"spec":{"config":{"log":{"level":"debug"}}}}`)
		hs.awaitRestart(ctx, pod)
		object := &v1beta1.Headscale{}
		Expect(admin.Get(ctx, hs.key(hs.name), object)).To(Succeed())
		Expect(object.Status.Preflight).To(HaveValue(HaveField("Outcome", v1beta1.PreflightPassed)))
		hs.hasNoPreflight(ctx)
		laptop().isRegistered(ctx)
	})

	It("leaves nothing when it is deleted during a preflight", func(ctx SpecContext) {
		deleted := newServer(ctx, get().namespace, "deleted", newerHeadscale, "")
		deleted.awaitReady(ctx)
		// No node has that much, so the Job's pod waits.
		deleted.patch(ctx, `{"spec":{"config":{"log":{"level":"debug"}},"pod":{"resources":{"requests":{"cpu":"1000"}}}}}`)
		mustKube(ctx, "wait", "-n", deleted.namespace, "--for=create", "--timeout=1m", "job/deleted-preflight")
		Eventually(deleted.preflightObjects).WithContext(ctx).Should(And(ContainSubstring("pod/"), ContainSubstring("configmap/")))
		mustKube(ctx, "delete", "-n", deleted.namespace, "headscale/"+deleted.name, "--timeout=1m")
		Eventually(func() (string, error) {
			return kube(ctx, "get", "statefulsets,jobs,pods,configmaps,secrets", "-n", deleted.namespace, "-o", "name", "-l", "app.kubernetes.io/instance="+deleted.name)
		}).Should(BeEmpty())
		deleted.hasNoPreflight(ctx)
		deleteVolume(ctx, deleted)
	})
}

// unharmed remembers what runs, and returns what sees that it still does: the same pod with the
// same template, which answers, and to which the node is connected.
func (s *server) unharmed(ctx context.Context, n *node) func(context.Context) {
	GinkgoHelper()
	pod, template := s.mustPod(ctx), templateGeneration(ctx, s)
	return func(ctx context.Context) {
		GinkgoHelper()
		now := s.mustPod(ctx)
		Expect(now.UID).To(Equal(pod.UID))
		for i := range now.Status.ContainerStatuses {
			Expect(now.Status.ContainerStatuses[i].ContainerID).To(Equal(pod.Status.ContainerStatuses[i].ContainerID))
		}
		Expect(templateGeneration(ctx, s)).To(Equal(template))
		Expect(statusOf(ctx, s.url()+"/health", "")).To(Equal(http.StatusOK))
		Expect(n.look(ctx, NewGomega(Fail))).To(And(HaveField("NodeKey", n.key), HaveField("Online", true)))
	}
}

// readyNow is the condition Ready, if it is about the present generation.
func (s *server) readyNow(ctx context.Context) (metav1.Condition, error) {
	object := &v1beta1.Headscale{}
	if err := admin.Get(ctx, s.key(s.name), object); err != nil {
		return metav1.Condition{}, err
	}
	ready := meta.FindStatusCondition(object.Status.Conditions, v1beta1.ConditionReady)
	if ready == nil || ready.ObservedGeneration != object.Generation {
		return metav1.Condition{}, nil
	}
	return *ready, nil
}

// preflightObjects lists what preflights in the namespace of the Headscale have.
func (s *server) preflightObjects(ctx context.Context) (string, error) {
	return kube(ctx, "get", "jobs,pods,configmaps", "-n", s.namespace, "-l", "app.kubernetes.io/component=preflight", "-o", "name")
}

// hasNoPreflight waits until nothing is left of preflights.
func (s *server) hasNoPreflight(ctx context.Context) {
	GinkgoHelper()
	Eventually(s.preflightObjects).WithContext(ctx).Should(BeEmpty())
}
