package reliability_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/test/reliability/apiproxy"
)

const sectionLost = "lost"

// begin brings the world to the moment before a manager starts that has a first key
// to make, or a rotation, for which goOn is called then.
func (w *world) begin(ctx context.Context, doing string) (goOn func()) {
	GinkgoHelper()
	if doing != "rotation" {
		return func() { w.run(calm...) }
	}
	w.managed(ctx, calm...).terminate()
	w.requestRotation(ctx)
	return func() { w.run(calm...) }
}

// lostAnswer is an answer of Headscale that does not arrive.
type lostAnswer struct {
	doing   string
	failure string
	fault   headscaletest.Fault
	// created is how many keys it may take.
	created int
	labels  Labels
}

var lostAnswers = []lostAnswer{
	{"first key", "create: the key is made, the answer is lost", headscaletest.Fault{On: headscaletest.Create, Do: headscaletest.LoseAnswer, Times: 1}, 2, nil},
	{"rotation", "create: the key is made, the answer is lost", headscaletest.Fault{On: headscaletest.Create, Do: headscaletest.LoseAnswer, Times: 1}, 2, nil},
	{"rotation", "create: the answer is lost twice", headscaletest.Fault{On: headscaletest.Create, Do: headscaletest.LoseAnswer, Times: 2}, 3, Label(slow)},
	{"rotation", "create: the request is lost", headscaletest.Fault{On: headscaletest.Create, Do: headscaletest.Drop, Times: 1}, 1, nil},
	{"rotation", "create: refused (database is locked)", headscaletest.Fault{On: headscaletest.Create, Do: headscaletest.Refuse, Times: 1}, 1, nil},
	{"rotation", "expire: the key is expired, the answer is lost", headscaletest.Fault{On: headscaletest.Expire, Do: headscaletest.LoseAnswer, Times: 1}, 1, nil},
	{"rotation", "expire: the request is lost", headscaletest.Fault{On: headscaletest.Expire, Do: headscaletest.Drop, Times: 1}, 1, nil},
}

var _ = Describe("When an answer of Headscale is lost, a manager", func() {
	for _, lost := range lostAnswers {
		eachHeadscale(fmt.Sprintf("leaves one key: %s, %s", lost.doing, lost.failure), func(ctx SpecContext, version string) {
			w := newWorld(ctx, sharedHeadscale(ctx, version), faulty)
			goOn := w.begin(ctx, lost.doing)
			before, consumer := w.count(ctx), w.consume(0)
			w.faults.Inject(lost.fault)
			goOn()
			seen := observation{
				Section: sectionLost, Failure: fmt.Sprintf("%s (%s)", lost.failure, lost.doing),
				Produced: "proxy on the socket", Headscale: version, Wanted: 1,
			}
			w.healsInto(ctx, &seen, before)
			consumer.into(&seen)
			Expect(seen.Created).To(BeNumerically("<=", lost.created))
			Expect(seen.Streak).To(BeNumerically("<=", 1))
			note(seen)
		}, lost.labels)
	}

	// creatingWindow is a time in which a manager whose creates all fail may make no
	// more than creatingBound keys: 1 s doubles to 1 min between them.
	const creatingWindow, creatingBound = 90 * time.Second, 7

	It("makes few keys while that goes on for 90 s", Label(slow), func(ctx SpecContext) {
		w := newWorld(ctx, sharedHeadscale(ctx, latestVersions[0]), faulty)
		goOn := w.begin(ctx, "rotation")
		before, consumer := w.count(ctx), w.consume(0)
		w.faults.Inject(headscaletest.Fault{On: headscaletest.Create, Do: headscaletest.LoseAnswer})
		goOn()
		Consistently(ctx, func() int { return w.createdSince(ctx, before) }).
			WithTimeout(creatingWindow).WithPolling(time.Second).Should(BeNumerically("<=", creatingBound))
		seen := observation{
			Section: sectionLost, Failure: "create: every answer is lost for 90 s (rotation)",
			Produced: "proxy on the socket", Headscale: latestVersions[0], Wanted: 1,
			Note: fmt.Sprintf("%d keys made in the 90 s", w.createdSince(ctx, before)),
		}
		w.faults.ClearFaults()
		began := time.Now()
		Eventually(ctx, w.unrest).WithTimeout(90 * time.Second).Should(BeEmpty())
		w.healed(ctx, &seen, before, time.Since(began))
		consumer.into(&seen)
		Expect(seen.Streak).To(BeNumerically("<=", 1))
		note(seen)
	})
})

