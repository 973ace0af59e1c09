package reliability_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gmeasure"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/keyuse"
)

// starts is how often the time to the first key is measured.
const starts = 20

// What is measured.
const (
	floorOfAKey   = "floor: Headscale makes a key, and the Secret is written twice"
	managerBefore = "manager waiting, Headscale starts: from the first answer on the socket to the key in the Secret"
	managerAfter  = "Headscale running, manager starts: from the start of the process to the key in the Secret"
)

var _ = Describe("The first key", Label(slow, "latency"), func() {
	for _, version := range versions {
		It(fmt.Sprintf("is there soon, over %d starts, Headscale %s", starts, version), func(ctx SpecContext) {
			experiment := gmeasure.NewExperiment("Time to the first key, Headscale " + version)
			AddReportEntry(experiment.Name, experiment)
			h := freshHeadscale(ctx, version)
			for range starts {
				w := newWorld(ctx, h)
				experiment.RecordDuration(floorOfAKey, w.measureFloor(ctx))
				experiment.RecordDuration(managerAfter, w.measureManagerAfter(ctx))
				experiment.RecordDuration(managerBefore, w.measureManagerBefore(ctx))
			}
		})
	}
})

// measureFloor is the least that can be hoped for.
func (w *world) measureFloor(ctx context.Context) time.Duration {
	GinkgoHelper()
	took, err := keyuse.Baseline(ctx, w.kubeconfig, w.namespace, w.socket)
	Expect(err).NotTo(HaveOccurred())
	w.deleteSecret(ctx)
	return took
}

// measureManagerAfter starts the manager when Headscale is there.
func (w *world) measureManagerAfter(ctx context.Context) time.Duration {
	GinkgoHelper()
	stored := w.whenStored(ctx)
	began := time.Now()
	w.run(calm...)
	took := (<-stored).Sub(began)
	w.heals(ctx)
	w.terminate()
	w.deleteSecret(ctx)
	return took
}

// measureManagerBefore starts Headscale when the manager is waiting for it.
func (w *world) measureManagerBefore(ctx context.Context) time.Duration {
	GinkgoHelper()
	Expect(w.headscale.Stop()).To(Succeed())
	w.hear()
	w.run(calm...)
	w.hears(ctx, apikey.ReasonHeadscaleUnavailable)
	stored := w.whenStored(ctx)
	answered := make(chan time.Time, 1)
	go func() { answered <- keyuse.FirstAnswer(ctx, w.headscale.SocketPath()) }()
	Expect(w.headscale.Start(ctx)).To(Succeed())
	took := (<-stored).Sub(<-answered)
	w.heals(ctx)
	w.terminate()
	return took
}

// whenStored returns when a key comes into the Secret, as somebody who watches it hears of it.
func (w *world) whenStored(ctx context.Context) <-chan time.Time {
	GinkgoHelper()
	watcher, err := admin.Watch(ctx, &corev1.SecretList{}, client.InNamespace(w.namespace))
	Expect(err).NotTo(HaveOccurred())
	stored := make(chan time.Time, 1)
	go func() {
		defer watcher.Stop()
		at, err := env.Await(ctx, watcher, func(secret *corev1.Secret) bool { return len(secret.Data[v1beta1.SecretDataKey]) > 0 })
		if err == nil {
			stored <- at
		}
	}()
	return stored
}
