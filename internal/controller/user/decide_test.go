package user

import (
	"errors"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// began is when the first user and the first object of a case were created.
var began = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// at is a time some seconds later.
func at(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }

// userNamed is a user of Headscale that was created as many seconds after began as its id.
func userNamed(id uint64, name string) headscale.User {
	return headscale.User{ID: id, Name: name, CreatedAt: at(int(id)).Add(123456789)}
}

// change changes an object.
type change func(*v1beta1.HeadscaleUser)

// object is a HeadscaleUser of a name that wants a user of that name. Each is as old as its first
// letter says.
func object(name string, changes ...change) *v1beta1.HeadscaleUser {
	user := &v1beta1.HeadscaleUser{}
	user.Namespace, user.Name, user.UID, user.Generation = "default", name, types.UID("uid-"+name), 1
	user.CreationTimestamp = metav1.NewTime(at(int(name[0])))
	user.Spec.HeadscaleRef, user.Spec.Username = "headscale", name
	for _, change := range changes {
		change(user)
	}
	return user
}

// wants has an object want another username.
func wants(username string) change {
	return func(user *v1beta1.HeadscaleUser) { user.Spec.Username = username }
}

// has has an object note the user of an id, as userNamed makes it, and want it gone with it.
func has(id uint64) change {
	return func(user *v1beta1.HeadscaleUser) {
		createdAt := metav1.NewTime(at(int(id)))
		user.Status.UserID, user.Status.CreatedAt = id, &createdAt
		user.Finalizers = []string{v1beta1.FinalizerUser}
	}
}

func adopted(user *v1beta1.HeadscaleUser) { user.Status.Adopted, user.Finalizers = true, nil }

// creating has an object note that its user is about to be created.
func creating(user *v1beta1.HeadscaleUser) {
	metav1.SetMetaDataAnnotation(&user.ObjectMeta, v1beta1.AnnotationCreating, creatingValue(user))
	user.Finalizers = []string{v1beta1.FinalizerUser}
}

func policy(policy v1beta1.DeletionPolicy) change {
	return func(user *v1beta1.HeadscaleUser) { user.Spec.DeletionPolicy = policy }
}

// deleted has an object be deleted, which makes a new generation of it.
func deleted(user *v1beta1.HeadscaleUser) {
	now := metav1.NewTime(at(1000))
	user.DeletionTimestamp, user.Generation = &now, user.Generation+1
}

// ready has an object say something of its condition Ready, in its present generation.
func ready(reason, message string) change {
	return func(user *v1beta1.HeadscaleUser) {
		user.Status.Conditions = []metav1.Condition{{Type: v1beta1.ConditionReady, Reason: reason, Message: message, ObservedGeneration: user.Generation}}
	}
}

// fakePeers are peers in a list.
type fakePeers []*v1beta1.HeadscaleUser

func (p fakePeers) wanting(username string) []*v1beta1.HeadscaleUser {
	return slices.DeleteFunc(slices.Clone(p), func(user *v1beta1.HeadscaleUser) bool { return user.Spec.Username != username })
}

func (p fakePeers) having(id uint64) []*v1beta1.HeadscaleUser {
	return slices.DeleteFunc(slices.Clone(p), func(user *v1beta1.HeadscaleUser) bool { return user.Status.UserID != id })
}

func (p fakePeers) failed() error { return nil }

// outcome is a decision in short.
type outcome struct {
	action  action
	id      uint64
	name    string
	adopted bool
	// left and err are part of what is said.
	left, err string
	// reason is that of err.
	reason string
}

// decideCase is what is known of an object, and what is to be decided.
type decideCase struct {
	object      *v1beta1.HeadscaleUser
	users       []headscale.User
	nodes       []headscale.Node
	peers       []*v1beta1.HeadscaleUser
	problem     error
	terminating bool
	version     string
	want        outcome
}

// facts are those of the case.
func (c *decideCase) facts() *facts {
	f := &facts{
		user: c.object, terminating: c.terminating, problem: c.problem, keysAtRisk: deletesAllKeys(c.version),
		peers: fakePeers(append([]*v1beta1.HeadscaleUser{c.object}, c.peers...)),
	}
	if c.problem == nil {
		f.snapshot = instance.NewSnapshot(c.users...).WithNodes(c.nodes...)
	}
	return f
}

// checkDecisions checks each case.
func checkDecisions(t *testing.T, cases map[string]decideCase) {
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got := decide(test.facts())
			is := outcome{action: got.action, id: got.user.ID, name: got.name, adopted: got.adopted}
			wanted := test.want
			wanted.left, wanted.err, wanted.reason = "", "", ""
			g.Expect(is).To(Equal(wanted))
			g.Expect(got.left).To(ContainSubstring(test.want.left))
			if test.want.left == "" {
				g.Expect(got.left).To(BeEmpty())
			}
			var problem *instance.Problem
			g.Expect(errors.As(got.err, &problem)).To(Equal(test.want.err != ""), "%v", got.err)
			if problem != nil {
				g.Expect(problem.Because).To(Equal(test.want.reason))
				g.Expect(problem.Message).To(ContainSubstring(test.want.err))
			}
		})
	}
}

