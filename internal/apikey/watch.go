package apikey

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/watch"
)

// unknownVersion is sent when the Secret may have changed unseen. It is no
// resource version.
const unknownVersion = "?"

// waker carries news to the Manager. Each channel holds the latest only.
type waker struct {
	// socket says that Headscale's socket came or went.
	socket chan struct{}
	// secret carries the Secret's resource version, empty when it was deleted.
	secret chan string
}

func newWaker() *waker {
	return &waker{socket: make(chan struct{}, 1), secret: make(chan string, 1)}
}

func (w *waker) socketChanged() {
	select {
	case w.socket <- struct{}{}:
	default:
	}
}

// secretChanged replaces news that nobody has read yet.
func (w *waker) secretChanged(version string) {
	select {
	case <-w.secret:
	default:
	}
	w.secret <- version
}

// watchSecret reports changes of the Secret until the context ends. It goes on
// where it was when the API server ends a watch, as it does every half hour or so.
func watchSecret(ctx context.Context, secrets Secrets, wake *waker) {
	again := backoff{most: maxRetry, jitter: rand.Float64}
	version := ""
	for ctx.Err() == nil {
		began := version
		watcher, err := secrets.Watch(ctx, version)
		if err == nil {
			version = follow(ctx, watcher, version, wake)
		} else if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			version = ""
		}
		if version == "" {
			wake.secretChanged(unknownVersion) // It may have changed or gone unseen.
		}
		if version != began {
			again.reset()
		}
		pause(ctx, again.grow())
	}
}

// follow passes on the events of one watch and returns the version to go on from,
// empty if there is none.
func follow(ctx context.Context, watcher watch.Interface, version string, wake *waker) string {
	defer watcher.Stop()
	for {
		select {
		case <-ctx.Done():
			return version
		case event, open := <-watcher.ResultChan():
			if !open {
				return version
			}
			object, err := meta.Accessor(event.Object)
			if event.Type == watch.Error || err != nil {
				return ""
			}
			version = object.GetResourceVersion()
			switch event.Type {
			case watch.Added, watch.Modified:
				wake.secretChanged(version)
			case watch.Deleted:
				wake.secretChanged("")
			}
		}
	}
}

// watchSocket reports when Headscale's socket comes and goes, until the context
// ends. Where that cannot be watched, the hourly check has to do.
func watchSocket(ctx context.Context, path string, wake *waker) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return
	}
	defer func() { _ = watcher.Close() }()
	for ctx.Err() == nil {
		if watchDirectory(ctx, watcher, filepath.Dir(path)) {
			wake.socketChanged()
		}
		followSocket(ctx, watcher, path, wake)
	}
}

// watchDirectory waits for the directory if it is not there yet, and reports
// whether it had to.
func watchDirectory(ctx context.Context, watcher *fsnotify.Watcher, directory string) (waited bool) {
	for watcher.Add(directory) != nil && ctx.Err() == nil {
		waited = true
		pause(ctx, time.Second)
	}
	return waited
}

// followSocket returns when the directory of the socket is gone.
func followSocket(ctx context.Context, watcher *fsnotify.Watcher, path string, wake *waker) {
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-watcher.Events:
			switch {
			case event.Name == filepath.Dir(path) && event.Has(fsnotify.Remove|fsnotify.Rename):
				return
			case filepath.Base(event.Name) == filepath.Base(path) && event.Has(fsnotify.Create|fsnotify.Remove|fsnotify.Rename):
				wake.socketChanged()
			}
		case err := <-watcher.Errors:
			if err != nil { // An event may have been lost.
				wake.socketChanged()
			}
		}
	}
}

// pause waits, unless the context ends.
func pause(ctx context.Context, length time.Duration) {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
