package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/pages"
)

// Pages of which the specs do what they say.
const (
	gettingStarted = "docs/getting-started.md"
	operations     = "docs/operations.md"
	runbooks       = "docs/runbooks/"
)

// pagesSpecs do what pages say that only a cluster can show, with one Headscale: in the
// namespace default at first, and then in that to which the page moves it.
func pagesSpecs() {
	hs := &server{namespace: "default", name: "headscale", secret: "headscale-api-key"}
	moved := &server{namespace: "vpn", name: hs.name, secret: hs.secret}
	var g *guide

	BeforeAll(func(ctx SpecContext) {
		newNamespaces(ctx, "restricted", operatorNamespace)
		const enforced = "pod-security.kubernetes.io/enforce"
		Expect(mustKube(ctx, "get", "namespace", "--ignore-not-found", "-o", "name", moved.namespace)).To(BeEmpty(), "the page makes this namespace")
		// It must have no such label yet, or this fails.
		mustKube(ctx, "label", "namespace", hs.namespace, enforced+"=restricted")
		helm := release{"helm4", root}
		// The last of these comes first, and each whatever becomes of the others.
		DeferCleanup(func(ctx SpecContext) { mustKube(ctx, "label", "namespace", hs.namespace, enforced+"-") })
		DeferCleanup(func(ctx SpecContext) { deleteVolume(ctx, hs) })
		DeferCleanup(func(ctx SpecContext) {
			mustKube(ctx, "delete", "namespace", "--ignore-not-found", "--timeout=1m", moved.namespace)
		})
		DeferCleanup(func(ctx SpecContext) { deleteDefinitions(ctx) })
		DeferCleanup(func(ctx SpecContext) { helm.uninstall(ctx) })
		DeferCleanup(func(ctx SpecContext) { deleteHeadscales(ctx) })
		DeferCleanup(func(ctx SpecContext) { removeOurs(ctx, hs.namespace) })
		helm.install(ctx, currentTag, currentTag)
		g = newGuide(ctx, hs.namespace)
	})

	AfterEach(func() {
		if CurrentSpecReport().State == types.SpecStatePassed {
			Expect(g.hasMissed()).To(BeEmpty())
		}
	})

	It("starts a first Headscale, which answers at a forwarded port", func(ctx SpecContext) {
		g.follow(ctx, block(gettingStarted, "# headscale.yaml"), block(gettingStarted, "$ kubectl apply -f headscale.yaml"))
		g.forward(ctx, block(gettingStarted, "kubectl port-forward"), "8080")
		g.follow(ctx, block(gettingStarted, "export HEADSCALE_URL=http://127.0.0.1:8080"))
		g.follow(ctx, section(gettingStarted, "The key")...)
		g.follow(ctx, block(gettingStarted, "$ curl -sS -H"))
	})

	It("shows the status that the plugin's page shows", func(ctx SpecContext) {
		g.follow(ctx, marked("docs/kubectl-plugin.md")...)
	})

	It("tells of an operator that runs, leads and is measured", func(ctx SpecContext) {
		Expect(g.follow(ctx, marked("docs/troubleshooting.md")...)).To(And(
			ContainSubstring("Successfully acquired lease"), MatchRegexp(`headscale-operator-controller-manager-\S+ +1/1 +Running`)))
		needPort(ctx, "8443")
		Expect(g.follow(ctx, marked(runbooks+"HeadscaleOperatorDown.md")...)).To(And(
			MatchRegexp(`Holder Identity: +headscale-operator-controller-manager-`), ContainSubstring("headscale_operator_build_info{")))
	})

	movingSpecs(func() *guide { return g }, hs, moved)

	It("tells of containers that were restarted, and why", func(ctx SpecContext) {
		for _, program := range []string{"headscale", "apikey-manager"} {
			endProcess(ctx, string(moved.mustPod(ctx).UID), program)
			moved.awaitContainerRestart(ctx, program)
		}
		Expect(g.follow(ctx, marked(runbooks+"HeadscaleDown.md")...)).To(MatchRegexp(`Exit Code: +137`))
		needPort(ctx, "9101")
		Expect(g.follow(ctx, marked(runbooks+"HeadscaleAPIKeyManagerSilent.md")...)).To(ContainSubstring("TYPE headscale_apikey_headscale_up gauge"))
	})

	It("tells whose object is in the way", func(ctx SpecContext) {
		mustKube(ctx, "label", "-n", moved.namespace, "secret/"+moved.secret, "--overwrite", v1beta1.LabelManagedBy+"=somebody")
		mustKube(ctx, "wait", "-n", moved.namespace, "headscale/"+moved.name, "--timeout=1m",
			`--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=`+v1beta1.ReasonConflict)
		Expect(g.follow(ctx, marked(runbooks+"HeadscaleConflict.md")...)).To(And(
			ContainSubstring("Secret "+moved.secret+" "), ContainSubstring("manager: kubectl-label")))
		mustKube(ctx, "delete", "-n", moved.namespace, "secret/"+moved.secret)
		moved.keepsItsPromises(ctx)
	})
}

