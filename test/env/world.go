package env

import (
	"context"
	"errors"
	"io"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// World is a control plane on which the operator is installed and runs.
type World struct {
	// Root is the directory of the repository.
	Root string
	// Guard owns the directory of all that runs.
	Guard *process.Guard
	// Servers are those of every version that tests run against.
	Servers serverbuild.Servers
	// Binaries are the programs of this repository.
	Binaries Binaries
	// Plane is the control plane, and Admin an administrator's client of it.
	Plane *ControlPlane
	Admin client.Client
	// Operator runs with the rights of its installation.
	Operator *Operator

	closers []func() error
}

// StartWorld builds the programs and starts all that a World has. The servers must have
// been built. The name of the guarded directory begins with the prefix, and what the
// builds and the operator print goes to output.
func StartWorld(ctx context.Context, prefix string, output io.Writer) (*World, error) {
	w := &World{}
	for _, step := range []func() error{
		func() error { return w.prepare(ctx, prefix, output) },
		func() error { return w.startPlane(ctx) },
		func() error { return w.startOperator(ctx, output) },
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return w, nil
}

// prepare finds the servers and builds the programs.
func (w *World) prepare(ctx context.Context, prefix string, output io.Writer) error {
	var err error
	if w.Root, err = serverbuild.FindRoot(); err != nil {
		return err
	}
	versions, err := serverbuild.HeadscaleVersions(w.Root)
	if err != nil {
		return err
	}
	if w.Servers, err = serverbuild.Find(serverbuild.Options{Root: w.Root, Headscale: versions}); err != nil {
		return err
	}
	if w.Guard, err = process.NewGuard(prefix); err != nil {
		return err
	}
	w.closers = append(w.closers, w.Guard.Close)
	w.Binaries, err = BuildBinaries(ctx, w.Root, w.Guard.Dir(), output)
	return err
}

// startPlane starts the control plane and installs the operator.
func (w *World) startPlane(ctx context.Context) error {
	var err error
	if w.Plane, err = StartControlPlane(ControlPlaneOptions{Servers: w.Servers, Guard: w.Guard}); err != nil {
		return err
	}
	w.closers = append(w.closers, w.Plane.Stop)
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme)); err != nil {
		return err
	}
	if w.Admin, err = client.New(w.Plane.Config(), client.Options{Scheme: scheme}); err != nil {
		return err
	}
	return w.Plane.InstallOperator(ctx, w.Root)
}

// startOperator runs the operator.
func (w *World) startOperator(ctx context.Context, output io.Writer) error {
	var err error
	w.Operator, err = StartOperator(ctx, OperatorOptions{
		Binary: w.Binaries.Operator, ControlPlane: w.Plane, Admin: w.Admin, Guard: w.Guard, Output: output,
	})
	if err == nil {
		w.closers = append(w.closers, w.Operator.Stop)
	}
	return err
}

// Programs are what the images of a Headscale's pod stand for, for podrunner.
func (w *World) Programs() map[string]string {
	programs := map[string]string{ManagerImage: w.Binaries.Manager}
	for version, program := range w.Servers.Headscale {
		programs[v1beta1.DefaultImage+":"+version] = program
	}
	return programs
}

// Close ends everything, the last that was started first.
func (w *World) Close() error {
	var errs []error
	for _, undo := range slices.Backward(w.closers) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}
