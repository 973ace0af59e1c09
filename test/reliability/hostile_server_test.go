package reliability_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

// trick is what a Headscale that was taken over does to a manager.
type trick struct {
	name string
	// on is the operation that it is played on, empty for the probe.
	on headscaletest.Operation
	// grpc says that the transport is gRPC, else it is HTTP.
	grpc bool
	// play writes to a connection until the other side hangs up.
	play func(c *victim)
}

// hostileServer listens where Headscale should, and plays one trick at a time. Without one it
// passes everything on to a Headscale.
type hostileServer struct {
	path, headscale string

	mu     sync.Mutex
	socket net.Listener
	trick  *trick
	hits   int
	over   chan struct{} // closed when the trick is
}

// set plays another trick, nil for none, on a new socket, by which the manager notices.
func (s *hostileServer) set(t *trick) {
	s.stop()
	_ = os.Remove(s.path)
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	Expect(err).NotTo(HaveOccurred())
	over := make(chan struct{})
	s.mu.Lock()
	s.socket, s.trick, s.hits, s.over = socket, t, 0, over
	s.mu.Unlock()
	go func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			go s.serve(conn, t, over)
		}
	}()
}

func (s *hostileServer) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket != nil {
		_ = s.socket.Close()
		close(s.over)
		s.socket = nil
	}
}

// struck is how often the trick was played.
func (s *hostileServer) struck() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits
}

func (s *hostileServer) hit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hits++
}

// serve answers a connection, which is cut when the trick is over.
func (s *hostileServer) serve(conn net.Conn, t *trick, over <-chan struct{}) {
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-over:
		case <-ended:
		}
		_ = conn.Close()
	}()
	if t == nil {
		s.pass(conn, nil)
		return
	}
	v := &victim{Conn: conn, reader: bufio.NewReader(conn), over: over}
	head, err := v.reader.Peek(len(http2.ClientPreface))
	switch {
	case err != nil:
	case string(head) == http2.ClientPreface:
		s.serveGRPC(v, t)
	default:
		s.serveHTTP(v, t)
	}
}

func (s *hostileServer) serveHTTP(v *victim, t *trick) {
	var head bytes.Buffer
	for !bytes.HasSuffix(head.Bytes(), []byte("\r\n\r\n")) {
		line, err := v.reader.ReadBytes('\n')
		if err != nil {
			return
		}
		head.Write(line)
	}
	probe := strings.Contains(head.String(), headscale.ProbeUserAgent)
	operation := headscaletest.List
	switch {
	case strings.HasPrefix(head.String(), "POST /api/v1/apikey/expire"):
		operation = headscaletest.Expire
	case strings.HasPrefix(head.String(), "POST"):
		operation = headscaletest.Create
	}
	switch {
	case probe && t.on != "" && t.grpc:
		_, _ = v.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	case !probe && t.grpc: // The probe met the trick before, over HTTP.
	case probe && t.on == "", !probe && operation == t.on:
		s.hit()
		t.play(v)
	default:
		s.pass(v, head.Bytes())
	}
}

// pass passes a connection on to Headscale, of which the beginning was read.
func (s *hostileServer) pass(conn net.Conn, head []byte) {
	server, err := new(net.Dialer).DialContext(context.Background(), "unix", s.headscale)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	_, _ = server.Write(head)
	from := io.Reader(conn)
	if v, ok := conn.(*victim); ok {
		from = v.reader
	}
	go func() { _, _ = io.Copy(server, from) }()
	_, _ = io.Copy(conn, server)
}

// serveGRPC plays the trick on its operation. All else gets an empty message: the list has no
// keys then, so that one is created.
func (s *hostileServer) serveGRPC(v *victim, t *trick) {
	_, _ = v.reader.Discard(len(http2.ClientPreface))
	v.framer = http2.NewFramer(v.Conn, v.reader)
	v.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = v.framer.WriteSettings()
	for {
		frame, err := v.framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = v.framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			go func() { _, _ = io.Copy(io.Discard, v.reader) }()
			methods := map[headscaletest.Operation]string{
				headscaletest.List: "ListApiKeys", headscaletest.Create: "CreateApiKey", headscaletest.Expire: "ExpireApiKey",
			}
			if strings.HasSuffix(frame.PseudoValue("path"), methods[t.on]) {
				s.hit()
				t.play(v)
				return
			}
			v.headers()
			v.message(nil)
			v.trailers("grpc-status", "0")
			return
		}
	}
}

// victim is the manager's connection.
type victim struct {
	net.Conn
	reader *bufio.Reader
	over   <-chan struct{}
	framer *http2.Framer
}

// forever repeats what succeeds until the trick is over.
func (v *victim) forever(pause time.Duration, do func() error) {
	for do() == nil {
		select {
		case <-v.over:
			return
		case <-time.After(pause):
		}
	}
}

// flood sends the same again and again.
func (v *victim) flood(head, again string) {
	_, _ = io.WriteString(v, head)
	block := []byte(strings.Repeat(again, 1+(32<<10)/len(again)))
	for err := error(nil); err == nil; {
		_, err = v.Write(block)
	}
}

// say answers over HTTP.
func (v *victim) say(status, header, body string) {
	_, _ = io.WriteString(v, "HTTP/1.1 "+status+"\r\nContent-Type: application/json\r\n"+header+"\r\n"+body)
}

// headers begins an answer over gRPC, with more fields.
func (v *victim) headers(fields ...string) {
	_ = v.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, EndHeaders: true,
		BlockFragment: block(append([]string{":status", "200", "content-type", "application/grpc"}, fields...)),
	})
}

// trailers ends an answer over gRPC.
func (v *victim) trailers(fields ...string) {
	_ = v.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: block(fields)})
}

func block(fields []string) []byte {
	var buffer bytes.Buffer
	encoder := hpack.NewEncoder(&buffer)
	for field := range slices.Chunk(fields, 2) {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	return buffer.Bytes()
}

// message sends a message over gRPC in large frames, heedless of the window.
func (v *victim) message(content []byte) {
	v.announce(uint32(len(content)))
	for piece := range slices.Chunk(content, 16<<10) {
		if v.framer.WriteData(1, false, piece) != nil {
			return
		}
	}
}

// announce sends the beginning of a message that has so many bytes.
func (v *victim) announce(length uint32) {
	_ = v.framer.WriteData(1, false, binary.BigEndian.AppendUint32([]byte{0}, length))
}
