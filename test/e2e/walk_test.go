package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// walkSpecs upgrade the operator, and take one Headscale through all that happens to it.
func walkSpecs() {
	const namespace = "e2e-walk"
	var (
		before []string
		helm   release
		hs     *server
		laptop *node
	)

	BeforeAll(func(ctx SpecContext) {
		newNamespaces(ctx, "restricted", operatorNamespace, namespace)
		before = everything(ctx)
		DeferCleanup(func(ctx SpecContext) { deleteDefinitions(ctx) })
		helm = release{"helm4", root}
		release{"helm4", previousRoot}.install(ctx, previousTag, previousTag)
		hs = newServer(ctx, namespace, "headscale", olderHeadscale, "")
		hs.awaitReady(ctx)
		laptop = registerNode(ctx, hs)
	})

	It("is upgraded while Headscale runs, and restarts it for a new API Key Manager only", func(ctx SpecContext) {
		upgrade{
			operator: func(ctx context.Context) { helm.install(ctx, currentTag, previousTag) },
			manager:  func(ctx context.Context) { helm.install(ctx, currentTag, currentTag) },
		}.expectLittleNoticed(ctx, hs)
		laptop.isRegistered(ctx)
	})

	preflightSpecs(func() *server { return hs }, func() *node { return laptop })
	consumerSpecs(func() *server { return hs })
	lossSpecs(func() *server { return hs })
	rightsSpecs(func() *server { return hs })
	insideSpecs(func() *server { return hs })

	It("upgrades Headscale and keeps its nodes and its key", func(ctx SpecContext) {
		key, pod := hs.keepsItsPromises(ctx), hs.mustPod(ctx).UID
		hs.patch(ctx, `{"spec":{"version":"`+newerHeadscale+`"}}`)
		hs.awaitRestart(ctx, pod)
		Expect(hs.keepsItsPromises(ctx)).To(Equal(key))
		laptop.isRegistered(ctx)
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
		laptop.isRegistered(ctx)
		mustKube(ctx, "delete", "-n", namespace, "headscale/other", "--cascade=foreground", "--timeout=1m")
		deleteVolume(ctx, other)
	})

	Context("with a backup", backupSpecs)
	Context("with users, keys and a policy", func() { tailnetSpecs(func() release { return helm }) })

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

	It("still has the node, after all of the above", func(ctx SpecContext) { laptop.isRegistered(ctx) })

	It("leaves nothing but volumes when it is uninstalled", func(ctx SpecContext) {
		removeOurs(ctx, namespace)
		deleteHeadscales(ctx)
		helm.uninstall(ctx)
		deleteDefinitions(ctx)
		expectOnlyKept(ctx, before, append(kept(hs), operatorLease)...)
	})
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
		byAPI.hasKeys(ctx, 2)
		byAPI.noticedNothing(ctx)
	})

	It("rotates under both consumers with a revocation_delay, and neither notices", func(ctx SpecContext) {
		hs := get()
		pod := hs.mustPod(ctx).UID
		hs.patch(ctx, `{"spec":{"api_key":{"revocation_delay":"150s"}}}`)
		hs.awaitRestart(ctx, pod)
		byMount = startMountConsumer(ctx, hs)
		byAPI.restart(ctx)
		old := hs.keepsItsPromises(ctx)
		hs.requestRotation(ctx)
		hs.awaitOtherKey(ctx, old)
		Expect(statusOf(ctx, hs.url()+"/api/v1/user", old)).To(Equal(http.StatusOK), "the old key has its delay")
		byMount.hasKeys(ctx, 2)
		hs.isRefused(ctx, old)
		hs.keepsItsPromises(ctx)
		byAPI.hasKeys(ctx, 2)
		byAPI.noticedNothing(ctx)
		byMount.noticedNothing(ctx)
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
		byMount.hasKeys(ctx, 2)
		seen := byMount.now(ctx)
		Expect(seen.Refused).To(BeNumerically(">", 0))
		Expect(seen.Unreachable).To(BeZero())
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
		byAPI.noticedRestart(ctx)
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

	interruptionSpecs(get)

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

	It("says why Kubernetes does not create the pod, and goes on when it does", func(ctx SpecContext) {
		hs := get()
		key, pod := hs.keepsItsPromises(ctx), hs.mustPod(ctx).UID
		mustKube(ctx, "create", "quota", "no-pods", "-n", hs.namespace, "--hard=pods=0")
		DeferCleanup(func(ctx SpecContext) {
			mustKube(ctx, "delete", "-n", hs.namespace, "resourcequota/no-pods", "--ignore-not-found")
		})
		mustKube(ctx, "wait", "-n", hs.namespace, "resourcequota/no-pods", "--for=jsonpath={.status.hard.pods}=0", "--timeout=1m")
		mustKube(ctx, "delete", "-n", hs.namespace, "pod/headscale-0")
		Eventually(func() (string, error) {
			return kube(ctx, "get", "-n", hs.namespace, "headscale/headscale", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].message}`)
		}).Should(And(HavePrefix("There is no pod headscale-0, because Kubernetes refuses to create it"), ContainSubstring("exceeded quota: no-pods")))
		mustKube(ctx, "delete", "-n", hs.namespace, "resourcequota/no-pods")
		hs.awaitRestart(ctx, pod)
		Expect(hs.keepsItsPromises(ctx)).To(Equal(key))
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
