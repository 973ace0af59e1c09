package serverbuild

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// lockPoll is how often a process that waits for another one's build looks again.
const lockPoll = 200 * time.Millisecond

// unfinishedMark stands in the name of a directory that is to become an entry.
const unfinishedMark = ".unfinished-"

// cache is the directory in which each set has an entry of its own.
type cache struct {
	dir      string
	root     string
	log      io.Writer
	indexURL string
}

// cache resolves the options to a cache.
func (o Options) cache() (cache, error) {
	c := cache{dir: o.CacheDir, root: o.Root, log: o.Log, indexURL: o.indexURL}
	if c.log == nil {
		c.log = io.Discard
	}
	if c.indexURL == "" {
		c.indexURL = envtestIndexURL
	}
	if c.dir == "" {
		c.dir = os.Getenv(CacheVariable)
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
	unlock, err := c.lock(ctx, s, dir+".lock")
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
	if err := removeUnfinished(dir); err != nil {
		return err
	}
	unfinished, err := os.MkdirTemp(c.dir, filepath.Base(dir)+unfinishedMark)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(unfinished) }()
	if err := c.obtain(ctx, s, unfinished); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if !s.completeIn(unfinished) {
		return fmt.Errorf("%s: the build ended without an error and left no program", s.name)
	}
	if err := os.Chmod(unfinished, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(unfinished, dir)
}

// removeUnfinished removes what builds of the entry left behind that were killed.
// The caller holds the entry's lock, so none of them is alive.
func removeUnfinished(dir string) error {
	leftovers, err := filepath.Glob(dir + unfinishedMark + "*")
	if err != nil {
		return err
	}
	for _, leftover := range leftovers {
		if err := os.RemoveAll(leftover); err != nil {
			return err
		}
	}
	return nil
}

// obtain puts the set's programs into target, by the faster way that works.
func (c cache) obtain(ctx context.Context, s set, target string) error {
	if isKubernetes(s) {
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

// isKubernetes tells whether setup-envtest offers the set.
func isKubernetes(s set) bool {
	return len(s.programs) > 1
}

// lock takes the lock of an entry and returns what releases it.
func (c cache) lock(ctx context.Context, s set, path string) (func(), error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	lock := flock.New(path, flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err == nil && !locked {
		_, _ = fmt.Fprintf(c.log, "%s: another process is building it; waiting\n", s.name)
		_, err = lock.TryLockContext(ctx, lockPoll)
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { _ = lock.Close() }, nil
}

// completeIn tells whether all of the set's programs are in dir.
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
