package integration_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/process"
)

// postgres is a real PostgreSQL that is reached with TLS and a password only.
type postgres struct{ dir, port string }

// command makes a command of PostgreSQL's, which does not run as root.
func (p *postgres) command(name string, args ...string) process.Command {
	if os.Getuid() == 0 {
		args = append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "--", name}, args...)
		name = "setpriv"
	}
	path, err := exec.LookPath(name)
	Expect(err).NotTo(HaveOccurred())
	return process.Command{Name: name, Path: path, Args: args, Dir: p.dir, Output: GinkgoWriter, Guard: guard}
}

// run runs a command to its end.
func (p *postgres) run(ctx context.Context, name string, args ...string) error {
	started, err := process.Start(p.command(name, args...))
	if err != nil {
		return err
	}
	select {
	case <-started.Exited():
	case <-ctx.Done():
		started.Kill()
	}
	if started.ExitCode() != 0 {
		return fmt.Errorf("%s: %s", name, started.Describe())
	}
	return nil
}

// sql runs statements as the administrator.
func (p *postgres) sql(ctx context.Context, statements ...string) error {
	args := []string{"-h", p.dir, "-p", p.port, "-U", "postgres", "-v", "ON_ERROR_STOP=1"}
	for _, statement := range statements {
		args = append(args, "-c", statement)
	}
	return p.run(ctx, "psql", args...)
}

// certify gives the server another certificate, of another authority, and returns that one's.
func (p *postgres) certify() string {
	GinkgoHelper()
	chain, key := certificate("localhost")
	for name, content := range map[string][]byte{"server.crt": chain, "server.key": key} {
		path := filepath.Join(p.dir, "data", name)
		Expect(os.WriteFile(path, content, 0o600)).To(Succeed())
		p.own(path)
	}
	return string(chain)
}

// own gives a file to the user that PostgreSQL runs as.
func (p *postgres) own(path string) {
	GinkgoHelper()
	if os.Getuid() == 0 {
		Expect(os.Chown(path, 65534, 65534)).To(Succeed())
	}
}

// startPostgres starts a server for one spec.
func startPostgres(ctx context.Context) *postgres {
	GinkgoHelper()
	for _, program := range []string{"initdb", "postgres", "psql"} {
		if _, err := exec.LookPath(program); err != nil {
			Skip("there is no PostgreSQL here: no " + program)
		}
	}
	dir, err := os.MkdirTemp("", "hs-pg-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	p := &postgres{dir: dir}
	p.own(dir)
	data := filepath.Join(dir, "data")
	Expect(p.run(ctx, "initdb", "-D", data, "-U", "postgres", "--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--no-sync")).To(Succeed())
	hba := "local all postgres trust\nhostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n"
	Expect(os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o600)).To(Succeed())
	free, err := new(net.ListenConfig).Listen(ctx, "tcp", "localhost:0")
	Expect(err).NotTo(HaveOccurred())
	_, p.port, err = net.SplitHostPort(free.Addr().String())
	Expect(err).NotTo(HaveOccurred())
	Expect(free.Close()).To(Succeed())
	p.certify()
	server, err := process.Start(p.command("postgres", "-D", data, "-k", dir, "-p", p.port, "-c", "ssl=on", "-c", "fsync=off", "-c", "listen_addresses=localhost"))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(server.Kill)
	Eventually(p.sql).WithArguments(ctx, "SELECT 1").Should(Succeed())
	return p
}

var _ = Describe("A database of CloudNativePG", func() {
	It("is reached with what is in its Secrets, also after both were renewed", func(ctx SpecContext) {
		p := startPostgres(ctx)
		Expect(p.sql(ctx, "CREATE ROLE app LOGIN PASSWORD 'first'", "CREATE DATABASE app OWNER app")).To(Succeed())
		authority := p.certify()
		Expect(p.sql(ctx, "SELECT pg_reload_conf()")).To(Succeed())
		namespace := newNamespace(ctx)
		app := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "pg-app"}, StringData: map[string]string{
			"host": "localhost", "username": "app", "dbname": "app", "password": "first",
		}}
		ca := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "pg-ca"}, StringData: map[string]string{"ca.crt": authority, "ca.key": "not for others"}}
		Expect(admin.Create(ctx, app)).To(Succeed())
		Expect(admin.Create(ctx, ca)).To(Succeed())
		port, err := strconv.Atoi(p.port)
		Expect(err).NotTo(HaveOccurred())

		hs := runPod(namespace, "headscale")
		apply(ctx, namespace, fmt.Sprintf(`
apiVersion: headscale.infrado.cloud/v1beta1
kind: Headscale
metadata: {name: headscale}
spec:
  version: v0.29.3
  config:
    server_url: https://headscale.example.com
    database: {type: postgres, postgres: {port: %d, ssl: verify-full}}
  secrets:
    database_password: {name: pg-app, key: password}
  pod:
    env:
      - {name: HEADSCALE_DATABASE_POSTGRES_HOST, valueFrom: {secretKeyRef: {name: pg-app, key: host}}}
      - {name: HEADSCALE_DATABASE_POSTGRES_USER, valueFrom: {secretKeyRef: {name: pg-app, key: username}}}
      - {name: HEADSCALE_DATABASE_POSTGRES_NAME, valueFrom: {secretKeyRef: {name: pg-app, key: dbname}}}
      - {name: PGSSLROOTCERT, value: /etc/postgres-ca/ca.crt}
    volumes:
      - name: postgres-ca
        secret: {secretName: pg-ca, items: [{key: ca.crt, path: ca.crt}]}
    volume_mounts:
      - {name: postgres-ca, mountPath: /etc/postgres-ca, readOnly: true}
`, port))
		hs.awaitReady(ctx)
		Expect(hs.awaitRest(ctx, secretName).Data).To(HaveKey(v1beta1.SecretDataKey))
		before := podID(ctx, hs)

		By("renewing the password and the authority")
		Expect(p.sql(ctx, "ALTER ROLE app PASSWORD 'second'")).To(Succeed())
		authority = p.certify()
		Expect(p.sql(ctx, "SELECT pg_reload_conf()")).To(Succeed())
		app.StringData = map[string]string{"password": "second"}
		ca.StringData = map[string]string{"ca.crt": authority}
		Expect(admin.Update(ctx, ca)).To(Succeed())
		Expect(admin.Update(ctx, app)).To(Succeed())
		Eventually(podID).WithArguments(ctx, hs).ShouldNot(Equal(before))
		Expect(p.sql(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")).To(Succeed())
		hs.awaitReady(ctx)
		Expect(p.sql(ctx, "SELECT 1 / count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = 'app'")).To(Succeed(), "connected, with TLS")
	})
})

// podID is the UID of a Headscale's pod, or "" while there is none.
func podID(ctx context.Context, hs *server) string {
	pod := &corev1.Pod{}
	key := hs.key
	key.Name += "-0"
	if err := admin.Get(ctx, key, pod); err != nil {
		return ""
	}
	return string(pod.UID)
}
