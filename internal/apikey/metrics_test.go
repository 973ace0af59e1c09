package apikey

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// scrape is what Prometheus is given.
func (w *world) scrape() string {
	w.t.Helper()
	recorder := httptest.NewRecorder()
	w.metrics.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, "/metrics", http.NoBody))
	w.Expect(recorder.Code).To(Equal(http.StatusOK))
	return recorder.Body.String()
}

// value is that of a series such as blocked{reason="SecretNotOurs"}, nil if there is none.
func (w *world) value(series string) any {
	w.t.Helper()
	for line := range strings.Lines(w.scrape()) {
		if text, found := strings.CutPrefix(strings.TrimSpace(line), metricsPrefix+series+" "); found {
			value, err := strconv.ParseFloat(text, 64)
			w.Expect(err).NotTo(HaveOccurred())
			return value
		}
	}
	return nil
}

// at matches the value of a time to the millisecond.
func at(instant time.Time) types.GomegaMatcher {
	return BeNumerically("~", float64(instant.UnixMicro())/1e6, 0.001)
}

func TestTheMetricsOfAKey(t *testing.T) {
	inWorld(t, rotation.Settings{Expiration: 2160 * time.Hour, RotationBuffer: 240 * time.Hour}, func(w *world) {
		w.headscale.failList = func() error { return headscale.ErrUnavailable }
		w.start()
		for _, unknown := range []string{"expiration_timestamp_seconds", "creation_timestamp_seconds", "next_rotation_timestamp_seconds", "last_success_timestamp_seconds"} {
			w.Expect(w.value(unknown)).To(BeNil(), unknown)
		}
		w.Expect(w.scrape()).NotTo(ContainSubstring("headscale_apikey_headscale_info{"))
		w.Expect(w.value("headscale_up")).To(Equal(0.0))

		w.headscale.set(func() { w.headscale.failList = nil })
		w.pass(waitInterval)
		made := time.Now()
		w.Expect(w.value("headscale_up")).To(Equal(1.0))
		w.Expect(w.value("headscale_info{transport=\"grpc\",version=\"v0.29.3\"}")).To(Equal(1.0))
		w.Expect(w.value("expiration_timestamp_seconds")).To(at(rotation.ParseTime(w.note(v1beta1.AnnotationExpiration))))
		w.Expect(w.value("creation_timestamp_seconds")).To(at(rotation.ParseTime(w.note(v1beta1.AnnotationCreatedAt))))
		w.Expect(w.value("next_rotation_timestamp_seconds")).To(at(rotation.ParseTime(w.note(v1beta1.AnnotationExpiration)).Add(-240 * time.Hour)))
		w.Expect(w.value("last_success_timestamp_seconds")).To(at(made))
		w.Expect(w.value("rotations_total{reason=\"SecretMissing\"}")).To(Equal(1.0))
		w.Expect(w.value("keys_revoked_total")).To(Equal(0.0))

		checks, known := w.value("checks_total").(float64)
		w.Expect(known).To(BeTrue())
		w.pass(rotation.CheckInterval)
		w.Expect(w.value("checks_total")).To(Equal(checks + 1))
		w.Expect(w.value("last_success_timestamp_seconds")).To(at(time.Now()))

		w.pass(80*day + time.Minute)
		w.Expect(w.value("rotations_total{reason=\"RotationDue\"}")).To(Equal(1.0))
		w.Expect(w.value("keys_revoked_total")).To(Equal(1.0))
		w.Expect(w.value("expiration_timestamp_seconds")).To(at(rotation.ParseTime(w.note(v1beta1.AnnotationExpiration))))
	})
}

func TestTheMetricsOfTheLedger(t *testing.T) {
	inWorld(t, rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute, RevocationDelay: 10 * time.Minute}, func(w *world) {
		w.start().pass(31 * time.Minute)
		w.Expect(w.value("retiring_keys")).To(Equal(1.0))
		w.Expect(w.value("keys_revoked_total")).To(Equal(0.0))
		w.pass(10 * time.Minute)
		w.Expect(w.value("retiring_keys")).To(Equal(0.0))
		w.Expect(w.value("keys_revoked_total")).To(Equal(1.0))

		w.headscale.set(func() { w.headscale.failCreate = once(headscale.ErrUnavailable) })
		w.secrets.edit(setValue("rubbish"))
		w.pass(2 * time.Second)
		w.Expect(w.value("pending_keys")).To(Equal(1.0), "the one whose answer was lost may still appear")
		w.pass(rotation.PendingTimeout + rotation.PendingInterval)
		w.Expect(w.value("pending_keys")).To(Equal(0.0))
	})
}

