package plugin

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// update writes the golden files instead of comparing with them:
// go test ./internal/plugin -run Golden -update
var update = flag.Bool("update", false, "write the golden files in testdata")

// Screens that texts are written for.
var (
	pipe     = screen{unicode: true}
	inPOSIX  = screen{width: 80}
	narrow   = screen{width: 80, unicode: true}
	coloured = screen{width: 120, unicode: true, colour: true}
)

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	g := NewWithT(t)
	file := filepath.Join("testdata", name+".txt")
	if *update {
		g.Expect(os.WriteFile(file, []byte(got), 0o600)).To(Succeed())
	}
	want, err := os.ReadFile(file)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got).To(Equal(string(want)), "run with -update if this is as it should be")
}

// crashing is a Headscale that is crash-looping, with last words that try to change the
// terminal.
var crashing = []func(*v1beta1.Headscale){says(
	condition(v1beta1.ConditionReady, false, v1beta1.ReasonCrashing, "Headscale in pod headscale-0 is crash-looping: parsing IPv4 prefix from config: \x1b[2Jnetip.ParsePrefix(“300.64.0.0/10”): unable to parse IP\nexit 1 …"),
	condition(v1beta1.ConditionAvailable, false, v1beta1.ReasonCrashing, "Headscale in pod headscale-0 is crash-looping: parsing IPv4 prefix from config: \x1b[2Jnetip.ParsePrefix(“300.64.0.0/10”): unable to parse IP\nexit 1 …"),
)}

func TestGoldenStatusOfOne(t *testing.T) {
	both := podOf("headscale", runs("headscale"), runs(managerContainer))
	for name, test := range map[string]struct {
		screen    screen
		headscale *v1beta1.Headscale
		pod       podView
		secret    secretView
	}{
		"status-ready":          {pipe, headscaleNamed("headscale"), both, secretOf(nil)},
		"status-ready-narrow":   {narrow, headscaleNamed("headscale"), both, secretOf(nil)},
		"status-ready-coloured": {coloured, headscaleNamed("headscale"), both, secretOf(nil)},
		"status-crashing":       {narrow, headscaleNamed("headscale", crashing...), podOf("headscale", waits("headscale", "CrashLoopBackOff"), runs(managerContainer)), secretOf(nil)},
		"status-crashing-posix": {inPOSIX, headscaleNamed("headscale", crashing...), podOf("headscale", waits("headscale", "CrashLoopBackOff"), runs(managerContainer)), secretOf(nil)},
		"status-no-rights":      {pipe, headscaleNamed("headscale"), podView{forbidden: true}, secretView{forbidden: true}},
		"status-no-pod":         {pipe, headscaleNamed("headscale"), podView{}, secretView{}},
		"status-unmanaged":      {pipe, headscaleNamed("headscale", unmanaged), podOf("headscale", runs("headscale")), secretOf(nil)},
		"status-new": {pipe, headscaleNamed("headscale", func(h *v1beta1.Headscale) {
			h.Status = v1beta1.HeadscaleStatus{ObservedGeneration: -1}
		}), podView{}, secretView{}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			report := describe(test.headscale, test.pod, test.secret, now)
			test.screen.showOne(&out, &report, now)
			golden(t, name, out.String())
			if !test.screen.colour {
				NewWithT(t).Expect(out.String()).NotTo(ContainSubstring("\x1b"))
			}
		})
	}
}

func TestGoldenStatusOfMany(t *testing.T) {
	late := secretOf(map[string]string{v1beta1.AnnotationExpiration: now.Add(79 * day).Format(time.RFC3339)})
	overdue := says(condition(v1beta1.ConditionReady, true, v1beta1.ReasonKeyOverdue, "The API key in Secret headscale-api-key should have been replaced at 2026-11-26T12:00:00Z"))
	reports := []statusReport{
		describe(headscaleNamed("first"), podOf("first", runs("headscale")), secretOf(nil), now),
		describe(headscaleNamed("headscale", crashing...), podView{}, secretOf(nil), now),
		describe(headscaleNamed("overdue", overdue), podView{}, late, now),
		describe(headscaleNamed("unmanaged", unmanaged), podView{}, secretView{}, now),
	}
	for name, test := range map[string]struct {
		screen screen
		all    bool
	}{
		"many":          {pipe, false},
		"many-all":      {screen{width: 160, unicode: true}, true},
		"many-posix":    {inPOSIX, false},
		"many-coloured": {coloured, true},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			test.screen.showMany(&out, reports, test.all, now)
			golden(t, name, out.String())
		})
	}
}

