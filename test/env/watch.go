package env

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// watchLimit is how long something that is watched for may take.
const watchLimit = 10 * time.Minute

// Await returns when a watch first reports an object that is what is waited for. Where it does not,
// it stops the watch.
func Await[T runtime.Object](ctx context.Context, watcher watch.Interface, found func(T) bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, watchLimit)
	defer cancel()
	defer context.AfterFunc(ctx, watcher.Stop)()
	for event := range watcher.ResultChan() {
		if object, ok := event.Object.(T); ok && event.Type != watch.Deleted && found(object) {
			return time.Now(), nil
		}
	}
	return time.Time{}, errors.New("the watch ended before what is waited for came")
}
