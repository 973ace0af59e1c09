package redact_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/redact"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// planted are parts of secrets, each in a form of its own. None of them may come through.
var planted = []string{"TOPSECRET", "hs:TOP", "hunter2", "s3cr3tvalue", "MIGHAgEAMBMGByqGSM49"}

// refusals are configs that make a real Headscale exit, with a secret where it may quote it.
var refusals = map[string]func(dir string, config map[string]any){
	"a Postgres password with a space": func(_ string, config map[string]any) {
		config["database"] = postgres("foo TOPSECRET")
	},
	"a Postgres password with quotes": func(_ string, config map[string]any) {
		config["database"] = postgres("a'b`c\"TOPSECRET")
	},
	"a Postgres password with a backslash and an equals sign": func(_ string, config map[string]any) {
		config["database"] = postgres(`a\ TOPSECRET=x`)
	},
	"a Postgres host that is a URL": func(_ string, config map[string]any) {
		config["database"] = map[string]any{"type": "postgres", "postgres": map[string]any{
			"host": "postgres://hs:TOP SECRET@TOPSECRET@localhost/x", "port": 1, "name": "hs", "user": "hs", "pass": "hunter2",
		}}
	},
	"a Postgres that is away": func(_ string, config map[string]any) {
		config["database"] = postgres("hunter2")
	},
	"an issuer with a password": func(_ string, config map[string]any) {
		config["oidc"] = map[string]any{"issuer": "http://hs:hunter2@127.0.0.1:1/", "client_id": "hs", "client_secret": "s3cr3tvalue", "only_start_if_oidc_is_available": true}
	},
	"both an OIDC secret and its path": func(_ string, config map[string]any) {
		config["oidc"] = map[string]any{"issuer": "http://127.0.0.1:1/", "client_id": "hs", "client_secret": "s3cr3tvalue", "client_secret_path": "/x"}
	},
	"a private key that is none": func(dir string, config map[string]any) {
		_ = os.WriteFile(filepath.Join(dir, "bad.key"), []byte("privkey:TOPSECRET0123456789"), 0o600)
		config["noise"] = map[string]any{"private_key_path": filepath.Join(dir, "bad.key")}
	},
	"a private key as PEM": func(dir string, config map[string]any) {
		_ = os.WriteFile(filepath.Join(dir, "bad.key"), []byte("-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49TOPSECRET\n-----END PRIVATE KEY-----\n"), 0o600)
		config["noise"] = map[string]any{"private_key_path": filepath.Join(dir, "bad.key")}
	},
	"a policy that is no JSON": func(dir string, config map[string]any) {
		_ = os.WriteFile(filepath.Join(dir, "policy.hujson"), []byte(`{"acls": [ secret: "s3cr3tvalue" ]`), 0o600)
		config["policy"] = map[string]any{"mode": "file", "path": filepath.Join(dir, "policy.hujson")}
	},
	"a policy with a wrong value": func(dir string, config map[string]any) {
		_ = os.WriteFile(filepath.Join(dir, "policy.hujson"), []byte(`{"groups": {"group:x": "password=TOPSECRET"}}`), 0o600)
		config["policy"] = map[string]any{"mode": "file", "path": filepath.Join(dir, "policy.hujson")}
	},
	"a TLS key that is none": func(dir string, config map[string]any) {
		_ = os.WriteFile(filepath.Join(dir, "tls.key"), []byte("-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49TOPSECRET"), 0o600)
		config["tls_cert_path"], config["tls_key_path"] = filepath.Join(dir, "tls.key"), filepath.Join(dir, "tls.key")
	},
	"a DERP map behind a password": func(_ string, config map[string]any) {
		config["derp"] = map[string]any{"urls": []string{"http://hs:hunter2@127.0.0.1:1/derp?token=s3cr3tvalue"}}
	},
}

// postgres is a database that nobody serves, with a password.
func postgres(password string) map[string]any {
	return map[string]any{"type": "postgres", "postgres": map[string]any{
		"host": "127.0.0.1", "port": 1, "name": "hs", "user": "hs", "pass": password,
	}}
}

// TestRealLastWords has every release refuse each config, and looks for the secrets in what
// would be quoted of its output.
func TestRealLastWords(t *testing.T) {
	g := NewWithT(t)
	root, err := serverbuild.FindRoot()
	g.Expect(err).NotTo(HaveOccurred())
	versions, err := serverbuild.HeadscaleVersions(root)
	g.Expect(err).NotTo(HaveOccurred())
	servers, err := serverbuild.Find(serverbuild.Options{Root: root, Headscale: versions})
	g.Expect(err).NotTo(HaveOccurred(), "make servers builds them")
	quoted := 0
	for _, version := range versions {
		for _, name := range slices.Sorted(maps.Keys(refusals)) {
			t.Run(version+"/"+name, func(t *testing.T) {
				g := NewWithT(t)
				output := refuse(t, servers.Headscale[version], refusals[name])
				words := redact.LastWords(output)
				g.Expect(words).NotTo(BeEmpty(), output)
				for _, secret := range planted {
					g.Expect(words).NotTo(ContainSubstring(secret), output)
					if strings.Contains(output, secret) {
						quoted++
					}
				}
			})
		}
	}
	g.Expect(quoted).To(BeNumerically(">=", len(versions)), "Headscale quotes a secret in its output, or this tests nothing")
}

// refuse runs Headscale with a config that it refuses and returns what it printed.
func refuse(t *testing.T, binary string, spoil func(string, map[string]any)) string {
	dir, config := t.TempDir(), map[string]any{}
	spoil(dir, config)
	output, err := env.RefuseConfig(t.Context(), env.HeadscaleOptions{Binary: binary, Dir: dir, Config: config})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return output
}
