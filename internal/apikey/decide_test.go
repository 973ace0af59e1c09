package apikey

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/internal/headscale"
)

var (
	noon    = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	testTag = NewTag("test", "test")
)

const (
	ourPrefix   = "OurPrefix-01"
	otherPrefix = "Other_Prefix"
)

func keyWith(prefix string) headscale.Key {
	return headscale.NewKey("hskey-api-" + prefix + "-" + strings.Repeat("s", 64))
}

// goodView is one in which nothing is to be done for half an hour.
func goodView() View {
	expiration := testTag.Expiration(noon.Add(time.Hour))
	record := Record{Ours: true}.withKey(Made{Key: keyWith(ourPrefix), Prefix: ourPrefix, Expiration: expiration, CreatedAt: noon}, nil, time.Time{})
	return View{
		Now: noon, Record: &record, Regular: true, Tag: testTag,
		Keys:     []headscale.APIKey{{ID: 1, Prefix: ourPrefix, Expiration: expiration, CreatedAt: noon, Masked: true}},
		Settings: Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute},
	}
}

func listed(prefix string, expiration time.Time) headscale.APIKey {
	return headscale.APIKey{Prefix: prefix, Expiration: expiration, Masked: true}
}

var _ = Describe("Decide", func() {
	due := goodView().Record.Expiration.Add(-30 * time.Minute)

	DescribeTable("chooses one action and says why",
		func(change func(v *View), action Action, reason Reason) {
			view := goodView()
			change(&view)
			decision := Decide(view)
			Expect(decision.Action).To(Equal(action), decision.Message)
			Expect(decision.Reason).To(Equal(reason), decision.Message)
			Expect(decision.Message).NotTo(BeEmpty())
			if action == None || action == Blocked {
				Expect(decision.Next).To(BeTemporally(">", view.Now))
				Expect(decision.Next).To(BeTemporally("<=", view.Now.Add(CheckInterval)))
			}
		},
		Entry("all is well", func(*View) {}, None, ReasonUpToDate),
		Entry("no Secret", func(v *View) { v.Record = nil }, Mint, ReasonSecretMissing),
		Entry("not ours", func(v *View) { v.Record.Ours = false }, Blocked, ReasonNotOurs),
		Entry("not ours, with our unsaved key at hand", func(v *View) { v.Record.Ours = false; v.Unsaved = &Made{} }, Blocked, ReasonNotOurs),
		Entry("no key", func(v *View) { v.Record.Key = headscale.Key{} }, Mint, ReasonKeyMissing),
		Entry("rubbish", func(v *View) { v.Record.Key = headscale.NewKey("rubbish") }, Mint, ReasonValueMalformed),
		Entry("somebody else's key", func(v *View) { v.Record.Key = keyWith(otherPrefix) }, Mint, ReasonValueChanged),
		Entry("no digest", func(v *View) { v.Record.Digest = "" }, Mint, ReasonValueChanged),
		Entry("not listed", func(v *View) { v.Keys = nil }, Mint, ReasonKeyUnknown),
		Entry("of a refused format", func(v *View) {
			key := headscale.NewKey(strings.Repeat("a", 10) + "." + strings.Repeat("b", 43))
			record := v.Record.withKey(Made{Key: key, Prefix: strings.Repeat("a", 10), Expiration: v.Record.Expiration}, nil, noon)
			v.Record, v.Keys = &record, []headscale.APIKey{listed(strings.Repeat("a", 10), record.Expiration)}
		}, Mint, ReasonKeyNotAccepted),
		Entry("never expires", func(v *View) { v.Keys[0].Expiration = time.Time{} }, Mint, ReasonLifetimeShortened),
		Entry("expired by hand", func(v *View) { v.Keys[0].Expiration = noon }, Mint, ReasonKeyExpired),
		Entry("a nanosecond before it is due", func(v *View) { v.Now = due.Add(-1) }, None, ReasonUpToDate),
		Entry("at the instant when it is due", func(v *View) { v.Now = due }, Mint, ReasonDue),
		Entry("after it was due", func(v *View) { v.Now = due.Add(time.Minute) }, Mint, ReasonDue),
		Entry("a nanosecond before it expires", func(v *View) { v.Now = v.Record.Expiration.Add(-1) }, Mint, ReasonDue),
		Entry("at the instant when it expires", func(v *View) { v.Now = v.Record.Expiration }, Mint, ReasonKeyExpired),
		Entry("lives longer than the settings allow", func(v *View) {
			v.Settings = Settings{Expiration: 40 * time.Minute, RotationBuffer: 20 * time.Minute}
		}, Mint, ReasonLifetimeShortened),
		Entry("lives longer than the settings allow, within the clocks' difference", func(v *View) {
			v.Settings = Settings{Expiration: 51 * time.Minute, RotationBuffer: 20 * time.Minute}
		}, None, ReasonUpToDate),
		Entry("a rotation was requested", func(v *View) { v.Record.Requested = "now" }, Mint, ReasonRequested),
		Entry("the request was handled", func(v *View) { v.Record.Requested, v.Record.Handled = "now", "now" }, None, ReasonUpToDate),
		Entry("immutable and good", func(v *View) { v.Record.Immutable = true }, None, ReasonUpToDate),
		Entry("immutable and due", func(v *View) { v.Record.Immutable, v.Now = true, due }, Blocked, ReasonImmutable),
		Entry("expiration differs from Headscale's", func(v *View) { v.Record.Expiration = noon.Add(999 * time.Hour) }, Repair, ReasonAnnotationsDiffer),
		Entry("creation time missing", func(v *View) { v.Record.CreatedAt = time.Time{} }, Repair, ReasonAnnotationsDiffer),
		Entry("prefix wrong, value intact", func(v *View) { v.Record.Prefix = otherPrefix }, Repair, ReasonAnnotationsDiffer),
		Entry("ledger unreadable", func(v *View) { v.Regular = false }, Repair, ReasonAnnotationsDiffer),
		Entry("an orphan of ours", func(v *View) {
			v.Keys = append(v.Keys, listed(otherPrefix, testTag.Expiration(noon.Add(48*time.Hour))))
		}, Settle, ReasonOrphaned),
		Entry("an orphan that has just expired by our clock", func(v *View) {
			v.Keys = append(v.Keys, listed(otherPrefix, testTag.Expiration(noon.Add(-5*time.Minute))))
		}, Settle, ReasonOrphaned),
		Entry("a key of ours that expired long ago", func(v *View) {
			v.Keys = append(v.Keys, listed(otherPrefix, testTag.Expiration(noon.Add(-time.Hour))))
		}, None, ReasonUpToDate),
		Entry("others' keys", func(v *View) {
			v.Keys = append(v.Keys, listed(otherPrefix, noon.Add(87600*time.Hour)), listed("never", time.Time{}))
		}, None, ReasonUpToDate),
		Entry("an orphan, and the stored key is bad: the orphan may be all there is", func(v *View) {
			v.Keys = []headscale.APIKey{listed(otherPrefix, testTag.Expiration(noon.Add(48*time.Hour)))}
		}, Mint, ReasonKeyUnknown),
		Entry("a mark whose key appeared", func(v *View) {
			pending := PendingKey{Expiration: testTag.Expiration(noon.Add(2 * time.Hour)), Written: noon}
			v.Record.Pending = []PendingKey{pending}
			v.Keys = append(v.Keys, listed(otherPrefix, pending.Expiration))
		}, Settle, ReasonSettling),
		Entry("a mark whose key did not appear yet", func(v *View) {
			v.Record.Pending = []PendingKey{{Expiration: noon.Add(time.Hour), Written: noon.Add(-PendingTimeout + 1)}}
		}, None, ReasonUpToDate),
		Entry("a mark whose key did not appear in time", func(v *View) {
			v.Record.Pending = []PendingKey{{Expiration: noon.Add(time.Hour), Written: noon.Add(-PendingTimeout)}}
		}, Settle, ReasonSettling),
		Entry("a mark is settled before a due key is replaced", func(v *View) {
			v.Record.Pending = []PendingKey{{Expiration: noon.Add(time.Hour), Written: noon.Add(-time.Hour)}}
			v.Now = due
		}, Settle, ReasonSettling),
		Entry("a key to retire now", func(v *View) {
			v.Record.Retiring = []RetiringKey{{Prefix: otherPrefix, NotBefore: noon}}
			v.Keys = append(v.Keys, listed(otherPrefix, noon.Add(time.Hour)))
		}, Settle, ReasonSettling),
		Entry("a key to retire later", func(v *View) {
			v.Settings.RevocationDelay = time.Minute
			v.Record.Retiring = []RetiringKey{{Prefix: otherPrefix, NotBefore: noon.Add(1)}}
			v.Keys = append(v.Keys, listed(otherPrefix, testTag.Expiration(noon.Add(time.Hour))))
		}, None, ReasonUpToDate),
		Entry("a key to retire that Headscale does not know", func(v *View) {
			v.Record.Retiring = []RetiringKey{{Prefix: otherPrefix, NotBefore: noon.Add(time.Hour)}}
		}, Settle, ReasonSettling),
		Entry("a mark whose key is not ours", func(v *View) {
			v.Record.Pending = []PendingKey{{Expiration: noon.Add(2 * time.Hour), Written: noon}}
			v.Keys = append(v.Keys, listed(otherPrefix, noon.Add(2*time.Hour)))
		}, None, ReasonUpToDate),
		Entry("a mark of a clock that was ahead", func(v *View) {
			v.Record.Pending = []PendingKey{{Expiration: noon.Add(time.Hour), Written: noon.Add(24 * time.Hour)}}
		}, Settle, ReasonSettling),
		Entry("a key to retire by a clock that was ahead", func(v *View) {
			v.Record.Retiring = []RetiringKey{{Prefix: otherPrefix, NotBefore: noon.Add(24 * time.Hour)}}
			v.Keys = append(v.Keys, listed(otherPrefix, noon.Add(time.Hour)))
		}, Settle, ReasonSettling),
		Entry("a key to retire that cannot be expired yet", func(v *View) {
			v.Record.Retiring = []RetiringKey{{Prefix: otherPrefix, NotBefore: noon}}
			v.Keys = append(v.Keys, listed(otherPrefix, noon.Add(time.Hour)))
			v.Stuck = map[string]time.Time{otherPrefix: noon.Add(time.Second)}
		}, None, ReasonUpToDate),
		Entry("a key that cannot be expired does not keep a due one from being replaced", func(v *View) {
			v.Now = due
			v.Record.Retiring = []RetiringKey{{Prefix: otherPrefix, NotBefore: noon}}
			v.Keys = append(v.Keys, listed(otherPrefix, noon.Add(2*time.Hour)))
			v.Stuck = map[string]time.Time{otherPrefix: due.Add(time.Second)}
		}, Mint, ReasonDue),
		Entry("an orphan that cannot be expired yet", func(v *View) {
			v.Keys = append(v.Keys, listed(otherPrefix, testTag.Expiration(noon.Add(48*time.Hour))))
			v.Stuck = map[string]time.Time{otherPrefix: noon.Add(time.Second)}
		}, None, ReasonUpToDate),
		Entry("a key that was expired here, by a Headscale whose clock is ahead", func(v *View) {
			v.Record.Retiring = []RetiringKey{{Prefix: otherPrefix, NotBefore: noon}}
			v.Keys = append(v.Keys, listed(otherPrefix, noon.Add(5*time.Minute)))
			v.Expired = map[string]bool{otherPrefix: true}
		}, Settle, ReasonSettling),
		Entry("a key that was expired here and is back with an older database", func(v *View) {
			v.Keys = append(v.Keys, listed(otherPrefix, testTag.Expiration(noon.Add(48*time.Hour))))
			v.Expired = map[string]bool{otherPrefix: true}
		}, Settle, ReasonOrphaned),
		Entry("an unsaved key with its mark", func(v *View) {
			v.Unsaved = &Made{Prefix: otherPrefix, Expiration: noon.Add(2 * time.Hour)}
			v.Record.Pending = []PendingKey{{Expiration: noon.Add(2 * time.Hour), Written: noon}}
		}, Save, ReasonUnsaved),
		Entry("an unsaved key without its mark", func(v *View) {
			v.Unsaved = &Made{Prefix: otherPrefix, Expiration: noon.Add(2 * time.Hour)}
		}, Settle, ReasonSettling),
		Entry("an unsaved key without a Secret", func(v *View) {
			v.Record, v.Unsaved = nil, &Made{Prefix: otherPrefix}
		}, Settle, ReasonSettling),
	)

	DescribeTable("looks again when the next thing is due",
		func(change func(v *View), next time.Time) {
			view := goodView()
			change(&view)
			Expect(Decide(view).Next).To(BeTemporally("==", next))
		},
		Entry("the rotation", func(*View) {}, due),
		Entry("the hourly check", func(v *View) {
			v.Settings = Settings{Expiration: 2 * time.Hour, RotationBuffer: time.Second}
			v.Keys[0].Expiration, v.Record.Expiration = noon.Add(2*time.Hour), noon.Add(2*time.Hour)
		}, noon.Add(CheckInterval)),
		Entry("a retirement", func(v *View) {
			v.Settings.RevocationDelay = 5 * time.Minute
			v.Record.Retiring = []RetiringKey{{Prefix: otherPrefix, NotBefore: noon.Add(5 * time.Minute)}}
			v.Keys = append(v.Keys, listed(otherPrefix, noon.Add(time.Hour)))
		}, noon.Add(5*time.Minute)),
		Entry("a key that may appear", func(v *View) {
			v.Record.Pending = []PendingKey{{Expiration: noon.Add(time.Hour), Written: noon}}
		}, noon.Add(pendingInterval)),
	)

	It("expires no key that is not ours, or that was expired before", func() {
		view := goodView()
		view.Record.Pending = []PendingKey{{Expiration: noon.Add(2 * time.Hour), Written: noon.Add(-time.Hour)}}
		view.Record.Retiring = []RetiringKey{{Prefix: "OneExpired01", NotBefore: noon}}
		view.Keys = append(view.Keys, listed(otherPrefix, noon.Add(2*time.Hour)), listed("OneExpired01", noon.Add(time.Minute)))
		view.Expired = map[string]bool{"OneExpired01": true}
		Expect(Decide(view).Expire).To(BeEmpty())
		Expect(Decide(view).Record.Pending).To(BeEmpty())
		Expect(Decide(view).Record.Retiring).To(BeEmpty())
	})

	It("never expires the stored key, whatever the ledger says", func() {
		view := goodView()
		view.Record.Retiring = []RetiringKey{{Prefix: ourPrefix, NotBefore: noon}}
		view.Record.Pending = []PendingKey{{Expiration: view.Record.Expiration, Written: noon}}
		Expect(Decide(view).Expire).To(BeEmpty())
	})

	It("names the key that a new one replaces, unless nobody honours it", func() {
		view := goodView()
		view.Now = due
		Expect(Decide(view).Predecessors).To(ConsistOf(ourPrefix))
		view.Record.Key = keyWith(otherPrefix)
		view.Keys = append(view.Keys, listed(otherPrefix, noon.Add(87600*time.Hour)))
		Expect(Decide(view).Predecessors).To(ConsistOf(ourPrefix), "a foreign value is not ours to expire")
		view.Record.Prefix, view.Record.Digest = "", ""
		Expect(Decide(view).Predecessors).To(BeEmpty(), "nor is it when our notes are gone")
		view.Record = nil
		Expect(Decide(view).Predecessors).To(ConsistOf(ourPrefix), "without a Secret the tag tells")
		view.Now = view.Keys[0].Expiration.Add(time.Hour)
		Expect(Decide(view).Predecessors).To(BeEmpty())
	})
})

