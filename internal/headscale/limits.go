package headscale

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// What an answer may be. A Headscale that was taken over can send whatever it likes, and
// the API Key Manager next to it has 64 MiB: docs/key-lifecycle.md.
const (
	// answerLimit is how many bytes an answer may have: a list of more than 10 000 API keys.
	answerLimit = 2 << 20
	// entryLimit is how many entries a list may have. An empty one takes two bytes on the
	// way and a hundred in memory, so the bytes alone are no bound.
	entryLimit = 20_000
	// policyLimit is how many bytes a policy may have: gRPC takes no message of more than
	// 4 MiB, and so no Headscale that speaks it.
	policyLimit = 4<<20 - 1<<10
	// largeAnswerLimit is the same of an answer that only the operator asks for: a policy, of which
	// JSON escapes quotes and line breaks, or a list of 10 000 nodes or 20 000 pre-auth keys,
	// or of users, each of whom may have 4 KiB of texts.
	largeAnswerLimit = 8 << 20
	// trafficShare is what the transport adds to an answer, as a part of it: an eighth. gRPC
	// keeps some hundred bytes for each frame, of which the smallest takes ten on the way.
	trafficShare = 8
	// problemLimit is how many bytes the explanation of a refusal may have over HTTP.
	problemLimit = 64 << 10
	// headerLimit is how many bytes the headers and the trailers of an answer may have.
	headerLimit = 16 << 10
	// bufferSize is that of a connection's buffers, in bytes. gRPC's own are eight times as
	// large, for traffic that there is none of here.
	bufferSize = 4 << 10
	// windowSize is how many bytes of an answer may be on their way over gRPC: HTTP/2's
	// initial window, which then does not grow.
	windowSize = 64<<10 - 1

	// keyLimit is how many bytes a key may have. Those of today's releases have at most 87.
	keyLimit = 256
	// prefixLimit is how many bytes the prefix of a listed key may have, without its mask.
	prefixLimit = 64
)

var (
	errTooMany   = fmt.Errorf("the answer of Headscale has more than %d entries", entryLimit)
	errExhausted = errors.New("the call received too much")
	errNoMessage = errors.New("the answer of Headscale is not the message that was expected")
	errNoKey     = errors.New("the answer of Headscale holds no key")
	errBadKey    = fmt.Errorf("the answer of Headscale is not an API key: one has at most %d characters, which are letters, digits, '.', '-' and '_'", keyLimit)
)

// tooLongError says that an answer has more bytes than its own number.
type tooLongError int

// Error names the limit in MiB.
func (e tooLongError) Error() string {
	return fmt.Sprintf("the answer of Headscale is longer than %d MiB", e>>20)
}

// tooMuch reports whether an error says that an answer is larger than there may be.
func tooMuch(err error) bool {
	var tooLong tooLongError
	return errors.As(err, &tooLong) || errors.Is(err, errTooMany)
}

// traffic bounds what a call may receive over its connection.
type traffic struct{ left atomic.Int64 }

// begin lets a call receive an answer of so many bytes.
func (t *traffic) begin(limit int) { t.left.Store(int64(limit + limit/trafficShare)) }

// exhausted reports whether the call was cut off because it received too much.
func (t *traffic) exhausted() bool { return t.left.Load() <= 0 }

// countedConn is a connection that ends when its call has received too much.
type countedConn struct {
	net.Conn
	*traffic
}

// Read is that of net.Conn.
func (c *countedConn) Read(buffer []byte) (int, error) {
	if c.exhausted() {
		return 0, errExhausted
	}
	n, err := c.Conn.Read(buffer)
	c.left.Add(-int64(n))
	return n, err
}

// checkKey returns an error for what no release of Headscale can have created.
func checkKey(text string) error {
	switch {
	case text == "":
		return errNoKey
	case len(text) > keyLimit, !isURLSafe(strings.ReplaceAll(text, ".", "")):
		return errBadKey
	default:
		return nil
	}
}

// validPrefix reports whether a prefix, without its mask, may come from a Headscale.
func validPrefix(prefix string) bool {
	return prefix != "" && len(prefix) <= prefixLimit && isURLSafe(prefix)
}

// validTime reports whether a time may come from a Headscale: RFC 3339 has four digits for
// the year.
func validTime(instant time.Time) bool {
	year := instant.UTC().Year()
	return 1 <= year && year <= 9999
}

// validOrNil returns a time in UTC, or nil for one that no Headscale has.
func validOrNil(instant *time.Time) *time.Time {
	if instant == nil || !validTime(*instant) {
		return nil
	}
	utc := instant.UTC()
	return &utc
}

// knownTime is validOrNil with the zero time in the place of nil.
func knownTime(instant *time.Time) time.Time {
	if valid := validOrNil(instant); valid != nil {
		return *valid
	}
	return time.Time{}
}

// boundedCodec is gRPC's codec for protobuf, for one answer with no more than entryLimit
// entries.
type boundedCodec struct {
	encoding.CodecV2
	// failed is why the answer could not be decoded, which gRPC puts into words of its own.
	failed error
}

// Unmarshal decodes a message of which the entries were counted before.
func (c *boundedCodec) Unmarshal(data mem.BufferSlice, message any) error {
	content := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer content.Free()
	c.failed = unmarshal(content.ReadOnlyData(), message)
	return c.failed
}

// unmarshal decodes a message and drops what it does not know of it, but for nodes.
func unmarshal(content []byte, message any) error {
	if err := countEntries(content); err != nil {
		return err
	}
	decoded, ok := message.(proto.Message)
	_, tagged := message.(*v1.ListNodesResponse) // with tags in fields of older releases
	if !ok || (proto.UnmarshalOptions{DiscardUnknown: !tagged}).Unmarshal(content, decoded) != nil {
		return errNoMessage
	}
	return nil
}

// countEntries returns an error if a message has too many fields at its top level.
func countEntries(message []byte) error {
	for entries := 1; len(message) > 0; entries++ {
		_, _, length := protowire.ConsumeField(message)
		switch {
		case length < 0:
			return errNoMessage
		case entries > entryLimit:
			return errTooMany
		}
		message = message[length:]
	}
	return nil
}
