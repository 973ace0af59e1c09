package user

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// facts are the inputs of a decision.
type facts struct {
	user *v1beta1.HeadscaleUser
	// terminating is whether the namespace of the object is being deleted.
	terminating bool
	// problem is why Headscale cannot be called; nil: snapshot is what it has.
	problem  error
	snapshot *instance.Snapshot
	// keysAtRisk is whether Headscale is, or will be, of a release that deletes all pre-auth keys when
	// any user is deleted.
	keysAtRisk bool
	// peers are the other HeadscaleUsers of the same Headscale.
	peers peers
}

// peers are HeadscaleUsers of one Headscale.
type peers interface {
	// wanting are those with a username that have access to the Headscale.
	wanting(username string) []*v1beta1.HeadscaleUser
	// having are those with a user id in their status, even if access was withdrawn since.
	having(id uint64) []*v1beta1.HeadscaleUser
	// failed is why they could not be listed; nil: they were.
	failed() error
}

// action is what a reconcile does for an object.
type action string

const (
	// keep leaves Headscale as it is.
	keep action = "keep"
	// create creates the user.
	create action = "create"
	// rename gives the user another name.
	rename action = "rename"
	// remove deletes the user, and then releases the object.
	remove action = "remove"
	// release removes the finalizer of an object that is being deleted.
	release action = "release"
)

// decision is what follows from the facts.
type decision struct {
	action action
	// user is the object's user in Headscale; its id is 0 if there is none.
	user headscale.User
	// adopted is whether that user existed before, and was not created for the object.
	adopted bool
	// name is the desired name of the user.
	name string
	// left says why the user stays in Headscale although the object is deleted; "": it does not.
	left string
	// err is why the object is not in its desired state; nil: it is, or the action achieves it.
	err error
}

// decide returns what a reconcile does for an object.
func decide(f *facts) decision {
	if !f.user.DeletionTimestamp.IsZero() {
		return decideDeletion(f)
	}
	if f.problem != nil {
		return decision{action: keep, err: f.problem}
	}
	own, found := f.ownUser()
	if !found {
		return decideNew(f)
	}
	owner := f.recordedOwner(&own)
	switch {
	case owner != nil && isOlder(owner, f.user):
		return f.have(refuse(own, "User %s (id %d) belongs to HeadscaleUser %s, which is older: delete one of the two", own.Name, own.ID, keyOf(owner)))
	case own.Name == f.user.Spec.Username:
		return f.have(decision{action: keep, user: own})
	default:
		return f.have(decideRename(f, own))
	}
}

// have completes a decision about a user that the object already has.
func (f *facts) have(d decision) decision {
	d.adopted = f.user.Status.Adopted && f.user.Status.UserID == d.user.ID
	return d
}

// ownUser finds the object's user. If only the annotation says so, which anyone who may edit the
// object can write, the user is not taken from another object that has it in its status.
func (f *facts) ownUser() (headscale.User, bool) {
	own, found := ownUser(f.user, f.snapshot)
	if found && !hasRecorded(f.user, &own) && f.recordedOwner(&own) != nil {
		return headscale.User{}, false
	}
	return own, found
}

// recordedOwner is the oldest other object that has a user in its status; nil: there is none.
func (f *facts) recordedOwner(found *headscale.User) *v1beta1.HeadscaleUser {
	var oldest *v1beta1.HeadscaleUser
	for _, other := range f.peers.having(found.ID) {
		if other.UID != f.user.UID && hasRecorded(other, found) && (oldest == nil || isOlder(other, oldest)) {
			oldest = other
		}
	}
	return oldest
}

// ownUser finds the user of an object: by the id and creation time in its status, or else the one
// that was about to be created for it. A user of an identity provider is never the object's: the
// status has the creation time only to the second, and within it the id may have been reused.
func ownUser(user *v1beta1.HeadscaleUser, snapshot *instance.Snapshot) (headscale.User, bool) {
	noted, found := snapshot.User(user.Status.UserID)
	if found && hasRecorded(user, &noted) && !isForeign(&noted) {
		return noted, true
	}
	name, creating := creatingName(user)
	if !creating {
		return headscale.User{}, false
	}
	for _, made := range snapshot.UsersNamed(name) {
		if !isForeign(&made) && matchesNewUser(&made, newUser(user, name)) {
			return made, true
		}
	}
	return headscale.User{}, false
}

