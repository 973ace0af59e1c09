package apikey

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

const day = 24 * time.Hour

var defaults = rotation.Settings{Expiration: v1beta1.DefaultExpiration, RotationBuffer: v1beta1.DefaultRotationBuffer(v1beta1.DefaultExpiration)}

// world is a Manager with all that it touches, on a clock that can be moved.
type world struct {
	*WithT
	t         *testing.T
	headscale *fakeHeadscale
	secrets   *fakeSecrets
	settings  rotation.Settings
	owner     *Owner
	tag       rotation.Tag
	poll      time.Duration
	log       *lockedBuffer
	// keyring and certificate are those of the admin endpoint, if there is one.
	keyring     Keyring
	certificate string
	// manager and metrics are those of the last start.
	manager *Manager
	metrics *Metrics
	// skew is added to the time that the Manager's clock shows.
	skew atomic.Int64
	stop func()
}

// newWorld must be called in a synctest bubble. Headscale is not polled between two checks
// where a test does not set it: a million polls take a minute.
func newWorld(t *testing.T, settings rotation.Settings) *world {
	w := &world{WithT: NewWithT(t), t: t, settings: settings, tag: testTag, poll: rotation.CheckInterval, log: &lockedBuffer{}, secrets: newFakeSecrets(), stop: func() {}}
	w.headscale = newFakeHeadscale(time.Now)
	return w
}

// start runs a Manager, as a new process would.
func (w *world) start() *world {
	ctx, cancel := context.WithCancel(context.Background())
	w.metrics = NewMetrics(MetricsFacts{Version: "v1", Commit: "abc", HeadscaleVersion: "v0.29.3", Transport: w.headscale.spoken})
	manager := New(Config{
		Admin: w.metrics.Watch(w.headscale), Observer: w.metrics, Secrets: w.secrets, Settings: w.settings, Tag: w.tag, Owner: w.owner,
		Keyring: w.keyring, AdminCertificate: w.certificate,
		Clock: func() time.Time { return time.Now().Add(time.Duration(w.skew.Load())) },
		Log:   slog.New(slog.NewTextHandler(w.log, nil)),
	})
	w.manager = manager
	manager.poll = w.poll
	done := make(chan error)
	go func() { done <- manager.Start(ctx) }()
	w.stop = func() {
		cancel()
		w.Expect(<-done).To(Succeed())
		w.stop = func() {}
	}
	synctest.Wait()
	return w
}

// pass lets time go by.
func (w *world) pass(length time.Duration) {
	time.Sleep(length) //nolint:forbidigo // In a synctest bubble this takes no time.
	synctest.Wait()
}

// key is the text in the Secret.
func (w *world) key() []byte { return w.secrets.now().Data[v1beta1.SecretDataKey] }

func (w *world) note(annotation string) string { return w.secrets.now().Annotations[annotation] }

// atRest is the promise: exactly one key of ours is live, it is the one in the
// Secret, it works, and the ledger is empty.
func (w *world) atRest() {
	w.t.Helper()
	w.Expect(w.secrets.now()).NotTo(BeNil(), "there is no Secret\n%s", w.log)
	w.Expect(w.headscale.accepts(w.key())).To(BeTrue(), "the key in the Secret is refused\n%s", w.log)
	w.Expect(w.headscale.live()).To(ConsistOf(w.note(v1beta1.AnnotationKeyPrefix)), "other keys are live\n%s", w.log)
	w.Expect(w.note(v1beta1.AnnotationPending)).To(BeEmpty())
	w.Expect(w.note(v1beta1.AnnotationRetiring)).To(BeEmpty())
	w.Expect(rotation.ParseTime(w.note(v1beta1.AnnotationExpiration))).To(BeTemporally(">", time.Now()))
}

// lines counts the lines of the log that contain a text.
func (w *world) lines(text string) int { return strings.Count(w.log.String(), text) }

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// inWorld runs a story in a synctest bubble.
func inWorld(t *testing.T, settings rotation.Settings, story func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settings)
		defer func() { w.stop() }()
		story(w)
	})
}

func edited(change func(*corev1.Secret)) func(*corev1.Secret) *corev1.Secret {
	return func(secret *corev1.Secret) *corev1.Secret {
		change(secret)
		return secret
	}
}

func setValue(value string) func(*corev1.Secret) *corev1.Secret {
	return edited(func(s *corev1.Secret) { s.Data[v1beta1.SecretDataKey] = []byte(value) })
}

func removed(*corev1.Secret) *corev1.Secret { return nil }

func TestAYearOfRotations(t *testing.T) {
	for name, test := range map[string]struct {
		buffer   time.Duration
		interval time.Duration
	}{
		"default buffer": {buffer: 1920 * time.Hour, interval: 10 * day},
		"buffer of 240h": {buffer: 240 * time.Hour, interval: 80 * day},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, rotation.Settings{Expiration: 2160 * time.Hour, RotationBuffer: test.buffer}, func(w *world) {
				w.start()
				for elapsed := time.Duration(0); elapsed < 365*day; elapsed += day {
					w.atRest()
					w.Expect(w.headscale.createdSoFar()).To(Equal(1 + int(max(0, elapsed-time.Second)/test.interval)))
					w.pass(day)
				}
			})
		})
	}
}

