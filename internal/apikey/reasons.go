package apikey

import "fmt"

// Reason says in one CamelCase word why something is done or is not.
type Reason string

// Reasons for a new key.
const (
	// ReasonSecretMissing: there is no Secret.
	ReasonSecretMissing Reason = "SecretMissing"
	// ReasonKeyMissing: the Secret holds no key.
	ReasonKeyMissing Reason = "KeyMissing"
	// ReasonValueMalformed: the Secret's value is not an API key.
	ReasonValueMalformed Reason = "ValueMalformed"
	// ReasonValueChanged: somebody else wrote the Secret's value.
	ReasonValueChanged Reason = "ValueChanged"
	// ReasonKeyUnknown: Headscale does not list the key.
	ReasonKeyUnknown Reason = "KeyUnknown"
	// ReasonKeyNotAccepted: this version of Headscale refuses keys of that format.
	ReasonKeyNotAccepted Reason = "KeyNotAccepted"
	// ReasonKeyExpired: the key has expired, or was expired by hand.
	ReasonKeyExpired Reason = "KeyExpired"
	// ReasonLifetimeShortened: the key would live longer than the settings now allow.
	ReasonLifetimeShortened Reason = "LifetimeShortened"
	// ReasonRequested: a user asked for a rotation.
	ReasonRequested Reason = "RotationRequested"
	// ReasonDue: it is time.
	ReasonDue Reason = "RotationDue"
)

// Reasons for everything else.
const (
	// ReasonUpToDate: nothing is to be done.
	ReasonUpToDate Reason = "UpToDate"
	// ReasonNotOurs: the Secret belongs to someone else.
	ReasonNotOurs Reason = "SecretNotOurs"
	// ReasonImmutable: the Secret cannot be changed.
	ReasonImmutable Reason = "SecretImmutable"
	// ReasonUnsaved: a key was made and is not stored yet.
	ReasonUnsaved Reason = "KeyUnsaved"
	// ReasonSettling: a replaced or forgotten key is expired.
	ReasonSettling Reason = "Settling"
	// ReasonOrphaned: a key of ours is in no Secret.
	ReasonOrphaned Reason = "KeyOrphaned"
	// ReasonThrottled: keys were made too often lately.
	ReasonThrottled Reason = "MintingThrottled"
	// ReasonUnsettled: something else keeps changing what was just written.
	ReasonUnsettled Reason = "Unsettled"
	// ReasonAnnotationsDiffer: the Secret's annotations are not true.
	ReasonAnnotationsDiffer Reason = "AnnotationsDiffer"
)

// scheduled reports whether a key is replaced because it was meant to be, not
// because something is wrong.
func (r Reason) scheduled() bool {
	return r == ReasonDue || r == ReasonRequested || r == ReasonLifetimeShortened
}

// retiredPrefixLength is that of keys made by Headscale v0.24 and older, which
// v0.28 (the first to mask the prefixes in its list) and newer do not accept.
const retiredPrefixLength = 10

// violation returns the first reason why the stored key must be replaced.
func (v View) violation() (Reason, string, bool) {
	if reason, message, violated := v.valueViolation(); violated {
		return reason, message, true
	}
	key := v.stored()
	switch {
	case key == nil:
		return ReasonKeyUnknown, fmt.Sprintf("Headscale does not list the key %s; its database may be another one", v.Record.storedPrefix()), true
	case key.Masked && len(key.Prefix) == retiredPrefixLength:
		return ReasonKeyNotAccepted, fmt.Sprintf("this Headscale does not accept keys of the format of %s any more", key.Prefix), true
	case key.Expiration.IsZero():
		return ReasonLifetimeShortened, fmt.Sprintf("the key %s never expires", key.Prefix), true
	case !v.Now.Before(key.Expiration):
		return ReasonKeyExpired, fmt.Sprintf("the key %s expired at %s", key.Prefix, formatTime(key.Expiration)), true
	case !v.Now.Before(v.due()):
		return ReasonDue, fmt.Sprintf("the key %s expires at %s and is replaced %s before", key.Prefix, formatTime(key.Expiration), v.Settings.RotationBuffer), true
	case key.Expiration.Sub(v.Now) > v.Settings.Expiration+maxClockSkew:
		return ReasonLifetimeShortened, fmt.Sprintf("the key %s would live until %s, longer than the %s that are set now", key.Prefix, formatTime(key.Expiration), v.Settings.Expiration), true
	case v.Record.Requested != "" && v.Record.Requested != v.Record.Handled:
		return ReasonRequested, fmt.Sprintf("a rotation was requested (%.64q)", v.Record.Requested), true
	}
	return "", "", false
}

// valueViolation looks at the Secret alone.
func (v View) valueViolation() (Reason, string, bool) {
	if v.Record == nil {
		return ReasonSecretMissing, "there is no Secret with an API key yet", true
	}
	_, wellFormed := v.Record.Key.Prefix()
	switch {
	case v.Record.Key.IsZero():
		return ReasonKeyMissing, "the Secret holds no API key", true
	case v.Record.intact():
		return "", "", false
	case !wellFormed:
		return ReasonValueMalformed, "the Secret's value is not an API key", true
	default:
		return ReasonValueChanged, "the Secret's value is not the key that was stored there", true
	}
}

// Reasons for having to wait for others.
const (
	// ReasonHeadscaleUnavailable: Headscale does not answer on its socket.
	ReasonHeadscaleUnavailable Reason = "HeadscaleUnavailable"
	// ReasonSocketForbidden: this process may not open Headscale's socket.
	ReasonSocketForbidden Reason = "SocketForbidden"
	// ReasonHeadscaleFailed: Headscale answered with an error.
	ReasonHeadscaleFailed Reason = "HeadscaleFailed"
	// ReasonForbidden: this process's ServiceAccount may not do what it must.
	ReasonForbidden Reason = "SecretForbidden"
	// ReasonQuotaExceeded: the namespace's quota admits no further Secret.
	ReasonQuotaExceeded Reason = "QuotaExceeded"
	// ReasonNamespaceTerminating: the namespace is being deleted.
	ReasonNamespaceTerminating Reason = "NamespaceTerminating"
	// ReasonKubernetesRefused: the API server, or an admission webhook, said no.
	ReasonKubernetesRefused Reason = "KubernetesRefused"
	// ReasonKubernetesUnavailable: the API server does not answer.
	ReasonKubernetesUnavailable Reason = "KubernetesUnavailable"
)

// What a metric's label "reason" can be.
var (
	// rotationReasons are those with which a key is stored.
	rotationReasons = []Reason{
		ReasonSecretMissing, ReasonKeyMissing, ReasonValueMalformed, ReasonValueChanged, ReasonKeyUnknown,
		ReasonKeyNotAccepted, ReasonKeyExpired, ReasonLifetimeShortened, ReasonRequested, ReasonDue, ReasonUnsaved,
	}
	// blockingReasons are those for which a person must clear the way.
	blockingReasons = []Reason{ReasonNotOurs, ReasonImmutable}
	// failureReasons are those for which an attempt fails or is put off.
	failureReasons = append([]Reason{
		ReasonHeadscaleUnavailable, ReasonSocketForbidden, ReasonHeadscaleFailed, ReasonForbidden, ReasonQuotaExceeded,
		ReasonNamespaceTerminating, ReasonKubernetesRefused, ReasonKubernetesUnavailable, ReasonThrottled, ReasonUnsettled,
	}, blockingReasons...)
)
