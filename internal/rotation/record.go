package rotation

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Record is what the Secret says: the credential that it holds, and the ledger of a
// rotation in progress.
type Record struct {
	// Ours is whether the Secret carries our labels. Another's is never written to.
	Ours bool
	// Immutable is whether Kubernetes refuses every change of the Secret's data.
	Immutable bool
	// Regular is whether the Secret says all this to the letter as the Store would write
	// it. One that does not is repaired. The Store sets it when it reads.
	Regular bool

	// Text is the credential's text, nil or empty if there is none yet.
	Text Text
	// ID and Digest are what was noted about the credential when it was stored.
	ID, Digest string
	// Expiration and CreatedAt describe the credential; zero where missing or unreadable.
	Expiration, CreatedAt time.Time

	// Pending are the credentials that may still appear in the backend's list.
	Pending []PendingEntry
	// Retiring are the credentials that were replaced and not expired yet.
	Retiring []RetiringEntry

	// Requested is the last request for a rotation, Handled the last one acted upon.
	Requested, Handled string
}

// PendingEntry is a credential that the backend was asked for, or was about to be.
type PendingEntry struct {
	// Expiration is the credential's, by which it is found in the backend's list.
	Expiration time.Time
	// Written is when this entry was made.
	Written time.Time
}

// RetiringEntry is a credential that was replaced.
type RetiringEntry struct {
	// ID is the credential's, by which the backend expires it.
	ID string
	// NotBefore is when it is to be expired.
	NotBefore time.Time
}

// Intact reports whether the text is the one that was stored.
func (r Record) Intact() bool {
	return reveal(r.Text) != "" && r.Digest == DigestOf(r.Text)
}

// withPending returns the record with one more pending entry.
func (r Record) withPending(entry PendingEntry) Record {
	r.Pending = append(slices.Clone(r.Pending), entry)
	return r
}

// withCredential returns the record with a new credential in it. Its pending entry is
// dropped, and the credentials that it replaces are noted as retiring.
func (r Record) withCredential(created Created, predecessors []string, expireAt time.Time) Record {
	r.Text = created.Text
	r.ID = created.ID
	r.Digest = DigestOf(created.Text)
	r.Expiration = created.Expiration
	r.CreatedAt = created.CreatedAt
	r.Handled = r.Requested
	r.Pending = slices.DeleteFunc(slices.Clone(r.Pending), func(p PendingEntry) bool { return p.Expiration.Equal(created.Expiration) })
	r.Retiring = slices.Clone(r.Retiring)
	for _, id := range predecessors {
		if !r.retires(id) {
			r.Retiring = append(r.Retiring, RetiringEntry{ID: id, NotBefore: expireAt})
		}
	}
	return r
}

// retires reports whether a credential is noted as retiring.
func (r Record) retires(id string) bool {
	return slices.ContainsFunc(r.Retiring, func(entry RetiringEntry) bool { return entry.ID == id })
}

// DigestOf is the note by which a stored credential is distinguished from another value. A
// credential has at least 190 random bits, so nothing can be learnt from it.
func DigestOf(text Text) string {
	digest := sha256.Sum256([]byte(reveal(text)))
	return hex.EncodeToString(digest[:])
}

// ParsePending reads what FormatPending wrote. What cannot be read is left out.
func ParsePending(text string) []PendingEntry {
	var entries []PendingEntry
	for first, written := range v1beta1.LedgerEntries(text) {
		if expiration := ParseTime(first); !expiration.IsZero() {
			entries = append(entries, PendingEntry{Expiration: expiration, Written: written})
		}
	}
	return entries
}

// FormatPending writes entries as text, empty if there are none.
func FormatPending(entries []PendingEntry) string {
	texts := make([]string, len(entries))
	for i, entry := range entries {
		texts[i] = FormatTime(entry.Expiration) + v1beta1.LedgerPairSeparator + FormatTime(entry.Written)
	}
	return strings.Join(texts, v1beta1.LedgerSeparator)
}

// ParseRetiring reads what FormatRetiring wrote. What cannot be read is left out.
func ParseRetiring(text string) []RetiringEntry {
	var entries []RetiringEntry
	for id, notBefore := range v1beta1.LedgerEntries(text) {
		entries = append(entries, RetiringEntry{ID: id, NotBefore: notBefore})
	}
	return entries
}

// FormatRetiring writes entries as text, empty if there are none.
func FormatRetiring(entries []RetiringEntry) string {
	texts := make([]string, len(entries))
	for i, entry := range entries {
		texts[i] = entry.ID + v1beta1.LedgerPairSeparator + FormatTime(entry.NotBefore)
	}
	return strings.Join(texts, v1beta1.LedgerSeparator)
}

// ParseTime reads what FormatTime wrote, the zero time if it cannot be read.
func ParseTime(text string) time.Time {
	instant, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return instant.UTC()
}

// FormatTime writes a time to the nanosecond, nothing for the zero time.
func FormatTime(instant time.Time) string {
	if instant.IsZero() {
		return ""
	}
	return instant.UTC().Format(time.RFC3339Nano)
}

// ShowTime writes a time to the second, for a message.
func ShowTime(instant time.Time) string { return FormatTime(instant.Truncate(time.Second)) }
