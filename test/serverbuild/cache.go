package serverbuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// lockPoll is how often a process that waits for another one's build looks again.
const lockPoll = 200 * time.Millisecond

// cache is the directory in which each set has an entry of its own.
type cache struct {
	dir      string
	root     string
	log      io.Writer
	indexURL string
}

// cache resolves the options to a cache.
func (o Options) cache() (cache, error) {
	c := cache{dir: os.Getenv(CacheVariable), root: o.Root, log: o.Log, indexURL: cmp.Or(o.indexURL, envtestIndexURL)}
	if c.log == nil {
		c.log = io.Discard
	}
	if c.dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return cache{}, fmt.Errorf("no place for the servers: %w; set %s to a directory", err, CacheVariable)
		}
		c.dir = filepath.Join(user, "headscale-operator")
	}
	var err error
	c.dir, err = filepath.Abs(c.dir)
	return c, err
}

// path is the directory of the set's entry, whether it is there or not.
func (c cache) path(s set) (string, error) {
	entry, err := s.entry()
	return filepath.Join(c.dir, entry), err
}

// ensure returns the directory of the set's entry and fills it first if needed.
// An entry appears by a rename, so that nobody ever sees half of one.
func (c cache) ensure(ctx context.Context, s set) (string, error) {
	dir, err := c.path(s)
	if err != nil {
		return "", err
	}
	if s.completeIn(dir) {
		return dir, nil
	}
	unlock, err := c.lock(ctx, s, dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	if s.completeIn(dir) {
		return dir, nil
	}
	return dir, c.fill(ctx, s, dir)
}

// fill makes the entry. The caller holds its lock.
func (c cache) fill(ctx context.Context, s set, dir string) error {
	// A build that was killed may have left this behind.
	unfinished := dir + ".unfinished"
	if err := errors.Join(os.RemoveAll(unfinished), os.Mkdir(unfinished, 0o755)); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(unfinished) }()
	if err := c.obtain(ctx, s, unfinished); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if !s.completeIn(unfinished) {
		return fmt.Errorf("%s: the build ended without an error and left no program", s.name)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(unfinished, dir)
}

// obtain puts the set's programs into target, by the faster way that works.
func (c cache) obtain(ctx context.Context, s set, target string) error {
	if s.envtest != "" {
		err := c.download(ctx, s, target)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, _ = fmt.Fprintf(c.log, "%s: no download (%v), so it is built from source\n", s.name, err)
	}
	return c.build(ctx, s, target)
}

// lock takes the lock of an entry and returns what releases it.
func (c cache) lock(ctx context.Context, s set, dir string) (func(), error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	lock := flock.New(dir+".lock", flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err == nil && !locked {
		_, _ = fmt.Fprintf(c.log, "%s: another process is building it; waiting\n", s.name)
		_, err = lock.TryLockContext(ctx, lockPoll)
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", lock.Path(), err)
	}
	return func() { _ = lock.Close() }, nil
}

// completeIn reports whether all of the set's programs are in dir.
func (s set) completeIn(dir string) bool {
	for _, p := range s.programs {
		if !isExecutable(filepath.Join(dir, p.name)) {
			return false
		}
	}
	return true
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
