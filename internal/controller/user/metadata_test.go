package user

import (
	"context"
	"errors"
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// liveUser is an API server that has one HeadscaleUser, or none.
type liveUser struct {
	client.Reader
	user *v1beta1.HeadscaleUser
}

func (l liveUser) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	if l.user == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "headscaleusers"}, key.Name)
	}
	user, ok := object.(*v1beta1.HeadscaleUser)
	if !ok {
		return errors.ErrUnsupported
	}
	l.user.DeepCopyInto(user)
	return nil
}

// TestNoteCreation has no user be created for an object that is gone, or that the cache has not as it
// is now.
func TestNoteCreation(t *testing.T) {
	another := func(user *v1beta1.HeadscaleUser) { user.UID = "another" }
	for name, test := range map[string]struct {
		cached, live *v1beta1.HeadscaleUser
		outdated     bool
	}{
		"noted before":               {object("bob", creating), object("bob", creating), false},
		"noted meanwhile":            {object("bob"), object("bob", creating), true},
		"gone":                       {object("bob"), nil, true},
		"gone, and retained":         {object("bob", policy(v1beta1.DeletionPolicyRetain)), nil, true},
		"another of the name":        {object("bob", creating), object("bob", another), true},
		"being deleted":              {object("bob", creating), object("bob", creating, deleted), true},
		"it has the user":            {object("bob", creating), object("bob", creating, has(1)), true},
		"retained, and has the user": {object("bob", policy(v1beta1.DeletionPolicyRetain)), object("bob", has(1)), true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := &Reconciler{Live: liveUser{user: test.live}}
			_, err := r.noteCreation(t.Context(), &scope{user: test.cached})
			g.Expect(isOutdated(err)).To(Equal(test.outdated), "%v", err)
			g.Expect(err != nil).To(Equal(test.outdated))
		})
	}
}

// expectOutdated checks that an error is errOutdated, or that there is none.
func expectOutdated(t *testing.T, err error, outdated bool) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(isOutdated(err)).To(Equal(outdated), "%v", err)
	g.Expect(err != nil).To(Equal(outdated))
}

// TestCheckMark has no user taken for the object's own by a mark that only the cache still has.
func TestCheckMark(t *testing.T) {
	another := func(user *v1beta1.HeadscaleUser) { user.UID = "another" }
	found := decision{user: userNamed(1, "bob")}
	for name, test := range map[string]struct {
		cached, live *v1beta1.HeadscaleUser
		done         decision
		outdated     bool
	}{
		"it has the mark":              {object("bob", creating), object("bob", creating), found, false},
		"the mark was taken back":      {object("bob", creating), object("bob"), found, true},
		"it has noted the user by now": {object("bob", creating), object("bob", has(1)), found, false},
		"gone":                         {object("bob", creating), nil, found, true},
		"another of the name":          {object("bob", creating), object("bob", creating, another), found, true},
		"noted, so nothing is asked":   {object("bob", has(1)), nil, found, false},
		"adopted, so nothing is asked": {object("bob"), nil, decision{user: found.user, adopted: true}, false},
		"no user":                      {object("bob"), nil, decision{action: create}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Reconciler{Live: liveUser{user: test.live}}
			expectOutdated(t, r.checkMark(t.Context(), &scope{user: test.cached, done: test.done}), test.outdated)
		})
	}
}

// TestCheckNone has no object released by a cache that does not have its user yet.
func TestCheckNone(t *testing.T) {
	retained := func(user *v1beta1.HeadscaleUser) { user.Spec.DeletionPolicy = v1beta1.DeletionPolicyRetain }
	another := func(user *v1beta1.HeadscaleUser) { user.UID = "another" }
	none := decision{action: release}
	for name, test := range map[string]struct {
		cached, live *v1beta1.HeadscaleUser
		done         decision
		outdated     bool
	}{
		"it has none":                        {object("bob"), object("bob"), none, false},
		"the one that it had is gone":        {object("bob", has(1)), object("bob", has(1)), none, false},
		"the status is newer than the cache": {object("bob"), object("bob", has(1)), none, true},
		"one is being created":               {object("bob"), object("bob", creating), none, true},
		"gone":                               {object("bob"), nil, none, true},
		"another of the name":                {object("bob"), object("bob", another), none, true},
		"a user that stays":                  {object("bob", retained), nil, none, false},
		"its user belongs to another one":    {object("bob"), nil, decision{action: release, user: userNamed(1, "bob")}, false},
		"something else is done":             {object("bob"), nil, decision{action: create}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Reconciler{Live: liveUser{user: test.live}}
			expectOutdated(t, r.checkNone(t.Context(), &scope{user: test.cached, done: test.done}), test.outdated)
		})
	}
}

// TestAdoptedStays has what is noted of a user not be changed by a reconcile that is behind.
func TestAdoptedStays(t *testing.T) {
	g := NewWithT(t)
	reported := object("bob", has(1)).Status
	s := &scope{user: object("bob"), now: at(0), done: decision{user: userNamed(1, "bob"), adopted: true}}
	describeStatus(&reported, s, readiness(s, nil), nil)
	g.Expect(reported.Adopted).To(BeFalse())
	s.done.user = userNamed(2, "bob")
	describeStatus(&reported, s, readiness(s, nil), nil)
	g.Expect(reported.Adopted).To(BeTrue(), "another user")
}

// TestGetsUser has access confirmed before an object gets a user, and not for one that it has.
func TestGetsUser(t *testing.T) {
	for name, test := range map[string]struct {
		user *v1beta1.HeadscaleUser
		done decision
		gets bool
	}{
		"a new one":                        {object("bob"), decision{action: create}, true},
		"one that exists":                  {object("bob"), decision{action: keep, adopted: true, user: userNamed(1, "bob")}, true},
		"one that exists, for another":     {object("bob", has(1)), decision{action: keep, adopted: true, user: userNamed(2, "bob")}, true},
		"the one that it has taken over":   {object("bob", has(1)), decision{action: keep, adopted: true, user: userNamed(1, "bob")}, false},
		"the one that was created for it":  {object("bob", has(1)), decision{action: keep, user: userNamed(1, "bob")}, false},
		"one that goes, with its deletion": {object("bob", has(1)), decision{action: remove, user: userNamed(1, "bob")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect((&scope{user: test.user, done: test.done}).getsUser()).To(Equal(test.gets))
		})
	}
}
