package rotation_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/internal/rotation/rotationtest"
)

// The kinds of credentials that the protocol is tested with. They differ in all that Rules
// and a Backend may differ in.

// text is one that has its ID: "<id>.<secret>".
type text string

func (t text) Reveal() string { return string(t) }

// plainKind is credentials that can be used again and again, and whose text has their ID.
var plainKind = rotationtest.Kind[struct{}]{
	Rules: rotation.Rules[struct{}]{
		Noun: "token", Issuer: "The issuer", Policies: standard[struct{}](), Expected: expected, IDOf: idOf, NotOurs: "theirs",
	},
	Text: func(id string) rotation.Text { return text(id + ".secret") },
}

// onceFacts are what the list says of a credential that may be used once.
type onceFacts struct {
	used bool
	user string
}

const reasonUsed, reasonUserChanged rotation.Reason = "KeyUsed", "UserChanged"

// onceKind is credentials that can be used once, that belong to a user, and whose text does
// not have their ID.
var onceKind = rotationtest.Kind[onceFacts]{
	Rules: rotation.Rules[onceFacts]{
		Noun: "ticket", Issuer: "The office",
		Policies: append(standard[onceFacts](),
			func(v rotation.View[onceFacts]) (rotation.Reason, string, bool) {
				return reasonUsed, "the ticket was used", v.Stored().Facts.used
			},
			func(v rotation.View[onceFacts]) (rotation.Reason, string, bool) {
				return reasonUserChanged, "the ticket is another user's", v.Stored().Facts.user != "alice"
			}),
		Expected: append([]rotation.Reason{reasonUsed, reasonUserChanged}, expected...),
		NotOurs:  "theirs",
	},
	Text:  func(id string) rotation.Text { return text("secret of " + id) },
	Facts: onceFacts{user: "alice"},
}

var expected = []rotation.Reason{rotation.ReasonDue, rotation.ReasonRequested, rotation.ReasonLifetimeShortened}

func standard[F any]() []rotation.Policy[F] {
	return []rotation.Policy[F]{
		rotation.SecretMissing[F], rotation.KeyMissing[F], rotation.ValueChanged[F], rotation.NotListed[F],
		rotation.NeverExpires[F], rotation.Expired[F], rotation.Due[F], rotation.Outlives[F], rotation.Requested[F],
	}
}

func idOf(t rotation.Text) (string, bool) {
	if t == nil {
		return "", false
	}
	id, _, ok := strings.Cut(t.Reveal(), ".")
	return id, ok
}

func TestDecisions(t *testing.T) {
	t.Run("of a credential whose text tells its ID", func(t *testing.T) { checkDecisions(t, plainKind) })
	t.Run("of a credential for one use", func(t *testing.T) { checkDecisions(t, onceKind) })
}

func checkDecisions[F any](t *testing.T, kind rotationtest.Kind[F]) {
	for _, row := range kind.Decisions() {
		t.Run(row.Name, func(t *testing.T) {
			g := NewWithT(t)
			decision := rotation.Decide(row.View)
			g.Expect(decision.Action).To(Equal(row.Action), decision.Message)
			g.Expect(decision.Reason).To(Equal(row.Reason), decision.Message)
			g.Expect(decision.Message).NotTo(BeEmpty())
			g.Expect(decision.Message).NotTo(MatchRegexp(`Headscale|\bkeys?\b`), "the words of another kind")
			if decision.AtRest() {
				g.Expect(decision.Next).To(BeTemporally(">", row.View.Now))
				g.Expect(decision.Next).To(BeTemporally("<=", row.View.Now.Add(rotation.CheckInterval)))
			}
		})
	}
}