func TestGoldenKey(t *testing.T) {
	for name, test := range map[string]struct {
		screen screen
		secret secretView
	}{
		"key-valid":    {pipe, secretOf(nil)},
		"key-retiring": {pipe, secretOf(map[string]string{v1beta1.AnnotationRetiring: "31b0b7c1e2d4@2026-11-27T12:05:00Z,evil\x1b@2026-11-27T12:05:00Z,, bad,x@y", v1beta1.AnnotationKeyPrefix: "9ac3e6a37ae0\x1b"})},
		"key-expired":  {inPOSIX, secretOf(map[string]string{v1beta1.AnnotationExpiration: "2026-11-27T12:00:00Z"})},
		"key-missing":  {pipe, secretView{}},
		"key-foreign":  {pipe, foreignSecret()},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			key := describeKey(headscaleNamed("headscale"), test.secret, now)
			test.screen.fields(&out, test.screen.keyFields(&key, now))
			golden(t, name, out.String())
		})
	}
}

// eventOf is an event as the operator records it.
func eventOf(age time.Duration, kind, reason, note, objectKind, object string) eventsv1.Event {
	return eventsv1.Event{
		EventTime: metav1.MicroTime{Time: now.Add(-age)}, Type: kind, Reason: reason, Note: note,
		ReportingController: "headscale-operator", Regarding: corev1.ObjectReference{Kind: objectKind, Name: object, Namespace: "default"},
	}
}

func TestGoldenEvents(t *testing.T) {
	headscale := headscaleNamed("headscale")
	pulled := eventsv1.Event{
		Type: "Normal", Reason: "Pulled", Note: "Container image is already present", Regarding: corev1.ObjectReference{Kind: "Pod", Name: "headscale-0"},
		DeprecatedSource: corev1.EventSource{Component: "kubelet"}, DeprecatedCount: 3, DeprecatedLastTimestamp: at(-2 * time.Minute), DeprecatedFirstTimestamp: at(-time.Hour),
	}
	series := eventOf(time.Hour, "Warning", v1beta1.ReasonCrashing, "Headscale in pod headscale-0\nis crash-looping: it exited with code 1 and printed nothing; kubectl logs headscale-0 -c headscale --previous may tell more", "Headscale", "headscale")
	series.Series = &eventsv1.EventSeries{Count: 7, LastObservedTime: metav1.MicroTime{Time: now.Add(-10 * time.Second)}}
	found := []eventsv1.Event{
		series, pulled,
		eventOf(5*time.Minute, "Normal", v1beta1.EventCreated, "StatefulSet headscale was made", "Headscale", "headscale"),
		eventOf(4*time.Minute, "Normal", "ProvisioningSucceeded", "Successfully provisioned volume", "PersistentVolumeClaim", "data-headscale-0"),
		eventOf(4*time.Minute, "Normal", v1beta1.EventCreated, "of another", "Headscale", "other"),
		eventOf(4*time.Minute, "Normal", "Scheduled", "of another", "Pod", "headscale-1"),
		eventOf(4*time.Minute, "Normal", "Scheduled", "of another kind", "Job", "headscale"),
	}
	earlier := eventOf(3*time.Minute, "Normal", v1beta1.EventCreated, "of one that was deleted", "Headscale", "headscale")
	earlier.Regarding.UID = "9999"
	reports := about(headscale, append(found, earlier))
	for name, s := range map[string]screen{"events": pipe, "events-posix": inPOSIX, "events-coloured": coloured} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			s.showEvents(&out, reports, now)
			golden(t, name, out.String())
		})
	}
}

func TestGoldenForPrograms(t *testing.T) {
	report := describe(headscaleNamed("headscale"), podOf("headscale", runs("headscale"), waits(managerContainer, "CrashLoopBackOff")), secretOf(map[string]string{
		v1beta1.AnnotationRetiring: "31b0b7c1e2d4@2026-11-27T12:05:00Z"}), now)
	yes := true
	rotated := &rotationReport{Namespace: "default", Name: "headscale", Secret: "headscale-api-key", State: rotationDone, Request: "2026-11-27T12:00:00Z",
		OldPrefix: "9ac3e6a37ae0", NewPrefix: "31b0b7c1e2d4", Expiration: report.Key.Expiration, OldRevoked: &yes}
	events := list[eventReport]{Items: about(headscaleNamed("headscale"), []eventsv1.Event{
		eventOf(5*time.Minute, "Normal", v1beta1.EventCreated, "StatefulSet headscale was made", "Headscale", "headscale")})}
	for name, value := range map[string]any{
		"status": report, "key": namedKey{"default", "headscale", report.Key}, "rotate": rotated, "events": events,
		"none": list[statusReport]{Items: []statusReport{}},
	} {
		for _, format := range formats {
			t.Run(name+" "+format, func(t *testing.T) {
				var out bytes.Buffer
				o := output(format)
				NewWithT(t).Expect(o.write(&out, value)).To(Succeed())
				golden(t, name+"-"+format, out.String())
			})
		}
	}
}
