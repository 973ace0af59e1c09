package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

const (
	// recoveries is how often each way to get a database back is measured.
	recoveries = 3
	// settling is how long Litestream gets to replicate what is there.
	settling = 5 * time.Second
	// entrySize is how many random bytes one entry of a large database has; Headscale's answers
	// have 4 MiB at most.
	entrySize = 2 << 20
	s3Key     = "bench-of-the-backup"
)

// backupSpec is a Headscale with a backup to the storage at an address.
const backupSpec = `{version: %s, config: {server_url: "https://headscale.example.com", policy: {mode: database}}, backup: {
replica: {type: s3, bucket: backups, path: headscale, endpoint: "http://%s", region: us-east-1}, credentials: {name: backup}}}`

// backupBench is a Headscale with a backup, and what that does.
type backupBench struct {
	*lab
	key       client.ObjectKey
	pod       *podrunner.Runner
	stop      func()
	accessLog string

	lost     []time.Duration // how old the oldest was that was lost, each time
	rest     usage
	requests int
	// restored and copied are how long it took until Ready, by the size of the database in MB.
	restored, copied map[int][]time.Duration
}

// backupSizes are those of the databases that are restored, in MB.
var backupSizes = []int{1, 100}

// measureBackup measures what a backup costs at rest, what is lost with a volume, and how long it
// takes until the database is back.
func measureBackup(ctx context.Context, s *settings) (rows []row) {
	inLab(ctx, s, func(ctx context.Context, l *lab) {
		b := &backupBench{lab: l, key: client.ObjectKey{Namespace: operatorNamespace, Name: "headscale"}, restored: map[int][]time.Duration{}, copied: map[int][]time.Duration{}}
		startOperator(ctx, l, 1)
		b.create(ctx)
		b.run(ctx)
		defer func() { b.stop() }()
		pause(ctx, settling)
		b.measureRest(ctx, s.sidecarRest)
		for i := range s.runs {
			say("losing a volume, %d of %d", i+1, s.runs)
			b.loseAtRandom(ctx)
		}
		for _, size := range backupSizes {
			b.grow(ctx, size<<20)
			for range min(recoveries, s.runs) {
				b.restored[size] = append(b.restored[size], b.recover(ctx, size, false))
				b.copied[size] = append(b.copied[size], b.recover(ctx, size, true))
			}
		}
		rows = b.figures()
	})
	return rows
}

// create starts the storage, and creates the Headscale.
func (b *backupBench) create(ctx context.Context) {
	dir, address := must(os.MkdirTemp(b.Guard.Dir(), "s3-")), must(env.FreeAddress())
	b.accessLog = filepath.Join(dir, "requests")
	check(os.MkdirAll(filepath.Join(dir, "objects", "backups"), 0o700))
	program := must(serverbuild.Find(serverbuild.Options{Root: b.Root, Backup: true})).Backup["versitygw"]
	storage := must(process.Start(process.Command{
		Name: "versitygw", Path: filepath.Join(program, "versitygw"), Dir: dir, Output: b.output, Guard: b.Guard,
		Args: []string{"--quiet", "--access-log", b.accessLog, "--port", address, "--access", s3Key, "--secret", s3Key, "posix", filepath.Join(dir, "objects")},
	}))
	b.OnClose(func() error { storage.Kill(); return nil })
	h := &v1beta1.Headscale{ObjectMeta: metav1.ObjectMeta{Namespace: b.key.Namespace, Name: b.key.Name}}
	check(yaml.Unmarshal(fmt.Appendf(nil, backupSpec, headscaleVersion, address), &h.Spec))
	check(b.Admin.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.key.Namespace, Name: "backup"},
		StringData: map[string]string{"AWS_ACCESS_KEY_ID": s3Key, "AWS_SECRET_ACCESS_KEY": s3Key},
	}))
	check(b.Admin.Create(ctx, h))
}

// run runs the pod, and waits until Headscale is ready.
func (b *backupBench) run(ctx context.Context) {
	b.pod, b.stop = podrunner.StartInWorld(b.World, b.key, b.output)
	b.await(ctx, metav1.ConditionTrue)
}

// await waits until Headscale is ready, or is not.
func (b *backupBench) await(ctx context.Context, status metav1.ConditionStatus) {
	must(env.Await(ctx, must(b.Admin.Watch(ctx, &v1beta1.HeadscaleList{}, client.InNamespace(b.key.Namespace))), func(h *v1beta1.Headscale) bool {
		return meta.IsStatusConditionPresentAndEqual(h.Status.Conditions, v1beta1.ConditionReady, status)
	}))
}

// asks is a client of Headscale's socket.
func (b *backupBench) asks() *headscale.Client {
	return headscale.NewClient(headscale.UnixSocket(b.pod.HostPath(resources.ContainerManager, v1beta1.DefaultSocketPath)))
}