func TestTheMetricsOfFailures(t *testing.T) {
	refused := errors.New("database is locked")
	for reason, test := range map[rotation.Reason]struct {
		fail func(w *world)
		up   float64
	}{
		ReasonHeadscaleUnavailable: {func(w *world) { w.headscale.failList = func() error { return headscale.ErrUnavailable } }, 0},
		ReasonHeadscaleFailed:      {func(w *world) { w.headscale.failList = func() error { return refused } }, 1},
		rotation.ReasonThrottled:   {func(w *world) { w.headscale.failCreate = func() error { return refused } }, 1},
		rotation.ReasonUnsettled:   {func(w *world) { w.secrets.fail = alwaysThereFirst }, 1},
		ReasonKubernetesUnavailable: {func(w *world) {
			w.secrets.fail = func(string, *corev1.Secret) error { return errKubernetes }
		}, 1},
		ReasonForbidden: {func(w *world) {
			w.secrets.fail = func(string, *corev1.Secret) error {
				return apierrors.NewForbidden(secretGroupResource, "test", errors.New(`User "x" cannot`))
			}
		}, 1},
	} {
		t.Run(string(reason), func(t *testing.T) {
			inWorld(t, defaults, func(w *world) {
				series := "failures_total{reason=\"" + string(reason) + "\"}"
				test.fail(w)
				w.start().pass(time.Minute)
				before := w.value(series)
				w.Expect(before).To(BeNumerically(">", 0), "%s", w.log)
				w.Expect(w.value("headscale_up")).To(Equal(test.up))
				w.Expect(w.value("last_success_timestamp_seconds")).To(BeNil())
				w.pass(2 * time.Minute)
				w.Expect(w.value(series)).To(BeNumerically(">", before), "each attempt counts, though the log says it once")
			})
		})
	}
}

// alwaysThereFirst is somebody who makes the Secret and deletes it again whenever we do.
func alwaysThereFirst(verb string, _ *corev1.Secret) error {
	if verb == "create" {
		return apierrors.NewAlreadyExists(secretGroupResource, "test")
	}
	return nil
}

func TestTheMetricsOfABlockedManager(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.secrets.edit(func(*corev1.Secret) *corev1.Secret {
			return &corev1.Secret{Data: map[string][]byte{"api-key": []byte("theirs")}}
		})
		w.start().pass(time.Minute)
		w.Expect(w.value("blocked{reason=\"SecretNotOurs\"}")).To(Equal(1.0))
		w.Expect(w.value("blocked{reason=\"SecretImmutable\"}")).To(Equal(0.0))
		w.Expect(w.value("failures_total{reason=\"SecretNotOurs\"}")).To(BeNumerically(">", 0))
		w.Expect(w.value("expiration_timestamp_seconds")).To(BeNil(), "their key is not ours")

		w.secrets.edit(removed)
		synctest.Wait()
		w.Expect(w.value("blocked{reason=\"SecretNotOurs\"}")).To(Equal(0.0))
		w.Expect(w.value("expiration_timestamp_seconds")).NotTo(BeNil())

		w.secrets.edit(edited(func(s *corev1.Secret) { immutable := true; s.Immutable = &immutable }))
		w.pass(11 * day)
		w.Expect(w.value("blocked{reason=\"SecretImmutable\"}")).To(Equal(1.0))
	})
}

func TestAKeyThatCannotBeExpiredIsNoSuccess(t *testing.T) {
	settings := rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute}
	inWorld(t, settings, func(w *world) {
		w.start().pass(time.Minute)
		w.headscale.set(func() { w.headscale.failExpire = func() error { return errors.New("database is read-only for this") } })
		w.pass(30 * time.Minute)
		success := w.value("last_success_timestamp_seconds")
		w.Expect(w.value("rotations_total{reason=\"RotationDue\"}")).To(Equal(1.0), "%s", w.log)
		w.Expect(w.value("keys_revoked_total")).To(Equal(0.0))
		for range 20 {
			failures := w.value("failures_total{reason=\"HeadscaleFailed\"}")
			w.pass(maxRetry + time.Second)
			w.Expect(w.value("failures_total{reason=\"HeadscaleFailed\"}")).To(BeNumerically(">", failures))
			w.Expect(w.value("last_success_timestamp_seconds")).To(Equal(success), "between two tries nothing is done, but not all is well")
		}

		w.headscale.set(func() { w.headscale.failExpire = nil })
		w.pass(maxRetry + time.Second)
		w.Expect(w.value("keys_revoked_total")).To(Equal(1.0))
		w.Expect(w.value("last_success_timestamp_seconds")).To(BeNumerically(">", success))
	})
}