func TestTheSecretIsToTheLetter(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start()
		secret := w.secrets.now()
		w.Expect(secret.Type).To(Equal(corev1.SecretTypeOpaque))
		w.Expect(secret.Labels).To(Equal(map[string]string{
			"app.kubernetes.io/managed-by": "headscale-operator", "app.kubernetes.io/component": "api-key"}))
		w.Expect(secret.Data).To(HaveLen(1))
		w.Expect(secret.Data).To(HaveKey("api-key"))
		w.Expect(secret.Annotations).To(HaveLen(4))
		created, expires := secret.Annotations["api-key.headscale.infrado.cloud/created-at"], secret.Annotations["api-key.headscale.infrado.cloud/expiration"]
		w.Expect(time.Parse(time.RFC3339, created)).To(BeTemporally("~", time.Now(), time.Second))
		w.Expect(time.Parse(time.RFC3339, expires)).To(BeTemporally("~", time.Now().Add(90*day), time.Second))
	})
}

func TestAtRestTheAPIServerIsLeftAlone(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start().pass(time.Minute)
		before := w.secrets.count("get", "create", "update", "watch")
		w.pass(5 * time.Hour)
		w.Expect(w.secrets.count("get", "create", "update", "watch") - before).To(Equal(5))
	})
}

func TestRotationHappensAtTheDueInstant(t *testing.T) {
	inWorld(t, rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute}, func(w *world) {
		w.start()
		first := w.key()
		due := rotation.ParseTime(w.note(v1beta1.AnnotationExpiration)).Add(-30 * time.Minute)
		w.pass(time.Until(due) - time.Millisecond)
		w.Expect(w.key()).To(Equal(first))
		w.pass(time.Millisecond)
		w.Expect(w.key()).NotTo(Equal(first))
		w.Expect(w.headscale.accepts(first)).To(BeFalse())
		w.atRest()
	})
}

func TestASleepingMachineRotatesWhenItWakes(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.poll = pollInterval
		w.start()
		first := w.key()
		w.skew.Store(int64(11 * day)) // Timers stood still; the wall clock did not.
		w.pass(pollInterval)
		w.Expect(w.key()).NotTo(Equal(first))
		w.Expect(w.lines("reason=RotationDue")).To(Equal(1))
	})
}

func TestClocksThatDiffer(t *testing.T) {
	for _, skew := range []time.Duration{-5 * time.Minute, 5 * time.Minute} {
		t.Run(skew.String(), func(t *testing.T) {
			inWorld(t, rotation.Settings{Expiration: time.Hour, RotationBuffer: 20 * time.Minute}, func(w *world) {
				w.skew.Store(int64(skew))
				w.start()
				for range 24 {
					w.Expect(w.headscale.accepts(w.key())).To(BeTrue())
					w.Expect(w.headscale.live()).To(HaveLen(1))
					w.pass(30 * time.Minute)
				}
				w.Expect(w.headscale.createdSoFar()).To(BeNumerically("~", 18, 1))
			})
		})
	}
}

func TestDriftIsHealed(t *testing.T) {
	anotherKey := headscale.NewKey("hskey-api-" + strings.Repeat("x", 12) + "-" + strings.Repeat("y", 64))
	for name, test := range map[string]struct {
		drift   func(w *world)
		reason  rotation.Reason
		created int
	}{
		"Secret deleted":     {func(w *world) { w.secrets.edit(removed) }, rotation.ReasonSecretMissing, 2},
		"value is rubbish":   {func(w *world) { w.secrets.edit(setValue("rubbish")) }, ReasonValueMalformed, 2},
		"value is emptied":   {func(w *world) { w.secrets.edit(setValue("")) }, rotation.ReasonKeyMissing, 2},
		"value with newline": {func(w *world) { w.secrets.edit(setValue(string(w.key()) + "\n")) }, ReasonValueMalformed, 2},
		"value of another":   {func(w *world) { w.secrets.edit(setValue(anotherKey.Reveal())) }, rotation.ReasonValueChanged, 2},
		"half the value": {func(w *world) {
			w.secrets.edit(setValue(string(w.key()[:80]) + "AAAAAAA"))
		}, rotation.ReasonValueChanged, 2},
		"data removed": {func(w *world) {
			w.secrets.edit(edited(func(s *corev1.Secret) { s.Data = nil }))
		}, rotation.ReasonKeyMissing, 2},
		"all annotations removed": {func(w *world) {
			w.secrets.edit(edited(func(s *corev1.Secret) { s.Annotations = nil }))
		}, rotation.ReasonValueChanged, 2},
		"times removed": {func(w *world) {
			w.secrets.edit(edited(func(s *corev1.Secret) {
				delete(s.Annotations, v1beta1.AnnotationExpiration)
				delete(s.Annotations, v1beta1.AnnotationCreatedAt)
			}))
		}, rotation.ReasonAnnotationsDiffer, 1},
		"expiration unreadable": {func(w *world) {
			w.secrets.edit(edited(func(s *corev1.Secret) { s.Annotations[v1beta1.AnnotationExpiration] = "soon" }))
		}, rotation.ReasonAnnotationsDiffer, 1},
		"expiration disagrees": {func(w *world) {
			w.secrets.edit(edited(func(s *corev1.Secret) {
				s.Annotations[v1beta1.AnnotationExpiration] = "2099-01-01T00:00:00Z"
			}))
		}, rotation.ReasonAnnotationsDiffer, 1},
		"prefix and ledger are rubbish": {func(w *world) {
			w.secrets.edit(edited(func(s *corev1.Secret) {
				s.Annotations[v1beta1.AnnotationKeyPrefix] = "nonsense"
				s.Annotations[v1beta1.AnnotationPending] = "x@y,@,z"
				s.Annotations[v1beta1.AnnotationRetiring] = "x,y@z"
			}))
		}, rotation.ReasonAnnotationsDiffer, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("while running", func(t *testing.T) {
				inWorld(t, defaults, func(w *world) {
					w.start().pass(time.Hour)
					test.drift(w)
					synctest.Wait() // At once: no time passes.
					w.atRest()
					w.Expect(w.headscale.createdSoFar()).To(Equal(test.created))
					w.Expect(w.lines("reason=" + string(test.reason))).To(BeNumerically(">=", 1))
				})
			})
			t.Run("while it was down", func(t *testing.T) {
				inWorld(t, defaults, func(w *world) {
					w.start().pass(time.Hour)
					w.stop()
					test.drift(w)
					w.certificate = "of the next start"
					w.start()
					w.atRest()
					w.Expect(w.headscale.createdSoFar()).To(Equal(test.created))
					w.Expect(w.lines("reason=" + string(test.reason))).To(BeNumerically(">=", 1))
				})
			})
		})
	}
}

