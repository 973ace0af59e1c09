package headscale

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
)

// session is a connection to Headscale with its transport, for one call at a time.
type session struct {
	conn     net.Conn
	received *traffic
	// dialled counts how often the transport asked for a connection. It gets the one there
	// is, and no second: what listens by then may be another Headscale, of another transport.
	dialled atomic.Int32

	grpc *grpcConn // either
	http *httpConn // or
}

// errEnded says that the connection of a session ended.
var errEnded = fmt.Errorf("%w: the connection ended", ErrUnavailable)

// newSession speaks a transport on a connection, which it then owns.
func newSession(conn net.Conn, transport Transport, token Key, keep bool) (*session, error) {
	s := &session{received: &traffic{}}
	s.conn = &countedConn{Conn: conn, traffic: s.received}
	if transport == TransportHTTP {
		s.http = newHTTPConn(s.dial, token, keep)
		return s, nil
	}
	var err error
	if s.grpc, err = newGRPCConn(s.dial, token); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// dial is the Dialer of the transport.
func (s *session) dial(context.Context) (net.Conn, error) {
	if s.dialled.Add(1) > 1 {
		return nil, errEnded
	}
	return s.conn, nil
}

// ended reports whether the connection had ended before a call could be sent on it: the
// transport asked for another.
func (s *session) ended() bool { return s.dialled.Load() > 1 }

// close ends the connection, also where the transport never used it.
func (s *session) close() {
	if s.grpc != nil {
		s.grpc.close()
	} else {
		s.http.close()
	}
	_ = s.conn.Close() // says only that it was closed before
}

// ask calls a method, and bounds what comes back.
func ask[Answer any](ctx context.Context, s *session, m method[Answer]) (answer Answer, err error) {
	limit := cmp.Or(m.limit, answerLimit)
	s.received.begin(limit)
	if s.grpc != nil {
		s.grpc.limit = limit
		answer, err = m.grpc(withoutDeadline{ctx}, s.grpc)
	} else {
		s.http.limit = limit
		answer, err = m.http(ctx, s.http)
	}
	if err != nil && s.received.exhausted() {
		err = tooLongError(limit)
	}
	return answer, err
}

// dialAndProbe connects and detects the transport: from TLS if it negotiated one, or else with a
// connection of its own.
func dialAndProbe(ctx context.Context, dial Dialer) (net.Conn, Transport, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, TransportUnknown, err
	}
	if transport := negotiated(conn); transport != TransportUnknown {
		return conn, transport, nil
	}
	transport, err := probe(ctx, conn)
	if err != nil {
		return nil, TransportUnknown, err
	}
	conn, err = dial(ctx)
	return conn, transport, err
}

// negotiated returns the transport that TLS agreed on (RFC 7301), or TransportUnknown.
func negotiated(conn net.Conn) Transport {
	secured, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return TransportUnknown
	}
	switch secured.ConnectionState().NegotiatedProtocol {
	case protocolHTTP2:
		return TransportGRPC
	case protocolHTTP1:
		return TransportHTTP
	default:
		return TransportUnknown
	}
}

// bearer is how a key is sent.
func bearer(token Key) string { return "Bearer " + token.Reveal() }
