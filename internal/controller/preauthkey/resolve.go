package preauthkey

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// facts are all that it depends on what the key of an object is to be.
type facts struct {
	key *v1beta1.HeadscalePreAuthKey
	// user is the HeadscaleUser of the reference; nil: there is none.
	user *v1beta1.HeadscaleUser
	// snapshot is what Headscale has.
	snapshot *instance.Snapshot
	// version is the release of Headscale that runs.
	version string
	now     time.Time
}

// resolve says what the key of an object is to be, or why there cannot be one.
func (f *facts) resolve() (*wanted, error) {
	expiration, buffer, delay, err := f.key.Spec.Lifetimes()
	if err != nil {
		return nil, &instance.Problem{Because: v1beta1.ReasonInvalidConfig, Lasting: true, Message: err.Error()}
	}
	user, err := f.userID()
	if err != nil {
		return nil, err
	}
	if user == 0 && lacksTagsOnly(f.version) {
		return nil, &instance.Problem{Because: v1beta1.ReasonUnsupported, Lasting: true, Message: fmt.Sprintf(
			"Headscale %s cannot create pre-auth keys without a user: set headscaleUserRef, or upgrade Headscale to 0.28 or later", f.version)}
	}
	return &wanted{
		key:      headscale.NewPreAuthKey{UserID: user, Reusable: f.key.Spec.Reusable, Ephemeral: f.key.Spec.Ephemeral, Tags: tagsOf(f.key)},
		settings: rotation.Settings{Expiration: expiration, RotationBuffer: buffer, RevocationDelay: delay},
		once:     f.key.Spec.Reissue == v1beta1.ReissueNever,
		over:     f.isOver(),
	}, nil
}

// isOver reports whether the key of the status is over, whether or not its Secret is still there.
func (f *facts) isOver() bool {
	key, exists := f.snapshot.Key(f.key.Status.KeyID)
	return f.key.Status.Over || hasExpired(&f.key.Status, f.now) || exists && wasUsed(&key, &f.key.Status)
}

// wasUsed reports whether a key is that of a status, and was used. Headscale may reuse an id after its database
// was restored, so the expiration is compared as well.
func wasUsed(key *headscale.PreAuthKey, reported *v1beta1.HeadscalePreAuthKeyStatus) bool {
	return key.Used && key.ID == reported.KeyID && reported.Expiration.Equal(second(timeOf(key.Expiration)))
}

// hasExpired reports whether the key of a status has expired, which needs nobody who says so.
func hasExpired(reported *v1beta1.HeadscalePreAuthKeyStatus, now time.Time) bool {
	return reported.Expiration != nil && !now.Before(reported.Expiration.Time)
}

// tagsOf are the tags of an object as texts.
func tagsOf(key *v1beta1.HeadscalePreAuthKey) []string {
	tags := make([]string, len(key.Spec.Tags))
	for i, tag := range key.Spec.Tags {
		tags[i] = string(tag)
	}
	return tags
}

// userID is the id of the user that the key is to have; 0: of none.
func (f *facts) userID() (uint64, error) {
	switch {
	case f.key.Spec.UserID != nil:
		return f.givenUser(uint64(*f.key.Spec.UserID)) //nolint:gosec // admission refuses those below 1
	case f.key.Spec.HeadscaleUserRef != "":
		return f.referredUser()
	default:
		return 0, nil
	}
}

// givenUser is the user of an id in the spec.
func (f *facts) givenUser(id uint64) (uint64, error) {
	if f.key.HeadscaleNamespace() != f.key.Namespace {
		return 0, &instance.Problem{Because: v1beta1.ReasonNotAllowed, Lasting: true, Message: "userId may be set only in the namespace of the Headscale: set headscaleUserRef"}
	}
	if _, exists := f.snapshot.User(id); !exists {
		return 0, missing("Headscale has no user with the id %d", id)
	}
	return id, nil
}

// referredUser is the user of the HeadscaleUser in the spec.
func (f *facts) referredUser() (uint64, error) {
	name := client.ObjectKey{Namespace: f.key.Namespace, Name: f.key.Spec.HeadscaleUserRef}
	switch {
	case f.user == nil:
		return 0, missing("There is no HeadscaleUser %s", name)
	case f.user.Spec.HeadscaleRef != f.key.Spec.HeadscaleRef || f.user.HeadscaleNamespace() != f.key.HeadscaleNamespace():
		return 0, &instance.Problem{Because: v1beta1.ReasonConflict, Lasting: true, Message: fmt.Sprintf(
			"HeadscaleUser %s belongs to Headscale %s/%s, and not to that of the key", name, f.user.HeadscaleNamespace(), f.user.Spec.HeadscaleRef)}
	case !f.user.DeletionTimestamp.IsZero():
		return 0, missing("HeadscaleUser %s is being deleted", name)
	}
	user, exists := f.snapshot.User(f.user.Status.UserID)
	if created := f.user.Status.CreatedAt; !exists || created == nil || created.Unix() != user.CreatedAt.Unix() {
		return 0, status.Later(userRetry, missing("HeadscaleUser %s has no user in Headscale yet", name))
	}
	return user.ID, nil
}

// missing says that a user does not exist, or not yet: a watch or a snapshot reports when it does.
func missing(format string, arguments ...any) error {
	return &instance.Problem{Because: v1beta1.ReasonUserMissing, Message: fmt.Sprintf(format, arguments...)}
}

// firstTagsOnly is the minor release of Headscale 0 from which on a key needs no user.
const firstTagsOnly = 28

// lacksTagsOnly reports whether a release is known to make no keys without a user.
func lacksTagsOnly(version string) bool {
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	number, err := strconv.Atoi(minor)
	return major == "0" && err == nil && number < firstTagsOnly
}
