package main

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/keyuse"
)

const (
	// lifetime and buffer are the settings with which keys are replaced as soon as they may be:
	// a key's expiration is put off by up to a second, which marks it as the manager's, and so
	// the period is up to one second longer than it is here.
	lifetime = time.Hour
	buffer   = lifetime - period
	period   = time.Second
	// refusalLimit is how long an old key may be let in at most, and wantedRefusal how long it
	// may be, in seconds.
	refusalLimit  = 30 * time.Second
	wantedRefusal = 0.2
)

// brisk are the settings as the manager is told them.
var brisk = []string{"--expiration=" + lifetime.String(), "--rotation-buffer=" + buffer.String()}

// honours calls a Headscale with a key and returns whether it was let in.
type honours func(ctx context.Context, key string) (bool, error)

// measureRotations measures rotations over gRPC, and over HTTP.
func measureRotations(ctx context.Context, settings *settings) (rows []row) {
	inLab(ctx, settings, func(ctx context.Context, l *lab) {
		l.atSite(ctx, func(h *env.Headscale, s *site) {
			rows = s.rotate(ctx, settings.runs, "gRPC, Headscale "+headscaleVersion, h.Honours)
		})
		contract := headscaletest.New(filepath.Join(l.Guard.Dir(), "contract.sock"), headscaletest.V030)
		check(contract.Start())
		defer contract.Stop()
		s := l.newSite(ctx, contract.SocketPath())
		defer s.stop()
		rows = append(rows, s.rotate(ctx, settings.runs, "HTTP, contract server for v0.30", func(ctx context.Context, key string) (bool, error) {
			return env.ContractHonours(ctx, contract, key)
		})...)
	})
	return rows
}

// rotate looks at rotations that nobody disturbs, and then at as many with a consumer, whose
// calls keep a processor busy.
func (s *site) rotate(ctx context.Context, runs int, transport string, honours honours) []row {
	var late, refused []time.Duration
	s.start(brisk...)
	say("%s: %d rotations", transport, runs)
	s.nextKey(ctx)
	for range runs {
		old := s.key
		stored := s.nextKey(ctx)
		late = append(late, stored.Sub(old.Expiration.Add(-buffer)))
		// It may have been refused before the news of the Secret came.
		refused = append(refused, max(0, s.whenRefused(ctx, old, honours).Sub(stored)))
	}
	say("%s: %d rotations with a consumer", transport, runs)
	consumer := keyuse.Consume(keyuse.Means{Read: s.readKey, Honours: honours})
	defer consumer.Stop()
	for range runs {
		s.nextKey(ctx)
	}
	return rotationRows(transport, late, refused, consumer.Stop())
}

// whenRefused waits until Headscale refuses a key, and returns when. Its list tells of the
// end of a key at once, and costs next to nothing; a call with the key, which Headscale hashes,
// shows that it is true.
func (s *site) whenRefused(ctx context.Context, old rotation.Record, honours honours) (at time.Time) {
	admin := headscale.NewClient(headscale.UnixSocket(s.socket))
	defer func() { _ = admin.Close() }()
	check(wait.PollUntilContextTimeout(ctx, 2*time.Millisecond, refusalLimit, true, func(ctx context.Context) (bool, error) {
		keys, err := admin.ListAPIKeys(ctx)
		if err != nil {
			return false, err
		}
		at = time.Now()
		if slices.ContainsFunc(keys, func(key headscale.APIKey) bool { return key.Prefix == old.ID && key.Expiration.After(at) }) {
			return false, nil
		}
		honoured, err := honours(ctx, old.Text.Reveal())
		return !honoured, err
	}))
	return at
}

// rotationRows are about the rotations over a transport: late is how long after it was due a new
// key was in the Secret, refused how long after that Headscale refused the old one, and used how
// a consumer fared.
func rotationRows(transport string, late, refused []time.Duration, used keyuse.Tally) []row {
	return []row{
		noted(transport+": new key after it was due, median", "%.3f s", median(late).Seconds()),
		atMost(transport+": old key refused after the Secret's change, 90 %", "%.3f s", percentile90(refused).Seconds(), wantedRefusal),
		noted(transport+": a consumer's refused calls", "%d of %d", used.Refusals, used.Calls),
	}
}