func TestDriftInHeadscaleIsHealedWithinHalfAMinute(t *testing.T) {
	for name, test := range map[string]struct {
		drift  func(w *world)
		reason rotation.Reason
	}{
		"key expired by hand": {func(w *world) {
			w.Expect(w.headscale.ExpireAPIKey(context.Background(), w.note(v1beta1.AnnotationKeyPrefix))).To(Succeed())
		}, rotation.ReasonKeyExpired},
		"key deleted by hand": {func(w *world) { w.headscale.set(func() { w.headscale.keys = nil }) }, rotation.ReasonKeyUnknown},
		"an older database":   {func(w *world) { w.toOlderDatabase() }, rotation.ReasonKeyUnknown},
		"key that never expires": {func(w *world) {
			w.headscale.set(func() { w.headscale.keys[0].Expiration = time.Time{} })
		}, rotation.ReasonLifetimeShortened},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, defaults, func(w *world) {
				w.poll = pollInterval
				w.start().pass(time.Minute)
				test.drift(w)
				w.pass(pollInterval)
				w.atRest()
				w.Expect(w.lines("reason=" + string(test.reason))).To(BeNumerically(">=", 1))
			})
		})
	}
}

func TestPollingHeadscaleAsksKubernetesForNothing(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.poll = pollInterval
		w.start().pass(time.Second)
		requests, lists, log := w.secrets.count("get", "create", "update"), 0, w.log.String()
		w.headscale.set(func() { w.headscale.failList = func() error { lists++; return nil } })
		w.pass(rotation.CheckInterval - 2*time.Second)
		w.Expect(w.secrets.count("get", "create", "update")).To(Equal(requests))
		w.Expect(w.log.String()).To(Equal(log))
		w.headscale.set(func() { w.Expect(lists).To(BeNumerically("~", rotation.CheckInterval/pollInterval, 1)) })
	})
}

func TestAHeadscaleThatStopsAnsweringIsNoticedByPolling(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.poll = pollInterval
		w.start().pass(time.Minute)
		w.headscale.set(func() { w.headscale.failList = func() error { return headscale.ErrUnavailable } })
		w.pass(pollInterval)
		w.Expect(w.lines(waitingMessage)).To(Equal(1))
		w.Expect(w.value("headscale_up")).To(Equal(0.0))
		w.headscale.set(func() { w.headscale.failList = nil })
		w.pass(time.Second)
		w.atRest()
		w.Expect(w.value("headscale_up")).To(Equal(1.0))
	})
}

func TestARotationRequestThatIsTooLongIsIgnoredAndSaidOnce(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		request := func(value string) {
			w.secrets.edit(edited(func(s *corev1.Secret) { s.Annotations[v1beta1.AnnotationRotateRequestedAt] = value }))
			w.pass(time.Second)
		}
		w.start()
		w.Expect(w.manager.Notice()).To(BeEmpty())
		request(strings.Repeat("x", v1beta1.MaxRotationRequest+1))
		w.pass(2 * rotation.CheckInterval)
		w.Expect(w.lines("Ignoring a rotation request")).To(Equal(1))
		w.Expect(w.manager.Notice()).To(Equal("the annotation api-key.headscale.infrado.cloud/rotate-requested-at of the Secret has 257 bytes and is ignored: write at most 256, such as the time"))
		w.Expect(w.log.String()).NotTo(ContainSubstring("xxx"))

		request(strings.Repeat("y", 200_000))
		w.Expect(w.lines("Ignoring a rotation request")).To(Equal(2), "another value")
		w.Expect(w.headscale.createdSoFar()).To(Equal(1))

		request(strings.Repeat("z", v1beta1.MaxRotationRequest))
		w.Expect(w.manager.Notice()).To(BeEmpty())
		w.Expect(w.headscale.createdSoFar()).To(Equal(2), "one that is short enough counts")
		w.atRest()
	})
}

