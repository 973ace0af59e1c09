package headscale

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"time"
)

// Transport is the protocol of Headscale's admin API.
type Transport int32

const (
	// TransportUnknown is the transport before the first call.
	TransportUnknown Transport = iota
	// TransportGRPC is spoken by Headscale up to 0.29.
	TransportGRPC
	// TransportHTTP is spoken by Headscale from 0.30 on: HTTP/1.1 with JSON.
	TransportHTTP
)

// String returns "gRPC", "HTTP" or "unknown".
func (t Transport) String() string {
	switch t {
	case TransportGRPC:
		return "gRPC"
	case TransportHTTP:
		return "HTTP"
	default:
		return "unknown"
	}
}

// ProbeUserAgent is the User-Agent of the request with which a Client detects the transport. It explains the request in Headscale's log.
const ProbeUserAgent = "headscale-operator (transport probe)"

const probeRequest = "GET " + apiKeysPath + " HTTP/1.1\r\n" +
	"Host: " + httpHost + "\r\n" +
	"User-Agent: " + ProbeUserAgent + "\r\n" +
	"Connection: close\r\n\r\n"

// frameHeaderLength is the number of bytes of an HTTP/2 frame's header (RFC 9113,
// section 4.1). The beginning of an HTTP/1 status line is no shorter.
const frameHeaderLength = 9

// probe detects the transport from the first bytes of the answer to an HTTP/1.1 request that
// changes nothing. A gRPC server greets with its HTTP/2
// settings and hangs up; an HTTP server answers, no matter with which status. The connection
// is of no use afterwards, and closed.
func probe(ctx context.Context, conn net.Conn) (Transport, error) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	if _, err := conn.Write([]byte(probeRequest)); err != nil {
		return TransportUnknown, unavailable(err.Error())
	}
	head, err := bufio.NewReader(conn).Peek(frameHeaderLength)
	if err != nil {
		return TransportUnknown, unavailable("the connection ended before an answer: " + err.Error())
	}
	return recognise(head)
}

// recognise returns the protocol by the first frameHeaderLength bytes that a server
// sent.
func recognise(head []byte) (Transport, error) {
	switch {
	case bytes.HasPrefix(head, []byte("HTTP/1.")):
		return TransportHTTP, nil
	case isSettingsFrame(head):
		return TransportGRPC, nil
	default:
		return TransportUnknown, unavailable(
			"what listens on the socket speaks neither gRPC nor HTTP/1.1; is it Headscale's unix_socket?")
	}
}

// isSettingsFrame says whether head is the header of the frame with which an HTTP/2
// server begins (RFC 9113, sections 3.4 and 6.5): settings, not an acknowledgement,
// of stream 0, each setting being six bytes.
func isSettingsFrame(head []byte) bool {
	const typeSettings = 4
	length := uint32(head[0])<<16 | uint32(head[1])<<8 | uint32(head[2])
	kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
	return kind == typeSettings && flags == 0 && stream == 0 && length%6 == 0
}
