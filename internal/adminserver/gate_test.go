package adminserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// TestAwayInTheLog has no more than a line a minute say that Headscale is away, and no secret in it.
func TestAwayInTheLog(t *testing.T) {
	g := NewWithT(t)
	log := &buffer{}
	now := time.Unix(1000, 0)
	var behind http.HandlerFunc = func(http.ResponseWriter, *http.Request) {}
	server := httptest.NewServer(behind)
	defer server.Close()
	away := true
	keys := NewKeyring(func() time.Time { return now })
	gate := newGate(&Server{Keys: keys, Log: slog.New(slog.NewTextHandler(log, nil)), Dial: func(ctx context.Context) (net.Conn, error) {
		if away {
			return nil, errors.New("no way to " + validKey + strings.Repeat("\n and on", 100))
		}
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}})
	defer gate.close()
	ask := func() {
		response, err := gate.RoundTrip(httptest.NewRequestWithContext(t.Context(), "GET", "http://localhost/api/v1/apikey", http.NoBody))
		if err == nil {
			g.Expect(response.Body.Close()).To(Succeed())
			gate.http.CloseIdleConnections()
		}
	}
	for range 5 {
		away = true
		ask()
		ask()
		away = false
		ask()
	}
	g.Expect(log.lines()).To(Equal(2), log)
	g.Expect(log.String()).NotTo(Or(ContainSubstring(validKey), ContainSubstring(`\n and on`)))
	g.Expect(len(log.String())).To(BeNumerically("<", 600))
	away, now = true, now.Add(awayPause)
	ask()
	g.Expect(log.lines()).To(Equal(3), log)
}

// TestMisdirected has clients of either transport told that it is the wrong one.
func TestMisdirected(t *testing.T) {
	g := NewWithT(t)
	g.Expect(misdirected(httptest.NewRequestWithContext(t.Context(), "POST", grpcPath+"ListApiKeys", http.NoBody))).To(Equal(http.StatusBadGateway))
	g.Expect(misdirected(httptest.NewRequestWithContext(t.Context(), "GET", httpPath+"apikey", http.NoBody))).To(Equal(http.StatusMisdirectedRequest))
}

// TestSpoken has requests be refused that the Headscale that runs could not answer.
func TestSpoken(t *testing.T) {
	g := NewWithT(t)
	for transport, wanted := range map[headscale.Transport][2]bool{
		headscale.TransportUnknown: {true, true}, headscale.TransportGRPC: {true, false}, headscale.TransportHTTP: {false, true},
	} {
		gate := &gate{Server: &Server{Transport: func() headscale.Transport { return transport }}}
		for i, name := range []string{grpcPath + "ListApiKeys", httpPath + "apikey"} {
			g.Expect(gate.isSpoken(httptest.NewRequestWithContext(t.Context(), "POST", name, http.NoBody))).To(Equal(wanted[i]), "%v %s", transport, name)
		}
	}
}
