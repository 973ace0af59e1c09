package plugin

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// eventReport is one event.
type eventReport struct {
	// Time is when it happened last.
	Time metav1.Time `json:"time"`
	// Type is Normal or Warning.
	Type   string `json:"type"`
	Reason string `json:"reason"`
	// Kind and Name are of the object that it happened to.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Message says what happened.
	Message string `json:"message"`
	// Count is how often it happened.
	Count int32 `json:"count"`
	// Reporter is the controller that says so.
	Reporter string `json:"reporter"`
}

// eventsCommand is kubectl headscale events.
func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var format output
	command := &cobra.Command{
		Use:   "events [NAME]",
		Short: "List what happened to a Headscale and its objects",
		Long: `Lists the events of a Headscale and of the objects that were made for it, the newest
last. Kubernetes forgets events after a while, usually an hour.`,
		Example: `  kubectl headscale events
  kubectl headscale events headscale --watch`,
		Args:              oneName,
		ValidArgsFunction: a.completeName,
		RunE: func(c *cobra.Command, args []string) error {
			return a.events(c.Context(), args, follow, &format)
		},
	}
	command.Flags().BoolVarP(&follow, "watch", "w", false, "keep listing new events, until Ctrl-C")
	format.addTo(command)
	return command
}

// events lists what happened to a Headscale.
func (a *app) events(ctx context.Context, args []string, follow bool, format *output) error {
	c, headscale, err := a.choose(ctx, args)
	if err != nil {
		return err
	}
	if follow {
		w := &eventWatch{source: c.events(headscale.Namespace), headscale: headscale, show: a.eventPrinter(format), shown: map[types.UID]string{}}
		return w.run(ctx)
	}
	found, _, err := c.events(headscale.Namespace).list(ctx)
	if err != nil {
		return err
	}
	reports := about(headscale, found)
	switch {
	case *format != "":
		return format.write(a.Streams.Out, list[eventReport]{Items: reports})
	case len(reports) == 0:
		_, _ = fmt.Fprintf(a.Streams.ErrOut, "There are no events of Headscale %s/%s.\n", headscale.Namespace, headscale.Name)
		return nil
	}
	newScreen(a.Streams.Out, a.Getenv).showEvents(a.Streams.Out, reports, a.Now())
	return nil
}

// about returns the events of a Headscale and its objects, the newest last.
func about(headscale *v1beta1.Headscale, found []eventsv1.Event) []eventReport {
	reports := []eventReport{}
	for i := range found {
		if concerns(headscale, &found[i].Regarding) {
			reports = append(reports, describeEvent(&found[i]))
		}
	}
	slices.SortStableFunc(reports, func(a, b eventReport) int {
		return cmp.Or(a.Time.Compare(b.Time.Time), cmp.Compare(a.Reason, b.Reason))
	})
	return reports
}

// concerns reports whether an object is a Headscale, or one of those that are named after
// it.
func concerns(headscale *v1beta1.Headscale, object *corev1.ObjectReference) bool {
	name := headscale.Name
	switch object.Kind {
	case "Headscale":
		return object.Name == name && (object.UID == "" || object.UID == headscale.UID)
	case "StatefulSet", "ConfigMap", "ServiceAccount", "Role", "RoleBinding":
		return object.Name == name
	case "Service":
		return object.Name == name || object.Name == resources.MetricsServiceName(headscale)
	case "Pod":
		return object.Name == resources.PodName(headscale)
	case "PersistentVolumeClaim":
		return object.Name == resources.DataClaimName(headscale)
	case "Secret":
		return object.Name == headscale.Spec.APIKey.EffectiveSecretName()
	default:
		return false
	}
}

// describeEvent reports on an event of either API: events of the older API have their times and
// counts in other fields.
func describeEvent(event *eventsv1.Event) eventReport {
	report := eventReport{
		Type: oneLine(event.Type), Reason: oneLine(event.Reason), Kind: event.Regarding.Kind, Name: event.Regarding.Name,
		Message: oneLine(event.Note), Reporter: event.ReportingController, Count: max(event.DeprecatedCount, 1),
	}
	if report.Reporter == "" {
		report.Reporter = event.DeprecatedSource.Component
	}
	var series time.Time
	if event.Series != nil {
		series, report.Count = event.Series.LastObservedTime.Time, event.Series.Count
	}
	for _, at := range []time.Time{series, event.DeprecatedLastTimestamp.Time, event.EventTime.Time, event.DeprecatedFirstTimestamp.Time, event.CreationTimestamp.Time} {
		if !at.IsZero() {
			report.Time = metav1.Time{Time: at}
			break
		}
	}
	return report
}

// showEvents prints events with how long ago they were.
func (s screen) showEvents(out io.Writer, reports []eventReport, now time.Time) {
	rows := [][]cell{headings("AGE", "TYPE", "REASON", "OBJECT", "MESSAGE")}
	for i := range reports {
		rows = append(rows, reports[i].row(span(now.Sub(reports[i].Time.Time))))
	}
	s.table(out, rows)
}

// row is an event as the row of a table.
func (e *eventReport) row(when string) []cell {
	as := plain
	if e.Type == corev1.EventTypeWarning {
		as = yellow
	}
	message := e.Message
	if e.Count > 1 {
		message += fmt.Sprintf(" (%d times)", e.Count)
	}
	return []cell{{when, plain}, {e.Type, as}, {e.Reason, plain}, {e.Kind + "/" + e.Name, plain}, {message, plain}}
}
