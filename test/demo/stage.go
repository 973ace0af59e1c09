package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/go-logr/logr"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// logLines is how much of each log a failure shows.
const logLines = 25

// stage is what the story plays on: the servers, and what undoes them.
type stage struct {
	*narrator
	root     string
	guard    *process.Guard
	servers  serverbuild.Servers
	binaries env.Binaries
	planeLog *process.Log
	plane    *env.ControlPlane
	admin    client.Client
	operator *env.Operator
	pod      *podrunner.Runner
	closers  []func() error
}

// onClose remembers what undoes a step. The last is done first.
func (s *stage) onClose(undo func() error) {
	s.closers = append(s.closers, undo)
}

// close undoes all steps.
func (s *stage) close() error {
	var errs []error
	for _, undo := range slices.Backward(s.closers) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// prepare finds the repository and makes the directory in which everything is.
func (s *stage) prepare(context.Context) error {
	log.SetLogger(logr.Discard())
	var err error
	if s.root, err = serverbuild.FindRoot(); err != nil {
		return err
	}
	if s.guard, err = process.NewGuard("hs-demo-"); err != nil {
		return err
	}
	s.onClose(s.guard.Close)
	s.say("Headscale operator: the whole path on this machine, without a cluster or containers.")
	s.detail("Everything is in %s and is removed at the end.", s.guard.Dir())
	return nil
}

// build gets the servers and builds the programs of this repository.
func (s *stage) build(ctx context.Context) error {
	var err error
	s.servers, err = serverbuild.Ensure(ctx, serverbuild.Options{
		Root: s.root, Headscale: []string{serverbuild.DefaultHeadscale}, Log: s.narrator,
	})
	if err != nil {
		return err
	}
	s.say("etcd, kube-apiserver, kubectl and Headscale %s are there.", serverbuild.DefaultHeadscale)
	if s.binaries, err = env.BuildBinaries(ctx, s.root, s.guard.Dir(), s.narrator); err != nil {
		return err
	}
	s.say("Built the operator and the API Key Manager.")
	return nil
}

// startControlPlane starts etcd and kube-apiserver. The start itself does not
// heed the context; when that ends first, the guard ends the servers.
func (s *stage) startControlPlane(ctx context.Context) error {
	s.planeLog = process.NewLog(nil)
	started := make(chan error, 1)
	go func() {
		plane, err := env.StartControlPlane(env.ControlPlaneOptions{Servers: s.servers, Guard: s.guard, Output: s.planeLog})
		s.plane = plane
		started <- err
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-started:
		if err != nil {
			return err
		}
	}
	s.onClose(s.plane.Stop)
	var err error
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme)); err != nil {
		return err
	}
	if s.admin, err = client.New(s.plane.Config(), client.Options{Scheme: scheme}); err != nil {
		return err
	}
	s.say("Kubernetes' API server is up at %s.", s.plane.Config().Host)
	return nil
}

// startOperator installs the operator and runs it.
func (s *stage) startOperator(ctx context.Context) error {
	if err := s.plane.InstallOperator(ctx, s.root); err != nil {
		return err
	}
	s.say("Installed the CustomResourceDefinition and the operator's roles: kubectl apply -k config/default")
	var err error
	s.operator, err = env.StartOperator(ctx, env.OperatorOptions{
		Binary: s.binaries.Operator, ControlPlane: s.plane, Admin: s.admin, Guard: s.guard,
	})
	if err != nil {
		return err
	}
	s.onClose(s.operator.Stop)
	s.say("The operator runs, as the ServiceAccount that was installed for it.")
	return nil
}

// startPodRunner begins to do what a cluster's nodes would do.
func (s *stage) startPodRunner(ctx context.Context) {
	s.pod = podrunner.New(podrunner.Options{
		Client: s.admin, Config: s.plane.Config(), Guard: s.guard, StatefulSet: headscaleKey,
		Programs: map[string]string{
			v1beta1.DefaultImage: s.servers.Headscale[serverbuild.DefaultHeadscale],
			env.ManagerImage:     s.binaries.Manager,
		},
	})
	// The pod ends in close, before the API server does, and not with Ctrl-C itself.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wait sync.WaitGroup
	wait.Go(func() { s.pod.Run(running) })
	s.onClose(func() error {
		stop()
		wait.Wait()
		return nil
	})
}

// showLogs prints the last lines of everything that runs, for a failure.
func (s *stage) showLogs() {
	show := func(name, text string) {
		if text != "" {
			s.say("Last lines of %s:", name)
			s.block(text)
		}
	}
	if s.pod != nil {
		for _, container := range []string{"headscale", "apikey-manager"} {
			show("the container "+container, tail(s.pod.Log(container)))
		}
	}
	if s.operator != nil {
		show("the operator", s.operator.Process().Log().Tail(logLines))
		return
	}
	if s.planeLog != nil {
		show("the control plane", s.planeLog.Tail(logLines))
	}
}

// tail is the end of a text.
func tail(text string) string {
	log := process.NewLog(nil)
	_, _ = fmt.Fprint(log, text)
	return log.Tail(logLines)
}

// samples is the directory with the resource that the story is about.
func (s *stage) samples() string {
	return filepath.Join(s.root, "config", "samples")
}