func TestAKeyOfAFormatYetUnknownHasItsPrefixInItsText(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		text := randomHex(30)
		w.headscale.newKey = func() headscale.Key { return headscale.NewKey(text) }
		w.headscale.set(func() {
			w.headscale.failList = func() error { // is called with the lock held
				for i := range w.headscale.keys {
					w.headscale.keys[i].Prefix = "zzzz"
				}
				return nil
			}
		})
		w.start().pass(time.Second)
		w.Expect(w.key()).To(BeEmpty())
		w.Expect(w.log.String()).To(ContainSubstring("a part of its text"))
	})
}

func TestKeysOfAnEarlierVersionAreStillOurs(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		former := rotation.NewTag("test/test")
		w.tag = former
		w.start().pass(time.Minute)
		first := w.key()
		w.stop()

		var orphan, others headscale.Key
		w.headscale.set(func() { orphan = w.headscale.add(w.headscale.newKey(), former.Expiration(time.Now().Add(30*day))) })
		w.tag = rotation.NewTag("test/test/cluster").After(former)
		w.start().pass(time.Minute)
		w.Expect(w.key()).To(Equal(first), "it is good as it is")
		w.Expect(w.headscale.accepts([]byte(orphan.Reveal()))).To(BeFalse())
		w.atRest()

		w.pass(11 * day)
		w.Expect(w.key()).NotTo(Equal(first))
		w.atRest()
		w.headscale.set(func() { others = w.headscale.add(w.headscale.newKey(), former.Expiration(time.Now().Add(30*day))) })
		w.pass(time.Hour)
		w.Expect(w.headscale.accepts([]byte(others.Reveal()))).To(BeTrue(), "it may be another cluster's")
		w.Expect(w.headscale.accepts(w.key())).To(BeTrue())
	})
}

// toOlderDatabase puts Headscale back to before its last rotation: the key in the
// Secret is unknown, and the one that it replaced is live again.
func (w *world) toOlderDatabase() {
	w.headscale.mu.Lock()
	before := slices.Clone(w.headscale.keys)
	w.headscale.mu.Unlock()
	w.secrets.edit(edited(func(s *corev1.Secret) { s.Annotations[v1beta1.AnnotationRotateRequestedAt] = "now" }))
	w.pass(time.Minute)
	w.Expect(w.headscale.createdSoFar()).To(Equal(2))
	w.headscale.set(func() { w.headscale.keys = before })
}

func TestAKeyOfARefusedFormatIsReplaced(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		current := w.headscale.newKey
		w.headscale.masked = false
		w.headscale.newKey = func() headscale.Key { return headscale.NewKey(randomHex(5) + "." + randomHex(22)[:43]) }
		w.start().atRest()
		w.headscale.set(func() {
			w.headscale.newKey = current
			w.headscale.keys[0].Masked = true
		})
		w.pass(rotation.CheckInterval)
		w.atRest()
		w.Expect(w.lines("reason=KeyNotAccepted")).To(Equal(1))
	})
}

func TestAKeyOfAFormatYetUnknownIsFoundByItsExpiration(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.headscale.newKey = func() headscale.Key { return headscale.NewKey(randomHex(30)) }
		w.start().pass(20*day + time.Minute)
		w.atRest()
		w.Expect(w.headscale.createdSoFar()).To(Equal(3))
	})
}

func TestForeignSecretIsLeftAlone(t *testing.T) {
	foreign := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{v1beta1.LabelManagedBy: v1beta1.ManagedBy}},
		Data:       map[string][]byte{"api-key": []byte("theirs")},
	}
	inWorld(t, defaults, func(w *world) {
		w.secrets.edit(func(*corev1.Secret) *corev1.Secret { return foreign })
		w.start().pass(3 * day)
		w.Expect(w.secrets.count("update", "create")).To(BeZero())
		w.Expect(w.secrets.now().Data).To(Equal(foreign.Data))
		w.Expect(w.headscale.createdSoFar()).To(BeZero())
		w.Expect(w.lines("reason=SecretNotOurs")).To(Equal(1))

		w.secrets.edit(removed)
		synctest.Wait()
		w.atRest()
	})
}

func TestImmutableSecretIsReportedWhenItsKeyMustBeReplaced(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start()
		w.secrets.edit(edited(func(s *corev1.Secret) { immutable := true; s.Immutable = &immutable }))
		w.pass(9 * day)
		w.atRest()
		w.pass(2 * day)
		w.Expect(w.headscale.createdSoFar()).To(Equal(1))
		w.Expect(w.lines("reason=SecretImmutable")).To(Equal(1))
		w.secrets.edit(removed)
		synctest.Wait()
		w.atRest()
	})
}