func TestAKeyThatIsStoredLateCounts(t *testing.T) {
	inWorld(t, defaults, func(w *world) {
		w.secrets.fail = func(_ string, secret *corev1.Secret) error {
			if secret == nil || secret.Data[v1beta1.SecretDataKey] == nil {
				return nil
			}
			return errKubernetes
		}
		w.start().pass(time.Minute)
		w.secrets.set(func() { w.secrets.fail = nil })
		w.pass(time.Minute)
		w.atRest()
		w.Expect(w.value("rotations_total{reason=\"KeyUnsaved\"}")).To(Equal(1.0))
	})
}

// TestTheMetricsAreInOrder looks at all series of a Manager that has seen a lot.
func TestTheMetricsAreInOrder(t *testing.T) {
	inWorld(t, rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute}, func(w *world) {
		w.headscale.failCreate = once(errors.New("database is locked"))
		w.start().pass(3 * time.Hour)
		w.secrets.edit(setValue("rubbish"))
		w.pass(time.Hour)

		families, err := w.metrics.registry().Gather()
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(promlint.NewWithMetricFamilies(families).Lint()).To(BeEmpty())
		reasons, names := map[string]bool{}, map[string]bool{}
		for _, family := range families {
			if !strings.HasPrefix(family.GetName(), metricsPrefix) {
				continue
			}
			names[family.GetName()] = true
			for _, metric := range family.GetMetric() {
				for _, label := range metric.GetLabel() {
					switch label.GetName() {
					case "reason":
						reasons[label.GetValue()] = true
					case "code":
						w.Expect(label.GetValue()).To(MatchRegexp("^[2-5]xx$"))
					case "version", "commit", "go_version", "transport":
						w.Expect(family.GetMetric()).To(HaveLen(1), family.GetName())
					default:
						t.Errorf("%s has the label %s", family.GetName(), label.GetName())
					}
				}
			}
		}
		w.Expect(slices.Collect(maps.Keys(names))).To(ConsistOf(
			"headscale_apikey_expiration_timestamp_seconds", "headscale_apikey_creation_timestamp_seconds",
			"headscale_apikey_next_rotation_timestamp_seconds", "headscale_apikey_last_success_timestamp_seconds",
			"headscale_apikey_checks_total", "headscale_apikey_rotations_total", "headscale_apikey_failures_total",
			"headscale_apikey_keys_revoked_total", "headscale_apikey_retiring_keys", "headscale_apikey_pending_keys",
			"headscale_apikey_blocked", "headscale_apikey_headscale_up", "headscale_apikey_headscale_info", "headscale_apikey_build_info",
			"headscale_apikey_admin_requests_total"))
		known := declaredReasons(t)
		for reason := range reasons {
			w.Expect(known).To(ContainElement(reason))
		}
		w.Expect(w.scrape()).To(And(ContainSubstring("go_goroutines "), ContainSubstring("process_resident_memory_bytes ")))
		w.Expect(w.scrape()).NotTo(ContainSubstring(string(w.key())))
	})
}

// TestEveryReasonIsCounted has a new reason put into the list that it belongs to.
func TestEveryReasonIsCounted(t *testing.T) {
	g := NewWithT(t)
	var counted []string
	for _, list := range [][]rotation.Reason{rotationReasons, failureReasons,
		// These are not the end of anything: what they are about goes on.
		{rotation.ReasonUpToDate, rotation.ReasonSettling, rotation.ReasonOrphaned, rotation.ReasonAnnotationsDiffer},
	} {
		for _, reason := range list {
			counted = append(counted, string(reason))
		}
	}
	g.Expect(counted).To(ConsistOf(declaredReasons(t)))
}

// declaredReasons are the values of all constants of the type Reason, those of a rotation
// of any credential and those of API keys.
func declaredReasons(t *testing.T) []string {
	t.Helper()
	return append(reasonsIn(t, "../rotation/reasons.go"), reasonsIn(t, "reasons.go")...)
}

func reasonsIn(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(file, func(node ast.Node) bool {
		spec, is := node.(*ast.ValueSpec)
		if !is {
			return true
		}
		if !isReason(spec.Type) {
			return false
		}
		literal, written := spec.Values[0].(*ast.BasicLit)
		if !written {
			t.Fatalf("%s is no literal", spec.Names[0].Name)
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, text)
		return false
	})
	return values
}

// isReason reports whether a type is Reason or rotation.Reason.
func isReason(kind ast.Expr) bool {
	if selector, is := kind.(*ast.SelectorExpr); is {
		kind = selector.Sel
	}
	named, is := kind.(*ast.Ident)
	return is && named.Name == "Reason"
}

func TestWhatTheOperatorSaysIsFitForALabel(t *testing.T) {
	g := NewWithT(t)
	metrics := NewMetrics(MetricsFacts{HeadscaleVersion: "v0\xff", Transport: func() headscale.Transport { return headscale.TransportHTTP }})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics)
	families, err := registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(families).To(ContainElement(HaveField("GetName()", "headscale_apikey_headscale_info")))
}
