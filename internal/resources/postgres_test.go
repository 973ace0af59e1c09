package resources

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/test/serverbuild"
)

// connectionValues are settings of a PostgreSQL connection, and whether Headscale can use them.
var connectionValues = map[string]bool{
	"plain": true, "a=b": true, `a'b"c`: true, "größe": true, `a\b`: true, `a\ b`: true, `'two words'`: true, `'it\'s a \\'`: true,
	"two words": false, "a\tb": false, "a\vb": false, "a\nb": false,
	"'open": false, `'closed' and more`: false, "it's two": false, `last\`: false, `'last\'`: false,
}

// postgresSpec is a spec with the password of a database that nobody serves.
func postgresSpec(t *testing.T, setting, value string) string {
	settings := map[string]any{"host": "127.0.0.1", "port": 1, "name": "hs", "user": "hs", "pass": "secret"}
	settings[setting] = value
	spec, err := yaml.Marshal(map[string]any{"version": "v0.29.3", "config": map[string]any{
		"server_url": "http://headscale.example.com", "database": map[string]any{"type": "postgres", "postgres": settings},
	}})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return string(spec)
}

func TestConnectionValues(t *testing.T) {
	values := maps.Clone(connectionValues)
	values[" first"], values["last "] = false, false // Headscale would leave the space out
	for value, usable := range values {
		for _, setting := range []string{"host", "name", "user", "pass"} {
			_, err := Build(headscaleOf(t, postgresSpec(t, setting, value)), operatorOptions)
			if usable {
				NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%s %q", setting, value)
			} else {
				NewWithT(t).Expect(err).To(MatchError(HavePrefix("spec.config.database.postgres."+setting+" must not contain spaces")), "%q", value)
			}
		}
	}
}

// TestRealConnectionValues shows for every release that Headscale reads a password as one value
// exactly where it is not refused.
func TestRealConnectionValues(t *testing.T) {
	g := NewWithT(t)
	root, err := serverbuild.FindRoot()
	g.Expect(err).NotTo(HaveOccurred())
	versions, err := serverbuild.HeadscaleVersions(root)
	g.Expect(err).NotTo(HaveOccurred())
	servers, err := serverbuild.Find(serverbuild.Options{Root: root, Headscale: versions})
	g.Expect(err).NotTo(HaveOccurred(), "make servers builds them")
	for _, version := range versions {
		for value, usable := range connectionValues {
			t.Run(fmt.Sprintf("%s/%q", version, value), func(t *testing.T) {
				g := NewWithT(t)
				output := connect(t, servers.Headscale[version], value)
				if usable {
					g.Expect(output).To(ContainSubstring("connection refused"))
					g.Expect(ConnectionHint(output)).To(BeEmpty())
				} else {
					g.Expect(ConnectionHint(output)).To(HavePrefix("If the database password contains a space"), output)
				}
			})
		}
	}
}

// connect runs Headscale with a password for a database that nobody serves and returns what it
// printed.
func connect(t *testing.T, binary, password string) string {
	g := NewWithT(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	text, err := yaml.Marshal(map[string]any{
		"server_url": "http://127.0.0.1:1", "listen_addr": "127.0.0.1:0", "metrics_listen_addr": "127.0.0.1:0", "grpc_listen_addr": "127.0.0.1:0",
		"noise": map[string]any{"private_key_path": filepath.Join(dir, "noise.key")}, "prefixes": map[string]any{"v4": "100.64.0.0/10"},
		"dns": map[string]any{"magic_dns": false, "override_local_dns": false, "base_domain": "example.internal"},
		"database": map[string]any{"type": "postgres", "postgres": map[string]any{
			"host": "127.0.0.1", "port": 1, "name": "hs", "user": "hs", "pass": password,
		}},
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var output bytes.Buffer
	command := exec.CommandContext(ctx, binary, "serve", "--config", file)
	command.Stdout, command.Stderr = &output, &output
	g.Expect(command.Run()).To(HaveOccurred(), "Headscale must exit: %s", &output)
	return output.String()
}
