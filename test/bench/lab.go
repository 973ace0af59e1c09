package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"infrado.cloud/headscale-operator/test/audit"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// headscaleVersion is the Headscale that is measured with.
const headscaleVersion = serverbuild.DefaultHeadscale

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

// attempt does something in which check and must end what cannot go on, and returns why.
func attempt(do func()) (err error) {
	defer func() {
		switch caught := recover().(type) {
		case nil:
		case failure:
			err = caught.error
		default:
			panic(caught)
		}
	}()
	do()
	return nil
}

// with does something that a process is needed for. Where that fails, the error has the last
// lines of the process.
func with(p *process.Process, do func()) {
	if err := attempt(do); err != nil {
		check(fmt.Errorf("%w; the last lines of %s:\n%s", err, p.Name(), p.Log().Tail(5)))
	}
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

// together does some things at the same time.
func together(ctx context.Context, all ...func(context.Context)) {
	forEach(ctx, len(all), len(all), func(ctx context.Context, i int) { all[i](ctx) })
}

// pause lets time pass, unless the context ends.
func pause(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
		check(ctx.Err())
	case <-time.After(length):
	}
}

// lab is an API server that keeps an audit log, with nothing in it, for one measurement.
type lab struct {
	*env.World
	log      *audit.Log
	requests counts
}

// inLab starts a lab, and ends it, and watches there, after something was done in it.
func inLab(ctx context.Context, s *settings, do func(context.Context, *lab)) {
	world := must(env.NewWorld("hs-bench-", nil, headscaleVersion))
	defer func() { check(world.Close()) }()
	world.Binaries = env.Binaries{Operator: filepath.Join(s.images, "manager"), Manager: filepath.Join(s.images, "apikey-manager")}
	log := must(audit.New(world.Guard.Dir()))
	check(world.StartPlane(func(server *envtest.APIServer) {
		log.Configure(server)
		// The default has 254 addresses, which two Services of each Headscale use up.
		server.Configure().Set("service-cluster-ip-range", "10.0.0.0/16")
	}))
	// An API server that is being watched takes a minute to stop.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	do(ctx, &lab{World: world, log: log})
}

// until looks at one object of a watch after another until one is what is waited for, and
// returns when that was.
func until[T runtime.Object](ctx context.Context, watcher watch.Interface, limit time.Duration, found func(T) bool) time.Time {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			check(fmt.Errorf("what is waited for did not come: %w", ctx.Err()))
		case event, open := <-watcher.ResultChan():
			if !open {
				check(errors.New("the watch ended"))
			}
			if object, ok := event.Object.(T); ok && event.Type != watch.Deleted && found(object) {
				return time.Now()
			}
		}
	}
}
