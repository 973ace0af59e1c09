package instancetest

import (
	"context"
	"maps"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/kube/kubetest"
)

// MaxAge is how old a snapshot may be here: nobody waits half a minute for a drift.
const MaxAge = 500 * time.Millisecond

// Operator reconciles the objects of one kind, under the rights that it is shipped with.
type Operator struct {
	// Cached is what the kind has in the cache.
	Cached map[client.Object]cache.ByObject
	// Namespaces are those that it watches; none: all.
	Namespaces []string
	// Wrap sees its requests; nil: nobody does.
	Wrap transport.WrapperFunc
	// SetUp sets up the kind's controller.
	SetUp func(running context.Context, m manager.Manager, instances *instance.Instances) error
}

// StartOperator starts an operator, which stops at the end of the spec or the container of specs,
// or with the function that is returned.
func (c *Cluster) StartOperator(o *Operator) (stop func()) {
	GinkgoHelper()
	user := rest.CopyConfig(c.Config)
	user.Impersonate = rest.ImpersonationConfig{UserName: operatorUser}
	user.Wrap(o.Wrap)
	m, err := manager.New(user, manager.Options{
		Scheme: c.Scheme, Cache: o.cacheOptions(), Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
	})
	Expect(err).NotTo(HaveOccurred())
	running, cancel := context.WithCancel(context.Background())
	instances := instance.New(running, &instance.Options{
		Client: m.GetClient(), Live: m.GetAPIReader(), AllNamespaces: len(o.Namespaces) == 0, Now: time.Now, Connect: connect, MaxAge: MaxAge,
	})
	Expect(o.SetUp(running, m, instances)).To(Succeed())
	done := make(chan error)
	go func() { done <- m.Start(running) }()
	stop = sync.OnceFunc(func() {
		cancel()
		Eventually(done).Should(Receive(BeNil()))
	})
	DeferCleanup(stop)
	return stop
}

// cacheOptions limits a cache to what the kind needs, in some namespaces or in all.
func (o *Operator) cacheOptions() cache.Options {
	options := cache.Options{ByObject: o.Cached}
	if len(o.Namespaces) == 0 {
		maps.Copy(options.ByObject, instance.CachedObjects())
	} else {
		options.DefaultNamespaces = map[string]cache.Config{}
	}
	for _, namespace := range o.Namespaces {
		options.DefaultNamespaces[namespace] = cache.Config{}
	}
	kubetest.DelayCache(&options)
	return options
}
