package v1beta1_test

import (
	"encoding/json"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

func TestConfigPassesEverythingThrough(t *testing.T) {
	for name, text := range map[string]string{
		"known keys alone":         `{"server_url":"http://a","listen_addr":":80","database":{"type":"sqlite","sqlite":{"path":"/a/b"}}}`,
		"unknown keys":             `{"server_url":"http://a","oidc":{"scope":["openid"],"extra":{"a":null}},"z":[]}`,
		"unknown keys in sections": `{"server_url":"http://a","database":{"gorm":{"prepare_stmt":true},"sqlite":{"write_ahead_log":false}},"derp":{"urls":["u"],"server":{"region_id":7}}}`,
		"whole numbers":            `{"server_url":"http://a","a":9223372036854775807,"b":-9223372036854775808,"c":18446744073709551615}`,
		"fractions":                `{"server_url":"http://a","a":0.1,"b":1e-9,"c":2.50}`,
		"empty values":             `{"server_url":"http://a","listen_addr":"","metrics_listen_addr":"","tls_cert_path":"","derp":{}}`,
		"null":                     `{"server_url":"http://a","derp":null,"database":null,"unix_socket":null}`,
		"unicode":                  `{"server_url":"http://a","name":"Zürich 🚀 \u0000"}`,
		"another order of keys":    `{"z":1,"server_url":"http://a","a":2}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			raw := `{"spec":{"version":"v0.29.3","config":` + text + `}}`
			var headscale v1beta1.Headscale
			g.Expect(json.Unmarshal([]byte(raw), &headscale)).To(Succeed())
			written, err := json.Marshal(headscale.DeepCopy())
			g.Expect(err).NotTo(HaveOccurred())
			var object struct {
				Spec struct{ Config json.RawMessage }
			}
			g.Expect(json.Unmarshal(written, &object)).To(Succeed())
			g.Expect(string(object.Spec.Config)).To(Equal(text))
		})
	}
}

func TestConfigKnowsItsFields(t *testing.T) {
	g := NewWithT(t)
	var config v1beta1.HeadscaleConfig
	g.Expect(yaml.Unmarshal([]byte(`
server_url: https://a
listen_addr: :1
metrics_listen_addr: ""
grpc_listen_addr: :2
unix_socket: /run/hs/s
tls_cert_path: /c
tls_key_path: /k
tls_letsencrypt_hostname: a
database: {type: sqlite3, sqlite: {path: /d/db}}
derp: {server: {enabled: true, stun_listen_addr: ":3"}}
`), &config)).To(Succeed())
	empty, yes := "", true
	known, err := v1beta1.NewHeadscaleConfig(map[string]any{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(known.ServerURL).To(BeEmpty())
	g.Expect(config.ServerURL).To(Equal("https://a"))
	g.Expect(config.ListenAddr).To(BeEquivalentTo(":1"))
	g.Expect(config.MetricsListenAddr).To(Equal(&empty))
	g.Expect(config.GRPCListenAddr).To(BeEquivalentTo(":2"))
	g.Expect(config.UnixSocket).To(Equal("/run/hs/s"))
	g.Expect(config.TLSCertPath).To(Equal("/c"))
	g.Expect(config.TLSKeyPath).To(Equal("/k"))
	g.Expect(config.TLSLetsEncryptHostname).To(Equal("a"))
	g.Expect(config.Database).To(Equal(&v1beta1.DatabaseConfig{Type: "sqlite3", SQLite: &v1beta1.SQLiteConfig{Path: "/d/db"}}))
	g.Expect(config.DERP).To(Equal(&v1beta1.DERPConfig{Server: &v1beta1.DERPServerConfig{Enabled: &yes, STUNListenAddr: ":3"}}))
}

// The API server takes Database for an unknown key, and so it may hold anything. One
// such object must not keep the operator from reading all others.
func TestConfigReadsKeysToTheLetter(t *testing.T) {
	g := NewWithT(t)
	var config v1beta1.HeadscaleConfig
	g.Expect(json.Unmarshal([]byte(`{"server_url":"http://a","Database":"x","LISTEN_ADDR":8080,"derp":{"Server":[]}}`), &config)).To(Succeed())
	g.Expect(config.Database).To(BeNil())
	g.Expect(config.ListenAddr).To(BeEmpty())
	g.Expect(config.DERP.Server).To(BeNil())
}

func TestConfigRefusesWrongTypes(t *testing.T) {
	for _, text := range []string{`[]`, `"x"`, `{"server_url":1}`, `{"database":"x"}`, `{`} {
		var config v1beta1.HeadscaleConfig
		NewWithT(t).Expect(json.Unmarshal([]byte(text), &config)).NotTo(Succeed(), text)
	}
	_, err := v1beta1.NewHeadscaleConfig(map[string]any{"x": func() {}})
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring("encoding the config")))
	_, err = v1beta1.NewHeadscaleConfig(map[string]any{"server_url": 1})
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring("decoding the config")))
}

func TestConfigDocument(t *testing.T) {
	g := NewWithT(t)
	var config v1beta1.HeadscaleConfig
	g.Expect(json.Unmarshal([]byte(`{"server_url":"http://a","big":9223372036854775807,"half":0.5,"list":[1,{"a":true}]}`), &config)).To(Succeed())
	document, err := config.Document()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(document).To(Equal(map[string]any{
		"server_url": "http://a", "big": int64(9223372036854775807), "half": 0.5,
		"list": []any{int64(1), map[string]any{"a": true}},
	}))

	document["server_url"] = "http://b"
	again, err := config.Document()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(again).To(HaveKeyWithValue("server_url", "http://a"), "a document must be a copy")

	built := v1beta1.HeadscaleConfig{ServerURL: "http://c"}
	g.Expect(built.Document()).To(Equal(map[string]any{"server_url": "http://c"}))

	var none v1beta1.HeadscaleConfig
	g.Expect(none.UnmarshalJSON([]byte("null"))).To(Succeed())
	g.Expect(none.Document()).To(Equal(map[string]any{}))
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"server_url":"http://a"}`))
	f.Add([]byte(`{"server_url":"http://a","derp":{"server":{"enabled":true}},"x":1e400}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var config v1beta1.HeadscaleConfig
		if json.Unmarshal(raw, &config) != nil {
			return
		}
		written, err := json.Marshal(config.DeepCopy())
		if err != nil {
			t.Fatalf("%q was read and cannot be written: %v", raw, err)
		}
		var again v1beta1.HeadscaleConfig
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%q became %q, which cannot be read: %v", raw, written, err)
		}
	})
}
