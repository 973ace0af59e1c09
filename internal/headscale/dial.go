package headscale

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// Dialer connects to Headscale's admin API. Whatever the connection passes through, it
// carries the same bytes as Headscale's own socket: gRPC or HTTP/1.1 in clear text. An
// error that says that nobody was reached wraps ErrUnavailable, and the cause if a caller
// is to know it.
type Dialer func(ctx context.Context) (net.Conn, error)

// UnixSocket dials the Unix socket at the path. Its errors wrap ErrUnavailable and
// those of the system, such as fs.ErrNotExist.
func UnixSocket(path string) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		if path == "" {
			return nil, errors.New("the path of Headscale's socket is empty")
		}
		name := path
		if strings.HasPrefix(name, "@") {
			name = "./" + name // a file, and not a name in Linux's abstract namespace
		}
		conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return conn, nil
	}
}
