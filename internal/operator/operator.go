// Package operator sets up the manager with the controllers of all kinds. A new kind needs a
// line in addToScheme, in cachedObjects and in kinds.
package operator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/headscale"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/controller/policy"
	"infrado.cloud/headscale-operator/internal/controller/preauthkey"
	"infrado.cloud/headscale-operator/internal/controller/user"
	"infrado.cloud/headscale-operator/internal/kube/metrics"
	"infrado.cloud/headscale-operator/internal/resources"
)

// LeaderElectionID is the name of the Lease that the operators of a cluster share.
const LeaderElectionID = "headscale-operator.infrado.cloud"

// Options are the operator's settings.
type Options struct {
	// ManagerImage is the image of the API Key Manager where a Headscale names none.
	ManagerImage string
	// Namespaces are the namespaces to watch; none: all.
	Namespaces []string
	// Metrics says how the metrics are served.
	Metrics metrics.Serving
	// ProbeAddress and PprofAddress are host:port, or "0" for none.
	ProbeAddress, PprofAddress string
	// LeaderElect is whether a leader is elected, by a Lease in LeaderElectionNamespace, or,
	// where that is empty, in the operator's own namespace.
	LeaderElect             bool
	LeaderElectionNamespace string
	// Version and Commit are for the metrics.
	Version, Commit string
	// Now is the clock.
	Now func() time.Time
}

// kind is the controller of one kind.
type kind interface {
	// SetupWithManager starts watching with the manager.
	SetupWithManager(ctx context.Context, m manager.Manager) error
	// Collector exposes the objects of the kind.
	Collector(objects cache.Cache) prometheus.Collector
}

// addToScheme register the kinds that the operator reads and writes. All of Kubernetes' would
// take another mebibyte.
var addToScheme = runtime.NewSchemeBuilder(
	appsv1.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, rbacv1.AddToScheme, storagev1.AddToScheme, v1beta1.AddToScheme,
)

// cachedObjects say what the cache holds for each controller.
var cachedObjects = []func() map[client.Object]cache.ByObject{
	headscale.CachedObjects, instance.CachedObjects, policy.CachedObjects, preauthkey.CachedObjects, user.CachedObjects,
}

// kinds are the controllers. What exists within a Headscale is asked of it through instances, until
// the context ends.
func kinds(ctx context.Context, m manager.Manager, options *Options) []kind {
	instances := instance.New(ctx, &instance.Options{
		Client: m.GetClient(), Live: m.GetAPIReader(), AllNamespaces: len(options.Namespaces) == 0, Now: options.Now,
	})
	return []kind{
		&headscale.Reconciler{
			Client: m.GetClient(), Live: m.GetAPIReader(), Now: options.Now,
			Options:       resources.Options{ManagerImage: options.ManagerImage},
			AllNamespaces: len(options.Namespaces) == 0,
		},
		&policy.Reconciler{Client: m.GetClient(), Live: m.GetAPIReader(), Instances: instances, Now: options.Now},
		&user.Reconciler{Client: m.GetClient(), Live: m.GetAPIReader(), Instances: instances, Now: options.Now},
		&preauthkey.Reconciler{Client: m.GetClient(), Live: m.GetAPIReader(), Instances: instances, Now: options.Now},
	}
}

// New returns a manager with all controllers, which serves metrics and probes and elects a
// leader. It stops watching when the context ends.
func New(ctx context.Context, cluster *rest.Config, options *Options) (manager.Manager, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	certificate, err := options.Metrics.Certificate()
	if err != nil {
		return nil, err
	}
	m, err := manager.New(cluster, manager.Options{
		Scheme:                  scheme,
		Cache:                   cacheOptions(options.Namespaces),
		Metrics:                 options.Metrics.Options(certificate, options.Now),
		HealthProbeBindAddress:  options.ProbeAddress,
		PprofBindAddress:        options.PprofAddress,
		LeaderElection:          options.LeaderElect,
		LeaderElectionID:        LeaderElectionID,
		LeaderElectionNamespace: options.LeaderElectionNamespace,
		// The program exits as soon as the manager does, so nothing runs without the lease.
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return nil, fmt.Errorf("creating the manager: %w", err)
	}
	if certificate != nil {
		if err := m.Add(certificate); err != nil {
			return nil, fmt.Errorf("adding the watcher of the metrics' certificate: %w", err)
		}
	}
	var collectors []prometheus.Collector
	for _, controller := range kinds(ctx, m, options) {
		collectors = append(collectors, controller.Collector(m.GetCache()))
		if err := controller.SetupWithManager(ctx, m); err != nil {
			return nil, fmt.Errorf("setting up a controller: %w", err)
		}
	}
	err = errors.Join(
		ctrlmetrics.Registry.Register(metrics.New(m.Elected(), options.Version, options.Commit, collectors...)),
		m.AddHealthzCheck("ping", healthz.Ping), m.AddReadyzCheck("ping", healthz.Ping),
	)
	if err != nil {
		return nil, fmt.Errorf("adding metrics and probes: %w", err)
	}
	return m, nil
}

// newScheme registers the kinds that the operator reads and writes.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := addToScheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering the API types: %w", err)
	}
	return scheme, nil
}

// cacheOptions limits the cache to what the controllers need, in the given namespaces, or in
// all where none are given.
func cacheOptions(namespaces []string) cache.Options {
	options := cache.Options{ByObject: map[client.Object]cache.ByObject{}}
	for _, of := range cachedObjects {
		maps.Copy(options.ByObject, of()) // a test sees to it that no two have the same type
	}
	for _, namespace := range namespaces {
		if options.DefaultNamespaces == nil {
			options.DefaultNamespaces = map[string]cache.Config{}
		}
		options.DefaultNamespaces[namespace] = cache.Config{}
	}
	return options
}
