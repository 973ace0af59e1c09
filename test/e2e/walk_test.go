package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
)

const (
	// restartWithin is how long Headscale may be away when its pod is replaced.
	restartWithin = 30 * time.Second
	// managerKills is how often the sidecar is killed.
	managerKills = 20
)

// helm4Specs take one Headscale through all that happens to it.
func helm4Specs() {
	const namespace = "e2e-walk"
	var (
		helm = release{"helm4"}
		hs   *server
	)

	BeforeAll(func(ctx SpecContext) {
		newNamespaces(ctx, "restricted", operatorNamespace, namespace)
		DeferCleanup(func(ctx SpecContext) { mustKube(ctx, "delete", "--ignore-not-found", "--timeout=1m", crdName) })
		helm.install(ctx, previousTag, previousTag)
		hs = newServer(ctx, namespace, "headscale", olderHeadscale, "")
		hs.awaitReady(ctx)
		hs.registerNode(ctx)
		hs.hasNode(ctx)
	})

	It("is upgraded while Headscale runs, and restarts it for a new API Key Manager only", func(ctx SpecContext) {
		pod, generation := hs.mustPod(ctx).UID, templateOf(ctx, hs)
		helm.install(ctx, currentTag, previousTag)
		hs.keepsItsPromises(ctx)
		if templateOf(ctx, hs) == generation {
			Expect(hs.mustPod(ctx).UID).To(Equal(pod), "the pod's template is the same")
		}
		pod = hs.mustPod(ctx).UID
		helm.install(ctx, currentTag, currentTag)
		hs.awaitRestart(ctx, pod)
		hs.keepsItsPromises(ctx)
	})

	consumerSpecs(func() *server { return hs })
	lossSpecs(func() *server { return hs })
	insideSpecs(func() *server { return hs })

	It("upgrades Headscale and keeps its nodes and its key", func(ctx SpecContext) {
		key, pod := hs.keepsItsPromises(ctx), hs.mustPod(ctx).UID
		hs.patch(ctx, `{"spec":{"version":"`+newerHeadscale+`"}}`)
		hs.awaitRestart(ctx, pod)
		Expect(hs.keepsItsPromises(ctx)).To(Equal(key))
		hs.hasNode(ctx)
	})

	It("makes a new key when the volume was deleted", func(ctx SpecContext) {
		other := newServer(ctx, namespace, "other", newerHeadscale, "")
		key := other.keepsItsPromises(ctx)
		pod := other.mustPod(ctx).UID
		mustKube(ctx, "delete", "-n", namespace, "pvc/data-other-0", "--wait=false")
		mustKube(ctx, "delete", "-n", namespace, "pod/other-0")
		other.awaitRestart(ctx, pod)
		Expect(other.keepsItsPromises(ctx)).NotTo(Equal(key))
		// Two Headscales in one namespace, and none of them disturbs the other.
		hs.keepsItsPromises(ctx)
		hs.hasNode(ctx)
		mustKube(ctx, "delete", "-n", namespace, "headscale/other", "pvc/data-other-0", "--timeout=1m")
		Eventually(func() error {
			_, err := kube(ctx, "get", "-n", namespace, "secret/other-api-key")
			return err
		}).Should(MatchError(ContainSubstring("NotFound")), "the Secret goes with its Headscale")
	})

	It("runs twenty Headscales in twenty namespaces", func(ctx SpecContext) {
		begin := time.Now()
		names := make([]string, 20)
		for i := range names {
			names[i] = fmt.Sprintf("e2e-many-%d", i)
		}
		newNamespaces(ctx, "restricted", names...)
		var all []*server
		for _, name := range names {
			all = append(all, newServer(ctx, name, "headscale", newerHeadscale, ""))
		}
		for _, s := range all {
			s.keepsItsPromises(ctx)
		}
		AddReportEntry("all keep their promises after", time.Since(begin).Round(time.Second).String())
	})

	It("still has the node, after all of the above", func(ctx SpecContext) { hs.hasNode(ctx) })

	It("leaves nothing but volumes when it is uninstalled as documented", func(ctx SpecContext) {
		deleteHeadscales(ctx)
		helm.uninstall(ctx)
		mustKube(ctx, "delete", crdName, "--timeout=1m")
		Eventually(func() []string { return leftovers(ctx) }).Should(HaveEach(Or(
			HaveSuffix(" data-headscale-0"), HavePrefix("Lease "+operatorNamespace))))
	})
}

// templateOf is the revision of the pod's template.
func templateOf(ctx context.Context, s *server) string {
	GinkgoHelper()
	set := &appsv1.StatefulSet{}
	Expect(admin.Get(ctx, s.key(s.name), set)).To(Succeed())
	return set.Status.UpdateRevision
}

