package apikey

import (
	"fmt"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// View is all that a decision about an API key depends on.
type View = rotation.View[headscale.APIKey]

// retiredPrefixLength is that of keys made by Headscale v0.24 and older, which
// v0.28 (the first to mask the prefixes in its list) and newer do not accept.
const retiredPrefixLength = 10

// Rules are what is peculiar to API keys.
func Rules() rotation.Rules[headscale.APIKey] {
	return rotation.Rules[headscale.APIKey]{
		Noun: "key", Issuer: "Headscale",
		Policies: []rotation.Policy[headscale.APIKey]{
			rotation.SecretMissing[headscale.APIKey],
			rotation.KeyMissing[headscale.APIKey],
			valueMalformed,
			rotation.ValueChanged[headscale.APIKey],
			rotation.NotListed[headscale.APIKey],
			notAccepted,
			rotation.NeverExpires[headscale.APIKey],
			rotation.Expired[headscale.APIKey],
			rotation.Due[headscale.APIKey],
			rotation.Outlives[headscale.APIKey],
			rotation.Requested[headscale.APIKey],
		},
		Expected: []rotation.Reason{rotation.ReasonDue, rotation.ReasonRequested, rotation.ReasonLifetimeShortened},
		IDOf:     prefixOf,
		NotOurs:  "the Secret exists without the labels of an API key Secret, so it belongs to someone else and is left alone; delete or rename it, or choose another secret name",
	}
}

// prefixOf reads the prefix of a key out of its text.
func prefixOf(text rotation.Text) (prefix string, ok bool) {
	key, _ := text.(headscale.Key)
	return key.Prefix()
}

// valueMalformed is violated by a value that does not look like an API key. One that is as
// it was stored is of a format that is not known yet.
func valueMalformed(v View) (rotation.Reason, string, bool) {
	_, wellFormed := prefixOf(v.Record.Text)
	return ReasonValueMalformed, "the Secret's value is not an API key", !wellFormed && !v.Record.Intact()
}

// notAccepted is violated by a key whose format this Headscale refuses.
func notAccepted(v View) (rotation.Reason, string, bool) {
	key := v.Stored()
	return ReasonKeyNotAccepted, fmt.Sprintf("this Headscale does not accept keys of the format of %s any more", key.ID),
		key.Facts.Masked && len(key.ID) == retiredPrefixLength
}
