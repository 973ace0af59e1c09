package reliability_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gmeasure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/reliability/observation"
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
			for _, name := range []string{floorOfAKey, managerBefore, managerAfter} {
				Expect(observations.Write(latencyOf(experiment.Get(name), version))).To(Succeed())
			}
		})
	}
})

func latencyOf(measured gmeasure.Measurement, version string) observation.Latency {
	latency := observation.Latency{Latency: measured.Name, Headscale: version}
	for _, duration := range measured.Durations {
		latency.Milliseconds = append(latency.Milliseconds, float64(duration)/float64(time.Millisecond))
	}
	return latency
}

// measureFloor is what nobody can be faster than who does it in the order that the
// manager does: a mark in the Secret, the key, the key in the Secret. It is done with
// the manager's means and rights.
func (w *world) measureFloor(ctx context.Context) time.Duration {
	GinkgoHelper()
	config, err := clientcmd.BuildConfigFromFlags("", w.kubeconfig)
	Expect(err).NotTo(HaveOccurred())
	secrets, err := apikey.NewSecrets(config, w.namespace, v1beta1.DefaultSecretName)
	Expect(err).NotTo(HaveOccurred())
	_, err = secrets.Get(ctx) // The manager is connected, too, when Headscale comes.
	Expect(client.IgnoreNotFound(err)).To(Succeed())
	admin := headscale.NewClient(w.socket)

	began := time.Now()
	secret, err := secrets.Create(ctx, &corev1.Secret{Type: corev1.SecretTypeOpaque})
	Expect(err).NotTo(HaveOccurred())
	key, err := admin.CreateAPIKey(ctx, time.Now().Add(time.Hour))
	Expect(err).NotTo(HaveOccurred())
	secret.Data = map[string][]byte{v1beta1.SecretDataKey: []byte(key.Reveal())}
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, foreignName, foreignValue)
	_, err = secrets.Update(ctx, secret)
	took := time.Since(began)
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
	go func() { answered <- w.firstAnswer(ctx) }()
	Expect(w.headscale.Start(ctx)).To(Succeed())
	took := (<-stored).Sub(<-answered)
	w.heals(ctx)
	w.terminate()
	return took
}

// firstAnswer is when Headscale first answers a call on its socket.
func (w *world) firstAnswer(ctx context.Context) time.Time {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := w.list.ListAPIKeys(ctx); err == nil || ctx.Err() != nil {
			return time.Now()
		}
		<-tick.C
	}
}

// whenStored tells when a key comes into the Secret, as a consumer hears of it.
func (w *world) whenStored(ctx context.Context) <-chan time.Time {
	GinkgoHelper()
	watcher, err := admin.Watch(ctx, &corev1.SecretList{}, client.InNamespace(w.namespace))
	Expect(err).NotTo(HaveOccurred())
	stored := make(chan time.Time, 1)
	go func() {
		defer watcher.Stop()
		for event := range watcher.ResultChan() {
			if secret, ok := event.Object.(*corev1.Secret); ok && len(secret.Data[v1beta1.SecretDataKey]) > 0 {
				stored <- time.Now()
				return
			}
		}
	}()
	return stored
}
