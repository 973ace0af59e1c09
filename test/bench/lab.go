package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"infrado.cloud/headscale-operator/test/audit"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

const (
	// headscaleVersion is the Headscale that is measured with.
	headscaleVersion = serverbuild.DefaultHeadscale
	// limit is how long anything that is waited for may take.
	limit = 10 * time.Minute
)

// lab is an API server that keeps an audit log, with nothing in it, for one measurement.
type lab struct {
	*env.World
	began time.Time
	audit *audit.Log
	// output is what the programs print that are measured.
	output *process.Log
}

// inLab measures something in a lab of its own.
func inLab(ctx context.Context, s *settings, measure func(context.Context, *lab)) {
	l := &lab{began: time.Now(), output: process.NewLog(nil)}
	l.World = must(env.NewWorld("hs-bench-", l.output, headscaleVersion))
	defer func() { check(l.Close()) }()
	l.Binaries = env.Binaries{Operator: filepath.Join(s.images, "manager"), Manager: filepath.Join(s.images, "apikey-manager")}
	l.audit = must(audit.New(l.Guard.Dir()))
	check(l.StartPlane(func(server *envtest.APIServer) {
		l.audit.Configure(server)
		// The default has 254 addresses, which two Services of each Headscale use up.
		server.Configure().Set("service-cluster-ip-range", "10.0.0.0/16")
	}))
	// An API server that is being watched takes a minute to stop.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := attempt(func() { measure(ctx, l) }); err != nil {
		check(fmt.Errorf("%w; the last lines of what is measured:\n%s", err, l.output.Tail(5)))
	}
}

// usage is what a process used in some time, and the memory that it has at the end.
type usage struct {
	took time.Duration
	audit.Counts
	process.Usage
}

// usageOf is what a process, which is all that is measured in a lab, has used so far. The log has
// requests of ServiceAccounts only; what else has one meanwhile is counted, too.
func (l *lab) usageOf(p *process.Process) usage {
	return usage{time.Since(l.began), must(l.audit.Count()), must(p.Usage())}
}

// since is what was used after an earlier look.
func (u usage) since(earlier usage) usage {
	u.took -= earlier.took
	u.Counts = u.Since(earlier.Counts)
	u.Processor -= earlier.Processor
	return u
}

// percent is the part of a processor that was kept busy.
func (u usage) percent() float64 { return 100 * u.Processor.Seconds() / u.took.Seconds() }

// watchRest measures a process while nothing happens.
func (l *lab) watchRest(ctx context.Context, rest time.Duration, p *process.Process) usage {
	before := l.usageOf(p)
	pause(ctx, rest)
	return l.usageOf(p).since(before)
}

// failure is how check ends a measurement.
type failure struct{ error }

// check ends the measurement where there is an error: see attempt.
func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// must is a value that there is without an error.
func must[T any](value T, err error) T {
	check(err)
	return value
}

// attempt returns the error with which check or must ended what it does.
func attempt(do func()) (err error) {
	defer func() {
		caught := recover()
		if failed, ok := caught.(failure); ok {
			err = failed.error
		} else if caught != nil {
			panic(caught)
		}
	}()
	do()
	return nil
}

// forEach does something for every number below n, for some at the same time.
func forEach(ctx context.Context, n, atOnce int, do func(ctx context.Context, i int)) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range n {
		group.Go(func() error { return attempt(func() { do(ctx, i) }) })
	}
	check(group.Wait())
}

// pause lets time pass, unless the context ends.
func pause(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
		check(ctx.Err())
	case <-time.After(length):
	}
}
