package listen

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// serve serves with at most two connections, for one test. A request for /admitted admits its
// connection. The channel has an entry for each connection that ended.
func serve(t *testing.T) (*httptest.Server, <-chan struct{}) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/admitted" {
			Admit(r)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	LimitConnections(server.Config, 2)
	ended, changed := make(chan struct{}, 10), server.Config.ConnState
	server.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		changed(conn, state)
		if state == http.StateClosed {
			ended <- struct{}{}
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	return server, ended
}

// client is a connection to a server, which is open until the server closes it.
type client struct {
	net.Conn
	g *WithT
}

// dial opens a connection.
func dial(t *testing.T, server *httptest.Server) client {
	g := NewWithT(t)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = conn.Close() })
	g.Expect(conn.SetDeadline(time.Now().Add(10 * time.Second))).To(Succeed())
	return client{conn, g}
}

// connect opens a connection, and asks for a path.
func connect(t *testing.T, server *httptest.Server, path string) client {
	c := dial(t, server)
	c.get(path)
	return c
}

// get asks for a path, and expects an answer.
func (c client) get(path string) {
	_, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: test\r\n\r\n")
	c.g.Expect(err).NotTo(HaveOccurred())
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	c.g.Expect(err).NotTo(HaveOccurred())
	c.g.Expect(response.Body.Close()).To(Succeed())
	c.g.Expect(response.StatusCode).To(Equal(http.StatusNoContent))
}

// isClosed expects that the server closed the connection.
func (c client) isClosed() {
	_, err := c.Read(make([]byte, 1))
	c.g.Expect(err).To(HaveOccurred())
	c.g.Expect(err).NotTo(MatchError(os.ErrDeadlineExceeded))
}

func TestTheOldestConnectionIsClosed(t *testing.T) {
	server, _ := serve(t)
	oldest, older := connect(t, server, "/"), connect(t, server, "/")
	newest := connect(t, server, "/")
	oldest.isClosed()
	older.get("/")
	newest.get("/")
}

func TestAnAdmittedConnectionIsKept(t *testing.T) {
	server, _ := serve(t)
	oldest, older := connect(t, server, "/admitted"), connect(t, server, "/")
	newest := connect(t, server, "/admitted")
	older.isClosed()
	dial(t, server).isClosed()
	oldest.get("/")
	newest.get("/")
}

func TestAConnectionThatEndedMakesRoom(t *testing.T) {
	server, ended := serve(t)
	oldest, older := connect(t, server, "/"), connect(t, server, "/")
	NewWithT(t).Expect(older.Close()).To(Succeed())
	<-ended
	newest := connect(t, server, "/")
	oldest.get("/")
	newest.get("/")
}