var _ = Describe("A new key's expiration", func() {
	It("carries the tag, is never early, and less than a second late", func() {
		view := goodView()
		for range 1000 {
			view.Now = view.Now.Add(1234567 * time.Nanosecond)
			view.Keys, view.Record = nil, nil
			expiration := view.newExpiration()
			Expect(testTag.Owns(expiration)).To(BeTrue())
			Expect(expiration).To(BeTemporally(">=", view.Now.Add(time.Hour)))
			Expect(expiration).To(BeTemporally("<", view.Now.Add(time.Hour+time.Second)))
		}
	})

	It("is one that no other key has", func() {
		view := goodView()
		first := view.newExpiration()
		Expect(first).NotTo(Equal(view.Record.Expiration))
		view.Record.Pending = []PendingKey{{Expiration: first, Written: noon}}
		Expect(view.newExpiration()).To(Equal(first.Add(time.Second)))
	})
})

var _ = Describe("A tag", func() {
	It("is the same for a Secret always and differs between Secrets", func() {
		seen := map[Tag]string{}
		for _, namespace := range []string{"a", "b", "default", "headscale"} {
			for _, name := range []string{"headscale-api-key", "test", "a"} {
				tag := NewTag(namespace, name)
				Expect(tag).To(Equal(NewTag(namespace, name)))
				Expect(seen).NotTo(HaveKey(tag))
				seen[tag] = namespace + name
				Expect(tag.fraction%time.Millisecond).NotTo(BeZero(), "others' expirations are often whole milliseconds")
				Expect(tag.fraction%time.Microsecond).To(BeZero(), "Postgres keeps no more than microseconds")
			}
		}
	})

	It("owns no key that never expires", func() { Expect(Tag{}.Owns(time.Time{})).To(BeFalse()) })
})

