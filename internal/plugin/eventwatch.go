package plugin

import (
	"context"
	"encoding/json"
	"fmt"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// eventWatch shows the events of a Headscale as they come.
type eventWatch struct {
	source    *eventSource
	headscale *v1beta1.Headscale
	show      func(*eventReport) error
	// shown is the version in which each event was shown that Kubernetes remembers.
	shown map[types.UID]string
}

// run shows the existing events and then the new ones, until the context ends.
func (w *eventWatch) run(ctx context.Context) error {
	var err error
	for err == nil && ctx.Err() == nil {
		err = w.listAndFollow(ctx)
		// That resource version may have expired: all events are listed again.
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			err = nil
		}
	}
	if ctx.Err() != nil {
		err = nil
	}
	return err
}

// listAndFollow shows the existing events and the new ones, until the watch or the context ends.
func (w *eventWatch) listAndFollow(ctx context.Context) error {
	found, version, err := w.source.list(ctx)
	if err != nil {
		return err
	}
	w.forgetAllBut(found)
	if err := w.showNew(found); err != nil {
		return err
	}
	return w.follow(ctx, version)
}

// forgetAllBut forgets what was shown of all events but these.
func (w *eventWatch) forgetAllBut(found []eventsv1.Event) {
	kept := make(map[types.UID]string, len(found))
	for i := range found {
		if version, shown := w.shown[found[i].UID]; shown {
			kept[found[i].UID] = version
		}
	}
	w.shown = kept
}

// showNew shows the events that were not yet shown in their current version.
func (w *eventWatch) showNew(found []eventsv1.Event) error {
	var fresh []eventsv1.Event
	for i := range found {
		if w.shown[found[i].UID] != found[i].ResourceVersion {
			w.shown[found[i].UID] = found[i].ResourceVersion
			fresh = append(fresh, found[i])
		}
	}
	for _, report := range about(w.headscale, fresh) {
		if err := w.show(&report); err != nil {
			return err
		}
	}
	return nil
}

// follow shows the events that come after a version.
func (w *eventWatch) follow(ctx context.Context, version string) error {
	watcher, err := w.source.watch(ctx, version)
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for change := range watcher.ResultChan() {
		switch change.Type {
		case watch.Error:
			return apierrors.FromObject(change.Object)
		case watch.Added, watch.Modified:
			if event, ok := eventIn(change.Object); ok {
				if err := w.showNew([]eventsv1.Event{event}); err != nil {
					return err
				}
			}
		case watch.Deleted:
			// The deletion of an expired event is not a new event.
			if event, ok := eventIn(change.Object); ok {
				delete(w.shown, event.UID)
			}
		case watch.Bookmark:
		}
	}
	return nil
}

// Columns of events that are shown one by one, when later events are not known yet.
const (
	timeColumn   = 20
	typeColumn   = 7
	reasonColumn = 14
	objectColumn = 24
)

// eventPrinter prints one event at a time: a line for people, one line of JSON, or one
// document of YAML.
func (a *app) eventPrinter(format *output) func(*eventReport) error {
	out := a.Streams.Out
	s := newScreen(out, a.Getenv)
	return func(report *eventReport) error {
		switch *format {
		case formatJSON:
			encoder := json.NewEncoder(out)
			encoder.SetEscapeHTML(false)
			return encoder.Encode(report)
		case formatYAML:
			text, err := yaml.Marshal(report)
			if err == nil {
				_, err = fmt.Fprintf(out, "---\n%s", text)
			}
			return err
		default:
			s.row(out, report.row(instant(report.Time.Time)), []int{timeColumn, typeColumn, reasonColumn, objectColumn})
			return nil
		}
	}
}
