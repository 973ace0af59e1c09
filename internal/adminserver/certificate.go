package adminserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"
)

// ServerName is the name in the certificate, the same for every Headscale: a client recognises
// the endpoint by the certificate's public key and by nothing else.
const ServerName = "admin.headscale.infrado.cloud"

// validity is how long a certificate says that it is valid. One is made at each start and is
// gone with it, so that is longer than any program runs.
const validity = 10 * 365 * 24 * time.Hour

// clockSkew is by how much a client's clock may be behind.
const clockSkew = time.Hour

// Certificate is the endpoint's certificate: self-signed, created at each start, and kept only in
// memory.
type Certificate struct {
	pair tls.Certificate
	pin  string
}

// NewCertificate creates a certificate (ECDSA, P-256) that is valid from now on.
func NewCertificate(now time.Time) (Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Certificate{}, fmt.Errorf("creating a private key for the admin endpoint: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: ServerName},
		DNSNames:     []string{ServerName},
		NotBefore:    now.Add(-clockSkew), NotAfter: now.Add(validity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Certificate{}, fmt.Errorf("creating a certificate for the admin endpoint: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return Certificate{}, fmt.Errorf("reading the certificate of the admin endpoint: %w", err)
	}
	digest := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return Certificate{pair: pair, pin: hex.EncodeToString(digest[:])}, nil
}

// Pin identifies the certificate: the SHA-256 digest of its public key (SubjectPublicKeyInfo,
// DER) in lower-case hexadecimal.
func (c Certificate) Pin() string { return c.pin }

// config is what the server offers to a client. The protocol comes first that the Headscale
// behind it speaks, for the client takes what is negotiated for its transport.
func (c Certificate) config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{c.pair},
		NextProtos:             protocols,
		SessionTicketsDisabled: true, // a handshake costs less than what tickets would need
	}
}
