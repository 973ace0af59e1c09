package headscale

import (
	"errors"
	"fmt"
	"strings"

	"infrado.cloud/headscale-operator/internal/redact"
)

var (
	// ErrNotFound says that Headscale does not know the API key.
	ErrNotFound = errors.New("API key not known to Headscale")

	// ErrUnavailable says that Headscale could not be reached, or did not answer
	// in time, or was cut off in the middle. It is then unknown whether it executed the call. An error that Headscale answered with does not wrap it.
	ErrUnavailable = errors.New("no answer from Headscale")

	// ErrRefused says that Headscale answered with an error, which is a *Refusal.
	ErrRefused = errors.New("Headscale refused") //nolint:staticcheck // a name

	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("the client of Headscale is closed")

	// ErrUnauthorized says that the bearer token was refused.
	ErrUnauthorized = errors.New("the API key was refused")

	// ErrUnsupported says that this release of Headscale lacks the call, or an option of it.
	ErrUnsupported = errors.New("this release of Headscale cannot do this")

	// ErrUserNotFound says that Headscale has no user of the id.
	ErrUserNotFound = errors.New("user not known to Headscale")

	// ErrUserExists says that another user has the name.
	ErrUserExists = errors.New("another user has this name")

	// ErrUserHasNodes says that a user was not deleted because nodes belong to it.
	ErrUserHasNodes = errors.New("the user still has nodes")

	// ErrPreAuthKeyNotFound says that Headscale does not know the pre-auth key. From 0.28
	// to 0.29 it does not say so of a key that is to expire.
	ErrPreAuthKeyNotFound = errors.New("pre-auth key not known to Headscale")

	// ErrNodeNotFound says that Headscale has no node of the id.
	ErrNodeNotFound = errors.New("node not known to Headscale")

	// ErrNoPolicy says that Headscale's database holds no policy.
	ErrNoPolicy = errors.New("no policy was set")

	// ErrPolicyMode says that Headscale reads its policy from a file, and so does not accept one
	// over its API.
	ErrPolicyMode = errors.New("Headscale's policy.mode is not database") //nolint:staticcheck // a name

	// ErrTooLarge says that a request is larger than Headscale accepts.
	ErrTooLarge = errors.New("the request is larger than Headscale accepts")
)

// Refusal is an error that Headscale answered with. It wraps ErrRefused, and what it is known to mean:
// ErrUnauthorized, ErrUnsupported, ErrUserNotFound and so on.
type Refusal struct {
	// Words are Headscale's own: one line, without credentials, at most 512 bytes. They may
	// be empty.
	Words string

	status string // the code or the HTTP status
	kind   error  // may be nil
}

// refusalQuote is how many bytes of Headscale's words the text of an error has. They say what is
// wrong there, and those of a Headscale that was taken over are an attacker's.
const refusalQuote = 200

// Error is Headscale's message in one sentence, with at most refusalQuote bytes of it.
func (r *Refusal) Error() string {
	text := ErrRefused.Error() + " with " + r.status
	if r.Words == "" {
		return text
	}
	return text + ": " + redact.Cut(r.Words, refusalQuote)
}

// Unwrap returns ErrRefused, and the error that the refusal is known to mean if there is one.
func (r *Refusal) Unwrap() []error {
	if r.kind == nil {
		return []error{ErrRefused}
	}
	return []error{ErrRefused, r.kind}
}

// refusalWords sanitizes Headscale's words for a Refusal.
func refusalWords(words string) string {
	words = strings.ReplaceAll(redact.Secrets(Redact(words)), redact.Mask+redact.Mask, redact.Mask)
	return redact.Line(words, foreignTextLimit)
}

// meanings maps words of Headscale to the error that they stand for. They are looked for where
// no code says, and only in the refusals of the call that they belong to.
type meanings map[string]error

// interpret lets a refusal wrap what its words are known to mean.
func (m meanings) interpret(err error) error {
	var refused *Refusal
	if !errors.As(err, &refused) || refused.kind != nil {
		return err
	}
	for words, kind := range m {
		if strings.Contains(refused.Words, words) {
			refused.kind = kind
		}
	}
	return err
}

// foreignTextLimit is how many bytes of a message from outside an error may carry, with the
// ellipsis of one that was cut.
const foreignTextLimit = 512 + len("…")

// unavailable makes an error that wraps ErrUnavailable. It carries the text of its
// cause and not the cause itself, so that nothing which the other side sent can be
// unwrapped from it.
func unavailable(cause string) error {
	return fmt.Errorf("%w: %s", ErrUnavailable, foreignText(cause))
}

// foreignText sanitizes text from outside for an error: without keys, on one line and not too long.
func foreignText(text string) string {
	return redact.Line(Redact(text), foreignTextLimit)
}
