package user

import (
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// An object that waits until its user has no nodes is reconciled when these change, also where the cache does not
// have the status yet that names the user.
func TestNodesOfAnObjectDiffer(t *testing.T) {
	for whose, known := range map[string]change{"in the status": has(1), "about to be created": creating} {
		for name, test := range map[string]struct {
			changes []change
			differs bool
		}{
			"kept":                       {nil, false},
			"deleted":                    {[]change{deleted}, true},
			"deleted, but stays":         {[]change{deleted, policy("Retain")}, false},
			"deleted, was to be renamed": {[]change{deleted, wants("b")}, true},
		} {
			t.Run(name+" "+whose, func(t *testing.T) {
				user := object("a", append([]change{known}, test.changes...)...)
				with := func(nodes ...headscale.Node) *instance.Snapshot {
					return instance.NewSnapshot(userNamed(1, "a"), userNamed(2, "b")).WithNodes(nodes...)
				}
				ofOthers := headscale.Node{ID: 1, UserID: 3, GivenName: "other"}
				g := NewWithT(t)
				g.Expect(differs(user, with(headscale.Node{ID: 2, UserID: 1, GivenName: "laptop"}), with())).To(Equal(test.differs))
				g.Expect(differs(user, with(ofOthers), with())).To(BeFalse())
			})
		}
	}
}

// An object is reconciled when its user goes, also where the cache does not have the status yet that names the user, and
// the object wants another name by now.
func TestUserOfAnObjectDiffers(t *testing.T) {
	for name, known := range map[string]change{"in the status": has(1), "about to be created": creating} {
		t.Run(name, func(t *testing.T) {
			user, other := object("a", known, wants("b")), userNamed(9, "b")
			before, after := instance.NewSnapshot(userNamed(1, "a"), other), instance.NewSnapshot(other)
			g := NewWithT(t)
			g.Expect(differs(user, before, after)).To(BeTrue())
			g.Expect(differs(user, before, instance.NewSnapshot(userNamed(1, "a"), other))).To(BeFalse())
		})
	}
}