// hasRecorded reports whether a user is the one in the status. The id alone does not suffice, because
// Headscale reuses ids after a restore of an older database.
func hasRecorded(user *v1beta1.HeadscaleUser, found *headscale.User) bool {
	noted := user.Status.CreatedAt
	return user.Status.UserID == found.ID && noted != nil && noted.Unix() == found.CreatedAt.Unix()
}

// isForeign reports whether an identity provider created a user. (Some releases name a provider for
// every user.)
func isForeign(user *headscale.User) bool {
	return user.ProviderID != "" || user.Provider != "" && user.Provider != "cli"
}

// newUser is the request that creates the user of an object.
func newUser(user *v1beta1.HeadscaleUser, name string) headscale.NewUser {
	return headscale.NewUser{Name: name, DisplayName: user.Spec.DisplayName, Email: user.Spec.Email, PictureURL: user.Spec.PictureURL}
}

// matchesNewUser reports whether a user has the fields of a request that created it.
func matchesNewUser(user *headscale.User, of headscale.NewUser) bool {
	return of == (headscale.NewUser{Name: user.Name, DisplayName: user.DisplayName, Email: user.Email, PictureURL: user.PictureURL})
}

// creatingValue is the value of AnnotationCreating, which identifies the user that is about to be
// created for an object. It is valid only for that object, and until its status has another user.
func creatingValue(user *v1beta1.HeadscaleUser) string {
	return creatingPrefix(user) + user.Spec.Username
}

// creatingPrefix is that value without the name of the user.
func creatingPrefix(user *v1beta1.HeadscaleUser) string {
	return fmt.Sprintf("%s/%d/", user.UID, user.Status.UserID)
}

// creatingName is the name of the user that was about to be created for an object.
func creatingName(user *v1beta1.HeadscaleUser) (string, bool) {
	return strings.CutPrefix(user.Annotations[v1beta1.AnnotationCreating], creatingPrefix(user))
}

// decideNew decides for an object without a user.
func decideNew(f *facts) decision {
	name := f.user.Spec.Username
	if rival := f.olderClaim(name); rival != nil {
		return refuse(headscale.User{}, "HeadscaleUser %s has the username %s: choose another one, or delete one of the two", keyOf(rival), name)
	}
	found := localFirst(f.snapshot.UsersNamed(name))
	if len(found) == 0 {
		return decision{action: create, name: name}
	}
	return f.decideAdoption(found[0])
}

// decideAdoption decides for an object without a user, if Headscale has one of that name.
func (f *facts) decideAdoption(found headscale.User) decision {
	owner := f.ownerOf(&found)
	switch {
	case isForeign(&found):
		return refuse(headscale.User{}, "User %s (id %d) was created by an identity provider, and such users are not taken over: choose another username", found.Name, found.ID)
	case owner == nil:
		return decision{action: keep, user: found, adopted: true}
	case owner.Spec.Username != found.Name && owner.DeletionTimestamp.IsZero():
		return waitFor(headscale.User{}, "User %s (id %d) is to be renamed to %s, for HeadscaleUser %s", found.Name, found.ID, owner.Spec.Username, keyOf(owner))
	default:
		return refuse(headscale.User{}, "User %s (id %d) belongs to HeadscaleUser %s: choose another username, or delete that one", found.Name, found.ID, keyOf(owner))
	}
}

// localFirst sorts the user that Headscale created before those of an identity provider.
func localFirst(users []headscale.User) []headscale.User {
	slices.SortStableFunc(users, func(a, b headscale.User) int {
		foreign := map[bool]int{true: 1}
		return cmp.Compare(foreign[isForeign(&a)], foreign[isForeign(&b)])
	})
	return users
}

// olderClaim is an older object with the same username, which takes precedence; nil: there is none.
func (f *facts) olderClaim(name string) *v1beta1.HeadscaleUser {
	for _, other := range f.peers.wanting(name) {
		if other.UID != f.user.UID && other.DeletionTimestamp.IsZero() && isOlder(other, f.user) {
			return other
		}
	}
	return nil
}

