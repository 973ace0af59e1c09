package preauthkey

import (
	"context"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/controller/instance/instancetest"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// suite is this one, for specs that are the same for more than one kind.
var suite = &instancetest.Suite{
	Cluster: cluster, Objects: "keys", Condition: condition,
	Socket: func(ctx context.Context, version string) headscale.Dialer {
		return headscale.UnixSocket(startServer(ctx, version))
	},
	StartOperator: func() { startOperator() },
	NewServer: func(ctx context.Context, namespace, version string, dial headscale.Dialer, spec ...string) {
		newServer(ctx, namespace, version, dial, spec...)
	},
	Manifest: func(name, fields string) string { return keyManifest(name, "tags: ['tag:a'], "+fields) },
}

var (
	_ = suite.DescribeSecretReads()
	_ = suite.DescribeSlow("", 0, 2*time.Minute, func(ctx context.Context, namespace, name string) func(Gomega) bool {
		return func(g Gomega) bool { return get(ctx, namespace, name)(g).Status.KeyID != 0 }
	})
)
