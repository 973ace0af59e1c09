package reliability_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/reliability/headscaleproxy"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// contractServer is the name of the Headscale that speaks HTTP on its socket. There
// is no release of it yet that could be built; it answers to the letter of recorded
// replies.
const contractServer = "v0.30 (contract server)"

// versions are the Headscales that specs run against, oldest first.
var versions = func() []string {
	var err error
	root, err = serverbuild.FindRoot()
	if err != nil {
		panic(err)
	}
	built, err := serverbuild.HeadscaleVersions(root)
	if err != nil {
		panic(err)
	}
	return append(built, contractServer)
}()

// latestVersions are the newest of each transport.
var latestVersions = versions[len(versions)-2:]

// olderVersions are all others.
var olderVersions = versions[:len(versions)-2]

// eachHeadscale makes a spec for the newest Headscale of each transport, and a slow one
// for the older ones. The versions are tried at the same time.
func eachHeadscale(text string, try func(ctx SpecContext, version string), labels ...any) {
	It(text, append(labels, func(ctx SpecContext) {
		together(latestVersions, func(version string) { try(ctx, version) })
	})...)
	It(text+", on older Headscales", append(labels, Label(slow), func(ctx SpecContext) {
		together(olderVersions, func(version string) { try(ctx, version) })
	})...)
}

// server is a Headscale that runs, and can be stopped and started.
type server interface {
	// SocketPath is where the admin API listens.
	SocketPath() string
	Start(ctx context.Context) error
	Stop() error
	// Honours says whether a call with the key is let in.
	Honours(ctx context.Context, key string) (bool, error)
}

// databases are what the next Start of a server, which is stopped, finds.
type databases interface {
	// Backup keeps a copy of what there is, and UseBackup goes back to it.
	Backup(ctx context.Context) error
	UseBackup() error
	UseEmpty() error
	// Delete removes a key from the database of a running server.
	Delete(ctx context.Context, prefix string) error
}

// installation is a Headscale with all that can happen to it.
type installation interface {
	server
	databases
	// Version is the release.
	Version() string
	// Faults returns another socket of the admin API, at the path if it needs one, on
	// which calls can be made to fail.
	Faults(path string) (faults, error)
}

// faults is a socket of the admin API on which the faults that are injected happen.
type faults interface {
	SocketPath() string
	Inject(fault headscaletest.Fault)
	ClearFaults()
	// Texts are the keys that were made by way of the socket.
	Texts() []string
	Stop()
}

// shared are the Headscales that outlive a spec, by version. A spec that uses one
// leaves it running and on its database.
var (
	shared      = map[string]installation{}
	sharedMutex sync.Mutex
)

// sharedHeadscale returns the running Headscale of a version. A contract server costs
// nothing and is not shared.
func sharedHeadscale(ctx context.Context, version string) installation {
	GinkgoHelper()
	if version == contractServer {
		return freshHeadscale(ctx, version)
	}
	sharedMutex.Lock()
	defer sharedMutex.Unlock()
	if shared[version] == nil {
		shared[version] = newHeadscale(ctx, version)
	}
	return shared[version]
}

func stopSharedHeadscales() error {
	var all error
	for _, h := range shared {
		all = errors.Join(all, h.Stop())
	}
	return all
}

// freshHeadscale returns a Headscale that is stopped after the spec.
func freshHeadscale(ctx context.Context, version string) installation {
	GinkgoHelper()
	h := newHeadscale(ctx, version)
	DeferCleanup(h.Stop)
	return h
}

func newHeadscale(ctx context.Context, version string) installation {
	GinkgoHelper()
	dir := newDir()
	if version == contractServer {
		h := &fakeHeadscale{Server: headscaletest.New(filepath.Join(dir, "hs.sock"), headscaletest.V030)}
		Expect(h.Start(ctx)).To(Succeed())
		return h
	}
	started, err := env.StartHeadscale(ctx, env.HeadscaleOptions{
		Binary: findServers(version).Headscale[version], Guard: guard, Dir: dir,
	})
	Expect(err).NotTo(HaveOccurred())
	return &realHeadscale{Headscale: started, version: version, dir: dir}
}

// realHeadscale is one that was built from its release.
type realHeadscale struct {
	*env.Headscale
	version, dir string
	emptied      int
}

func (h *realHeadscale) Version() string { return h.version }

func (h *realHeadscale) Faults(path string) (faults, error) {
	return headscaleproxy.Start(path, h.SocketPath())
}

func (h *realHeadscale) Delete(ctx context.Context, prefix string) error {
	conn, err := grpc.NewClient("unix:"+h.SocketPath(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = v1.NewHeadscaleServiceClient(conn).DeleteApiKey(ctx, &v1.DeleteApiKeyRequest{Prefix: prefix})
	return err
}

const backup = "backup.sqlite"

// Backup stops Headscale, for SQLite's files are of one piece then only.
func (h *realHeadscale) Backup(ctx context.Context) error {
	if err := h.Stop(); err != nil {
		return err
	}
	if err := h.copyDatabase(h.Database, backup); err != nil {
		return err
	}
	return h.Start(ctx)
}

func (h *realHeadscale) UseBackup() error {
	h.Database = backup
	return nil
}

func (h *realHeadscale) UseEmpty() error {
	h.emptied++
	h.Database = fmt.Sprintf("empty-%d.sqlite", h.emptied)
	return nil
}

// copyDatabase copies the database and what SQLite keeps beside it.
func (h *realHeadscale) copyDatabase(from, to string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		content, err := os.ReadFile(filepath.Join(h.dir, from+suffix))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(h.dir, to+suffix), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// fakeHeadscale is the contract server. It has its own faults.
type fakeHeadscale struct {
	*headscaletest.Server
	backup *headscaletest.Database
}

func (h *fakeHeadscale) Version() string { return contractServer }

func (h *fakeHeadscale) Faults(string) (faults, error) { return h.Server, nil }

func (h *fakeHeadscale) Start(context.Context) error { return h.Server.Start() }

func (h *fakeHeadscale) Stop() error {
	h.Server.Stop()
	return nil
}

func (h *fakeHeadscale) Honours(ctx context.Context, key string) (bool, error) {
	return env.ContractHonours(ctx, h.Server, key)
}

func (h *fakeHeadscale) Delete(_ context.Context, prefix string) error {
	if !h.Database().Delete(prefix) {
		return fmt.Errorf("there is no key %s", prefix)
	}
	return nil
}

func (h *fakeHeadscale) Backup(context.Context) error {
	h.backup = h.Database().Clone()
	return nil
}

func (h *fakeHeadscale) UseBackup() error {
	h.SetDatabase(h.backup)
	return nil
}

func (h *fakeHeadscale) UseEmpty() error {
	h.SetDatabase(headscaletest.NewDatabase())
	return nil
}