var _ = Describe("A record", func() {
	It("survives the Secret and back", func() {
		record := *goodView().Record
		record.Pending = []PendingKey{{noon.Add(time.Microsecond), noon}, {noon.Add(time.Hour), noon}}
		record.Retiring = []RetiringKey{{"a-b_c", noon}, {otherPrefix, noon.Add(time.Nanosecond)}}
		record.Handled = "x,y@z"
		secret := record.Onto(&corev1.Secret{})
		Expect(ReadRecord(secret)).To(Equal(record))
		Expect(record.saysTheSame(secret)).To(BeTrue())
	})

	It("leaves the Secret that it is written onto as it was", func() {
		before := &corev1.Secret{}
		goodView().Record.Onto(before)
		Expect(before).To(Equal(&corev1.Secret{}))
	})
})

var _ = Describe("The limiter of new keys", func() {
	It("doubles to a minute, and starts anew after a quiet time", func() {
		limiter := mintLimiter{backoff: backoff{most: maxBackoff, jitter: func() float64 { return 1 }}}
		now := noon
		for _, seconds := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
			limiter.spend(now)
			Expect(limiter.notBefore.Sub(now)).To(Equal(time.Duration(seconds) * time.Second))
			now = limiter.notBefore
			limiter.rest(now)
		}
		limiter.rest(now.Add(2 * time.Minute))
		limiter.spend(now)
		Expect(limiter.notBefore.Sub(now)).To(Equal(time.Second))
	})
})
