package headscale

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
)

// The protocols that are negotiated by TLS (RFC 7301). The admin endpoint prefers that which
// Headscale behind it speaks.
const (
	protocolHTTP2 = "h2"
	protocolHTTP1 = "http/1.1"
)

// ErrPinMismatch says that the server has another certificate than expected, such as another pod or
// a restarted sidecar. It wraps ErrUnavailable: nothing was sent, not even the key.
var ErrPinMismatch = fmt.Errorf("%w: the certificate of the admin endpoint is not the expected one", ErrUnavailable)

// Pin identifies a certificate by its public key: the SHA-256 of the SubjectPublicKeyInfo, in
// DER (RFC 5280, section 4.1).
type Pin [sha256.Size]byte

// PinOf returns the pin of a certificate.
func PinOf(certificate *x509.Certificate) Pin {
	return sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
}

// ParsePin reads a pin as String writes it.
func ParsePin(text string) (pin Pin, err error) {
	decoded, err := hex.DecodeString(text)
	if err != nil || len(decoded) != len(pin) || hex.EncodeToString(decoded) != text {
		return Pin{}, fmt.Errorf("a pin has %d lower-case hexadecimal digits, the SHA-256 of a public key", 2*len(pin))
	}
	return Pin(decoded), nil
}

// String returns the pin in lower-case hexadecimal digits.
func (p Pin) String() string { return hex.EncodeToString(p[:]) }

// AdminEndpoint dials the admin endpoint of an API Key Manager, at a host and port, over
// TLS 1.3. Only the pin authenticates the server: names, dates and certificate authorities are
// ignored. Its errors wrap ErrUnavailable.
func AdminEndpoint(address string, pin Pin) Dialer {
	return AdminEndpointBehind(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}, pin)
}

// AdminEndpointBehind is AdminEndpoint over the connections of a function, such as those to a
// forwarded port.
func AdminEndpointBehind(connect func(ctx context.Context) (net.Conn, error), pin Pin) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		secured := tls.Client(conn, endpointConfig(pin))
		switch err = secured.HandshakeContext(ctx); {
		case err == nil:
			return secured, nil
		case errors.Is(err, ErrPinMismatch):
			err = ErrPinMismatch
		default:
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		_ = conn.Close() // nothing was sent
		return nil, err
	}
}

func endpointConfig(pin Pin) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{protocolHTTP2, protocolHTTP1},
		InsecureSkipVerify: true, //nolint:gosec // The pin takes its place.
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 || PinOf(state.PeerCertificates[0]) != pin {
				return ErrPinMismatch
			}
			return nil
		},
	}
}
