// Package preauthkeys_test shows, on real servers, what the operator promises about pre-auth keys:
// the Secret always holds one that works, and Headscale has no other one of the object that does,
// whatever fails. docs/reliability-preauthkeys.md has a row for each spec.
//
// The operator is the real program, with the rights of its installation; the Headscales are real
// ones, each with its real API Key Manager, through whose admin endpoint the operator asks; nodes
// speak the real protocol. Specs with the label slow are left out unless a label filter asks for
// them:
//
//	go test ./test/reliability/preauthkeys -args -ginkgo.label-filter=slow
package preauthkeys_test

import (
	"cmp"
	"context"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// slow is the label of the specs that take minutes.
const slow = "slow"

// healLimit is how long it takes at most until all is well again: a look at Headscale's lists, at
// most half a minute later, and a replacement. On a busy machine it may take twice as long. How long
// it took is in the report.
const healLimit = 75 * time.Second

// What all specs share.
var (
	world *env.World
	guard *process.Guard
	admin client.WithWatch
	// versions are the releases of Headscale, oldest first.
	versions []string
)

func TestReliability(t *testing.T) {
	RegisterFailHandler(Fail)
	config, reporter := GinkgoConfiguration()
	config.LabelFilter = cmp.Or(config.LabelFilter, "!"+slow)
	log.SetLogger(GinkgoLogr)
	EnforceDefaultTimeoutsWhenUsingContexts()
	SetDefaultEventuallyTimeout(healLimit)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	RunSpecs(t, "The reliability of pre-auth keys", config, reporter)
}

var _ = BeforeSuite(func(ctx SpecContext) {
	var err error
	world, err = env.NewWorld("rel-pak-", GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(world.Close)
	Expect(world.Build(ctx, GinkgoWriter)).To(Succeed())
	Expect(world.StartPlane(nil)).To(Succeed())
	Expect(world.Plane.InstallOperator(ctx, world.Root)).To(Succeed())
	guard, admin = world.Guard, world.Admin
	versions, err = serverbuild.HeadscaleVersions(world.Root)
	Expect(err).NotTo(HaveOccurred())
})

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

// newest are the newest release, and older the others.
func newest() []string { return versions[len(versions)-1:] }
func older() []string  { return versions[:len(versions)-1] }

// eachRelease makes a spec for the newest release of Headscale, and a slow one for the others, which
// are tried at the same time.
func eachRelease(text string, try func(ctx context.Context, releases []string)) {
	It(text, func(ctx SpecContext) { try(ctx, newest()) })
	It(text+", with older Headscales", Label(slow), func(ctx SpecContext) { try(ctx, older()) })
}
