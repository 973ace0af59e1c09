package apikey

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/internal/rotation/rotationtest"
)

var (
	noon    = rotationtest.Noon
	testTag = rotationtest.Tag
)

const (
	ourPrefix   = rotationtest.OurID
	otherPrefix = rotationtest.OtherID
)

// apiKeys are the kind of credential that is kept here.
var apiKeys = rotationtest.Kind[headscale.APIKey]{
	Rules: Rules(),
	Text:  func(prefix string) rotation.Text { return keyWith(prefix) },
	Facts: headscale.APIKey{Masked: true},
}

func keyWith(prefix string) headscale.Key {
	return headscale.NewKey("hskey-api-" + prefix + "-" + strings.Repeat("s", 64))
}

// goodView is one in which nothing is to be done for half an hour.
func goodView() View { return apiKeys.GoodView() }

func listed(prefix string, expiration time.Time) rotation.Credential[headscale.APIKey] {
	return credentialOf(headscale.APIKey{Prefix: prefix, Expiration: expiration, Masked: true})
}

// keep puts a key into a view's record and its list.
func keep(v *View, prefix string, key headscale.Key) {
	v.Record.Text, v.Record.ID, v.Record.Digest = key, prefix, rotation.DigestOf(key)
	v.Credentials = []rotation.Credential[headscale.APIKey]{listed(prefix, v.Record.Expiration)}
}

var _ = Describe("Decide", func() {
	due := apiKeys.Due()

	check := func(view View, action rotation.Action, reason rotation.Reason) {
		decision := rotation.Decide(view)
		Expect(decision.Action).To(Equal(action), decision.Message)
		Expect(decision.Reason).To(Equal(reason), decision.Message)
		Expect(decision.Message).NotTo(BeEmpty())
		if decision.AtRest() {
			Expect(decision.Next).To(BeTemporally(">", view.Now))
			Expect(decision.Next).To(BeTemporally("<=", view.Now.Add(rotation.CheckInterval)))
		}
	}

	Context("chooses one action and says why, as for any credential:", func() {
		for _, row := range apiKeys.Decisions() {
			It(row.Name, func() { check(row.View, row.Action, row.Reason) })
		}
	})

	DescribeTable("chooses one action and says why, as for an API key only",
		func(change func(v *View), action rotation.Action, reason rotation.Reason) {
			view := goodView()
			change(&view)
			check(view, action, reason)
		},
		Entry("the zero key", func(v *View) { v.Record.Text = headscale.Key{} }, rotation.Create, rotation.ReasonKeyMissing),
		Entry("rubbish", func(v *View) { v.Record.Text = headscale.NewKey("rubbish") }, rotation.Create, ReasonValueMalformed),
		Entry("of a refused format", func(v *View) {
			prefix := strings.Repeat("a", 10)
			keep(v, prefix, headscale.NewKey(prefix+"."+strings.Repeat("b", 43)))
		}, rotation.Create, ReasonKeyNotAccepted),
		Entry("of that format, where it is not refused", func(v *View) {
			prefix := strings.Repeat("a", 10)
			keep(v, prefix, headscale.NewKey(prefix+"."+strings.Repeat("b", 43)))
			v.Credentials[0].Facts.Masked = false
		}, rotation.None, rotation.ReasonUpToDate),
		Entry("of a format that is not known yet", func(v *View) {
			keep(v, otherPrefix, headscale.NewKey("a key of another kind"))
		}, rotation.None, rotation.ReasonUpToDate),
		Entry("prefix wrong, value intact", func(v *View) { v.Record.ID = otherPrefix }, rotation.Repair, rotation.ReasonAnnotationsDiffer),
	)

	It("expires no key that is not ours, or that was expired before", func() {
		view := goodView()
		view.Record.Pending = []rotation.PendingEntry{{Expiration: noon.Add(2 * time.Hour), Written: noon.Add(-time.Hour)}}
		view.Record.Retiring = []rotation.RetiringEntry{{ID: "OneExpired01", NotBefore: noon}}
		view.Credentials = append(view.Credentials, listed(otherPrefix, noon.Add(2*time.Hour)), listed("OneExpired01", noon.Add(time.Minute)))
		view.Expired = map[string]bool{"OneExpired01": true}
		Expect(rotation.Decide(view).Expire).To(BeEmpty())
		Expect(rotation.Decide(view).Record.Pending).To(BeEmpty())
		Expect(rotation.Decide(view).Record.Retiring).To(BeEmpty())
	})

	It("never expires the stored key, whatever the ledger says", func() {
		view := goodView()
		view.Record.Retiring = []rotation.RetiringEntry{{ID: ourPrefix, NotBefore: noon}}
		view.Record.Pending = []rotation.PendingEntry{{Expiration: view.Record.Expiration, Written: noon}}
		Expect(rotation.Decide(view).Expire).To(BeEmpty())
	})

	It("names the key that a new one replaces, unless nobody accepts it", func() {
		view := goodView()
		view.Now = due
		Expect(rotation.Decide(view).Predecessors).To(ConsistOf(ourPrefix))
		view.Record.Text = keyWith(otherPrefix)
		view.Credentials = append(view.Credentials, listed(otherPrefix, noon.Add(87600*time.Hour)))
		Expect(rotation.Decide(view).Predecessors).To(ConsistOf(ourPrefix), "a foreign value is not ours to expire")
		view.Record.ID, view.Record.Digest = "", ""
		Expect(rotation.Decide(view).Predecessors).To(BeEmpty(), "nor is it when our notes are gone")
		view.Record = nil
		Expect(rotation.Decide(view).Predecessors).To(ConsistOf(ourPrefix), "without a Secret the tag tells")
		view.Now = view.Credentials[0].Expiration.Add(time.Hour)
		Expect(rotation.Decide(view).Predecessors).To(BeEmpty())
	})
})

var _ = Describe("A record", func() {
	It("survives the Secret and back", func() {
		record := *goodView().Record
		record.Pending = []rotation.PendingEntry{{Expiration: noon.Add(time.Microsecond), Written: noon}, {Expiration: noon.Add(time.Hour), Written: noon}}
		record.Retiring = []rotation.RetiringEntry{{ID: "a-b_c", NotBefore: noon}, {ID: otherPrefix, NotBefore: noon.Add(time.Nanosecond)}}
		record.Handled = "x,y@z"
		secret := WriteRecord(record, &corev1.Secret{})
		Expect(ReadRecord(secret)).To(Equal(record))
		Expect(ReadRecord(secret).Regular).To(BeTrue())
	})

	It("leaves the Secret that it is written onto as it was", func() {
		before := &corev1.Secret{}
		WriteRecord(*goodView().Record, before)
		Expect(before).To(Equal(&corev1.Secret{}))
	})
})