func TestWhatOthersWroteSurvives(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start()
		w.secrets.edit(edited(func(s *corev1.Secret) {
			s.Labels["team"], s.Annotations["note"], s.Data["url"] = "net", "hands off", []byte("https://hs")
		}))
		w.pass(100*day + time.Minute)
		w.atRest()
		secret := w.secrets.now()
		w.Expect(secret.Labels).To(HaveKeyWithValue("team", "net"))
		w.Expect(secret.Annotations).To(HaveKeyWithValue("note", "hands off"))
		w.Expect(secret.Data).To(HaveKeyWithValue("url", []byte("https://hs")))
		w.Expect(w.headscale.createdSoFar()).To(Equal(11))
	})
}

func TestRotateNow(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start()
		for i, request := range []string{"2026-01-01T00:00:00Z", "again", "ein \"drittes\" Mal ☺"} {
			w.pass(time.Hour)
			w.secrets.edit(edited(func(s *corev1.Secret) { s.Annotations[v1beta1.AnnotationRotateRequestedAt] = request }))
			synctest.Wait()
			w.atRest()
			w.Expect(w.headscale.createdSoFar()).To(Equal(i + 2))
			w.Expect(w.note(v1beta1.AnnotationRotateHandled)).To(Equal(request))
		}
		w.stop()
		w.start().pass(day)
		w.Expect(w.headscale.createdSoFar()).To(Equal(4), "a request is handled once, restarts or not")
	})
}

func TestShorterExpirationReplacesALongLivedKey(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start().stop()
		w.settings = rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute}
		w.start().atRest()
		w.Expect(w.headscale.createdSoFar()).To(Equal(2))
		w.Expect(w.lines("reason=LifetimeShortened")).To(BeNumerically(">=", 1))
		w.stop()
		w.settings = defaults
		w.start().pass(time.Minute)
		w.Expect(w.headscale.createdSoFar()).To(Equal(3), "and a longer buffer than the key has left makes it due")
		w.atRest()
	})
}

func TestRevocationDelay(t *testing.T) {
	settings := rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute, RevocationDelay: 10 * time.Minute}
	inWorld(t, settings, func(w *world) {
		w.start()
		first := w.key()
		w.pass(31 * time.Minute)
		w.Expect(w.key()).NotTo(Equal(first))
		w.Expect(w.headscale.accepts(first)).To(BeTrue())
		w.Expect(w.headscale.accepts(w.key())).To(BeTrue())
		w.stop()
		w.start().pass(8 * time.Minute)
		w.Expect(w.headscale.accepts(first)).To(BeTrue(), "a restart must not shorten the delay")
		w.pass(2 * time.Minute)
		w.Expect(w.headscale.accepts(first)).To(BeFalse())
		w.atRest()
	})
}

func TestAConsumerThatLagsSeesNoRefusal(t *testing.T) {
	settings := rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute, RevocationDelay: 5 * time.Minute}
	inWorld(t, settings, func(w *world) {
		w.start()
		var history [][]byte // one copy a minute
		refused := 0
		for range 20 * 31 {
			history = append(history, w.key())
			if lagging := history[max(0, len(history)-5)]; !w.headscale.accepts(lagging) {
				refused++
			}
			w.pass(time.Minute)
		}
		w.Expect(w.headscale.createdSoFar()).To(BeNumerically(">=", 20))
		w.Expect(refused).To(BeZero())
	})
}

func TestHeadscaleComesLate(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.headscale.failList = func() error { return fmt.Errorf("dialling: %w", headscale.ErrUnavailable) }
		w.start().pass(3 * time.Hour)
		w.Expect(w.lines("Waiting for Headscale to be ready...")).To(Equal(1))
		w.Expect(w.secrets.count("get", "create", "update")).To(BeZero())
		w.headscale.set(func() { w.headscale.failList = nil })
		w.pass(waitInterval)
		w.atRest()
	})
}

func TestAHeadscaleWithoutASocketIsLookedForLessOften(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		looks := 0
		w.headscale.failList = func() error {
			looks++
			return fmt.Errorf("%w: %w", headscale.ErrUnavailable, fs.ErrNotExist)
		}
		w.start().pass(time.Minute)
		w.Expect(looks).To(BeNumerically("~", time.Minute/absentInterval, 2))
		w.headscale.set(func() { w.headscale.failList = nil })
		w.pass(absentInterval)
		w.atRest()
	})
}

func TestLostAnswers(t *testing.T) {
	lost := fmt.Errorf("no reply: %w", headscale.ErrUnavailable)
	for name, arrange := range map[string]func(w *world){
		"of a create": func(w *world) {
			w.headscale.lostCreate = once(lost)
		},
		"of the write that intends": func(w *world) { w.secrets.lost = loseNth(1) },
		"of the write that stores":  func(w *world) { w.secrets.lost = loseNth(2) },
		"of an expire": func(w *world) {
			w.headscale.failExpire = once(lost)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, phase := range []string{"first key", "rotation"} {
				t.Run(phase, func(t *testing.T) {
					inWorld(t, defaults, func(w *world) {
						if phase == "first key" {
							arrange(w)
							w.start()
						} else {
							w.start().pass(9 * day)
							w.headscale.set(func() { arrange(w) })
							w.pass(day)
						}
						w.pass(rotation.PendingTimeout + time.Minute)
						w.atRest()
						w.Expect(w.headscale.createdSoFar()).To(BeNumerically("<=", 3))
					})
				})
			}
		})
	}
}

