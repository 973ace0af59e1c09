package nodetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"strings"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

// capability is the protocol version that nodes speak. Headscale v0.29 takes none
// below it.
const capability = 113

// What the handshake is made of: Noise_IK_25519_ChaChaPoly_BLAKE2s with a prologue.
const (
	noiseName     = "Noise_IK_25519_ChaChaPoly_BLAKE2s"
	noisePrologue = "Tailscale Control Protocol v%d"
)

// The types of messages, and the lengths of their headers and of the handshake's reply.
const (
	messageInit   = 1
	messageRecord = 4
	headerLength  = 3
	replyLength   = headerLength + keyLength + chacha20poly1305.Overhead
	keyLength     = 32
	// largestRecord is how long a message is at most, with its header.
	largestRecord = 4096
)

// newHash is the hash of the handshake.
func newHash() hash.Hash {
	h, err := blake2s.New256(nil)
	if err != nil {
		panic(err) // only a key that is too long
	}
	return h
}

// handshake is the state of a handshake: the hash of what was said, and the chaining key.
type handshake struct{ said, chain []byte }

func (h *handshake) mix(data []byte) {
	sum := newHash()
	sum.Write(h.said)
	sum.Write(data)
	h.said = sum.Sum(nil)
}

// agree mixes what two keys have in common into the chaining key, and returns a cipher of it.
func (h *handshake) agree(private *ecdh.PrivateKey, public *ecdh.PublicKey) (cipher.AEAD, error) {
	shared, err := private.ECDH(public)
	if err != nil {
		return nil, err
	}
	keys, err := hkdf.Key(newHash, shared, h.chain, "", 2*keyLength)
	if err != nil {
		return nil, err
	}
	h.chain = keys[:keyLength]
	return chacha20poly1305.New(keys[keyLength:])
}

// seal encrypts a part of the first message.
func (h *handshake) seal(with cipher.AEAD, text []byte) []byte {
	sealed := with.Seal(nil, make([]byte, chacha20poly1305.NonceSize), text, h.said)
	h.mix(sealed)
	return sealed
}

// opening is a handshake that has been begun, by a machine with an identity.
type opening struct {
	handshake
	identity, ephemeral *ecdh.PrivateKey
	// message is the first, which the HTTP request has.
	message []byte
}

// openTo begins a handshake of a machine with the server of a public key.
func openTo(server *ecdh.PublicKey, identity *ecdh.PrivateKey) (*opening, error) {
	ephemeral, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	name := newHash()
	name.Write([]byte(noiseName))
	o := &opening{handshake: handshake{said: name.Sum(nil), chain: name.Sum(nil)}, identity: identity, ephemeral: ephemeral}
	o.mix(fmt.Appendf(nil, noisePrologue, capability))
	o.mix(server.Bytes())
	o.mix(ephemeral.PublicKey().Bytes())
	first, err := o.agree(ephemeral, server)
	if err != nil {
		return nil, err
	}
	who := o.seal(first, identity.PublicKey().Bytes())
	second, err := o.agree(identity, server)
	if err != nil {
		return nil, err
	}
	body := bytes.Join([][]byte{ephemeral.PublicKey().Bytes(), who, o.seal(second, nil)}, nil)
	o.message = binary.BigEndian.AppendUint16(nil, capability)
	o.message = append(o.message, messageInit)
	o.message = binary.BigEndian.AppendUint16(o.message, uint16(len(body))) //nolint:gosec // three keys
	o.message = append(o.message, body...)
	return o, nil
}

// finish reads the server's reply, and returns the ciphers of what is sent and received.
func (o *opening) finish(reply []byte) (send, receive cipher.AEAD, err error) {
	theirs, err := ecdh.X25519().NewPublicKey(reply[headerLength : headerLength+keyLength])
	if err != nil {
		return nil, nil, err
	}
	o.mix(theirs.Bytes())
	if _, err = o.agree(o.ephemeral, theirs); err != nil {
		return nil, nil, err
	}
	last, err := o.agree(o.identity, theirs)
	if err != nil {
		return nil, nil, err
	}
	if _, err = last.Open(nil, make([]byte, chacha20poly1305.NonceSize), reply[headerLength+keyLength:], o.said); err != nil {
		return nil, nil, fmt.Errorf("the server's reply: %w", err)
	}
	keys, err := hkdf.Key(newHash, nil, o.chain, "", 2*keyLength)
	if err != nil {
		return nil, nil, err
	}
	send, sendErr := chacha20poly1305.New(keys[:keyLength])
	receive, receiveErr := chacha20poly1305.New(keys[keyLength:])
	return send, receive, errors.Join(sendErr, receiveErr)
}