// notReady is the problem of a Headscale that may be ready soon.
var notReady = &instance.Problem{Because: v1beta1.ReasonNotReady, Message: "it is late"}

// outOfReach is a problem of a Headscale.
func outOfReach(reason string) error {
	return &instance.Problem{Because: reason, Message: "out of reach"}
}

// foreign is a user of an identity provider.
func foreign(id uint64, name string) headscale.User {
	user := userNamed(id, name)
	user.Provider, user.ProviderID = "oidc", "https://id.example.com/1"
	return user
}

// displayed is a user with a display name.
func displayed(id uint64, name, displayName string) headscale.User {
	user := userNamed(id, name)
	user.DisplayName = displayName
	return user
}

func TestDecideWhoseUserItIs(t *testing.T) {
	checkDecisions(t, map[string]decideCase{
		"none of the name":         {object: object("bob"), want: outcome{action: create, name: "bob"}},
		"Headscale is late":        {object: object("bob"), problem: notReady, want: outcome{action: keep, err: "it is late", reason: v1beta1.ReasonNotReady}},
		"not allowed":              {object: object("bob", has(1)), problem: outOfReach(v1beta1.ReasonNotAllowed), want: outcome{action: keep, err: "out of reach", reason: v1beta1.ReasonNotAllowed}},
		"as it should be":          {object: object("bob", has(1)), users: []headscale.User{userNamed(1, "bob")}, want: outcome{action: keep, id: 1}},
		"adopted before":           {object: object("bob", has(1), adopted), users: []headscale.User{userNamed(1, "bob")}, want: outcome{action: keep, id: 1, adopted: true}},
		"one that existed":         {object: object("bob"), users: []headscale.User{userNamed(1, "bob")}, want: outcome{action: keep, id: 1, adopted: true}},
		"one that the CLI made":    {object: object("bob"), users: []headscale.User{{ID: 1, Name: "bob", Provider: "cli", CreatedAt: at(1)}}, want: outcome{action: keep, id: 1, adopted: true}},
		"of an identity provider":  {object: object("bob"), users: []headscale.User{foreign(1, "bob")}, want: outcome{action: keep, err: "created by an identity provider", reason: v1beta1.ReasonConflict}},
		"of a provider, by the id": {object: object("bob", has(1)), users: []headscale.User{foreign(1, "olga")}, want: outcome{action: create, name: "bob"}},
		"both":                     {object: object("bob"), users: []headscale.User{foreign(1, "bob"), userNamed(2, "bob")}, want: outcome{action: keep, id: 2, adopted: true}},
		"created, and then killed": {object: object("bob", creating), users: []headscale.User{userNamed(1, "bob")}, want: outcome{action: keep, id: 1}},
		"about to be created, and somebody else's": {
			object: object("bob", creating), users: []headscale.User{displayed(1, "bob", "Robert")}, want: outcome{action: keep, id: 1, adopted: true},
		},
		"the mark of another object": {
			object: object("bob", func(user *v1beta1.HeadscaleUser) { user.UID = "other" }, creating, func(user *v1beta1.HeadscaleUser) { user.UID = "uid-bob" }),
			users:  []headscale.User{userNamed(1, "bob")}, want: outcome{action: keep, id: 1, adopted: true},
		},
		"a mark that was forged": {
			object: object("carol", wants("bob"), creating), users: []headscale.User{userNamed(1, "bob")}, peers: []*v1beta1.HeadscaleUser{object("dora", has(1), wants("dora"))},
			want: outcome{action: keep, err: "is to be renamed to dora", reason: v1beta1.ReasonRenamePending},
		},
		"a mark that was forged, of another name than is wanted": {
			object: object("carol", wants("bob"), creating, wants("robert")), users: []headscale.User{userNamed(1, "bob")}, peers: []*v1beta1.HeadscaleUser{object("bob", has(1))},
			want: outcome{action: create, name: "robert"},
		},
		"noted by an older object, too": {
			object: object("carol", wants("bob"), has(1)), users: []headscale.User{userNamed(1, "bob")}, peers: []*v1beta1.HeadscaleUser{object("bob", has(1))},
			want: outcome{action: keep, id: 1, err: "User bob (id 1) belongs to HeadscaleUser default/bob, which is older", reason: v1beta1.ReasonConflict},
		},
		"noted by a younger object, too": {
			object: object("bob", has(1)), users: []headscale.User{userNamed(1, "bob")}, peers: []*v1beta1.HeadscaleUser{object("carol", wants("bob"), has(1))},
			want: outcome{action: keep, id: 1},
		},
		"noted by an older object, whose user was another": {
			object: object("carol", has(1)), users: []headscale.User{userNamed(1, "carol")},
			peers: []*v1beta1.HeadscaleUser{object("bob", has(1), func(user *v1beta1.HeadscaleUser) { user.Status.CreatedAt = &metav1.Time{Time: at(500)} })},
			want:  outcome{action: keep, id: 1},
		},
		"an old mark":                {object: object("bob", creating, has(1)), users: []headscale.User{userNamed(2, "bob")}, want: outcome{action: keep, id: 2, adopted: true}},
		"deleted by hand":            {object: object("bob", has(1)), users: []headscale.User{userNamed(2, "alice")}, want: outcome{action: create, name: "bob"}},
		"deleted and made anew":      {object: object("bob", has(1)), users: []headscale.User{userNamed(2, "bob")}, want: outcome{action: keep, id: 2, adopted: true}},
		"made anew, and then killed": {object: object("bob", has(1), creating), users: []headscale.User{userNamed(2, "bob")}, want: outcome{action: keep, id: 2}},
		"the id is a stranger's":     {object: object("bob", has(1)), users: []headscale.User{{ID: 1, Name: "alice", CreatedAt: at(500)}}, want: outcome{action: create, name: "bob"}},
		"id and name, another time":  {object: object("bob", has(1)), users: []headscale.User{{ID: 1, Name: "bob", CreatedAt: at(500)}}, want: outcome{action: keep, id: 1, adopted: true}},
	})
}

