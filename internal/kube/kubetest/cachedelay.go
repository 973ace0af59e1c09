// Package kubetest is for suites of controllers. Only tests import it.
package kubetest

import (
	"os"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// EnvCacheDelay names the environment variable for DelayCache, such as 100ms; not set: no delay.
const EnvCacheDelay = "CACHE_DELAY"

// DelayCache has a cache see every change of an object late, by a duration that the environment gives, as that of a
// busy API server does: what a controller gets wrong by that then shows at once. Objects that were there before are
// seen without delay, since the cache of a new operator reads them one after the other. It panics on a value that is
// no duration.
func DelayCache(options *cache.Options) {
	value := os.Getenv(EnvCacheDelay)
	if value == "" {
		return
	}
	delay, err := time.ParseDuration(value)
	if err != nil {
		panic(EnvCacheDelay + ": " + err.Error())
	}
	before := time.Now().Add(-time.Second) //nolint:forbidigo // the API server's clock; creation times are whole seconds
	wait := func(object any) {
		if object, ok := object.(client.Object); !ok || object.GetCreationTimestamp().After(before) {
			time.Sleep(delay) //nolint:forbidigo // to pass time is what it is for
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
