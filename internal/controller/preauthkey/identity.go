package preauthkey

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// The text of a key from Headscale 0.28 on: "hskey-auth-<12>-<64>", and "hskey-auth-<12>-***" in lists.
const (
	keyIntro     = "hskey-auth-"
	publicLength = 12
)

// digestLength is how many characters of its digest stand for a key up to 0.27, whose text has no
// public part.
const digestLength = 16

// idOf is what a key is known by: the public part of its text. Headscale's own number does not do:
// it is given out again after a restore of an older database.
func idOf(text headscale.Key) string {
	if rest, current := strings.CutPrefix(text.Reveal(), keyIntro); current && len(rest) > publicLength && rest[publicLength] == '-' {
		return rest[:publicLength]
	}
	if text.IsZero() {
		return ""
	}
	digest := sha256.Sum256([]byte(text.Reveal()))
	return "sha256-" + hex.EncodeToString(digest[:])[:digestLength]
}

// idOfText is idOf for the rotation.
func idOfText(text rotation.Text) (string, bool) {
	key, _ := text.(headscale.Key)
	return idOf(key), !key.IsZero()
}

// credential is one of Headscale's keys.
type credential = rotation.Credential[headscale.PreAuthKey]

// credentialOf is a key in Headscale's list.
func credentialOf(key *headscale.PreAuthKey) credential {
	return credential{ID: idOf(key.Key), Expiration: timeOf(key.Expiration), CreatedAt: timeOf(key.CreatedAt), Facts: *key}
}

// timeOf is a time, zero where there is none.
func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// firstTag and secondTag mark the keys of an object. There are a million tags, so of a thousand
// objects of one Headscale two may well have the same first one.
func firstTag(key *v1beta1.HeadscalePreAuthKey) rotation.Tag {
	return rotation.NewTag("pre-auth-key/" + key.Namespace + "/" + key.Name)
}
func secondTag(key *v1beta1.HeadscalePreAuthKey) rotation.Tag {
	return rotation.NewTag("pre-auth-key/" + key.Namespace + "/" + key.Name + "/" + string(key.UID))
}

// tagOf is the tag of an object, given all of its Headscale that have the same first one: the oldest
// of them has that, and the others their second. Who becomes the oldest still has a key with its
// second, which nobody else has.
func tagOf(key *v1beta1.HeadscalePreAuthKey, same []*v1beta1.HeadscalePreAuthKey) rotation.Tag {
	for _, other := range same {
		if other.UID != key.UID && isOlder(other, key) {
			return secondTag(key)
		}
	}
	return firstTag(key).After(secondTag(key))
}

// isOlder reports whether an object was created before another one.
func isOlder(a, b *v1beta1.HeadscalePreAuthKey) bool {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c < 0
	}
	return keyOf(a).String() < keyOf(b).String()
}
