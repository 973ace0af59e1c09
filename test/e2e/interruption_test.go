package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

const (
	// managerKills is how often the sidecar is killed.
	managerKills = 20
	// retiringKills is how many of them are at the mark for the old key, which is there
	// for a few milliseconds only.
	retiringKills = 5
	// killStep is by how much each kill is later after the mark than the one before. To
	// make a key takes Headscale 60 to 220 ms: the kills fall before, in and after it.
	killStep = 8 * time.Millisecond
	// leastMarks is how many of the kills must have left a mark. Where the processors are
	// busy, the kill comes later after the mark than it should: there are as many again at
	// most, each as soon as a key is announced.
	leastMarks = 5
)

// interruptionSpecs kill the sidecar in the middle of rotations.
func interruptionSpecs(get func() *server) {
	It("finishes a rotation in the middle of which the sidecar is killed, twenty times", func(ctx SpecContext) {
		hs := get()
		letReadSecret(ctx, hs, privilegedNamespace, "killer", "get, watch, patch")
		left := map[string]int{}
		few := func() bool {
			return left[v1beta1.AnnotationPending] == 0 || left[v1beta1.AnnotationPending]+left[v1beta1.AnnotationRetiring] < leastMarks
		}
		for i := 0; i < managerKills || i < 2*managerKills && few(); i++ {
			mark, offset := v1beta1.AnnotationPending, time.Duration(i)*killStep
			switch {
			case i >= managerKills:
				offset = 0
			case i >= managerKills-retiringKills:
				mark, offset = v1beta1.AnnotationRetiring, 0
			}
			old, pod := hs.readKey(ctx), hs.mustPod(ctx)
			printed := mustKube(ctx, "exec", "-n", privilegedNamespace, "killer", "--", "/testpod", "interrupt",
				"--pod="+string(pod.UID), "--program=apikey-manager", "--secret="+hs.namespace+"/"+hs.secret,
				"--request="+v1beta1.AnnotationRotateRequestedAt+"=kill-"+strconv.Itoa(i), "--mark="+mark, "--offset="+offset.String())
			var annotations []string
			Expect(json.Unmarshal([]byte(printed), &annotations)).To(Succeed(), printed)
			for _, name := range annotations {
				left[name]++
			}
			hs.awaitContainerRestart(ctx, "apikey-manager")
			key := hs.awaitOtherKey(ctx, old)
			hs.isRefused(ctx, old)
			Expect(statusOf(ctx, hs.url()+"/api/v1/user", key)).To(Equal(http.StatusOK))
			// A new pod, because Kubernetes waits longer before each restart of a container.
			mustKube(ctx, "delete", "-n", hs.namespace, "pod/"+hs.name+"-0")
			hs.awaitRestart(ctx, pod.UID)
		}
		// The mark of a key that was never made is given up after two minutes.
		hs.keepsItsPromises(ctx)
		AddReportEntry("kills that left a mark", fmt.Sprintf("%d before the key was stored, %d before the old one was refused",
			left[v1beta1.AnnotationPending], left[v1beta1.AnnotationRetiring]))
		Expect(left[v1beta1.AnnotationPending]).To(BeNumerically(">", 0), "no kill came between the intention and the new key")
		Expect(left[v1beta1.AnnotationPending]+left[v1beta1.AnnotationRetiring]).To(BeNumerically(">=", leastMarks), "most kills came when nothing was going on")
	})
}
