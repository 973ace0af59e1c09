package listen

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
)

// LimitConnections has a server keep at most so many connections open. One more closes the oldest
// that was not admitted (see Admit), so that who holds connections open can keep nobody out; where
// all were admitted, the new one is closed.
func LimitConnections(server *http.Server, most int) {
	open := &connections{most: most}
	server.ConnContext, server.ConnState = open.context, open.changed
}

// Admit exempts the connection of a request from being closed for the sake of another one.
func Admit(r *http.Request) {
	if admit, ok := r.Context().Value(admitKey{}).(func()); ok {
		admit()
	}
}

// connections are those that a server has open, from the oldest to the newest.
type connections struct {
	most int
	mu   sync.Mutex
	open []*connection
}

// connection is one of them.
type connection struct {
	net.Conn
	admitted bool
}

// admitKey is the key of a context's function that admits its connection.
type admitKey struct{}

// context is the server's ConnContext: it is called for each connection, before anything is
// read from it.
func (c *connections) context(ctx context.Context, conn net.Conn) context.Context {
	added := &connection{Conn: conn}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = append(c.open, added)
	if len(c.open) > c.most {
		c.closeOldest()
	}
	return context.WithValue(ctx, admitKey{}, func() { c.admit(added) })
}

// closeOldest closes the oldest connection that was not admitted. There is one: the newest was not
// yet.
func (c *connections) closeOldest() {
	i := slices.IndexFunc(c.open, func(other *connection) bool { return !other.admitted })
	_ = c.open[i].Close() // says only that it was closed before
	c.open = slices.Delete(c.open, i, i+1)
}

// admit notes that a connection was admitted.
func (c *connections) admit(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.admitted = true
}

// changed is the server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	if state != http.StateClosed {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(other *connection) bool { return other.Conn == conn })
}
