package main

import (
	"context"
	"strings"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// logLines is how much of each log a failure shows.
const logLines = 25

// stage is what the story plays on.
type stage struct {
	narrator
	*env.World
	pod *podrunner.Runner
}

// prepare finds the servers, and builds the programs of this repository.
func (s *stage) prepare(ctx context.Context) error {
	log.SetLogger(logr.Discard())
	world, err := env.NewWorld("hs-demo-", nil, serverbuild.DefaultHeadscale)
	if err != nil {
		return err
	}
	s.World = world
	s.say("Headscale operator: the whole path on this machine, without a cluster or containers.")
	s.detail("Everything is in %s and is removed at the end.", s.Guard.Dir())
	s.say("etcd, kube-apiserver, kubectl and Headscale %s are there.", serverbuild.DefaultHeadscale)
	if err := s.Build(ctx, s.narrator); err != nil {
		return err
	}
	s.say("Built the operator and the API Key Manager.")
	return nil
}

// startControlPlane starts etcd and kube-apiserver. The start itself does not
// heed the context; when that ends first, the guard ends the servers.
func (s *stage) startControlPlane(ctx context.Context) error {
	started := make(chan error, 1)
	go func() { started <- s.StartPlane(nil) }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-started:
		if err != nil {
			return err
		}
	}
	s.say("Kubernetes' API server is up at %s.", s.Plane.Config().Host)
	return nil
}

// startOperator installs the operator and runs it.
func (s *stage) startOperator(ctx context.Context) error {
	if err := s.StartOperator(ctx); err != nil {
		return err
	}
	s.say("Installed the CustomResourceDefinition and the operator's roles: kubectl apply -k config/default")
	s.say("The operator runs, as the ServiceAccount that was installed for it.")
	return nil
}

// showLogs prints the last lines of everything that runs, for a failure.
func (s *stage) showLogs() {
	show := func(name, text string) {
		if text = strings.TrimRight(text, "\n"); text != "" {
			lines := strings.Split(text, "\n")
			s.say("Last lines of %s:", name)
			s.detail("%s", strings.Join(lines[max(0, len(lines)-logLines):], "\n"))
		}
	}
	if s.pod != nil {
		show("the container headscale", s.pod.Log("headscale"))
		show("the container apikey-manager", s.pod.Log("apikey-manager"))
	}
	switch {
	case s.Operator != nil:
		show("the operator", s.Operator.Process().Log().String())
	case s.PlaneLog != nil:
		show("the control plane", s.PlaneLog.String())
	}
}