func TestDecideRename(t *testing.T) {
	checkDecisions(t, map[string]decideCase{
		"created, killed, and then another name": {
			object: object("bob", creating, wants("robert")), users: []headscale.User{userNamed(1, "bob")}, want: outcome{action: rename, id: 1, name: "robert"},
		},
		"renamed by hand":  {object: object("bob", has(1)), users: []headscale.User{userNamed(1, "x")}, want: outcome{action: rename, id: 1, name: "bob"}},
		"another username": {object: object("bob", has(1), wants("robert")), users: []headscale.User{userNamed(1, "bob")}, want: outcome{action: rename, id: 1, name: "robert"}},
		"the new name is a stranger's": {object: object("bob", has(1), wants("alice")), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")}, want: outcome{
			action: keep, id: 1, err: "the name of another user (id 2), which no HeadscaleUser has", reason: v1beta1.ReasonConflict,
		}},
		"the new name is another's": {
			object: object("bob", has(1), wants("alice")), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")},
			peers: []*v1beta1.HeadscaleUser{object("carol", has(2), wants("alice"))},
			want:  outcome{action: keep, id: 1, err: "that is the user (id 2) of HeadscaleUser default/carol", reason: v1beta1.ReasonConflict},
		},
		"the new name is another's, who is older": {
			object: object("bob", has(1), wants("alice")), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")},
			peers: []*v1beta1.HeadscaleUser{object("alice", has(2))},
			want:  outcome{action: keep, id: 1, err: "which HeadscaleUser default/alice has as its username", reason: v1beta1.ReasonConflict},
		},
		"the new name becomes free": {
			object: object("bob", has(1), wants("alice")), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")},
			peers: []*v1beta1.HeadscaleUser{object("alice", has(2), wants("al"))},
			want:  outcome{action: keep, id: 1, err: "as soon as that of HeadscaleUser default/alice is renamed to al", reason: v1beta1.ReasonRenamePending},
		},
		"a swap, of the older": {
			object: object("alice", has(2), wants("bob")), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")},
			peers: []*v1beta1.HeadscaleUser{object("bob", has(1), wants("alice"))}, want: outcome{action: rename, id: 2, name: "renaming-2"},
		},
		"a swap, of the younger": {
			object: object("bob", has(1), wants("alice")), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")},
			peers: []*v1beta1.HeadscaleUser{object("alice", has(2), wants("bob"))}, want: outcome{action: keep, id: 1, err: "as soon as", reason: v1beta1.ReasonRenamePending},
		},
		"a swap, after the first step": {
			object: object("bob", has(1), wants("alice")), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "renaming-2")},
			peers: []*v1beta1.HeadscaleUser{object("alice", has(2), wants("bob"))}, want: outcome{action: rename, id: 1, name: "alice"},
		},
		"a swap, before the last step": {
			object: object("alice", has(2), wants("bob")), users: []headscale.User{userNamed(1, "alice"), userNamed(2, "renaming-2")},
			peers: []*v1beta1.HeadscaleUser{object("bob", has(1), wants("alice"))}, want: outcome{action: rename, id: 2, name: "bob"},
		},
		"three in a circle, of the oldest": {
			object: object("alice", has(1), wants("bob")), users: []headscale.User{userNamed(1, "alice"), userNamed(2, "bob"), userNamed(3, "carol"), userNamed(4, "renaming-1")},
			peers: []*v1beta1.HeadscaleUser{object("bob", has(2), wants("carol")), object("carol", has(3), wants("alice"))}, want: outcome{action: rename, id: 1, name: "renaming-1-2"},
		},
		"three in a circle, of another": {
			object: object("bob", has(2), wants("carol")), users: []headscale.User{userNamed(1, "alice"), userNamed(2, "bob"), userNamed(3, "carol")},
			peers: []*v1beta1.HeadscaleUser{object("alice", has(1), wants("bob")), object("carol", has(3), wants("alice"))},
			want:  outcome{action: keep, id: 2, err: "as soon as", reason: v1beta1.ReasonRenamePending},
		},
	})
}