// movingSpecs back up, restore and move what a Headscale keeps, and delete the one that has
// moved. One node goes through all of it.
func movingSpecs(get func() *guide, hs, moved *server) {
	var laptop *node

	It("backs up by a copy and restores it, with the node, and replaces a key that is not in it", func(ctx SpecContext) {
		inBackup := hs.keepsItsPromises(ctx)
		laptop = registerNode(ctx, hs)
		get().follow(ctx, section(operations, "Backup")...)
		Expect(hs.keepsItsPromises(ctx)).To(Equal(inBackup))
		hs.requestRotation(ctx)
		later := hs.awaitOtherKey(ctx, inBackup)
		hs.isRefused(ctx, inBackup)
		hs.addUser(ctx, "later")

		get().follow(ctx, section(operations, "Restore")...)
		hs.awaitOtherKey(ctx, later)
		hs.keepsItsPromises(ctx)
		laptop.isRegistered(ctx)
		Expect(hs.users(ctx)).To(ConsistOf(firstUser), "those of the day of the backup")
		// The key in the backup was good again; the one made later is not known any more.
		hs.isRefused(ctx, inBackup)
		hs.isRefused(ctx, later)
		Expect(mustKube(ctx, "logs", "-n", hs.namespace, hs.name+"-0", "-c", "apikey-manager")).To(
			And(ContainSubstring("reason=KeyUnknown"), ContainSubstring("reason=KeyOrphaned")))
	})

	It("moves to another namespace, with the node, and expires the key of the old one", func(ctx SpecContext) {
		old := hs.keepsItsPromises(ctx)
		get().follow(ctx, block(operations, "kubectl patch persistentvolume"))
		get().follow(ctx, butForTheStart(section(operations, "Backup"))...)
		steps := section(operations, "Moving to another namespace or cluster")
		expire := len(steps) - 1
		get().follow(ctx, steps[:expire]...)
		Eventually(func() int { return statusOf(ctx, moved.url()+"/api/v1/user", old) }).Should(Equal(http.StatusOK), "the old key is in the copied database, and must still work")
		get().follow(ctx, steps[expire])
		moved.isRefused(ctx, old)
		Expect(moved.keepsItsPromises(ctx)).NotTo(Equal(old))
		laptop.server = moved
		laptop.isRegistered(ctx)
	})

	It("deletes a Headscale that has moved, and its node finds the new one by the name", func(ctx SpecContext) {
		volume := mustKube(ctx, "get", "-n", hs.namespace, "pvc", "data-headscale-0", "-o", "jsonpath={.spec.volumeName}")
		get().follow(ctx, marked(gettingStarted)...)
		Expect(mustKube(ctx, "get", "-n", hs.namespace, "headscale,statefulset,secret,pvc", "-o", "name", "-l", "app.kubernetes.io/managed-by=headscale-operator")).To(BeEmpty())
		Eventually(func() (string, error) {
			return kube(ctx, "get", "persistentvolume", volume, "-o", "jsonpath={.status.phase}")
		}).Should(Equal("Released"), "the volume was to be retained")
		mustKube(ctx, "delete", "persistentvolume", volume)

		apply(ctx, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: %s}
spec: {type: ExternalName, externalName: %s.%s.svc.cluster.local}
`, hs.name, hs.namespace, moved.name, moved.namespace))
		DeferCleanup(func(ctx SpecContext) { mustKube(ctx, "delete", "-n", hs.namespace, "service/"+hs.name) })
		// A client whose connection has gone away hears nothing of that for minutes.
		laptop.reconnect(ctx)
	})
}

// butForTheStart leaves the last command of the blocks of a backup out, which starts
// Headscale again.
func butForTheStart(blocks []pages.Block) []pages.Block {
	GinkgoHelper()
	last := &blocks[len(blocks)-1]
	end := strings.LastIndex(strings.TrimSpace(last.Text), "\n") + 1
	Expect(last.Text[end:]).To(ContainSubstring(`"replicas": 1`))
	last.Text = last.Text[:end]
	return blocks
}

// users lists the names of Headscale's users.
func (s *server) users(ctx context.Context) ([]string, error) {
	GinkgoHelper()
	result, err := callHeadscale(ctx, http.MethodGet, s.url()+"/api/v1/user", s.readKey(ctx), "")
	switch {
	case err != nil:
		return nil, err
	case result.Status != http.StatusOK:
		return nil, fmt.Errorf("Headscale answers with status %d: %s", result.Status, result.Body)
	}
	var list struct{ Users []struct{ Name string } }
	if err := json.Unmarshal([]byte(result.Body), &list); err != nil {
		return nil, err
	}
	var names []string
	for _, user := range list.Users {
		names = append(names, user.Name)
	}
	return names, nil
}
