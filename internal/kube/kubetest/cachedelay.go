// Package kubetest is for suites of controllers. Only tests import it.
package kubetest

import (
	"math/rand/v2"
	"os"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// EnvCacheDelay names the environment variable for DelayCache, such as 100ms; not set: no delay.
const EnvCacheDelay = "CACHE_DELAY"

// DelayCache has a cache see every change of an object late, by a duration that the environment gives on average, as
// that of a busy API server does: what a controller gets wrong by that then shows at once. Each delay is another one,
// up to twice the average, so that changes of different kinds are seen in an order other than that of their writes.
// Objects that were there before are seen without delay, since the cache of a new operator reads them one after the
// other. It panics on a value that is no duration, or not above zero.
func DelayCache(options *cache.Options) {
	value := os.Getenv(EnvCacheDelay)
	if value == "" {
		return
	}
	delay, err := time.ParseDuration(value)
	if err != nil || delay <= 0 {
		panic(EnvCacheDelay + " is " + value + ", and must be a duration such as 100ms")
	}
	before := time.Now().Add(-time.Second) //nolint:forbidigo // the API server's clock; creation times are whole seconds
	wait := func(object any) {
		if object, ok := object.(client.Object); !ok || object.GetCreationTimestamp().After(before) {
			time.Sleep(rand.N(2 * delay)) //nolint:forbidigo,gosec // to pass time is what it is for, and any time is good
		}
	}
	options.DefaultTransform = func(object any) (any, error) {
		wait(object)
		return object, nil
	}
	for object, by := range options.ByObject {
		if transform := by.Transform; transform != nil {
			by.Transform = func(object any) (any, error) {
				wait(object)
				return transform(object)
			}
			options.ByObject[object] = by
		}
	}
}