func TestDecideUsernameOfTwo(t *testing.T) {
	checkDecisions(t, map[string]decideCase{
		"two of a name, of the younger": {
			object: object("carol", wants("bob")), peers: []*v1beta1.HeadscaleUser{object("bob")},
			want: outcome{action: keep, err: "HeadscaleUser default/bob has the username bob", reason: v1beta1.ReasonConflict},
		},
		"two of a name, of the older": {object: object("bob"), peers: []*v1beta1.HeadscaleUser{object("carol", wants("bob"))}, want: outcome{action: create, name: "bob"}},
		"two of a name, where the younger has the user": {
			object: object("bob"), users: []headscale.User{userNamed(1, "bob")}, peers: []*v1beta1.HeadscaleUser{object("carol", wants("bob"), has(1))},
			want: outcome{action: keep, err: "User bob (id 1) belongs to HeadscaleUser default/carol", reason: v1beta1.ReasonConflict},
		},
		"two of a name, where the older is being deleted": {
			object: object("carol", wants("bob")), users: []headscale.User{userNamed(1, "bob")}, peers: []*v1beta1.HeadscaleUser{object("bob", has(1), deleted)},
			want: outcome{action: keep, err: "User bob (id 1) belongs to HeadscaleUser default/bob", reason: v1beta1.ReasonConflict},
		},
		"the name of a user that is to have another": {
			object: object("carol", wants("bob")), users: []headscale.User{userNamed(1, "bob")}, peers: []*v1beta1.HeadscaleUser{object("bob", has(1), wants("robert"))},
			want: outcome{action: keep, err: "is to be renamed to robert", reason: v1beta1.ReasonRenamePending},
		},
	})
}