func TestAKindsOwnPolicies(t *testing.T) {
	g := NewWithT(t)
	view := onceKind.GoodView()
	view.Credentials[0].Facts.used = true
	decision := rotation.Decide(view)
	g.Expect(decision.Action).To(Equal(rotation.Create))
	g.Expect(decision.Reason).To(Equal(reasonUsed))
	g.Expect(decision.Predecessors).To(ConsistOf(rotationtest.OurID))

	view.Credentials[0].Facts.user = "bob"
	g.Expect(rotation.Decide(view).Reason).To(Equal(reasonUsed), "the first policy wins")
	view.Credentials[0].Facts.used = false
	g.Expect(rotation.Decide(view).Reason).To(Equal(reasonUserChanged))

	view.Rules.Policies = nil
	g.Expect(rotation.Decide(view).Action).To(Equal(rotation.None), "a kind need not replace what is bad")
	view.Credentials = nil
	decision = rotation.Decide(view)
	g.Expect(decision.Action).To(Equal(rotation.None))
	g.Expect(decision.Message).To(Equal("there is no ticket, and none is to be created"))
	view.Record = nil
	g.Expect(rotation.Decide(view).Action).To(Equal(rotation.None))
}

func TestWhenToDecideAgain(t *testing.T) {
	noon := rotationtest.Noon
	for name, test := range map[string]struct {
		change func(v *rotation.View[struct{}])
		next   time.Time
	}{
		"the rotation": {func(*rotation.View[struct{}]) {}, plainKind.Due()},
		"the hourly check": {func(v *rotation.View[struct{}]) {
			v.Settings = rotation.Settings{Expiration: 2 * time.Hour, RotationBuffer: time.Second}
			v.Credentials[0].Expiration, v.Record.Expiration = noon.Add(2*time.Hour), noon.Add(2*time.Hour)
		}, noon.Add(rotation.CheckInterval)},
		"a retirement": {func(v *rotation.View[struct{}]) {
			v.Settings.RevocationDelay = 5 * time.Minute
			v.Record.Retiring = []rotation.RetiringEntry{{ID: rotationtest.OtherID, NotBefore: noon.Add(5 * time.Minute)}}
			v.Credentials = append(v.Credentials, rotation.Credential[struct{}]{ID: rotationtest.OtherID, Expiration: noon.Add(time.Hour)})
		}, noon.Add(5 * time.Minute)},
		"a key that may appear": {func(v *rotation.View[struct{}]) {
			v.Record.Pending = []rotation.PendingEntry{{Expiration: noon.Add(time.Hour), Written: noon}}
		}, noon.Add(rotation.PendingInterval)},
	} {
		t.Run(name, func(t *testing.T) {
			view := plainKind.GoodView()
			test.change(&view)
			NewWithT(t).Expect(rotation.Decide(view).Next).To(BeTemporally("==", test.next))
		})
	}
}

func TestALostRecord(t *testing.T) {
	g := NewWithT(t)
	view := onceKind.GoodView()
	view.Record = nil
	g.Expect(rotation.Decide(view).Predecessors).To(ConsistOf(rotationtest.OurID))
	view.Rules.LostRecord = rotation.ExpireAtOnce
	g.Expect(rotation.Decide(view).Predecessors).To(BeEmpty(), "it is swept as soon as there is another")
	view.Rules.LostRecord = rotation.RetireAfterDelay
	view.Rules.Foreign = func(rotation.Credential[onceFacts]) bool { return true }
	g.Expect(rotation.Decide(view).Predecessors).To(BeEmpty(), "another's is not replaced")
}

func TestANewCredentialsExpiration(t *testing.T) {
	g := NewWithT(t)
	view := plainKind.GoodView()
	first := rotation.NewExpiration(view)
	g.Expect(first).NotTo(Equal(view.Record.Expiration))
	view.Record.Pending = []rotation.PendingEntry{{Expiration: first, Written: view.Now}}
	g.Expect(rotation.NewExpiration(view)).To(Equal(first.Add(time.Second)), "it is one that no other has")

	view.Credentials, view.Record = nil, nil
	for range 1000 {
		view.Now = view.Now.Add(1234567 * time.Nanosecond)
		expiration := rotation.NewExpiration(view)
		g.Expect(view.Tag.Owns(expiration)).To(BeTrue())
		g.Expect(expiration).To(BeTemporally(">=", view.Now.Add(time.Hour)))
		g.Expect(expiration).To(BeTemporally("<", view.Now.Add(time.Hour+time.Second)))
	}
}
