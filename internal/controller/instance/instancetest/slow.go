package instancetest

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// slowDial is how long it takes to connect to a Headscale that is slow. A call connects twice.
const slowDial = 600 * time.Millisecond

// Slowly dials, after a while. It counts the connections.
func Slowly(dial headscale.Dialer, connections *atomic.Int32) headscale.Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		connections.Add(1)
		timer := time.NewTimer(slowDial)
		defer timer.Stop()
		select {
		case <-timer.C:
			return dial(ctx)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
