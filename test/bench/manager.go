package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/internal/rotation"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/keyuse"
	"infrado.cloud/headscale-operator/test/process"
)

const (
	// warmUp is how long after its first key a manager counts as at rest, and grace how long it
	// may take to end.
	warmUp, grace = 10 * time.Second, 5 * time.Second
	// apart is how long a manager and Headscale start one after the other. In lateRuns of the
	// measurements it is late.
	apart, late, lateRuns = 3 * time.Second, 45 * time.Second, 3
	// With lifetime and buffer a key is replaced as soon as it may be, after a second. (Its
	// expiration is put off by up to another one, which marks it as the manager's.)
	lifetime, buffer = time.Hour, time.Hour - time.Second
)

// site is a namespace in which an API Key Manager has the rights that the operator gives it,
// and the socket of a Headscale.
type site struct {
	*lab
	namespace, kubeconfig, socket, metrics string
	manager                                *process.Process
	secrets                                watch.Interface
	// key is the one that nextKey has seen last.
	key rotation.Record
}

// newSite makes a site, in which no manager runs yet.
func (l *lab) newSite(ctx context.Context, socket string) *site {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}
	check(l.Admin.Create(ctx, namespace))
	account := client.ObjectKey{Namespace: namespace.Name, Name: "headscale"}
	check(env.GrantManager(ctx, l.Admin, account))
	return &site{
		lab: l, namespace: namespace.Name, socket: socket, metrics: must(env.FreeAddress()),
		kubeconfig: must(l.Plane.ServiceAccountKubeconfig(ctx, l.Admin, account, must(os.MkdirTemp(l.Guard.Dir(), "site-")))),
		secrets:    must(l.Admin.Watch(ctx, &corev1.SecretList{}, client.InNamespace(namespace.Name))),
	}
}

// atSite does something at a site beside a Headscale of its own.
func (l *lab) atSite(ctx context.Context, do func(*env.Headscale, *site)) {
	h := must(env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: l.Servers.Headscale[headscaleVersion], Guard: l.Guard}))
	defer h.Kill()
	s := l.newSite(ctx, h.SocketPath())
	defer s.stop()
	do(h, s)
}

// start starts the manager. Without flags, no key is replaced while anything is measured.
func (s *site) start(flags ...string) {
	command := env.ManagerCommand(s.Binaries.Manager, s.socket, s.kubeconfig, s.namespace, append(flags, "--metrics-bind-address="+s.metrics)...)
	command.Guard, command.Output = s.Guard, s.output
	s.manager = must(process.Start(command))
}

func (s *site) stop() {
	if s.manager != nil {
		check(s.manager.Stop(grace))
	}
}

// nextKey waits until another key than the last is in the Secret, and returns when it came.
func (s *site) nextKey(ctx context.Context) time.Time {
	last := s.key.ID
	return must(env.Await(ctx, s.secrets, func(secret *corev1.Secret) bool {
		s.key = apikey.ReadRecord(secret)
		return s.key.Text.Reveal() != "" && s.key.ID != last
	}))
}

// measureSidecar measures a manager while it has nothing to do.
func measureSidecar(ctx context.Context, settings *settings) (rows []row) {
	inLab(ctx, settings, func(ctx context.Context, l *lab) {
		l.atSite(ctx, func(_ *env.Headscale, s *site) {
			s.start()
			s.nextKey(ctx)
			pause(ctx, warmUp)
			say("the API Key Manager at rest for %s", settings.sidecarRest)
			used := l.watchRest(ctx, settings.sidecarRest, s.manager)
			_, metrics, err := env.Get(ctx, "http://"+s.metrics+"/metrics", "")
			check(err)
			rows = sidecarRows(used, find(metrics, `(?m)^go_goroutines (\d+)$`))
		})
	})
	return rows
}

// sidecarRows are about a manager at rest, with its goroutines. A share of 0.05 %
// of a processor is one step of the kernel's accounts in 20 s.
func sidecarRows(used usage, goroutines string) []row {
	const at = "API Key Manager at rest, "
	return []row{
		atMost(at+"memory (PSS)", "%.1f MiB", used.Proportional, 22),
		atMost(at+"processor", "%.2f %%", used.percent(), 0.05),
		atMost(at+"requests an hour besides the watch, by those in "+used.took.Round(time.Second).String(), "%.0f", float64(used.All)/used.took.Hours(), 2),
		noted(at+"memory (RSS)", "%.1f MiB", used.Resident),
		noted(at+"open files and goroutines", "%d and %s", used.Files, goroutines),
	}
}

// measureFirstKeys measures the time to the first key, with a fresh Headscale each time.
func measureFirstKeys(ctx context.Context, settings *settings) (rows []row) {
	inLab(ctx, settings, func(ctx context.Context, l *lab) {
		repeat := func(runs int, measure func(context.Context, *env.Headscale, *site) time.Duration) (took []time.Duration) {
			for run := range runs {
				say("first key: %d of %d", run+1, runs)
				l.atSite(ctx, func(h *env.Headscale, s *site) { took = append(took, measure(ctx, h, s)) })
			}
			return took
		}
		rows = firstKeyRows(
			repeat(settings.runs, withoutManager), repeat(settings.runs, managerFirst(apart)), repeat(settings.runs, headscaleFirst),
			repeat(lateRuns, managerFirst(late)))
	})
	return rows
}

func withoutManager(ctx context.Context, _ *env.Headscale, s *site) time.Duration {
	return must(keyuse.Baseline(ctx, s.kubeconfig, s.namespace, s.socket))
}

