package main

import (
	"context"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// logLines is how much of a log a failure shows.
const logLines = 50

// stage is what the story plays on.
type stage struct {
	narrator
	*env.World
	pod *podrunner.Runner
	// stopPod ends the pod in order.
	stopPod func()
	// key is the last that was seen in the Secret.
	key string
	// preAuthKey is the id of the pre-auth key that somebody expires.
	preAuthKey uint64
	// output is what the operator and the containers print.
	output *process.Log
}

// prepare finds the servers, and builds the programs of this repository.
func (s *stage) prepare(ctx context.Context) error {
	log.SetLogger(logr.Discard())
	world, err := env.NewWorld("hs-demo-", s.output, serverbuild.DefaultHeadscale)
	if err != nil {
		return err
	}
	s.World = world
	s.say("Headscale operator: the whole path on this machine, without a cluster or containers.")
	s.detail("Everything is in %s and is removed at the end.", s.Guard.Dir())
	s.say("etcd, kube-apiserver, kubectl, Litestream and Headscale %s are there.", serverbuild.DefaultHeadscale)
	if err := s.Build(ctx, s.narrator); err != nil {
		return err
	}
	s.say("Built the operator and the API Key Manager.")
	return nil
}

// startServers starts etcd, kube-apiserver and the operator.
func (s *stage) startServers(ctx context.Context) error {
	if err := s.StartPlane(nil); err != nil {
		return err
	}
	s.say("Kubernetes' API server is up at %s.", s.Plane.Config().Host)
	if err := s.StartOperator(ctx); err != nil {
		return err
	}
	s.say("Installed the CustomResourceDefinitions and the operator's roles: kubectl apply -k config/default")
	s.say("The operator runs, as the ServiceAccount that was installed for it.")
	return nil
}

// showLogs prints the last lines of everything that runs, for a failure.
func (s *stage) showLogs() {
	s.say("The last lines of the operator, Headscale, Litestream and the API Key Manager:")
	s.detail("%s", s.output.Tail(logLines))
	if s.PlaneLog != nil {
		s.say("The last lines of the control plane:")
		s.detail("%s", s.PlaneLog.Tail(logLines))
	}
}
