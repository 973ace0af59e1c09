package apikey

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// Metrics are what can be measured of one Manager, as its Observer and as a collector
// of Prometheus. No label of theirs has a value that is not known beforehand: a reason
// is one of a list, and the versions never change.
type Metrics struct {
	facts MetricsFacts

	mu                  sync.Mutex
	checks, revoked     float64
	rotations, failures map[rotation.Reason]float64
	// key is what the last decision was about, and blocked its reason if a person must
	// resolve a problem.
	key     keyFacts
	blocked rotation.Reason
	// success is when a check last ended with the key in order and no other that
	// Headscale fails to expire, zero before.
	success time.Time
	// answered is whether Headscale answered the last call.
	answered bool
	// requests to the admin endpoint are counted by the hundreds of the status.
	requests [statusClasses]float64
}

// MetricsFacts is what does not change while a Manager runs, and where to ask for what
// does.
type MetricsFacts struct {
	// Version and Commit are those of this program.
	Version, Commit string
	// HeadscaleVersion is what the operator says that runs next to it; may be empty.
	HeadscaleVersion string
	// Transport returns what Headscale was last found to speak.
	Transport func() headscale.Transport
}

// keyFacts is what is known of the stored key, zero where there is none, and how many
// entries of others the ledger has.
type keyFacts struct {
	expiration, creation, due time.Time
	retiring, pending         int
}

func factsOf(view View) keyFacts {
	if view.Record == nil || !view.Record.Ours {
		return keyFacts{}
	}
	facts := keyFacts{retiring: len(view.Record.Retiring), pending: len(view.Record.Pending)}
	if key := view.Stored(); key != nil {
		facts.creation = view.Record.CreatedAt
		if !key.Expiration.IsZero() {
			facts.expiration, facts.due = key.Expiration, view.Due()
		}
	}
	return facts
}

// NewMetrics returns the Metrics of a Manager that has not started yet.
func NewMetrics(facts MetricsFacts) *Metrics {
	m := &Metrics{facts: facts, rotations: map[rotation.Reason]float64{}, failures: map[rotation.Reason]float64{}}
	// A counter that begins with its first event hides that event from rate().
	for _, reason := range rotationReasons {
		m.rotations[reason] = 0
	}
	for _, reason := range failureReasons {
		m.failures[reason] = 0
	}
	return m
}

// Handler serves the metrics, with those of the process and of the Go runtime. They are
// not compressed: that takes more memory than all the rest of the program's work.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry(), promhttp.HandlerOpts{DisableCompression: true})
}

func (m *Metrics) registry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// Watch returns an Admin that does as the other and has its answers noted.
func (m *Metrics) Watch(admin Admin) Admin { return watchedAdmin{admin, m} }

// Began counts a check.
func (m *Metrics) Began() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checks++
}

// Decided notes what is known of the stored key.
func (m *Metrics) Decided(view View, d rotation.Decision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.key, m.blocked = factsOf(view), ""
	switch d.Action {
	case rotation.None:
		// A key that Headscale will not expire is left alone between two tries, and is
		// not in order for that.
		if len(view.Stuck) == 0 {
			m.success = view.Now
		}
	case rotation.Blocked:
		m.blocked = d.Reason
		m.failures[d.Reason]++
	}
}

// Did counts keys that were stored and keys that were expired.
func (m *Metrics) Did(step rotation.Step, reason rotation.Reason) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch step {
	case rotation.StepStore:
		m.rotations[reason]++
	case rotation.StepExpire:
		m.revoked++
	}
}

// Failed counts an attempt that failed.
func (m *Metrics) Failed(reason rotation.Reason) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures[reason]++
}

// statusClasses is the number of classes of HTTP's statuses: from 1xx, which is never a
// request's last, to 5xx.
const statusClasses = 6

// Answered counts a request to the admin endpoint by the status of its answer.
func (m *Metrics) Answered(status int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests[min(max(status/100, 2), statusClasses-1)]++
}

// watchedAdmin notes whether Headscale answers.
type watchedAdmin struct {
	Admin
	metrics *Metrics
}

func (w watchedAdmin) ListAPIKeys(ctx context.Context) ([]headscale.APIKey, error) {
	keys, err := w.Admin.ListAPIKeys(ctx)
	w.note(ctx, err)
	return keys, err
}

func (w watchedAdmin) CreateAPIKey(ctx context.Context, expiration time.Time) (headscale.Key, error) {
	key, err := w.Admin.CreateAPIKey(ctx, expiration)
	w.note(ctx, err)
	return key, err
}