// isOlder reports whether an object was created before another one.
func isOlder(a, b *v1beta1.HeadscaleUser) bool {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(keyOf(a).String(), keyOf(b).String())) < 0
}

// keyOf names an object.
func keyOf(user *v1beta1.HeadscaleUser) client.ObjectKey { return client.ObjectKeyFromObject(user) }

// ownerOf is another object that has a user; nil: there is none.
func (f *facts) ownerOf(found *headscale.User) *v1beta1.HeadscaleUser {
	others := append(slices.Clone(f.peers.having(found.ID)), f.peers.wanting(found.Name)...)
	for _, other := range others {
		if other.UID == f.user.UID {
			continue
		}
		if own, has := ownUser(other, f.snapshot); has && own.ID == found.ID {
			return other
		}
	}
	return nil
}

// decideRename decides for an object whose user has another name.
func decideRename(f *facts, own headscale.User) decision {
	name := f.user.Spec.Username
	if rival := f.olderClaim(name); rival != nil {
		return refuse(own, "User %s (id %d) cannot be renamed to %s, which HeadscaleUser %s has as its username: choose another one", own.Name, own.ID, name, keyOf(rival))
	}
	for _, taken := range f.snapshot.UsersNamed(name) {
		owner := f.ownerOf(&taken)
		switch {
		case owner == nil:
			return refuse(own, "User %s (id %d) cannot be renamed to %s: that is the name of another user (id %d), which no HeadscaleUser has", own.Name, own.ID, name, taken.ID)
		case owner.Spec.Username == name || !owner.DeletionTimestamp.IsZero():
			return refuse(own, "User %s (id %d) cannot be renamed to %s: that is the user (id %d) of HeadscaleUser %s", own.Name, own.ID, name, taken.ID, keyOf(owner))
		case f.breaksCycle(own, owner):
			return decision{action: rename, user: own, name: freeName(f.snapshot, own.ID)}
		default:
			return waitFor(own, "User %s (id %d) is renamed to %s as soon as that of HeadscaleUser %s is renamed to %s", own.Name, own.ID, name, keyOf(owner), owner.Spec.Username)
		}
	}
	return decision{action: rename, user: own, name: name}
}

// breaksCycle reports whether the objects want each other's names in a cycle, and this one is the
// oldest of them, whose user temporarily gets a third name.
func (f *facts) breaksCycle(own headscale.User, owner *v1beta1.HeadscaleUser) bool {
	seen := map[client.ObjectKey]bool{}
	oldest := true
	for owner != nil && !seen[keyOf(owner)] {
		seen[keyOf(owner)] = true
		oldest = oldest && isOlder(f.user, owner)
		if owner.Spec.Username == own.Name {
			return oldest
		}
		var next *v1beta1.HeadscaleUser
		for _, taken := range f.snapshot.UsersNamed(owner.Spec.Username) {
			next = f.ownerOf(&taken)
		}
		owner = next
	}
	return false
}

// freeName is an unused temporary name for a user in a cycle of renames. Every release accepts it.
func freeName(snapshot *instance.Snapshot, id uint64) string {
	name := fmt.Sprintf("renaming-%d", id)
	for number := 2; len(snapshot.UsersNamed(name)) > 0; number++ {
		name = fmt.Sprintf("renaming-%d-%d", id, number)
	}
	return name
}

// decideDeletion decides for an object that is being deleted. If its namespace is being deleted, too,
// it waits for nothing.
func decideDeletion(f *facts) decision {
	if !controllerutil.ContainsFinalizer(f.user, v1beta1.FinalizerUser) {
		return decision{action: keep}
	}
	if f.user.Retained() {
		return decision{action: release}
	}
	if f.problem != nil {
		return f.giveUp(decision{action: keep, err: f.problem}, instance.IsOutOfReach(f.problem))
	}
	own, found := f.ownUser()
	if !found {
		return decision{action: release}
	}
	if owner := f.recordedOwner(&own); owner != nil && isOlder(owner, f.user) {
		return decision{action: release, user: own, left: fmt.Sprintf("it belongs to HeadscaleUser %s, which is older", keyOf(owner))}
	}
	if err := checkRemoval(f, &own); err != nil {
		return f.giveUp(f.have(decision{action: keep, user: own, err: err}), false)
	}
	return f.have(decision{action: remove, user: own})
}