// consumerSpecs rotate the key, and turn its management off and on, under consumers.
func consumerSpecs(get func() *server) {
	var byAPI, byMount consumer

	It("rotates under a consumer that reads the Secret, who notices nothing", func(ctx SpecContext) {
		hs := get()
		byAPI = startAPIConsumer(ctx, hs)
		old := hs.keepsItsPromises(ctx)
		hs.requestRotation(ctx)
		hs.awaitOtherKey(ctx, old)
		hs.isRefused(ctx, old)
		hs.keepsItsPromises(ctx)
		Eventually(func(g Gomega) { g.Expect(byAPI.read(ctx, g).Keys).To(Equal(2)) }).Should(Succeed())
		Expect(byAPI.now(ctx).Refused).To(BeZero())
	})

	It("rotates under a consumer that mounts the Secret, who notices nothing with a revocation_delay", func(ctx SpecContext) {
		hs := get()
		pod := hs.mustPod(ctx).UID
		hs.patch(ctx, `{"spec":{"api_key":{"revocation_delay":"150s"}}}`)
		hs.awaitRestart(ctx, pod)
		byMount = startMountConsumer(ctx, hs)
		old := hs.keepsItsPromises(ctx)
		hs.requestRotation(ctx)
		hs.awaitOtherKey(ctx, old)
		Expect(statusOf(ctx, hs.url()+"/api/v1/user", old)).To(Equal(http.StatusOK), "the old key has its delay")
		Eventually(func(g Gomega) { g.Expect(byMount.read(ctx, g).Keys).To(Equal(2)) }).Should(Succeed())
		hs.isRefused(ctx, old)
		hs.keepsItsPromises(ctx)
		Expect(byMount.now(ctx).Refused).To(BeZero())
	})

	It("locks out a consumer that mounts the Secret until the kubelet has renewed the file, without a revocation_delay", func(ctx SpecContext) {
		hs := get()
		pod := hs.mustPod(ctx).UID
		hs.patch(ctx, `{"spec":{"api_key":{"revocation_delay":"0s"}}}`)
		hs.awaitRestart(ctx, pod)
		byMount.restart(ctx)
		old := hs.keepsItsPromises(ctx)
		hs.requestRotation(ctx)
		hs.awaitOtherKey(ctx, old)
		Eventually(func(g Gomega) { g.Expect(byMount.read(ctx, g).Keys).To(Equal(2)) }).Should(Succeed())
		Expect(byMount.now(ctx).Refused).To(BeNumerically(">", 0))
	})

	It("goes on without the sidecar when auto_manage is off, and with it when it is on again", func(ctx SpecContext) {
		hs := get()
		key := hs.keepsItsPromises(ctx)
		byAPI.restart(ctx)
		for _, on := range []bool{false, true} {
			pod := hs.mustPod(ctx)
			hs.patch(ctx, fmt.Sprintf(`{"spec":{"api_key":{"auto_manage":%t}}}`, on))
			hs.awaitRestart(ctx, pod.UID)
			Expect(hs.mustPod(ctx).Spec.Containers).To(HaveLen(map[bool]int{false: 1, true: 2}[on]))
			_, err := kube(ctx, "get", "-n", hs.namespace, "role/"+hs.name, "rolebinding/"+hs.name)
			Expect(err == nil).To(Equal(on), "Role and RoleBinding exist only with the sidecar")
			Expect(hs.readKey(ctx)).To(Equal(key))
			Expect(statusOf(ctx, hs.url()+"/api/v1/user", key)).To(Equal(http.StatusOK))
		}
		Expect(hs.keepsItsPromises(ctx)).To(Equal(key))
		seen := byAPI.now(ctx)
		Expect(seen.Refused).To(BeZero())
		Expect(time.Duration(seen.LongestGap) * time.Millisecond).To(BeNumerically("<", restartWithin))
		AddReportEntry("longest time without an answer, in ms", seen.LongestGap)
	})
}

