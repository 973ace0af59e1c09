package headscale_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/process"
)

// onPostgres starts a PostgreSQL that asks nobody for a password, and returns the config of a
// Headscale that has its database there. Where there is no PostgreSQL, the spec is skipped.
func onPostgres(ctx context.Context, guard *process.Guard) map[string]any {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "hs-pg-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	if os.Getuid() == 0 {
		Expect(os.Chown(dir, 65534, 65534)).To(Succeed())
	}
	data := filepath.Join(dir, "data")
	initialized := startPostgresProgram(guard, dir, "initdb", "-D", data, "-U", "headscale", "--auth=trust", "--encoding=UTF8", "--no-sync")
	Eventually(initialized.Exited()).WithContext(ctx).Within(startWithin).Should(BeClosed())
	Expect(initialized.ExitCode()).To(BeZero(), initialized.Describe())

	// On a socket of its own only: somebody else may take a free port before it does.
	const port = 5432
	server := startPostgresProgram(guard, dir, "postgres", "-D", data, "-k", dir, "-p", strconv.Itoa(port), "-c", "fsync=off", "-c", "listen_addresses=")
	DeferCleanup(server.Kill)
	// It listens before it takes connections. The status in its file is padded with blanks.
	Eventually(func() (string, error) {
		status, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
		return strings.TrimSpace(string(status)), err
	}).Within(startWithin).Should(HaveSuffix("\nready"))
	return map[string]any{"type": "postgres", "postgres": map[string]any{
		"host": dir, "port": port, "name": "postgres", "user": "headscale", "pass": "any", "ssl": false,
	}}
}

// startPostgresProgram starts a program of PostgreSQL's, which does not run as root.
func startPostgresProgram(guard *process.Guard, dir, name string, args ...string) *process.Process {
	GinkgoHelper()
	path, err := exec.LookPath(name)
	if err != nil {
		Skip("there is no PostgreSQL here: no " + name)
	}
	if os.Getuid() == 0 {
		args = append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "--", path}, args...)
		path, err = exec.LookPath("setpriv")
		Expect(err).NotTo(HaveOccurred())
	}
	started, err := process.Start(process.Command{Name: name, Path: path, Args: args, Dir: dir, Output: GinkgoWriter, Guard: guard})
	Expect(err).NotTo(HaveOccurred())
	return started
}