// giveUp turns a decision to wait into one to release the object, if waiting is useless.
func (f *facts) giveUp(d decision, forGood bool) decision {
	if forGood || f.terminating {
		return decision{action: release, user: d.user, left: d.err.Error()}
	}
	return d
}

// checkRemoval returns why a user cannot be deleted from Headscale.
func checkRemoval(f *facts, own *headscale.User) error {
	if nodes := f.snapshot.NodesOf(own.ID); len(nodes) > 0 {
		return hasNodes(fmt.Sprintf("User %s (id %d) is not deleted, because it still has nodes: %s", own.Name, own.ID, nodeNames(nodes)), f.keysAtRisk)
	}
	if f.keysAtRisk && f.snapshot.UserCount() > 1 && (f.user.Spec.DeletionPolicy != v1beta1.DeletionPolicyDelete || !wasWarned(f.user)) {
		return &instance.Problem{Because: v1beta1.ReasonKeysAtRisk, Lasting: true, Message: fmt.Sprintf(
			"User %s (id %d) is not deleted: %s. Upgrade Headscale first, or set spec.deletionPolicy to Retain, or, to delete the user nevertheless, "+
				"to Delete (where it was that before you read this, remove it first)", own.Name, own.ID, keysAtRisk)}
	}
	return nil
}

// hasNodes reports that nodes keep a user from being deleted. It also warns of keysAtRisk, because the
// user is deleted once the nodes are.
func hasNodes(message string, atRisk bool) error {
	message += ". Delete them, or set spec.deletionPolicy to Retain"
	if atRisk {
		message += v1beta1.WarningsIntro + keysAtRisk
	}
	return &instance.Problem{Because: v1beta1.ReasonHasNodes, Lasting: true, Message: message}
}

// nodeNames lists the first nodes, and how many more there are.
func nodeNames(nodes []headscale.Node) string {
	const most = 10
	var names []string
	for i := range nodes {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(nodes)-most))
			break
		}
		names = append(names, fmt.Sprintf("%s (id %d)", cmp.Or(nodes[i].GivenName, nodes[i].Name), nodes[i].ID))
	}
	return strings.Join(names, ", ")
}

// keysAtRisk warns of a release that deletes all pre-auth keys when any user is deleted.
const keysAtRisk = "Headscale 0.28.0 deletes all pre-auth keys, those of other users too, when a user is deleted"

// mayDeleteAllKeys reports whether a Headscale is, or will be, of the release that deletes all
// pre-auth keys when any user is deleted. (During an upgrade either release may run. The status has
// what a custom build reports.)
func mayDeleteAllKeys(hs *v1beta1.Headscale) bool {
	return deletesAllKeys(hs.Status.Version) || deletesAllKeys(hs.Spec.Version)
}

// deletesAllKeys reports whether a release of Headscale, or one before or built from it, deletes all
// pre-auth keys with any user.
func deletesAllKeys(version string) bool {
	release := strings.TrimPrefix(version, "v")
	if suffix := strings.IndexAny(release, "-+"); suffix >= 0 {
		release = release[:suffix]
	}
	return release == "0.28.0"
}

// wasWarned reports whether the status of an object had the warning keysAtRisk before the object was
// changed or deleted.
func wasWarned(user *v1beta1.HeadscaleUser) bool {
	ready := meta.FindStatusCondition(user.Status.Conditions, v1beta1.ConditionReady)
	return ready != nil && strings.Contains(ready.Message, keysAtRisk) &&
		(ready.Reason != v1beta1.ReasonKeysAtRisk || ready.ObservedGeneration < user.Generation)
}

// refuse is a decision to change nothing, because somebody else has the name.
func refuse(own headscale.User, format string, arguments ...any) decision {
	return decision{action: keep, user: own, err: &instance.Problem{Because: v1beta1.ReasonConflict, Lasting: true, Message: fmt.Sprintf(format, arguments...)}}
}

// waitFor is a decision to change nothing until another user is renamed.
func waitFor(own headscale.User, format string, arguments ...any) decision {
	return decision{action: keep, user: own, err: status.Later(renameRetry,
		&instance.Problem{Because: v1beta1.ReasonRenamePending, Message: fmt.Sprintf(format, arguments...)})}
}