func TestACreateThatFinishesAfterItsCallerGaveUp(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		calls := 0
		w.headscale.failCreate = func() error {
			if calls++; calls > 1 {
				return nil
			}
			expiration := rotation.ParsePending(w.note(v1beta1.AnnotationPending))[0].Expiration
			time.AfterFunc(45*time.Second, func() {
				w.headscale.set(func() { w.headscale.add(w.headscale.newKey(), expiration) })
			})
			return headscale.ErrUnavailable
		}
		w.start().pass(2 * time.Second)
		w.Expect(w.headscale.accepts(w.key())).To(BeTrue())
		w.pass(43*time.Second + rotation.PendingInterval)
		w.Expect(w.headscale.createdSoFar()).To(Equal(2))
		w.atRest()
	})
}

func once(err error) func() error {
	done := false
	return func() error {
		if done {
			return nil
		}
		done = true
		return err
	}
}

// loseNth loses the answer of the n-th write.
func loseNth(n int) func(string, *corev1.Secret) error {
	return func(string, *corev1.Secret) error {
		if n--; n == 0 {
			return errKubernetes
		}
		return nil
	}
}

func TestRefusedWritesCreateNoKey(t *testing.T) {
	for name, test := range map[string]struct {
		refusal error
		reason  rotation.Reason
	}{
		"RBAC":        {apierrors.NewForbidden(secretGroupResource, "test", errors.New(`User "x" cannot create resource "secrets"`)), ReasonForbidden},
		"quota":       {apierrors.NewForbidden(secretGroupResource, "test", errors.New("exceeded quota: secrets")), ReasonQuotaExceeded},
		"webhook":     {apierrors.NewBadRequest(`admission webhook "policy.example.com" denied the request`), ReasonKubernetesRefused},
		"terminating": {terminating(), ReasonNamespaceTerminating},
		"overload":    {apierrors.NewTooManyRequestsError("later"), ReasonKubernetesUnavailable},
		"away":        {errKubernetes, ReasonKubernetesUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			for _, phase := range []string{"first key", "rotation"} {
				t.Run(phase, func(t *testing.T) {
					inWorld(t, defaults, func(w *world) {
						if phase == "rotation" {
							w.start().pass(9 * day)
						}
						created := w.headscale.createdSoFar()
						w.secrets.set(func() {
							w.secrets.fail = func(verb string, _ *corev1.Secret) error {
								if verb == "create" || verb == "update" {
									return test.refusal
								}
								return nil
							}
						})
						if phase == "first key" {
							w.start()
						}
						w.pass(2 * day)
						w.Expect(w.headscale.createdSoFar()).To(Equal(created))
						w.Expect(w.lines("reason=" + string(test.reason))).To(Equal(1))
						w.secrets.set(func() { w.secrets.fail = nil })
						w.pass(maxRetry)
						w.atRest()
						w.Expect(w.headscale.createdSoFar()).To(Equal(created + 1))
					})
				})
			}
		})
	}
}

func terminating() error {
	err := apierrors.NewForbidden(secretGroupResource, "test", errors.New("namespace is being terminated"))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: corev1.NamespaceTerminatingCause})
	return err
}

func TestAStoreThatIsRefusedKeepsTheOneKeyThatWasMade(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.secrets.fail = func(_ string, secret *corev1.Secret) error {
			if secret == nil || secret.Data[v1beta1.SecretDataKey] == nil {
				return nil
			}
			return apierrors.NewBadRequest(fmt.Sprintf("admission webhook denied %s, %v", secret.Data[v1beta1.SecretDataKey], intstr.FromString("x")))
		}
		w.start().pass(day)
		w.Expect(w.headscale.createdSoFar()).To(Equal(1))
		w.secrets.set(func() { w.secrets.fail = nil })
		w.pass(maxRetry)
		w.atRest()
		w.Expect(w.headscale.createdSoFar()).To(Equal(1))
		w.Expect(w.log.String()).NotTo(ContainSubstring(string(w.key())), "an error that quotes the key must not reach the log")
	})
}

func TestAKeyMadeForASecretThatIsGoneIsExpired(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		stores := 0
		w.secrets.fail = func(_ string, secret *corev1.Secret) error {
			if secret == nil || secret.Data[v1beta1.SecretDataKey] == nil {
				return nil
			}
			if stores++; stores == 1 {
				go w.secrets.edit(removed)
				return errKubernetes
			}
			return nil
		}
		w.start().pass(time.Minute)
		w.atRest()
		w.Expect(w.headscale.createdSoFar()).To(Equal(2))
	})
}

func TestConflictsAreNotFailures(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		writes := 0
		w.secrets.fail = func(verb string, _ *corev1.Secret) error {
			if verb != "update" {
				return nil
			}
			if writes++; writes%2 == 1 {
				return apierrors.NewConflict(secretGroupResource, "test", nil)
			}
			return nil
		}
		w.start().pass(30*day + time.Minute)
		w.atRest()
		w.Expect(w.headscale.createdSoFar()).To(Equal(4))
		w.Expect(w.lines("trying again")).To(BeZero())
	})
}

