package rotation

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Tag marks a credential as one of ours. Headscale's credentials carry no label, but Headscale
// keeps the expiration it is given to the microsecond. So the microseconds of the expiration are
// the label: the same for every credential of one owner, different for another. The tag identifies
// a credential that is in no ledger, because the Secret was deleted or an older database of
// Headscale was restored.
type Tag struct {
	fraction time.Duration
	// former is the fraction of the credentials of an earlier version, zero if there is none.
	former time.Duration
}

// NewTag returns the tag of the credentials that belong to one owner: whatever the text
// identifies. It is never a whole number of milliseconds, as other programs' expirations
// often are.
func NewTag(owner string) Tag {
	digest := sha256.Sum256([]byte(owner))
	number := binary.BigEndian.Uint64(digest[:8])
	milliseconds := number % 1000
	microseconds := 1 + number/1000%999
	return Tag{fraction: time.Duration(milliseconds)*time.Millisecond + time.Duration(microseconds)*time.Microsecond}
}

// After returns the tag for an owner whose earlier credentials carry the former tag.
func (t Tag) After(former Tag) Tag { return Tag{fraction: t.fraction, former: former.fraction} }

// Owns reports whether a credential with this expiration carries the tag.
func (t Tag) Owns(expiration time.Time) bool { return carries(expiration, t.fraction) }

// OwnedBefore reports whether a credential with this expiration carries the former tag.
func (t Tag) OwnedBefore(expiration time.Time) bool {
	return t.former != 0 && carries(expiration, t.former)
}

func carries(expiration time.Time, fraction time.Duration) bool {
	return !expiration.IsZero() && time.Duration(expiration.Nanosecond()) == fraction
}

// Fraction is the tag as a fraction of a second.
func (t Tag) Fraction() time.Duration { return t.fraction }

// Expiration returns the first tagged instant that is not before the one given.
func (t Tag) Expiration(notBefore time.Time) time.Time {
	tagged := notBefore.UTC().Truncate(time.Second).Add(t.fraction)
	if tagged.Before(notBefore) {
		tagged = tagged.Add(time.Second)
	}
	return tagged
}