func TestDecideDeletion(t *testing.T) {
	checkDecisions(t, map[string]decideCase{
		"deleted, without anything in Headscale": {object: object("bob", deleted), want: outcome{action: keep}},
		"deleted, never created":                 {object: object("bob", creating, deleted), want: outcome{action: release}},
		"deleted, created, and then killed":      {object: object("bob", creating, deleted), users: []headscale.User{userNamed(1, "bob")}, want: outcome{action: remove, id: 1}},
		"deleted, with a mark that was forged": {
			object: object("carol", wants("bob"), creating, deleted), users: []headscale.User{userNamed(1, "bob")}, peers: []*v1beta1.HeadscaleUser{object("bob", has(1))},
			want: outcome{action: release},
		},
		"deleted, and noted by an older object, too": {
			object: object("carol", wants("bob"), has(1), deleted), users: []headscale.User{userNamed(1, "bob")}, peers: []*v1beta1.HeadscaleUser{object("bob", has(1))},
			want: outcome{action: release, id: 1, left: "it belongs to HeadscaleUser default/bob"},
		},
		"deleted":                               {object: object("bob", has(1), deleted), users: []headscale.User{userNamed(1, "bob")}, want: outcome{action: remove, id: 1}},
		"deleted, renamed by hand":              {object: object("bob", has(1), deleted), users: []headscale.User{userNamed(1, "x")}, want: outcome{action: remove, id: 1}},
		"deleted, and gone already":             {object: object("bob", has(1), deleted), want: outcome{action: release}},
		"deleted, where the id is a stranger's": {object: object("bob", has(1), deleted), users: []headscale.User{{ID: 1, Name: "bob", CreatedAt: at(500)}}, want: outcome{action: release}},
		"deleted, made anew by hand":            {object: object("bob", has(1), deleted), users: []headscale.User{userNamed(2, "bob")}, want: outcome{action: release}},
		"deleted, adopted":                      {object: object("bob", has(1), adopted, deleted), users: []headscale.User{userNamed(1, "bob")}, want: outcome{action: keep}},
		"deleted with its namespace":            {object: object("bob", has(1), deleted), users: []headscale.User{userNamed(1, "bob")}, terminating: true, want: outcome{action: remove, id: 1}},
	})
}

func TestDecideDeletionOutOfReach(t *testing.T) {
	checkDecisions(t, map[string]decideCase{
		"deleted, and retained":                   {object: object("bob", has(1), policy(v1beta1.DeletionPolicyRetain), deleted), problem: notReady, want: outcome{action: release}},
		"deleted, Headscale is late":              {object: object("bob", has(1), deleted), problem: notReady, want: outcome{action: keep, err: "it is late", reason: v1beta1.ReasonNotReady}},
		"deleted with its namespace, and late":    {object: object("bob", has(1), deleted), problem: notReady, terminating: true, want: outcome{action: release, left: "it is late"}},
		"deleted, Headscale is gone":              {object: object("bob", has(1), deleted), problem: outOfReach(v1beta1.ReasonNoHeadscale), want: outcome{action: release, left: "out of reach"}},
		"deleted, Headscale is stopped":           {object: object("bob", has(1), deleted), problem: outOfReach(v1beta1.ReasonScaledToZero), want: outcome{action: release, left: "out of reach"}},
		"deleted, without a manager":              {object: object("bob", has(1), deleted), problem: outOfReach(v1beta1.ReasonManagerOff), want: outcome{action: release, left: "out of reach"}},
		"deleted, access was taken away":          {object: object("bob", has(1), deleted), problem: outOfReach(v1beta1.ReasonNotAllowed), want: outcome{action: release, left: "out of reach"}},
		"deleted, the endpoint cannot be reached": {object: object("bob", has(1), deleted), problem: outOfReach(v1beta1.ReasonEndpointUnreachable), want: outcome{action: keep, err: "out of reach", reason: v1beta1.ReasonEndpointUnreachable}},
	})
}