// lossSpecs take things away.
func lossSpecs(get func() *server) {
	It("replaces a deleted Secret", func(ctx SpecContext) {
		hs := get()
		old := hs.keepsItsPromises(ctx)
		mustKube(ctx, "delete", "-n", hs.namespace, "secret/"+hs.secret)
		hs.awaitOtherKey(ctx, old)
		hs.keepsItsPromises(ctx)
		hs.isRefused(ctx, old)
	})

	It("keeps the key when the pod is deleted", func(ctx SpecContext) {
		hs := get()
		key, pod := hs.keepsItsPromises(ctx), hs.mustPod(ctx).UID
		mustKube(ctx, "delete", "-n", hs.namespace, "pod/headscale-0")
		hs.awaitRestart(ctx, pod)
		Expect(hs.keepsItsPromises(ctx)).To(Equal(key))
	})

	It("finishes a rotation during which the sidecar is killed, twenty times", func(ctx SpecContext) {
		hs := get()
		for range managerKills {
			old, pod := hs.readKey(ctx), hs.mustPod(ctx)
			hs.requestRotation(ctx)
			// Somewhere between the request and the end of what it leads to.
			Consistently(func() bool { return true }, rand.N(400*time.Millisecond), 20*time.Millisecond).Should(BeTrue())
			endProcess(ctx, string(pod.UID), "apikey-manager")
			hs.awaitOtherKey(ctx, old)
			hs.keepsItsPromises(ctx)
			hs.awaitContainerRestart(ctx, "apikey-manager")
			// A new pod, because Kubernetes waits longer before each restart of a container.
			mustKube(ctx, "delete", "-n", hs.namespace, "pod/headscale-0")
			hs.awaitRestart(ctx, pod.UID)
		}
		hs.keepsItsPromises(ctx)
		hs.hasNode(ctx)
	})

	It("keeps the key when Headscale's process is killed", func(ctx SpecContext) {
		hs := get()
		key, pod := hs.keepsItsPromises(ctx), hs.mustPod(ctx)
		endProcess(ctx, string(pod.UID), "headscale")
		hs.awaitContainerRestart(ctx, "headscale")
		Expect(hs.keepsItsPromises(ctx)).To(Equal(key))
		Expect(hs.mustPod(ctx).UID).To(Equal(pod.UID))
	})

	for _, component := range []string{"kubelet", "API server"} {
		It("goes on when the "+component+" is restarted", func(ctx SpecContext) {
			variable := "E2E_RESTART_" + strings.ToUpper(strings.ReplaceAll(component, " ", "_"))
			command := os.Getenv(variable)
			if command == "" {
				Skip(variable + " names no command that restarts it")
			}
			hs := get()
			old, pod := hs.keepsItsPromises(ctx), hs.mustPod(ctx).UID
			_, err := output(ctx, "", "sh", "-c", command)
			Expect(err).NotTo(HaveOccurred())
			Eventually(func() error {
				_, err := kube(ctx, "wait", "--for=condition=Ready", "node", "--all", "--timeout=10s")
				return err
			}).Should(Succeed())
			Expect(hs.keepsItsPromises(ctx)).To(Equal(old))
			hs.requestRotation(ctx)
			hs.awaitOtherKey(ctx, old)
			hs.keepsItsPromises(ctx)
			Expect(hs.mustPod(ctx).UID).To(Equal(pod))
		})
	}

	It("waits while its rights are gone, and goes on when they are back", func(ctx SpecContext) {
		hs := get()
		key := hs.keepsItsPromises(ctx)
		mustKube(ctx, "scale", "-n", operatorNamespace, operatorDeployment, "--replicas=0")
		mustKube(ctx, "wait", "-n", operatorNamespace, "--for=delete", "pod", "-l", "app.kubernetes.io/component=controller-manager", "--timeout=1m")
		mustKube(ctx, "delete", "-n", hs.namespace, "rolebinding/headscale")
		mustKube(ctx, "annotate", "-n", hs.namespace, "secret/"+hs.secret, "--overwrite", "api-key.headscale.infrado.cloud/rotate-requested-at=without-rights")
		pod := hs.mustPod(ctx)
		endProcess(ctx, string(pod.UID), "apikey-manager")
		Eventually(func() (string, error) {
			return kube(ctx, "logs", "-n", hs.namespace, "headscale-0", "-c", "apikey-manager")
		}).Should(ContainSubstring("SecretForbidden"))
		Expect(statusOf(ctx, hs.url()+"/api/v1/user", key)).To(Equal(http.StatusOK))
		mustKube(ctx, "scale", "-n", operatorNamespace, operatorDeployment, "--replicas=1")
		hs.awaitOtherKey(ctx, key)
		hs.keepsItsPromises(ctx)
		Expect(hs.mustPod(ctx).UID).To(Equal(pod.UID), "the pod was never taken down")
	})

	It("puts back at once what somebody deletes", func(ctx SpecContext) {
		hs := get()
		for _, object := range []string{"rolebinding/headscale", "role/headscale", "service/headscale", "configmap/headscale"} {
			uid := func() string {
				printed, _ := kube(ctx, "get", "-n", hs.namespace, object, "-o", "jsonpath={.metadata.uid}")
				return printed
			}
			old := uid()
			mustKube(ctx, "delete", "-n", hs.namespace, object)
			Eventually(uid).Should(And(Not(BeEmpty()), Not(Equal(old))))
		}
		hs.keepsItsPromises(ctx)
	})
}