func (w watchedAdmin) ExpireAPIKey(ctx context.Context, prefix string) error {
	err := w.Admin.ExpireAPIKey(ctx, prefix)
	w.note(ctx, err)
	return err
}

// note takes an error that Headscale answered with as an answer, and a call that we
// broke off ourselves as none of both.
func (w watchedAdmin) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	w.metrics.mu.Lock()
	defer w.metrics.mu.Unlock()
	w.metrics.answered = !errors.Is(err, headscale.ErrUnavailable)
}

const metricsPrefix = "headscale_apikey_"

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(metricsPrefix+name, help, labels, nil)
}

// What the metrics are called. The names are part of the contract with dashboards and
// alerts.
var (
	descExpiration   = describe("expiration_timestamp_seconds", "When the stored API key expires.")
	descCreation     = describe("creation_timestamp_seconds", "When the stored API key was created.")
	descNextRotation = describe("next_rotation_timestamp_seconds", "When the stored API key is due to be replaced.")
	descSuccess      = describe("last_success_timestamp_seconds", "When a check last ended with a valid API key and no other that Headscale fails to expire.")
	descChecks       = describe("checks_total", "Checks started; while Headscale does not answer, up to fifty a second.")
	descRotations    = describe("rotations_total", "API keys stored, by the reason for the rotation; KeyUnsaved: a key created earlier, which could not be stored then.", "reason")
	descFailures     = describe("failures_total", "Attempts that failed or were blocked, by reason.", "reason")
	descRevoked      = describe("keys_revoked_total", "API keys expired in Headscale.")
	descRetiring     = describe("retiring_keys", "Replaced API keys that are not expired yet.")
	descPending      = describe("pending_keys", "API keys requested from Headscale that may still appear in its list.")
	descBlocked      = describe("blocked", "1 while a person must resolve a problem, by reason.", "reason")
	descUp           = describe("headscale_up", "1 if Headscale answered the last call on its socket; when idle there is one every 25 seconds.")
	descHeadscale    = describe("headscale_info", "The Headscale next to this API Key Manager.", "version", "transport")
	descAdmin        = describe("admin_requests_total", "Requests to the admin endpoint, by the class of the answer's status.", "code")
	descBuild        = describe("build_info", "The build of this API Key Manager.", "version", "commit", "go_version")
)

// Describe sends what the metrics are called.
func (m *Metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		descExpiration, descCreation, descNextRotation, descSuccess, descChecks, descRotations, descFailures,
		descRevoked, descRetiring, descPending, descBlocked, descUp, descHeadscale, descAdmin, descBuild,
	} {
		descs <- desc
	}
}

// Collect sends the metrics as they are now.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, kind, value, labels...)
	}
	// What is not known has no value, and not the year 1970.
	sendTime := func(desc *prometheus.Desc, instant time.Time) {
		if !instant.IsZero() {
			send(desc, prometheus.GaugeValue, float64(instant.UnixMicro())/1e6)
		}
	}
	sendTime(descExpiration, m.key.expiration)
	sendTime(descCreation, m.key.creation)
	sendTime(descNextRotation, m.key.due)
	sendTime(descSuccess, m.success)
	send(descChecks, prometheus.CounterValue, m.checks)
	send(descRevoked, prometheus.CounterValue, m.revoked)
	for reason, count := range m.rotations {
		send(descRotations, prometheus.CounterValue, count, string(reason))
	}
	for reason, count := range m.failures {
		send(descFailures, prometheus.CounterValue, count, string(reason))
	}
	for _, reason := range blockingReasons {
		send(descBlocked, prometheus.GaugeValue, number(m.blocked == reason), string(reason))
	}
	for class := 2; class < statusClasses; class++ {
		send(descAdmin, prometheus.CounterValue, m.requests[class], strconv.Itoa(class)+"xx")
	}
	send(descUp, prometheus.GaugeValue, number(m.answered))
	if transport := m.facts.Transport(); transport != headscale.TransportUnknown {
		send(descHeadscale, prometheus.GaugeValue, 1, validText(m.facts.HeadscaleVersion), strings.ToLower(transport.String()))
	}
	send(descBuild, prometheus.GaugeValue, 1, validText(m.facts.Version), validText(m.facts.Commit), runtime.Version())
	send(descRetiring, prometheus.GaugeValue, float64(m.key.retiring))
	send(descPending, prometheus.GaugeValue, float64(m.key.pending))
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// validText makes a text from the command line fit for a label.
func validText(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
