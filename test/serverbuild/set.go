package serverbuild

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/mod/modfile"
)

// cacheFormat is part of every digest. It changes when the layout of a cache
// entry does.
const cacheFormat = "1"

// program is one executable of a set.
type program struct {
	name        string // file name in the cache
	importPath  string
	defaultName string // file name that go build gives it
}

// set is what one module below test/servers builds, all of it in one go.
type set struct {
	name     string // for people and for the cache, such as kubernetes-v1.37.2
	dir      string // directory of the module
	programs []program
	linkVars []string // importpath.name=value
	tags     string   // build tags, with commas
	envtest  string   // the version in setup-envtest's words, or "" if it does not offer the set
}

// newKubernetesSet describes the module with the newest, or the oldest, control plane and kubectl.
func newKubernetesSet(root string, oldest bool) (set, error) {
	dir := filepath.Join(root, "test", "servers", map[bool]string{false: "kubernetes", true: "kubernetes-oldest"}[oldest])
	version, err := requiredVersion(dir, "k8s.io/kubernetes")
	if err != nil {
		return set{}, err
	}
	numbers := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(numbers) < 3 {
		return set{}, fmt.Errorf("%s requires k8s.io/kubernetes %s, which is no release", dir, version)
	}
	// The programs know their version, as with Kubernetes' own build. Without that a
	// kube-apiserver says v0.0.0-master.
	var vars []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		vars = append(vars, pkg+".gitVersion="+version, pkg+".gitTreeState=clean", pkg+".gitMajor="+numbers[0], pkg+".gitMinor="+numbers[1])
	}
	return set{
		name: "kubernetes-" + version,
		dir:  dir,
		programs: []program{
			{"etcd", "go.etcd.io/etcd/server/v3", "server"},
			{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"},
			{"kubectl", "k8s.io/kubernetes/cmd/kubectl", "kubectl"},
		},
		linkVars: vars,
		envtest:  numbers[0] + "." + numbers[1] + ".x", // because not every patch release is offered
	}, nil
}

// newHeadscaleSet describes the module with one version of Headscale.
func newHeadscaleSet(root, version string) (set, error) {
	dir := filepath.Join(root, "test", "servers", "headscale", version)
	pinned, err := requiredVersion(dir, "github.com/juanfont/headscale")
	if os.IsNotExist(err) {
		known, _ := HeadscaleVersions(root)
		return set{}, fmt.Errorf("headscale %q is not one that can be built here; there are: %s", version, strings.Join(known, ", "))
	}
	if err != nil {
		return set{}, err
	}
	if pinned != version {
		return set{}, fmt.Errorf("%s requires headscale %s, not %s as its name says", dir, pinned, version)
	}
	return set{
		name:     "headscale-" + version,
		dir:      dir,
		programs: []program{{"headscale", "github.com/juanfont/headscale/cmd/headscale", "headscale"}},
	}, nil
}

// HeadscaleVersions lists the versions of Headscale that test/servers pins,
// oldest first.
func HeadscaleVersions(root string) ([]string, error) {
	versions, err := filepath.Glob(filepath.Join(root, "test", "servers", "headscale", "v*"))
	for i := range versions {
		versions[i] = filepath.Base(versions[i])
	}
	return versions, err
}

// requiredVersion reads from the go.mod in dir which version of a module it asks for.
func requiredVersion(dir, module string) (string, error) {
	path := filepath.Join(dir, "go.mod")
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	file, err := modfile.Parse(path, content, nil)
	if err != nil {
		return "", err
	}
	for _, require := range file.Require {
		if require.Mod.Path == module {
			return require.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", path, module)
}

// linkFlags is the value of go build's -ldflags.
func (s set) linkFlags() string {
	flags := []string{"-s", "-w"}
	for _, assignment := range s.linkVars {
		flags = append(flags, "-X", assignment)
	}
	return strings.Join(flags, " ")
}

// entry is the name of the set's directory in the cache. It contains a digest of
// the module's pins and of all that the build is told.
func (s set) entry() (string, error) {
	digest := sha256.New()
	_, _ = fmt.Fprintln(digest, cacheFormat, runtime.GOOS, runtime.GOARCH, s.linkFlags())
	for _, p := range s.programs {
		_, _ = fmt.Fprintln(digest, p.name, p.importPath)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintln(digest, name, len(content))
		_, _ = digest.Write(content)
	}
	return s.name + "-" + hex.EncodeToString(digest.Sum(nil))[:16], nil
}
