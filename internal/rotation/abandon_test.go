package rotation_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/internal/rotation/rotationtest"
)

// What is expired is ours: who may write the Secret can have nobody else's credential expired.
func TestAStrangersCredential(t *testing.T) {
	const noLedger = ""
	for name, test := range map[string]struct {
		change func(r *rotation.Record)
		// expired is whether that of a stranger is, for a kind whose ledger is believed, and for one
		// of which only what has the tag is expired.
		believed, onlyTagged bool
	}{
		"pasted, without a ledger": {func(r *rotation.Record) {
			r.Text, r.ID, r.Digest = text(rotationtest.OtherID+".secret"), noLedger, noLedger
		}, false, false},
		"stored, says the ledger": {func(r *rotation.Record) {
			r.Text, r.ID, r.Digest = text(rotationtest.OtherID+".secret"), rotationtest.OtherID, rotation.DigestOf(text(rotationtest.OtherID+".secret"))
			r.Requested = "now"
		}, true, false},
		"named, without a text": {func(r *rotation.Record) { r.Text, r.ID = nil, rotationtest.OtherID }, true, false},
		"retiring, says the ledger": {func(r *rotation.Record) {
			r.Retiring = []rotation.RetiringEntry{{ID: rotationtest.OtherID, NotBefore: rotationtest.Noon}}
		}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			for onlyTagged, expired := range map[bool]bool{false: test.believed, true: test.onlyTagged} {
				g := NewWithT(t)
				view := plainKind.GoodView()
				view.Rules.OnlyTagged = onlyTagged
				stranger := rotation.Credential[struct{}]{ID: rotationtest.OtherID, Expiration: rotationtest.Noon.Add(time.Hour)}
				view.Credentials = append(view.Credentials, stranger)
				test.change(view.Record)
				is := func(ids []string) bool {
					found, err := ContainElement(rotationtest.OtherID).Match(ids)
					return found && err == nil
				}
				left, _ := view.Leftovers()
				g.Expect(is(left)).To(Equal(expired), "when its owner goes: %v", left)
				g.Expect(left).To(ContainElement(rotationtest.OurID))
				decision := rotation.Decide(view)
				g.Expect(is(append(decision.Expire, decision.Predecessors...))).To(Equal(expired), "%+v", decision)
			}
		})
	}
}
