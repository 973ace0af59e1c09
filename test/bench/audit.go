package main

import (
	"net/http"

	"infrado.cloud/headscale-operator/test/audit"
)

// requestCounts counts the requests in an audit log.
type requestCounts struct {
	log   *audit.Log
	users map[string]counts
}

// newRequestCounts counts from the beginning of a log.
func newRequestCounts(log *audit.Log) *requestCounts {
	return &requestCounts{log: log, users: map[string]counts{}}
}

// count returns a user's requests so far.
func (r *requestCounts) count(user string) (counts, error) {
	err := r.log.Read(func(event *audit.Event) {
		total := r.users[event.User.Username]
		total.add(event)
		r.users[event.User.Username] = total
	})
	return r.users[user], err
}

// counts are numbers of requests.
type counts struct {
	// requests are all of them.
	requests int
	// watches are those that stay open.
	watches int
	// created are writes by which an object came about that is no event; status and events are
	// writes of those, and other all other writes, those that failed among them.
	created, status, events, other int
}

// add counts a request. A watch counts when it begins, or is refused, and not when it ends.
func (c *counts) add(event *audit.Event) {
	if event.Verb == "watch" {
		if event.Stage == "ResponseComplete" && event.ResponseStatus.Code < http.StatusBadRequest {
			return
		}
		c.watches++
	} else if event.Stage == "ResponseStarted" {
		return
	}
	c.requests++
	switch {
	case !event.Writes():
	case event.ObjectRef.Resource == "events":
		c.events++
	case event.ObjectRef.Subresource == "status":
		c.status++
	case event.Created():
		c.created++
	default:
		c.other++
	}
}

// writes are the requests that change something.
func (c counts) writes() int { return c.created + c.status + c.events + c.other }

// minus are the requests since an earlier count.
func (c counts) minus(earlier counts) counts {
	return counts{
		requests: c.requests - earlier.requests, watches: c.watches - earlier.watches,
		created: c.created - earlier.created, status: c.status - earlier.status,
		events: c.events - earlier.events, other: c.other - earlier.other,
	}
}