func TestDecideDeletionWithNodes(t *testing.T) {
	checkDecisions(t, map[string]decideCase{
		"deleted, where another user has the node": {object: object("bob", has(1), deleted), users: []headscale.User{userNamed(1, "bob")}, nodes: []headscale.Node{{ID: 7, UserID: 2}}, want: outcome{action: remove, id: 1}},
		"deleted, with nodes": {
			object: object("bob", has(1), deleted), users: []headscale.User{userNamed(1, "bob")}, nodes: []headscale.Node{{ID: 7, UserID: 1, GivenName: "laptop"}, {ID: 8, UserID: 1, Name: "phone", UserName: "an old name"}},
			want: outcome{action: keep, id: 1, err: "it still has nodes: laptop (id 7), phone (id 8)", reason: v1beta1.ReasonHasNodes},
		},
		"deleted with its namespace, with nodes": {
			object: object("bob", has(1), deleted), users: []headscale.User{userNamed(1, "bob")}, nodes: []headscale.Node{{ID: 7, UserID: 1, GivenName: "laptop"}},
			terminating: true, want: outcome{action: release, id: 1, left: "laptop (id 7)"},
		},
	})
}

func TestDecideDeletionWithKeysAtRisk(t *testing.T) {
	checkDecisions(t, map[string]decideCase{
		"0.28.0: deleted, the last": {object: object("bob", has(1), deleted), users: []headscale.User{userNamed(1, "bob")}, version: "v0.28.0", want: outcome{action: remove, id: 1}},
		"0.28.0: deleted": {
			object: object("bob", has(1), deleted), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")}, version: "v0.28.0",
			want: outcome{action: keep, id: 1, err: keysAtRisk, reason: v1beta1.ReasonKeysAtRisk},
		},
		"0.28.0: deleted, by default, and told before": {
			object: object("bob", has(1), ready(v1beta1.ReasonReady, "but "+keysAtRisk), deleted), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")}, version: "v0.28.0",
			want: outcome{action: keep, id: 1, err: keysAtRisk, reason: v1beta1.ReasonKeysAtRisk},
		},
		"0.28.0: deleted, explicitly, and told before": {
			object: object("bob", has(1), policy(v1beta1.DeletionPolicyDelete), ready(v1beta1.ReasonReady, "but "+keysAtRisk), deleted),
			users:  []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")}, version: "v0.28.0", want: outcome{action: remove, id: 1},
		},
		"0.28.0: deleted, explicitly, and just told": {
			object: object("bob", has(1), policy(v1beta1.DeletionPolicyDelete), deleted, ready(v1beta1.ReasonKeysAtRisk, keysAtRisk)),
			users:  []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")}, version: "v0.28.0",
			want: outcome{action: keep, id: 1, err: keysAtRisk, reason: v1beta1.ReasonKeysAtRisk},
		},
		"0.28.0: deleted, told, and then explicitly": {
			object: object("bob", has(1), deleted, ready(v1beta1.ReasonKeysAtRisk, keysAtRisk), policy(v1beta1.DeletionPolicyDelete), func(user *v1beta1.HeadscaleUser) { user.Generation++ }),
			users:  []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")}, version: "v0.28.0", want: outcome{action: remove, id: 1},
		},
		"0.28.0: deleted with its namespace": {
			object: object("bob", has(1), deleted), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")}, version: "v0.28.0", terminating: true,
			want: outcome{action: release, id: 1, left: keysAtRisk},
		},
		"0.29.3: deleted": {object: object("bob", has(1), deleted), users: []headscale.User{userNamed(1, "bob"), userNamed(2, "alice")}, version: "v0.29.3", want: outcome{action: remove, id: 1}},
	})
}

// TestKeysAtRisk believes the spec and the status, of which one may be behind the other.
func TestKeysAtRisk(t *testing.T) {
	for _, test := range []struct {
		spec, status string
		want         bool
	}{
		{"v0.28.0", "", true}, {"v0.28.0", "v0.29.3", true}, {"v0.29.3", "v0.28.0", true}, {"v0.28.0", "v0.28.0", true},
		{"v0.29.3", "0.28.0", true}, {"v0.28.0-beta.1", "", true}, {"v0.28.0+debug", "v0.28.0+debug", true},
		{"v0.29.3", "v0.29.3", false}, {"v0.27.1", "", false}, {"v0.28.1", "v0.28.1", false}, {"v0.28.1-rc.1", "", false},
	} {
		hs := &v1beta1.Headscale{}
		hs.Spec.Version, hs.Status.Version = test.spec, test.status
		NewWithT(t).Expect(mayDeleteAllKeys(hs)).To(Equal(test.want), "%+v", test)
	}
}
