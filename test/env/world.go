package env

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// World is a control plane on which the operator is installed and runs: all at once by
// StartWorld, or step by step.
type World struct {
	Root     string              // the directory of the repository
	Guard    *process.Guard      // owns the directory of all that runs
	Servers  serverbuild.Servers // those that were built
	Binaries Binaries            // the programs of this repository
	Plane    *ControlPlane
	PlaneLog *process.Log     // what the control plane prints
	Admin    client.WithWatch // an administrator's, which nothing slows down
	Operator *Operator        // runs with the rights of its installation

	output  io.Writer
	closers []func() error
}

// StartWorld builds the programs and starts all that a World has, with every version of
// Headscale that tests run against. The servers must have been built. The name of the guarded
// directory begins with the prefix, and what the builds and the operator print goes to output.
func StartWorld(ctx context.Context, prefix string, output io.Writer) (*World, error) {
	w, err := NewWorld(prefix, output)
	if err != nil {
		return nil, err
	}
	if err = w.Build(ctx, output); err == nil {
		err = w.StartPlane(nil)
	}
	if err == nil {
		err = w.StartOperator(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// NewWorld finds the servers, with these versions of Headscale or all, and makes the guarded
// directory. What the operator will print goes to output, which may be nil. The world must be
// closed.
func NewWorld(prefix string, output io.Writer, headscale ...string) (*World, error) {
	w := &World{output: output, PlaneLog: process.NewLog(nil)}
	var err error
	if w.Root, err = serverbuild.FindRoot(); err != nil {
		return nil, err
	}
	if len(headscale) == 0 {
		if headscale, err = serverbuild.HeadscaleVersions(w.Root); err != nil {
			return nil, err
		}
	}
	if w.Servers, err = serverbuild.Find(serverbuild.Options{Root: w.Root, Headscale: headscale, Litestream: true}); err != nil {
		return nil, err
	}
	if w.Guard, err = process.NewGuard(prefix); err != nil {
		return nil, err
	}
	w.OnClose(w.Guard.Close)
	return w, nil
}

// Build builds the programs of this repository, and reports it to log.
func (w *World) Build(ctx context.Context, log io.Writer) (err error) {
	w.Binaries, err = BuildBinaries(ctx, w.Root, w.Guard.Dir(), log)
	return err
}

// StartPlane starts the control plane, whose flags configure may change.
func (w *World) StartPlane(configure func(*envtest.APIServer)) (err error) {
	w.Plane, err = StartControlPlane(ControlPlaneOptions{Servers: w.Servers, Guard: w.Guard, Output: w.PlaneLog, Configure: configure})
	if err != nil {
		return err
	}
	w.OnClose(w.Plane.Stop)
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme)); err != nil {
		return err
	}
	config := w.Plane.Config()
	config.QPS = -1
	w.Admin, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	return err
}

// StartOperator installs the operator, and runs it with further arguments.
func (w *World) StartOperator(ctx context.Context, args ...string) (err error) {
	if err := w.Plane.InstallOperator(ctx, w.Root); err != nil {
		return err
	}
	if w.Operator, err = w.RunOperator(ctx, w.Binaries.Operator, args...); err == nil {
		w.OnClose(w.Operator.Stop)
	}
	return err
}

// Programs are what the images of a Headscale's pod stand for, for podrunner.
func (w *World) Programs() map[string]string {
	programs := map[string]string{ManagerImage: w.Binaries.Manager}
	programs[v1beta1.DefaultBackupImage] = filepath.Join(w.Servers.Backup["litestream"], "litestream")
	for version, program := range w.Servers.Headscale {
		programs[v1beta1.DefaultImage+":"+version] = program
	}
	return programs
}

// OnClose has Close do something more, before all that it was told earlier.
func (w *World) OnClose(undo func() error) { w.closers = append(w.closers, undo) }

// Close ends everything, the last that was started first.
func (w *World) Close() error {
	var errs []error
	for _, undo := range slices.Backward(w.closers) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}
