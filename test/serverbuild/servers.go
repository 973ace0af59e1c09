// Package serverbuild provides the real servers that tests and the demo run
// against: etcd, kube-apiserver and kubectl, and Headscale in several versions.
//
// Each comes from a small module below test/servers that pins it as a tool, so
// that nothing but the Go toolchain is needed to get it. What was built is kept
// in a cache directory under a name that contains a digest of everything that
// went into it: a changed pin never meets an old program.
package serverbuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	// AssetsVariable is the environment variable by which controller-runtime's
	// envtest, and so this package, is told where etcd and kube-apiserver are.
	AssetsVariable = "KUBEBUILDER_ASSETS"
	// CacheVariable is the environment variable that moves the cache, which is else in
	// the user's cache directory.
	CacheVariable = "HEADSCALE_OPERATOR_CACHE"
	// DefaultHeadscale is the version of Headscale that is used where none is named.
	DefaultHeadscale = "v0.29.3"
)

// ErrMissing is wrapped by Find's error about a server that was not built yet.
var ErrMissing = errors.New("run `make servers` first (make test and make demo do so by themselves)")

// Options say which servers are wanted.
type Options struct {
	// Root is the directory of the repository; see FindRoot.
	Root string
	// Headscale lists the wanted versions, such as v0.29.3.
	Headscale []string
	// Litestream is wanted, too, or with Backup that and an S3 server.
	Litestream, Backup bool
	// Oldest is set for the oldest supported Kubernetes instead of the newest.
	Oldest bool
	// Log receives the progress; nothing is written when everything is there.
	Log io.Writer

	// indexURL is where setup-envtest looks for archives; tests change it.
	indexURL string
}

// Servers says where the programs are.
type Servers struct {
	// Assets is the directory with etcd, kube-apiserver and kubectl: a value for
	// KUBEBUILDER_ASSETS.
	Assets string
	// Headscale is the path of each version's program.
	Headscale map[string]string
	// Backup is the directory of litestream and of versitygw, an S3 server.
	Backup map[string]string
}

// Kubectl is the path of kubectl.
func (s Servers) Kubectl() string {
	return filepath.Join(s.Assets, "kubectl")
}

// Ensure returns the servers after it has downloaded or built those that are
// missing. Several processes may do so at once: one builds, the others wait.
func Ensure(ctx context.Context, options Options) (Servers, error) {
	return options.collect(func(c cache, s set) (string, error) { return c.ensure(ctx, s) })
}

// Find returns the servers and builds nothing. Its error wraps ErrMissing when
// one was not built yet.
func Find(options Options) (Servers, error) {
	return options.collect(func(c cache, s set) (string, error) {
		dir, err := c.path(s)
		if err != nil {
			return "", err
		}
		if !s.completeIn(dir) {
			return "", fmt.Errorf("%s is not there: %w", s.name, ErrMissing)
		}
		return dir, nil
	})
}

// collect asks obtain for the directory of every wanted set.
func (o Options) collect(obtain func(cache, set) (string, error)) (Servers, error) {
	c, err := o.cache()
	if err != nil {
		return Servers{}, err
	}
	kubernetes, err := newKubernetesSet(o.Root, o.Oldest)
	if err != nil {
		return Servers{}, err
	}
	servers := Servers{Headscale: map[string]string{}, Backup: map[string]string{}}
	if servers.Assets, err = givenAssets(kubernetes); err != nil {
		return Servers{}, err
	}
	if servers.Assets == "" {
		if servers.Assets, err = obtain(c, kubernetes); err != nil {
			return Servers{}, err
		}
	}
	for _, version := range o.Headscale {
		headscale, err := newHeadscaleSet(o.Root, version)
		if err != nil {
			return Servers{}, err
		}
		dir, err := obtain(c, headscale)
		if err != nil {
			return Servers{}, err
		}
		servers.Headscale[version] = filepath.Join(dir, "headscale")
	}
	for _, p := range []program{
		{"litestream", "github.com/benbjohnson/litestream/cmd/litestream", "litestream"},
		{"versitygw", "github.com/versity/versitygw/cmd/versitygw", "versitygw"},
	} {
		if !o.Backup && (!o.Litestream || p.name != "litestream") {
			continue
		}
		if servers.Backup[p.name], err = obtain(c, set{name: p.name, dir: filepath.Join(o.Root, "test", "servers", p.name), programs: []program{p}}); err != nil {
			return Servers{}, err
		}
	}
	return servers, nil
}

// givenAssets returns the directory that AssetsVariable names, if it names one.
func givenAssets(kubernetes set) (string, error) {
	dir := os.Getenv(AssetsVariable)
	if dir == "" {
		return "", nil
	}
	for _, p := range kubernetes.programs {
		if !isExecutable(filepath.Join(dir, p.name)) {
			return "", fmt.Errorf("%s is set to %s, where there is no program %s: correct it, or unset it to have the servers built", AssetsVariable, dir, p.name)
		}
	}
	return dir, nil
}

// FindRoot returns the repository's directory: the working directory, or the
// nearest one above it, that has test/servers.
func FindRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "test", "servers", "kubernetes", "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("neither %s nor a directory above it is a clone of this repository", start)
		}
	}
}