// writes names the writes of the Secret in their order.
var writes = map[string][]string{
	"first key": {"intend", "store"},
	"rotation":  {"intend", "store", "forget"},
}

var _ = Describe("When a write of the Secret fails half-way, a manager", func() {
	for _, doing := range []string{"first key", "rotation"} {
		for i, name := range writes[doing] {
			eachHeadscale(fmt.Sprintf("leaves one key: %s, reply to %s lost", doing, name), func(ctx SpecContext, version string) {
				w := newWorld(ctx, sharedHeadscale(ctx, version))
				w.rotateThrough(ctx, doing, observation{
					Section: sectionLost, Failure: fmt.Sprintf("%s: written, the reply is lost (%s)", name, doing),
					Produced: "proxy before the API server", Headscale: version,
				}, func(number int) apiproxy.Action {
					if number == i+1 {
						return apiproxy.LoseReply
					}
					return apiproxy.Pass
				})
			})
			if doing == "first key" && name == "intend" {
				continue // There is no Secret to be edited yet.
			}
			eachHeadscale(fmt.Sprintf("leaves one key: %s, conflict at %s", doing, name), func(ctx SpecContext, version string) {
				w := newWorld(ctx, sharedHeadscale(ctx, version))
				w.rotateThrough(ctx, doing, observation{
					Section: sectionLost, Failure: fmt.Sprintf("%s: conflict (%s)", name, doing),
					Produced: "somebody edits the Secret just before", Headscale: version,
				}, func(number int) apiproxy.Action {
					if number == i+1 {
						w.edit(ctx, addForeignEntries)
					}
					return apiproxy.Pass
				})
				w.expectForeignEntries(ctx)
			})
		}
	}
})

// rotateThrough makes a key while something decides about the writes.
func (w *world) rotateThrough(ctx context.Context, doing string, seen observation, decide func(int) apiproxy.Action) {
	GinkgoHelper()
	goOn := w.begin(ctx, doing)
	before, consumer := w.count(ctx), w.consume(0)
	w.api.OnWrite(decide)
	goOn()
	seen.Wanted = 1
	w.healsInto(ctx, &seen, before)
	consumer.into(&seen)
	w.expectCreated(seen, 1) // A key that was made is stored in the end.
	Expect(seen.Streak).To(BeNumerically("<=", 1))
	note(seen)
}

// expectCreated expects so many keys to have been made where Headscale is never away. It makes one more if
// it was asked and stalled for longer than the manager waits, which says then that it is away.
func (w *world) expectCreated(seen observation, keys int) {
	GinkgoHelper()
	stalls := strings.Count(w.printed.String(), saying(apikey.ReasonHeadscaleUnavailable))
	Expect(seen.Created).To(And(BeNumerically(">=", keys), BeNumerically("<=", keys+stalls)), seen.Failure)
}

const foreignName, foreignValue = "example.com/somebody", "else"

// addForeignEntries adds what nobody but its owner may remove.
func addForeignEntries(secret *corev1.Secret) {
	metav1.SetMetaDataLabel(&secret.ObjectMeta, foreignName, foreignValue)
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, foreignName, foreignValue)
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data["foreign"] = []byte(foreignValue)
}

func (w *world) expectForeignEntries(ctx context.Context) {
	GinkgoHelper()
	secret, err := w.secret(ctx)
	Expect(err).NotTo(HaveOccurred())
	Expect(secret.Labels).To(HaveKeyWithValue(foreignName, foreignValue))
	Expect(secret.Annotations).To(HaveKeyWithValue(foreignName, foreignValue))
	Expect(secret.Data).To(HaveKeyWithValue("foreign", []byte(foreignValue)))
}
