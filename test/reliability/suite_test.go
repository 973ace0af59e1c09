// Package reliability_test shows, on real servers, what the API Key Manager promises:
// a key that is never lost, leaked or left behind, whatever fails. Each row of a table in
// docs/reliability.md is an observation of one of its specs.
//
// Specs with the label slow are left out unless a label filter asks for them:
//
//	go test ./test/reliability -args -ginkgo.label-filter=slow
package reliability_test

import (
	"cmp"
	"os"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// slow is the label of the specs that take minutes.
const slow = "slow"

// What all specs share.
var (
	root  string
	guard *process.Guard
	plane *env.ControlPlane
	admin client.WithWatch
)

func TestReliability(t *testing.T) {
	RegisterFailHandler(Fail)
	config, reporter := GinkgoConfiguration()
	config.LabelFilter = cmp.Or(config.LabelFilter, "!"+slow)
	log.SetLogger(GinkgoLogr)
	EnforceDefaultTimeoutsWhenUsingContexts()
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(poll)
	RunSpecs(t, "The API Key Manager's reliability", config, reporter)
}

var _ = BeforeSuite(func(ctx SpecContext) {
	var err error
	guard, err = process.NewGuard("rel-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return guard.Close() })

	buildManagers(ctx)
	plane, err = env.StartControlPlane(env.ControlPlaneOptions{Servers: findServers(), Guard: guard})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return plane.Stop() })
	config := plane.Config()
	config.QPS = -1 // consumers read every 20 ms
	admin, err = client.NewWithWatch(config, client.Options{Scheme: scheme.Scheme})
	Expect(err).NotTo(HaveOccurred())

	DeferCleanup(stopSharedHeadscales)
})

// findServers says where the servers are, which were built before.
func findServers(headscale ...string) serverbuild.Servers {
	GinkgoHelper()
	servers, err := serverbuild.Find(serverbuild.Options{Root: root, Headscale: headscale})
	Expect(err).NotTo(HaveOccurred())
	return servers
}

// newDir returns a directory that goes with the suite. Its path is short enough for a
// socket.
func newDir() string {
	GinkgoHelper()
	dir, err := os.MkdirTemp(guard.Dir(), "d-")
	Expect(err).NotTo(HaveOccurred())
	return dir
}

// together runs the parts of a spec at the same time, for most of it is waiting.
func together[C any](cases []C, part func(C)) {
	GinkgoHelper()
	var running sync.WaitGroup
	for _, c := range cases {
		running.Go(func() {
			defer GinkgoRecover()
			part(c)
		})
	}
	running.Wait()
}
