package rotation

import (
	"fmt"
	"slices"
)

// Policy judges the stored credential. It is a pure function: violated says that the
// credential must be replaced, and the reason and the message say why.
//
// A policy after SecretMissing in a list of Rules may assume that there is a record, and one after
// NotListed that View.Stored is not nil.
type Policy[F any] func(v View[F]) (reason Reason, message string, violated bool)

// Rules are what differs between kinds of credentials.
type Rules[F any] struct {
	// Noun is what messages call a credential of this kind, after "a" and without one:
	// "key". Its plural is formed with an s.
	Noun string
	// Issuer is what messages call the backend: "Headscale".
	Issuer string
	// Policies are evaluated in order; the first violation causes a replacement. A kind that must
	// not be replaced for a reason leaves out that policy.
	Policies []Policy[F]
	// Expected are the reasons for which a credential is replaced because that was meant
	// to happen, and not because something is wrong: they do not count towards the bound
	// on how often credentials are created.
	Expected []Reason
	// IDOf reads the ID of a credential out of its text; nil if no text has its ID.
	// Where it is not ok, the record's own note has the ID.
	IDOf func(text Text) (id string, ok bool)
	// Foreign reports whether a credential belongs to another record although it has our tag; nil:
	// none does. There are only a million tags, so two of a thousand records may have the same one.
	Foreign func(credential Credential[F]) bool
	// OnlyTagged is whether only credentials with our tag are expired, whatever the record says.
	// Everyone who may write the Secret can change the record, but need not have permission to
	// expire other credentials.
	OnlyTagged bool
	// LostRecord is what happens to our credentials when the record is lost.
	LostRecord LostRecord
	// NotOurs is the message for a Secret that belongs to someone else.
	NotOurs string
}

// LostRecord is what becomes of the credentials that carry our tag when there is no
// record that names them.
type LostRecord int

const (
	// RetireAfterDelay has them replaced and expired after the revocation delay.
	RetireAfterDelay LostRecord = iota
	// ExpireAtOnce has them expired as soon as a new credential is stored.
	ExpireAtOnce
)

// violation returns the first policy's reason why the stored credential must be replaced.
func (v View[F]) violation() (Reason, string, bool) {
	for _, policy := range v.Rules.Policies {
		if reason, message, violated := policy(v); violated {
			return reason, message, true
		}
	}
	return "", "", false
}

// expects reports whether a credential is replaced for this reason because it was meant to be.
func (r Rules[F]) expects(reason Reason) bool { return slices.Contains(r.Expected, reason) }

// SecretMissing is violated where there is no record.
func SecretMissing[F any](v View[F]) (Reason, string, bool) {
	return ReasonSecretMissing, fmt.Sprintf("there is no Secret with a %s yet", v.Rules.Noun), v.Record == nil
}

// KeyMissing is violated where the record holds no text.
func KeyMissing[F any](v View[F]) (Reason, string, bool) {
	return ReasonKeyMissing, fmt.Sprintf("the Secret holds no %s", v.Rules.Noun), reveal(v.Record.Text) == ""
}

// ValueChanged is violated where the text is another one than was stored.
func ValueChanged[F any](v View[F]) (Reason, string, bool) {
	return ReasonValueChanged, fmt.Sprintf("the Secret's value is not the %s that was stored there", v.Rules.Noun), !v.Record.Intact()
}

// NotListed is violated where the backend does not know the credential.
func NotListed[F any](v View[F]) (Reason, string, bool) {
	return ReasonKeyUnknown, fmt.Sprintf("%s does not list the %s %s; its database may be another one", v.Rules.Issuer, v.Rules.Noun, v.storedID()), v.Stored() == nil
}

// NeverExpires is violated by a credential without an expiration.
func NeverExpires[F any](v View[F]) (Reason, string, bool) {
	key := v.Stored()
	return ReasonLifetimeShortened, fmt.Sprintf("the %s %s never expires", v.Rules.Noun, key.ID), key.Expiration.IsZero()
}

// Expired is violated from the instant on at which the credential expires.
func Expired[F any](v View[F]) (Reason, string, bool) {
	key := v.Stored()
	return ReasonKeyExpired, fmt.Sprintf("the %s %s expired at %s", v.Rules.Noun, key.ID, ShowTime(key.Expiration)), !v.Now.Before(key.Expiration)
}

// Due is violated from the instant on at which the credential is to be replaced.
func Due[F any](v View[F]) (Reason, string, bool) {
	key := v.Stored()
	return ReasonDue, fmt.Sprintf("the %s %s expires at %s and is replaced %s before", v.Rules.Noun, key.ID, ShowTime(key.Expiration), v.Settings.RotationBuffer), !v.Now.Before(v.Due())
}

// Outlives is violated by a credential that would live longer than the settings allow.
func Outlives[F any](v View[F]) (Reason, string, bool) {
	key := v.Stored()
	return ReasonLifetimeShortened,
		fmt.Sprintf("the %s %s would live until %s, longer than the %s that are set now", v.Rules.Noun, key.ID, ShowTime(key.Expiration), v.Settings.Expiration),
		key.Expiration.Sub(v.Now) > v.Settings.Expiration+maxClockSkew
}

// Requested is violated by a request for a rotation that was not acted upon.
func Requested[F any](v View[F]) (Reason, string, bool) {
	return ReasonRequested, fmt.Sprintf("a rotation was requested (%.64q)", v.Record.Requested),
		v.Record.Requested != "" && v.Record.Requested != v.Record.Handled
}
