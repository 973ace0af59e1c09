package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"infrado.cloud/headscale-operator/internal/apikey"
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
	// rotationLimit is how long a rotation may take.
	rotationLimit = 30 * time.Second
	// wantedRefusal is how long an old key may still be let in, in seconds.
	wantedRefusal = 0.2
)

// brisk are the settings as the manager is told them.
var brisk = []string{"--expiration=" + lifetime.String(), "--rotation-buffer=" + buffer.String()}

// transport is a Headscale by the way in which it speaks on its socket.
type transport struct {
	name, socket string
	honours      func(ctx context.Context, key string) (bool, error)
}

// rotations are what was seen of one transport.
type rotations struct {
	transport string
	// late is how long after it was due a new key was in the Secret, and refused how long after
	// that Headscale refused the old one.
	late, refused []time.Duration
	// tally is how a consumer fared, meanwhile used times in as many other rotations.
	tally keyuse.Tally
	used  int
}

// measureRotations measures rotations over gRPC, and over HTTP.
func measureRotations(ctx context.Context, settings *settings) report {
	var all []*rotations
	inLab(settings, func(l *lab) {
		h := l.startHeadscale(ctx)
		defer h.Kill()
		contract := headscaletest.New(filepath.Join(l.Guard.Dir(), "contract.sock"), headscaletest.V030)
		check(contract.Start())
		defer contract.Stop()
		for _, t := range []transport{
			{"gRPC, Headscale " + headscaleVersion, h.SocketPath(), h.Honours},
			{"HTTP, contract server for v0.30", contract.SocketPath(), func(ctx context.Context, key string) (bool, error) {
				return env.ContractHonours(ctx, contract, key)
			}},
		} {
			all = append(all, l.rotate(ctx, t))
		}
	})
	return describeRotations(all)
}

// rotate looks at rotations that nobody disturbs, and then at some with a consumer, whose
// calls keep a processor busy.
func (l *lab) rotate(ctx context.Context, t transport) *rotations {
	r := &rotations{transport: t.name, used: l.settings.runs}
	s := l.newSite(ctx, t.socket)
	defer s.stop()
	secrets, stop := follow[*corev1.Secret](ctx, s.Admin, &corev1.SecretList{}, s.namespace)
	defer stop()
	s.start(brisk...)
	say("%s: %d rotations", t.name, l.settings.runs)
	old := nextKey(ctx, secrets, "")
	for range l.settings.runs {
		stored := nextKey(ctx, secrets, old.object.ID)
		r.late = append(r.late, stored.at.Sub(old.object.Expiration.Add(-buffer)))
		// It may have been refused before the news of the Secret came.
		r.refused = append(r.refused, max(0, s.whenRefused(ctx, old.object, t).Sub(stored.at)))
		old = stored
	}
	say("%s: %d rotations with a consumer", t.name, l.settings.runs)
	consumer := keyuse.Consume(keyuse.Means{Read: s.readKey, Honours: t.honours})
	defer consumer.Stop()
	for range r.used {
		old = nextKey(ctx, secrets, old.object.ID)
	}
	r.tally = consumer.Stop()
	return r
}

// nextKey waits for another key than the one with the prefix.
func nextKey(ctx context.Context, secrets <-chan sighting[*corev1.Secret], prefix string) sighting[rotation.Record] {
	ctx, cancel := context.WithTimeout(ctx, rotationLimit)
	defer cancel()
	for {
		select {
		case seen, open := <-secrets:
			if !open {
				check(errors.New("the watch of the Secret ended"))
			}
			if record := apikey.ReadRecord(seen.object); record.Text.Reveal() != "" && record.ID != prefix {
				return sighting[rotation.Record]{record, seen.at}
			}
		case <-ctx.Done():
			check(fmt.Errorf("no other key than %q came: %w", prefix, ctx.Err()))
		}
	}
}

// whenRefused waits until Headscale refuses a key, and returns when. Its list tells of the
// end of a key at once, and costs next to nothing; a call with the key, which Headscale hashes,
// shows that it is true.
func (s *site) whenRefused(ctx context.Context, old rotation.Record, t transport) (at time.Time) {
	admin := headscale.NewClient(headscale.UnixSocket(s.socket))
	defer func() { _ = admin.Close() }()
	check(wait.PollUntilContextTimeout(ctx, 2*time.Millisecond, rotationLimit, true, func(ctx context.Context) (bool, error) {
		keys, err := admin.ListAPIKeys(ctx)
		if err != nil {
			return false, err
		}
		at = time.Now()
		if slices.ContainsFunc(keys, func(key headscale.APIKey) bool { return key.Prefix == old.ID && key.Expiration.After(at) }) {
			return false, nil
		}
		honoured, err := t.honours(ctx, old.Text.Reveal())
		return !honoured, err
	}))
	return at
}

// describeRotations makes the tables of the rotations.
func describeRotations(all []*rotations) report {
	var targets []target
	for _, r := range all {
		targets = append(targets,
			noted(r.transport+": new key after it was due, median", fmt.Sprintf("%.3f s", median(r.late).Seconds())),
			atMost(r.transport+": old key refused after the Secret's change, 90 %", percentile90(r.refused).Seconds(), wantedRefusal, "%.3f s"),
			noted(r.transport+": a consumer's refused calls", fmt.Sprintf("%d of %d", r.tally.Refusals, r.tally.Calls)))
	}
	titles := "transport | rotations | new key after it was due: median | 90 % | old key refused after that: median | 90 % | " +
		"a consumer's refused calls (longest streak)"
	return report{[]string{table(titles, all, func(r *rotations) []string {
		return []string{
			r.transport, fmt.Sprint(len(r.late)), milliseconds(median(r.late)), milliseconds(percentile90(r.late)),
			milliseconds(median(r.refused)), milliseconds(percentile90(r.refused)),
			fmt.Sprintf("%d of %d in %d rotations (%d)", r.tally.Refusals, r.tally.Calls, r.used, r.tally.Streak),
		}
	})}, targets}
}
