package headscale_test

import (
	"path/filepath"
	"testing"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

// The fakes spend no time on hashing keys, so this is what the client and its
// connections cost; a real Headscale adds a bcrypt hash to each create.
func BenchmarkClient(b *testing.B) {
	for name, release := range map[string]headscaletest.Release{
		"gRPC": headscaletest.V028, "HTTP": headscaletest.V030,
	} {
		b.Run(name+"/list", func(b *testing.B) {
			client, server := benchmarkPair(b, release)
			for range 10 {
				server.CreateKey(nil)
			}
			for b.Loop() {
				if _, err := client.ListAPIKeys(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/create", func(b *testing.B) {
			client, server := benchmarkPair(b, release)
			for b.Loop() {
				if _, err := client.CreateAPIKey(b.Context(), time.Now().Add(time.Hour)); err != nil {
					b.Fatal(err)
				}
				server.SetDatabase(headscaletest.NewDatabase()) // the probe's list stays short
			}
		})
		b.Run(name+"/expire", func(b *testing.B) {
			client, server := benchmarkPair(b, release)
			prefix := server.CreateKey(nil).Prefix
			for b.Loop() {
				if err := client.ExpireAPIKey(b.Context(), prefix); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchmarkPair(b *testing.B, release headscaletest.Release) (*headscale.Client, *headscaletest.Server) {
	b.Helper()
	b.ReportAllocs()
	server := headscaletest.New(filepath.Join(b.TempDir(), "s"), release)
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	client := headscale.NewClient(headscale.UnixSocket(server.SocketPath()))
	b.Cleanup(func() {
		_ = client.Close()
		server.Stop()
	})
	return client, server
}

// BenchmarkEndpoint compares a call on the socket with the same over the admin endpoint: one that
// keeps its connection, and one that does not. The proxy of the test does what a sidecar does.
func BenchmarkEndpoint(b *testing.B) {
	for name, release := range map[string]headscaletest.Release{"gRPC": headscaletest.V029, "HTTP": headscaletest.V030} {
		for way, keep := range map[string][]headscale.Option{"": nil, "-kept": {headscale.WithKeepAlive()}} {
			b.Run(name+"/socket"+way, func(b *testing.B) {
				_, server := benchmarkPair(b, release)
				benchmarkCreateUser(b, server, headscale.NewClient(headscale.UnixSocket(server.SocketPath()), keep...))
			})
			b.Run(name+"/endpoint"+way, func(b *testing.B) {
				_, server := benchmarkPair(b, release)
				e := serveEndpoint(b, func(end func()) { b.Cleanup(end) }, server.SocketPath(), release)
				options := append([]headscale.Option{headscale.WithBearerToken(token)}, keep...)
				benchmarkCreateUser(b, server, headscale.NewClient(headscale.AdminEndpoint(e.address, e.pin), options...))
			})
		}
	}
}

func benchmarkCreateUser(b *testing.B, server *headscaletest.Server, client *headscale.Client) {
	b.Helper()
	b.Cleanup(func() { _ = client.Close() })
	for b.Loop() {
		if _, err := client.CreateUser(b.Context(), headscale.NewUser{Name: "alice"}); err != nil {
			b.Fatal(err)
		}
		server.SetDatabase(headscaletest.NewDatabase())
	}
}
