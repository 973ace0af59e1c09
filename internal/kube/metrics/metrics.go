// Package metrics is what an operator exposes to Prometheus, independently of its kinds.
package metrics

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ScrapeTimeout ends a scrape that hangs. It is less than the ten seconds after which
// Prometheus gives up by default.
const ScrapeTimeout = 5 * time.Second

// operator collects what the operator exposes.
type operator struct {
	elected <-chan struct{}
	build   prometheus.Metric
	kinds   []prometheus.Collector
}

// New returns the collector of the operator's version and of its kinds. Only the leader exposes its
// kinds: only it has the current state, and series that two operators expose would be counted
// twice. elected is closed when the operator becomes the leader.
func New(elected <-chan struct{}, version, commit string, kinds ...prometheus.Collector) prometheus.Collector {
	build := prometheus.NewDesc("headscale_operator_build_info", "The operator that runs. Always 1.", []string{"version", "commit", "go_version"}, nil)
	return &operator{
		elected: elected,
		build:   prometheus.MustNewConstMetric(build, prometheus.GaugeValue, 1, version, commit, runtime.Version()),
		kinds:   kinds,
	}
}

// Describe is for the registry.
func (o *operator) Describe(descs chan<- *prometheus.Desc) {
	descs <- o.build.Desc()
	for _, kind := range o.kinds {
		kind.Describe(descs)
	}
}

// Collect is called for each scrape.
func (o *operator) Collect(found chan<- prometheus.Metric) {
	found <- o.build
	select {
	case <-o.elected:
	default:
		return
	}
	for _, kind := range o.kinds {
		kind.Collect(found)
	}
}