func TestAFightOverTheSecretCreatesFewKeys(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start()
		for range 3600 {
			w.secrets.edit(setValue("rubbish"))
			w.pass(time.Second)
		}
		w.Expect(w.headscale.createdSoFar()).To(BeNumerically("<=", 7+3600/48), "seven, then one every 48 to 60 s")
		w.Expect(w.headscale.live()).To(HaveLen(1))
		w.pass(2 * time.Minute)
		w.atRest()
	})
}

func TestAFailingCreateIsRepeatedSlowly(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.headscale.lostCreate = func() error { return errors.New("database is locked") }
		w.start().pass(90 * time.Second)
		w.Expect(w.headscale.createdSoFar()).To(BeNumerically("<=", 8))
		w.Expect(len(w.headscale.live())).To(BeNumerically("<=", 1), "each is expired before the next is made")
		w.headscale.set(func() { w.headscale.lostCreate = nil })
		w.pass(rotation.MaxCreateDelay + rotation.PendingTimeout)
		w.atRest()
	})
}

func TestAFailureThatRepeatsIsSaidOnce(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.headscale.failCreate = func() error { return errors.New("database is locked") }
		w.start().pass(10 * time.Minute)
		w.Expect(w.lines("trying again")).To(Equal(1), "%s", w.log)
		w.headscale.set(func() { w.headscale.failCreate = nil })
		w.pass(rotation.MaxCreateDelay + rotation.PendingTimeout)
		w.atRest()
	})
}

func TestNoRefusalBringsTheStoredKeyIntoTheLog(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start().pass(9 * day)
		w.secrets.set(func() {
			w.secrets.fail = func(_ string, secret *corev1.Secret) error {
				if secret == nil {
					return nil
				}
				value := secret.Data[v1beta1.SecretDataKey]
				return apierrors.NewBadRequest(fmt.Sprintf("denied %s %s", value, base64.StdEncoding.EncodeToString(value)))
			}
		})
		w.pass(2 * day)
		w.Expect(w.lines("denied")).To(Equal(1))
		w.Expect(w.log.String()).NotTo(ContainSubstring(string(w.key())))
		w.Expect(w.scrape()).NotTo(ContainSubstring(string(w.key())))
		w.Expect(w.scrape()).NotTo(ContainSubstring(base64.StdEncoding.EncodeToString(w.key())))
		w.Expect(w.log.String()).NotTo(ContainSubstring(base64.StdEncoding.EncodeToString(w.key())))
	})
}

func TestAKeyThatCannotBeExpiredDoesNotHoldUpTheRest(t *testing.T) {
	refused := errors.New("database is read-only for this")
	settings := rotation.Settings{Expiration: time.Hour, RotationBuffer: 55 * time.Minute}
	inWorld(t, settings, func(w *world) {
		w.start().pass(time.Minute)
		w.headscale.set(func() { w.headscale.failExpire = func() error { return refused } })
		for range 10 * 60 {
			w.pass(time.Minute)
			w.Expect(w.headscale.accepts(w.key())).To(BeTrue(), "%s", w.log)
		}
		w.secrets.edit(setValue("rubbish"))
		w.pass(2 * time.Minute)
		w.Expect(w.headscale.accepts(w.key())).To(BeTrue(), "%s", w.log)

		w.headscale.set(func() { w.headscale.failExpire = nil })
		w.pass(time.Minute)
		w.atRest()
	})
	inWorld(t, settings, func(w *world) {
		w.headscale.lostCreate, w.headscale.failExpire = once(refused), func() error { return refused }
		w.start().pass(2 * time.Minute)
		w.Expect(w.headscale.accepts(w.key())).To(BeTrue(), "the first key comes though the one that was lost cannot be expired")
	})
}

func TestAKeyIsExpiredOnceThoughThatCannotBeNoted(t *testing.T) {
	settings := rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute, RevocationDelay: time.Minute}
	inWorld(t, settings, func(w *world) {
		expired := 0
		w.headscale.failExpire = func() error { expired++; return nil }
		w.start().pass(30*time.Minute + 30*time.Second)
		w.secrets.set(func() {
			w.secrets.fail = func(verb string, _ *corev1.Secret) error {
				if verb == "update" {
					return errKubernetes
				}
				return nil
			}
		})
		w.pass(10 * time.Minute)
		w.Expect(expired).To(Equal(1))
		w.Expect(w.lines("Expired an API key")).To(Equal(1))
		w.Expect(w.lines("trying again")).To(Equal(1))
		w.secrets.set(func() { w.secrets.fail = nil })
		w.pass(maxRetry)
		w.atRest()
	})
}

func TestAHeadscaleThatKeepsAnotherExpirationGetsFewKeys(t *testing.T) {
	for name, kept := range map[string]func(asked time.Time) time.Time{
		"shorter": func(time.Time) time.Time { return time.Now().Add(10 * day) },
		"never":   func(time.Time) time.Time { return time.Time{} },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, defaults, func(w *world) {
				w.headscale.keep = kept
				w.start().pass(time.Hour)
				w.Expect(w.headscale.createdSoFar()).To(BeNumerically("<=", 7+3600/48))
			})
		})
	}
}

