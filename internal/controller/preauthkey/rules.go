package preauthkey

import (
	"fmt"
	"slices"
	"strings"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// view is the input of a decision about a pre-auth key.
type view = rotation.View[headscale.PreAuthKey]

// policy judges the stored key.
type policy = rotation.Policy[headscale.PreAuthKey]

// Reasons for a new key besides those of package rotation.
const (
	// reasonUsed: the key was for one node, and one has registered with it.
	reasonUsed rotation.Reason = "KeyUsed"
	// reasonSpecChanged: the key does not match the spec.
	reasonSpecChanged rotation.Reason = "SpecChanged"
)

// wanted is the desired key of an object.
type wanted struct {
	// key is the request to Headscale, without the expiration.
	key headscale.NewPreAuthKey
	// settings say how long keys live.
	settings rotation.Settings
	// once is whether a key that was used or expired is not replaced.
	once bool
	// over is whether the status says that the last key was used or expired.
	over bool
}

// rules are what is peculiar to the key of one object. Whose a key is that has the object's tag,
// foreign reports.
func rules(w *wanted, foreign func(credential) bool) rotation.Rules[headscale.PreAuthKey] {
	policies := []policy{
		rotation.SecretMissing[headscale.PreAuthKey],
		rotation.KeyMissing[headscale.PreAuthKey],
		rotation.ValueChanged[headscale.PreAuthKey],
		rotation.NotListed[headscale.PreAuthKey],
		w.specChanged,
		rotation.NeverExpires[headscale.PreAuthKey],
	}
	if !w.once {
		policies = append(policies, used, rotation.Expired[headscale.PreAuthKey], rotation.Due[headscale.PreAuthKey])
	}
	policies = append(policies, rotation.Outlives[headscale.PreAuthKey], rotation.Requested[headscale.PreAuthKey])
	return rotation.Rules[headscale.PreAuthKey]{
		Noun: "pre-auth key", Issuer: "Headscale",
		Policies: w.unlessOver(policies),
		Expected: []rotation.Reason{rotation.ReasonDue, rotation.ReasonLifetimeShortened, rotation.ReasonRequested, reasonUsed, reasonSpecChanged},
		IDOf:     idOfText,
		Foreign:  foreign,
		// The Secret's annotations are written by a tenant, and a key's public part is no secret.
		OnlyTagged: true,
		NotOurs:    "the Secret belongs to someone else",
	}
}

// unlessOver leaves a key as it is that is over and not to be replaced.
func (w *wanted) unlessOver(policies []policy) []policy {
	if !w.once {
		return policies
	}
	guarded := make([]policy, len(policies))
	for i, judge := range policies {
		guarded[i] = func(v view) (rotation.Reason, string, bool) {
			if w.isOver(&v) {
				return "", "", false
			}
			return judge(v)
		}
	}
	return guarded
}

// isOver reports whether the key of an object is over, and not to be replaced: it was used, or it
// has expired. Where nothing is known of the key, it counts what was known before.
func (w *wanted) isOver(v *view) bool {
	if !w.once {
		return false
	}
	if key := v.Stored(); key != nil {
		return key.Facts.Used || !key.Expiration.IsZero() && !v.Now.Before(key.Expiration)
	}
	return w.over
}

// used is violated by a key that was for one node, with which one has registered.
func used(v view) (rotation.Reason, string, bool) {
	key := v.Stored()
	return reasonUsed, fmt.Sprintf("a node has registered with the pre-auth key %d, which was for one", key.Facts.ID), isUsedUp(key)
}

// isUsedUp reports whether a key was for one node, which has registered.
func isUsedUp(key *credential) bool { return key.Facts.Used && !key.Facts.Reusable }

// specChanged is violated by a key that does not match the spec.
func (w *wanted) specChanged(v view) (rotation.Reason, string, bool) {
	key := v.Stored()
	differs := w.differences(&key.Facts)
	return reasonSpecChanged, fmt.Sprintf("the pre-auth key %d does not match the spec: %s", key.Facts.ID, strings.Join(differs, ", ")), len(differs) > 0
}

// differences lists how a key differs from the desired one.
func (w *wanted) differences(key *headscale.PreAuthKey) []string {
	var differs []string
	if key.UserID != w.key.UserID {
		differs = append(differs, fmt.Sprintf("its user has the id %d and not %d", key.UserID, w.key.UserID))
	}
	if !sameTags(key.Tags, w.key.Tags) {
		differs = append(differs, fmt.Sprintf("its tags are %q and not %q", key.Tags, w.key.Tags))
	}
	if key.Reusable != w.key.Reusable {
		differs = append(differs, fmt.Sprintf("its reusable is %t", key.Reusable))
	}
	if key.Ephemeral != w.key.Ephemeral {
		differs = append(differs, fmt.Sprintf("its ephemeral is %t", key.Ephemeral))
	}
	return differs
}

// sameTags reports whether two lists have the same tags, in whichever order and case.
func sameTags(a, b []string) bool {
	set := func(tags []string) []string {
		lower := make([]string, len(tags))
		for i, tag := range tags {
			lower[i] = strings.ToLower(tag)
		}
		slices.Sort(lower)
		return slices.Compact(lower)
	}
	return slices.Equal(set(a), set(b))
}
