package podrunner

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/test/env"
)

// InWorld describes the pod of a StatefulSet in a World.
func InWorld(w *env.World, statefulSet client.ObjectKey) Options {
	return Options{Client: w.Admin, Config: w.Plane.Config(), Guard: w.Guard, StatefulSet: statefulSet, Programs: w.Programs()}
}

// Start runs a pod until stop is called, which waits for its end.
func Start(options Options) (r *Runner, stop func()) {
	r = New(options)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	return r, func() {
		cancel()
		<-done
	}
}
