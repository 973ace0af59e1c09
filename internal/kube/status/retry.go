package status

import (
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// How long a reconcile that failed waits for its next attempt: the first time, and at most.
// What made it fail may end without an event that a watch could see, such as a missing right,
// a quota or a webhook.
const (
	firstRetry   = 5 * time.Millisecond
	longestRetry = time.Minute
)

// NewRateLimiter returns a rate limiter for a controller's queue, by which the retries of an
// object begin after 5 ms and double up to a minute.
func NewRateLimiter() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, longestRetry)
}