// measureRest measures Litestream while nothing happens.
func (b *backupBench) measureRest(ctx context.Context, rest time.Duration) {
	say("Litestream at rest for %s", rest)
	requests := func() int { return bytes.Count(must(os.ReadFile(b.accessLog)), []byte("\n")) }
	before := requests()
	b.rest = b.watchRest(ctx, rest, b.pod.Process(resources.ContainerBackup))
	b.requests = requests() - before
}

// loseAtRandom writes to Headscale until everything is killed at once and the volume is lost, and
// notes what was acknowledged and is not there any more.
func (b *backupBench) loseAtRandom(ctx context.Context) {
	pause(ctx, 2*time.Second) // until the database has been replicated once
	acknowledged := map[string]time.Time{}
	var group sync.WaitGroup
	asks := b.asks()
	group.Go(func() {
		for ctx.Err() == nil {
			name := fmt.Sprintf("user-%d", time.Now().UnixNano())
			if _, err := asks.CreateUser(ctx, headscale.NewUser{Name: name}); err != nil {
				return
			}
			acknowledged[name] = time.Now()
		}
	})
	pause(ctx, time.Second+time.Duration(rand.Int64N(int64(2*time.Second))))
	struck := time.Now()
	for _, name := range resources.ContainerNames() {
		if p := b.pod.Process(name); p != nil {
			group.Go(p.Kill)
		}
	}
	group.Wait()
	_ = asks.Close()
	b.lose(ctx)
	b.run(ctx)
	asks = b.asks()
	defer func() { _ = asks.Close() }()
	for _, user := range must(asks.ListUsers(ctx)) {
		delete(acknowledged, user.Name)
	}
	var age time.Duration
	for _, at := range acknowledged {
		age = max(age, struck.Sub(at))
	}
	b.lost = append(b.lost, age)
}

// lose stops the pod, and takes its volume away, to what it returns.
func (b *backupBench) lose(ctx context.Context) (lost string) {
	volume := b.pod.HostPath(resources.ContainerHeadscale, "/var/lib/headscale")
	lost = volume + ".lost"
	b.stop()
	check(os.RemoveAll(lost))
	check(os.Rename(volume, lost))
	b.await(ctx, metav1.ConditionFalse)
	return lost
}

// grow adds to the database until it has this size: policies that are not in force any more.
func (b *backupBench) grow(ctx context.Context, size int) {
	asks := b.asks()
	defer func() { _ = asks.Close() }()
	for left := size; left > 0; left -= entrySize {
		random := make([]byte, min(left, entrySize)*3/4)
		_, _ = rand.NewChaCha8([32]byte{byte(left >> 20)}).Read(random)
		must(asks.SetPolicy(ctx, "// "+base64.StdEncoding.EncodeToString(random)+"\n{}"))
	}
	must(asks.SetPolicy(ctx, "{}"))
	pause(ctx, settling)
}

// recover loses the volume, and returns how long it takes until Headscale is ready with the
// database from the storage, or with one that is copied onto the volume.
func (b *backupBench) recover(ctx context.Context, size int, copied bool) time.Duration {
	say("a database of %d MB is lost", size)
	lost := b.lose(ctx)
	check(os.RemoveAll(lost + "/.litestream"))
	began := time.Now()
	if copied {
		check(os.CopyFS(strings.TrimSuffix(lost, ".lost"), os.DirFS(lost)))
	}
	b.run(ctx)
	took := time.Since(began)
	pause(ctx, settling) // until it has been replicated
	return took
}

// figures are the rows.
func (b *backupBench) figures() []row {
	rows := []row{
		noted("backup at rest, Litestream's memory (PSS)", "%.1f MiB", b.rest.Proportional),
		noted("backup at rest, Litestream's processor", "%.2f %%", b.rest.percent()),
		noted(fmt.Sprintf("backup at rest, requests to the bucket an hour, by those in %s", b.rest.took.Round(time.Second)), "%.0f", float64(b.requests)*float64(time.Hour)/float64(b.rest.took)),
		noted("backup, the oldest that is lost with a volume, median", "%.2f s", quantile(0.5, b.lost).Seconds()),
		atMost("backup, the oldest that is lost with a volume, longest", "%.2f s", slices.Max(b.lost).Seconds(), 2),
	}
	for _, size := range backupSizes {
		rows = append(rows,
			noted(fmt.Sprintf("backup, database of %d MB, empty volume until Ready, median", size), "%.1f s", quantile(0.5, b.restored[size]).Seconds()),
			noted(fmt.Sprintf("backup, database of %d MB, a plain copy until Ready, median", size), "%.1f s", quantile(0.5, b.copied[size]).Seconds()))
	}
	return rows
}