// managerFirst starts the manager, and Headscale on an empty database some time later. It measures
// from Headscale's first answer to the key in the Secret. The Headscale runs already, because its
// addresses and its socket are known only then.
func managerFirst(apart time.Duration) func(context.Context, *env.Headscale, *site) time.Duration {
	return func(ctx context.Context, h *env.Headscale, s *site) time.Duration {
		check(h.Stop())
		h.Database = "first.sqlite"
		s.start()
		pause(ctx, apart)
		var answered time.Time
		var group errgroup.Group
		group.Go(func() error { return h.Start(ctx) })
		group.Go(func() error { answered = keyuse.FirstAnswer(ctx, s.socket); return nil })
		stored := s.nextKey(ctx)
		check(group.Wait())
		return stored.Sub(answered)
	}
}

// headscaleFirst measures from the start of the manager's process.
func headscaleFirst(ctx context.Context, _ *env.Headscale, s *site) time.Duration {
	pause(ctx, apart)
	began := time.Now()
	s.start()
	return s.nextKey(ctx).Sub(began)
}

// firstKeyRows are about the times to the first key: without a manager, with one that was
// started before or after Headscale, and with a Headscale that is very late.
func firstKeyRows(baseline, before, after, veryLate []time.Duration) []row {
	within := func(what string, took []time.Duration) row {
		return atMost("first key, "+what+", median", "%.2f s", quantile(0.5, took).Seconds(), 0.3)
	}
	return []row{
		noted("first key, the least possible, median", "%.2f s", quantile(0.5, baseline).Seconds()),
		within("manager started before Headscale", before),
		within("manager started after Headscale", after),
		within(fmt.Sprintf("Headscale %s late", late), veryLate),
	}
}

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

// rotate measures rotations that nobody disturbs, and then as many with a consumer, whose calls
// keep a processor busy. By honours a Headscale says whether it lets a key in.
func (s *site) rotate(ctx context.Context, runs int, transport string, honours func(context.Context, string) (bool, error)) []row {
	var overdue, refused []time.Duration
	s.start("--expiration="+lifetime.String(), "--rotation-buffer="+buffer.String())
	say("%s: %d rotations, and as many with a consumer", transport, runs)
	s.nextKey(ctx)
	for range runs {
		old := s.key
		stored := s.nextKey(ctx)
		overdue = append(overdue, stored.Sub(old.Expiration.Add(-buffer)))
		// It may have been refused before the news of the Secret came.
		refused = append(refused, max(0, s.whenRefused(ctx, old, honours).Sub(stored)))
	}
	consumer := keyuse.Consume(keyuse.Means{Read: keyuse.SecretReader(s.Admin, s.namespace), Honours: honours})
	defer consumer.Stop()
	for range runs {
		s.nextKey(ctx)
	}
	return rotationRows(transport, overdue, refused, consumer.Stop())
}

// whenRefused returns when Headscale refuses a key. Its list shows the end of a key at once,
// and costs next to nothing; a call with the key, which Headscale hashes, shows that it is true.
func (s *site) whenRefused(ctx context.Context, old rotation.Record, honours func(context.Context, string) (bool, error)) (at time.Time) {
	admin := headscale.NewClient(headscale.UnixSocket(s.socket))
	defer func() { _ = admin.Close() }()
	check(wait.PollUntilContextTimeout(ctx, 2*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		keys, err := admin.ListAPIKeys(ctx)
		at = time.Now()
		if err != nil || slices.ContainsFunc(keys, func(key headscale.APIKey) bool { return key.Prefix == old.ID && key.Expiration.After(at) }) {
			return false, err
		}
		honoured, err := honours(ctx, old.Text.Reveal())
		return !honoured, err
	}))
	return at
}

// rotationRows are about the rotations over a transport: how long after it was due a new key was
// in the Secret, how long after that Headscale refused the old one, and how a consumer fared.
func rotationRows(transport string, overdue, refused []time.Duration, used keyuse.Tally) []row {
	return []row{
		noted(transport+": new key after it was due, median", "%.3f s", quantile(0.5, overdue).Seconds()),
		atMost(transport+": old key refused after the Secret's change, 90 %", "%.3f s", quantile(0.9, refused).Seconds(), 0.2),
		noted(transport+": a consumer's refused calls", "%d of %d", used.Refusals, used.Calls),
	}
}

// measureSizes weighs what make images left of the API Key Manager, in millions of bytes.
func measureSizes(_ context.Context, settings *settings) []row {
	binary := must(os.Stat(filepath.Join(settings.images, "apikey-manager"))).Size()
	image := must(os.Open(filepath.Join(settings.images, "headscale-operator_apikey-manager_latest.tar")))
	defer func() { _ = image.Close() }()
	return []row{
		atMost("apikey-manager, binary", "%.1f MB", float64(binary)/1e6, 25),
		atMost("apikey-manager, image, unpacked", "%.1f MB", float64(unpackedSize(image))/1e6, 27),
	}
}

// unpackedSize is how many bytes the files in the layers of an image have.
func unpackedSize(image io.Reader) (total int64) {
	eachFile(image, func(entry *tar.Header, content io.Reader) {
		if strings.HasSuffix(entry.Name, ".tar.gz") {
			eachFile(must(gzip.NewReader(content)), func(file *tar.Header, _ io.Reader) { total += file.Size })
		}
	})
	return total
}

func eachFile(archive io.Reader, do func(*tar.Header, io.Reader)) {
	files := tar.NewReader(archive)
	for file, err := files.Next(); !errors.Is(err, io.EOF); file, err = files.Next() {
		do(must(file, err), files)
	}
}
