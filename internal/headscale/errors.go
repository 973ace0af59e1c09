package headscale

import (
	"errors"
	"fmt"

	"infrado.cloud/headscale-operator/internal/redact"
)

var (
	// ErrNotFound says that Headscale does not know the API key.
	ErrNotFound = errors.New("API key not known to Headscale")

	// ErrUnavailable says that Headscale could not be reached, or did not answer
	// in time, or was cut off in the middle. Whether it did what it was asked for
	// is then not known. An error that Headscale answered with does not wrap it.
	ErrUnavailable = errors.New("no answer from Headscale")

	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("the client of Headscale is closed")
)

// foreignTextLimit is how many bytes of a message from outside an error may carry, with the
// ellipsis of one that was cut.
const foreignTextLimit = 512 + len("…")

// unavailable makes an error that wraps ErrUnavailable. It carries the text of its
// cause and not the cause itself, so that nothing which the other side sent can be
// unwrapped from it.
func unavailable(cause string) error {
	return fmt.Errorf("%w: %s", ErrUnavailable, foreignText(cause))
}

// foreignText makes text from outside fit for an error: without keys, on one line
// and not too long.
func foreignText(text string) string {
	return redact.Line(Redact(text), foreignTextLimit)
}
