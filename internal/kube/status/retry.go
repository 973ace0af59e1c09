package status

import (
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// The first and the longest delay before a failed reconcile is retried. The cause may end without
// an event that a watch could see, such as a missing permission, a quota or a webhook.
const (
	firstRetry   = 5 * time.Millisecond
	longestRetry = time.Minute
)

// NewRateLimiter returns a rate limiter for a controller's work queue: the delay of an object's
// retries begins at 5 ms and doubles up to a minute.
func NewRateLimiter() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, longestRetry)
}
