package headscale

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

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
	// trafficLimit is how many bytes all connections of a call may bring: the answer and what
	// the transport adds. gRPC keeps some hundred bytes for each frame, of which the smallest
	// takes ten on the way.
	trafficLimit = answerLimit + answerLimit/8
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
	errTooLong   = fmt.Errorf("the answer of Headscale is longer than %d MiB; if these are expired API keys, delete them in Headscale", answerLimit>>20)
	errTooMany   = fmt.Errorf("the answer of Headscale has more than %d entries; if these are expired API keys, delete them in Headscale", entryLimit)
	errNoMessage = errors.New("the answer of Headscale is not the message that was expected")
	errNoKey     = errors.New("the answer of Headscale holds no key")
	errBadKey    = fmt.Errorf("the answer of Headscale is not an API key: one has at most %d characters, which are letters, digits, '.', '-' and '_'", keyLimit)
)

// traffic bounds what a call may receive, over however many connections.
type traffic struct{ left atomic.Int64 }

func newTraffic() *traffic {
	t := &traffic{}
	t.left.Store(trafficLimit)
	return t
}

// exhausted reports whether the call was cut off because it received too much.
func (t *traffic) exhausted() bool { return t.left.Load() <= 0 }

// limit returns a dialer whose connections count.
func (t *traffic) limit(dial Dialer) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: conn, traffic: t}, nil
	}
}

// countedConn is a connection that ends when its call has received too much.
type countedConn struct {
	net.Conn
	traffic *traffic
}

// Read is that of net.Conn.
func (c *countedConn) Read(buffer []byte) (int, error) {
	if c.traffic.exhausted() {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(buffer)
	c.traffic.left.Add(-int64(n))
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

// unmarshal decodes a message and drops what it does not know of it.
func unmarshal(content []byte, message any) error {
	if err := countEntries(content); err != nil {
		return err
	}
	decoded, ok := message.(proto.Message)
	if !ok || (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(content, decoded) != nil {
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
