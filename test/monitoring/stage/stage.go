// Package stage runs the operator, and Headscales with their API Key Managers, on real
// servers of this machine, and knows where they tell Prometheus of themselves.
package stage

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/podrunner"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// Stage is what runs. Close ends it.
type Stage struct {
	// Admin is an administrator's client.
	Admin client.Client
	// Guard has the directory in which everything is.
	Guard *process.Guard

	servers  serverbuild.Servers
	binaries env.Binaries
	plane    *env.ControlPlane
	metrics  string
	pods     map[client.ObjectKey]*podrunner.Runner
	closers  []func() error
}

// Target is something that Prometheus scrapes.
type Target struct {
	// Address is host:port.
	Address string
	// Labels are those that Prometheus would give the target in a cluster.
	Labels map[string]string
}

// Start starts the servers and the operator. Of the programs, what is missing is built;
// log receives what they say.
func Start(ctx context.Context, root string, servers serverbuild.Servers, log io.Writer) (*Stage, error) {
	s := &Stage{servers: servers, pods: map[client.ObjectKey]*podrunner.Runner{}}
	if err := s.start(ctx, root, log); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Stage) start(ctx context.Context, root string, log io.Writer) error {
	var err error
	if s.Guard, err = process.NewGuard("hs-mon-"); err != nil {
		return err
	}
	s.closers = append(s.closers, s.Guard.Close)
	if s.binaries, err = env.BuildBinaries(ctx, root, s.Guard.Dir(), log); err != nil {
		return err
	}
	if s.plane, err = env.StartControlPlane(env.ControlPlaneOptions{Servers: s.servers, Guard: s.Guard}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.plane.Stop)
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme)); err != nil {
		return err
	}
	if s.Admin, err = client.New(s.plane.Config(), client.Options{Scheme: scheme}); err != nil {
		return err
	}
	if err := s.plane.InstallOperator(ctx, root); err != nil {
		return err
	}
	if s.metrics, err = env.FreeAddress(); err != nil {
		return err
	}
	operator, err := env.StartOperator(ctx, env.OperatorOptions{
		Binary: s.binaries.Operator, ControlPlane: s.plane, Admin: s.Admin, Guard: s.Guard,
		Args: []string{"--metrics-bind-address=" + s.metrics}, Output: log,
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, operator.Stop)
	return nil
}

// Close ends everything, the last first.
func (s *Stage) Close() error {
	var errs []error
	for _, undo := range slices.Backward(s.closers) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// Add makes a Headscale from a manifest, in a namespace that is made where it is missing,
// and runs its pod.
func (s *Stage) Add(ctx context.Context, manifest string) (*podrunner.Runner, error) {
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &object.Object); err != nil {
		return nil, err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: object.GetNamespace()}}
	if err := client.IgnoreAlreadyExists(s.Admin.Create(ctx, namespace)); err != nil {
		return nil, err
	}
	if err := s.Admin.Create(ctx, object); err != nil {
		return nil, err
	}
	programs := map[string]string{env.ManagerImage: s.binaries.Manager}
	for version, program := range s.servers.Headscale {
		programs[v1beta1.DefaultImage+":"+version] = program
	}
	key := client.ObjectKeyFromObject(object)
	pod := podrunner.New(podrunner.Options{Client: s.Admin, Config: s.plane.Config(), Guard: s.Guard, StatefulSet: key, Programs: programs})
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wait sync.WaitGroup
	wait.Go(func() { pod.Run(running) })
	s.closers = append(s.closers, func() error { stop(); wait.Wait(); return nil })
	s.pods[key] = pod
	return pod, nil
}

// Operator is where the operator is scraped.
func (s *Stage) Operator() Target {
	return Target{Address: s.metrics, Labels: map[string]string{"namespace": "headscale-operator-system", "pod": "headscale-operator-controller-manager-0"}}
}

// Managers are where the API Key Managers that run are scraped.
func (s *Stage) Managers() []Target { return s.targets("apikey-manager", "apikey-metrics") }

// Headscales are where the Headscales that run are scraped.
func (s *Stage) Headscales() []Target { return s.targets("headscale", "metrics") }

func (s *Stage) targets(container, port string) []Target {
	var targets []Target
	for key, pod := range s.pods {
		if address := pod.Address(container, port); address != "" {
			targets = append(targets, Target{Address: address, Labels: map[string]string{
				"namespace": key.Namespace, "pod": key.Name + "-0", "container": container,
			}})
		}
	}
	slices.SortFunc(targets, func(a, b Target) int { return strings.Compare(a.Address, b.Address) })
	return targets
}