func TestADeletionWhileNobodyWatchesIsSeen(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start().pass(time.Minute)
		w.secrets.set(func() {
			w.secrets.fail = func(verb string, _ *corev1.Secret) error {
				if verb == "watch" {
					return apierrors.NewResourceExpired("too old")
				}
				return nil
			}
		})
		w.secrets.endWatches()
		w.pass(rotation.MinDelay)
		w.secrets.set(func() { w.secrets.fail = nil })
		w.secrets.edit(removed)
		w.pass(maxRetry)
		w.atRest()
	})
}

func TestAClockThatIsSetBack(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.skew.Store(int64(30 * day))
		w.start()
		w.skew.Store(0)
		w.headscale.set(func() { w.headscale.keys = nil })
		w.pass(rotation.CheckInterval)
		w.atRest()
		w.secrets.edit(setValue("rubbish"))
		w.pass(2 * time.Second)
		w.atRest()
	})
}

func TestAForeignKeyInOurSecretIsReplacedAndNotExpired(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start()
		var foreign headscale.Key
		w.headscale.set(func() { foreign = w.headscale.add(w.headscale.newKey(), time.Now().Add(3650*day)) })
		w.secrets.edit(edited(func(s *corev1.Secret) {
			s.Annotations, s.Data[v1beta1.SecretDataKey] = nil, []byte(foreign.Reveal())
		}))
		w.pass(day)
		w.Expect(w.headscale.accepts([]byte(foreign.Reveal()))).To(BeTrue())
		w.Expect(w.headscale.accepts(w.key())).To(BeTrue())
		w.Expect(w.headscale.live()).To(HaveLen(2))
		w.Expect(string(w.key())).NotTo(Equal(foreign.Reveal()))
	})
}

func TestAKeyThatHeadscaleLostBeforeItWasStoredIsNotStored(t *testing.T) {
	inWorld(t, rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute}, func(w *world) {
		w.start()
		working := string(w.key())
		w.headscale.mu.Lock()
		before := slices.Clone(w.headscale.keys)
		w.headscale.mu.Unlock()
		w.secrets.set(func() {
			w.secrets.fail = func(_ string, secret *corev1.Secret) error {
				if secret != nil && string(secret.Data[v1beta1.SecretDataKey]) != working {
					return errKubernetes
				}
				return nil
			}
		})
		w.pass(31 * time.Minute)
		w.Expect(w.headscale.createdSoFar()).To(Equal(2))
		w.headscale.set(func() { w.headscale.keys = before })
		w.secrets.set(func() { w.secrets.fail = nil })
		for range 600 {
			w.pass(100 * time.Millisecond)
			w.Expect(w.headscale.accepts(w.key())).To(BeTrue(), "%s", w.log)
		}
		w.pass(rotation.PendingTimeout)
		w.atRest()
	})
}

func TestADeletedSecretGivesItsKeyTheRevocationDelay(t *testing.T) {
	inWorld(t, rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute, RevocationDelay: 10 * time.Minute}, func(w *world) {
		w.start()
		first := w.key()
		w.secrets.edit(removed)
		w.pass(9 * time.Minute)
		w.Expect(w.headscale.accepts(first)).To(BeTrue())
		w.Expect(w.key()).NotTo(Equal(first))
		w.pass(time.Minute + 2*time.Second)
		w.Expect(w.headscale.accepts(first)).To(BeFalse())
		w.atRest()
	})
}

func TestTheAPIServerEndsItsWatches(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start().pass(time.Minute)
		gets := w.secrets.count("get")
		w.secrets.endWatches()
		w.pass(2 * time.Second)
		w.Expect(w.secrets.count("get")).To(Equal(gets), "the watch goes on where it was")
		w.secrets.edit(setValue("rubbish"))
		synctest.Wait()
		w.atRest()

		w.secrets.set(func() {
			w.secrets.fail = func(verb string, _ *corev1.Secret) error {
				if verb == "watch" {
					return apierrors.NewResourceExpired("too old")
				}
				return nil
			}
		})
		w.secrets.endWatches()
		w.pass(2 * time.Second)
		w.secrets.edit(removed)
		w.pass(maxRetry)
		w.atRest()
	})
}

func TestItEndsInAnyState(t *testing.T) {
	for name, arrange := range map[string]func(w *world){
		"at rest":               func(*world) {},
		"waiting for Headscale": func(w *world) { w.headscale.failList = func() error { return headscale.ErrUnavailable } },
		"failing": func(w *world) {
			w.secrets.fail = func(string, *corev1.Secret) error { return errKubernetes }
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, defaults, func(w *world) {
				arrange(w)
				w.start().pass(time.Minute)
				before := time.Now()
				w.stop()
				w.Expect(time.Since(before)).To(BeNumerically("<", 2*time.Second))
			})
		})
	}
}

func TestOneLinePerChangeOfState(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.start().pass(30*day + time.Minute)
		w.Expect(w.lines("Stored a new API key")).To(Equal(4))
		w.Expect(w.lines("Expired an API key")).To(Equal(3))
		w.Expect(w.lines("up to date")).To(Equal(4))
		w.Expect(strings.Count(w.log.String(), "\n")).To(Equal(11))
	})
}
