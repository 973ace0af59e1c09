package env

import (
	"strings"

	eventsv1 "k8s.io/api/events/v1"
)

// ToldByAPIServer tells whether an event is one of the API server's own: now and then it tells of
// a Service's address that it has just given away and not yet written down.
func ToldByAPIServer(event *eventsv1.Event) bool {
	return strings.HasSuffix(event.ReportingController, "allocator-repair-controller")
}
