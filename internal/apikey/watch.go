package apikey

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/watch"

	"infrado.cloud/headscale-operator/internal/rotation"
)

// unknownVersion is sent when the Secret may have changed unseen. It is no
// resource version.
const unknownVersion = "?"

// waker notifies the Manager of changes. Each channel holds the latest only.
type waker struct {
	// socket says that Headscale's socket was created or removed.
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

// secretChanged replaces a version that was not received yet.
func (w *waker) secretChanged(version string) {
	select {
	case <-w.secret:
	default:
	}
	w.secret <- version
}

// watchSecret reports changes of the Secret until the context ends. It goes on
// where it was when the API server ends a watch, as it does every now and then.
func watchSecret(ctx context.Context, secrets Secrets, wake *waker, log *slog.Logger) {
	again := rotation.NewBackoff(maxRetry)
	version, failing := "", false
	for ctx.Err() == nil {
		watcher, err := secrets.Watch(ctx, version)
		if err != nil {
			if !failing && ctx.Err() == nil {
				log.Warn("Cannot watch the Secret; polling it every few seconds instead", "reason", reasonOf(err), "message", without(err, nil))
			}
			failing, version = true, ""
			wake.secretChanged(unknownVersion)
			pause(ctx, again.Step())
			continue
		}
		failing = false
		again = rotation.NewBackoff(maxRetry)
		if version == "" {
			// It may have changed, or gone, before the watch began.
			wake.secretChanged(unknownVersion)
		}
		version = follow(ctx, watcher, version, wake)
		pause(ctx, rotation.MinDelay)
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

// watchSocket reports when Headscale's socket is created or removed, until the context
// ends. Where the system cannot say so, it looks once a second.
func watchSocket(ctx context.Context, path string, wake *waker, log *slog.Logger) {
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer func() { _ = watcher.Close() }()
	}
	for err == nil && ctx.Err() == nil {
		var waited bool
		if waited, err = watchDirectory(ctx, watcher, filepath.Dir(path)); err != nil {
			break
		}
		if waited {
			wake.socketChanged()
		}
		followSocket(ctx, watcher, path, wake)
	}
	if err != nil {
		log.Warn("Cannot watch Headscale's socket; polling it every second instead", "message", err)
		pollSocket(ctx, path, wake)
	}
}

// pollSocket looks whether the socket is another one than before.
func pollSocket(ctx context.Context, path string, wake *waker) {
	before, _ := os.Stat(path)
	for ctx.Err() == nil {
		pause(ctx, time.Second)
		now, _ := os.Stat(path)
		same := before == nil && now == nil ||
			before != nil && now != nil && os.SameFile(before, now) && before.ModTime().Equal(now.ModTime())
		if !same {
			wake.socketChanged()
		}
		before = now
	}
}

// watchDirectory waits for the directory if it is not there yet, and reports
// whether it had to. It fails where there is one that cannot be watched.
func watchDirectory(ctx context.Context, watcher *fsnotify.Watcher, directory string) (waited bool, err error) {
	for ctx.Err() == nil {
		err = watcher.Add(directory)
		if !errors.Is(err, fs.ErrNotExist) {
			return waited, err
		}
		waited = true
		pause(ctx, time.Second)
	}
	return waited, nil
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