// noiseConn encrypts what is written to a connection, and decrypts what is read.
type noiseConn struct {
	net.Conn
	buffered       *bufio.Reader
	send, receive  cipher.AEAD
	sent, received uint64
	// text was decrypted and not read yet.
	text []byte
}

// nonce is that of the message of a number.
func nonce(number uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, chacha20poly1305.NonceSize-8), number)
}

// Read reads what has been decrypted, or decrypts a message.
func (c *noiseConn) Read(into []byte) (int, error) {
	for len(c.text) == 0 {
		header := make([]byte, headerLength)
		if _, err := io.ReadFull(c.buffered, header); err != nil {
			return 0, err
		}
		body := make([]byte, binary.BigEndian.Uint16(header[1:]))
		if _, err := io.ReadFull(c.buffered, body); err != nil {
			return 0, err
		}
		if header[0] != messageRecord {
			return 0, fmt.Errorf("the server sent a message of type %d: %s", header[0], body)
		}
		var err error
		if c.text, err = c.receive.Open(nil, nonce(c.received), body, nil); err != nil {
			return 0, err
		}
		c.received++
	}
	read := copy(into, c.text)
	c.text = c.text[read:]
	return read, nil
}

// Write encrypts a text in as many messages as it takes.
func (c *noiseConn) Write(text []byte) (int, error) {
	const most = largestRecord - headerLength - chacha20poly1305.Overhead
	written := 0
	for written < len(text) {
		part := text[written:min(written+most, len(text))]
		sealed := c.send.Seal(nil, nonce(c.sent), part, nil)
		c.sent++
		message := append(binary.BigEndian.AppendUint16([]byte{messageRecord}, uint16(len(sealed))), sealed...) //nolint:gosec // no more than most
		if _, err := c.Conn.Write(message); err != nil {
			return written, err
		}
		written += len(part)
	}
	return written, nil
}

// serverKey asks a Headscale for its public key.
func serverKey(ctx context.Context, url string) (*ecdh.PublicKey, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/key?v=%d", url, capability), http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct{ PublicKey string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	raw, err := hex.DecodeString(strings.TrimPrefix(answer.PublicKey, "mkey:"))
	if err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPublicKey(raw)
}

// dialNoise connects to a Headscale as a machine with an identity, which knows the server by its
// public key. The connection has the deadline of the context.
func dialNoise(ctx context.Context, url string, server *ecdh.PublicKey, identity *ecdh.PrivateKey) (net.Conn, error) {
	o, err := openTo(server, identity)
	if err != nil {
		return nil, err
	}
	address := strings.TrimPrefix(url, "http://")
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	secured, err := upgrade(conn, address, o)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

// upgrade turns an HTTP connection into an encrypted one.
func upgrade(conn net.Conn, address string, o *opening) (net.Conn, error) {
	_, err := fmt.Fprintf(conn, "POST /ts2021 HTTP/1.1\r\nHost: %s\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"+
		"X-Tailscale-Handshake: %s\r\nContent-Length: 0\r\n\r\n", address, base64.StdEncoding.EncodeToString(o.message))
	if err != nil {
		return nil, err
	}
	buffered := bufio.NewReader(conn)
	response, err := http.ReadResponse(buffered, nil) //nolint:bodyclose // what follows is no body, but the encrypted connection
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("the server does not upgrade the connection: %s", response.Status)
	}
	reply := make([]byte, replyLength)
	if _, err := io.ReadFull(buffered, reply); err != nil {
		return nil, err
	}
	c := &noiseConn{Conn: conn, buffered: buffered}
	c.send, c.receive, err = o.finish(reply)
	if err != nil {
		return nil, err
	}
	return c, skipEarly(c)
}

// earlyMagic begins what the server sends before HTTP/2.
const earlyMagic = "\xff\xff\xffTS"

// skipEarly reads what the server sends before HTTP/2: a challenge that nobody here needs.
func skipEarly(from io.Reader) error {
	header := make([]byte, len(earlyMagic)+4)
	if _, err := io.ReadFull(from, header); err != nil {
		return err
	}
	if !bytes.HasPrefix(header, []byte(earlyMagic)) {
		return fmt.Errorf("the server began with %q", header)
	}
	_, err := io.CopyN(io.Discard, from, int64(binary.BigEndian.Uint32(header[len(earlyMagic):])))
	return err
}
