package resources

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// update writes the golden files instead of comparing with them:
// go test ./internal/resources -run Golden -update
var update = flag.Bool("update", false, "write the golden files in testdata")

// withDirectory is a spec with a backup in a directory, with all that belongs to Litestream.
const withDirectory = `
version: v0.29.3
config: {server_url: "http://headscale.example.com"}
backup:
  replica: {type: file, path: /backups/headscale}
  credentials: {name: backup-credentials}
  files: [{name: key, secret: {name: sftp, key: id}}, {name: hosts, config_map: {name: hosts, key: hosts}}]
pod:
  backup_resources: {limits: {memory: 64Mi}}
  volumes: [{name: backups, persistentVolumeClaim: {claimName: backups}}]
  volume_mounts: [{name: backups, mountPath: /backups}]
`

// TestGolden shows every object of some Headscales in full, so that a change of one
// is seen by whoever reviews it.
func TestGolden(t *testing.T) {
	for name, spec := range map[string]string{
		"shortest":   shortSpec(""),
		"references": withReferences,
		"additions":  withAdditions,
		"unmanaged": `
version: v0.29.3
config: {server_url: "http://headscale.example.com", metrics_listen_addr: ""}
api_key: {auto_manage: false}
`,
		"backup": withDirectory,
		"everything": `
version: v0.28.0
image: registry.example:5000/team/headscale
replicas: 0
config:
  server_url: https://headscale.example.com
  listen_addr: "[::]:443"
  grpc_listen_addr: 127.0.0.1:50443
  metrics_listen_addr: :9091
  unix_socket: /run/hs/admin.sock
  tls_cert_path: /tls/tls.crt
  tls_key_path: /tls/tls.key
  database: {type: sqlite, sqlite: {path: /data/headscale.db, write_ahead_log: true}}
  prefixes: {v4: 100.64.0.0/24}
  dns: {magic_dns: true, base_domain: net.example.com, nameservers: {global: [1.1.1.1]}}
  derp: {urls: ["https://derp.example.com/map"]}
  oidc: {issuer: "https://sso.example.com", scope: [openid]}
persistent_volume_claim: {size: 10Gi, storage_class_name: fast}
image_pull_secrets: [{name: registry}]
api_key: {secret_name: admin-key, expiration: 1h, rotation_buffer: 30m, revocation_delay: 10m, manager_image: "registry.example/manager@sha256:0123"}
`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			objects, err := Build(headscaleOf(t, spec), backedUp(v1beta1.BackupStatus{Incarnation: "0000-1111-1"}))
			g.Expect(err).NotTo(HaveOccurred())
			file := filepath.Join("testdata", name+".yaml")
			got := allOf(g, objects)
			if *update {
				g.Expect(os.WriteFile(file, []byte(got), 0o600)).To(Succeed())
			}
			want, err := os.ReadFile(file)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got).To(Equal(string(want)), "run with -update if this is as it should be")
		})
	}
}

// allOf writes objects as YAML, in the order in which they are applied.
func allOf(g Gomega, objects *Objects) string {
	var documents []string
	for _, object := range []any{
		objects.ServiceAccount, objects.Role, objects.RoleBinding, objects.ConfigMap, objects.BackupConfigMap, objects.Service, objects.MetricsService, objects.StatefulSet,
	} {
		text, err := yaml.Marshal(object)
		g.Expect(err).NotTo(HaveOccurred())
		if string(text) != "null\n" {
			documents = append(documents, string(text))
		}
	}
	return strings.Join(documents, "---\n")
}
