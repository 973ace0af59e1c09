package resources_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

func TestUnknownConfigKeys(t *testing.T) {
	const inConfig = "Headscale v0.29.3 does not know and ignores in spec.config: "
	for name, test := range map[string]struct {
		version, config string
		env             []string
		want            string
	}{
		"nothing but known keys":              {config: "{server_url: 'https://a.example', dns: {magic_dns: true, nameservers: {global: [1.1.1.1], split: {foo.example: [1.1.1.1]}}}}"},
		"a free-form map":                     {config: "{oidc: {extra_params: {anything: x}}}"},
		"another case of letters":             {config: "{dns: {Magic_DNS: true}}"},
		"a key without a value":               {config: "{ip_prefixes: null}"},
		"a key that is refused anyway":        {config: "{dns_config: {magic_dns: true}, oidc: {strip_email_domain: true}}"},
		"a typo":                              {config: "{dns: {magic_dsn: true}}", want: inConfig + "dns.magic_dsn (did you mean dns.magic_dns?)"},
		"a typo in a section":                 {config: "{derps: {urls: []}}", want: inConfig + "derps (did you mean derp?)"},
		"a key in the wrong section":          {config: "{dns: {extra_params: {}}}", want: inConfig + "dns.extra_params (did you mean oidc.extra_params?)"},
		"a key at the top":                    {config: "{magic_dns: true}", want: inConfig + "magic_dns (did you mean dns.magic_dns?)"},
		"a short key that is like another":    {config: "{database: {sqlite: {name: x}}}", want: inConfig + "database.sqlite.name (did you mean database.postgres.name?)"},
		"nothing like any key":                {config: "{colour: blue}", want: inConfig + "colour"},
		"a key before 0.23":                   {config: "{ip_prefixes: [100.64.0.0/10]}", want: inConfig + "ip_prefixes (write prefixes.v4 and prefixes.v6)"},
		"several keys before 0.23":            {config: "{db_type: sqlite3, db_path: /x/y}", want: inConfig + "db_path (write database.sqlite.path), db_type (write database.type)"},
		"a key that only an old release has":  {config: "{tuning: {register_cache_cleanup: 1m}}", want: inConfig + "tuning.register_cache_cleanup (only other releases have it, first v0.27)"},
		"a section that only a later one has": {version: "v0.28.0", config: "{node: {expiry: 1h}}", want: "Headscale v0.28.0 does not know and ignores in spec.config: node (only other releases have it, first v0.29)"},
		"a key that only a later release has": {version: "v0.26.1", config: "{derp: {server: {verify_clients: true}}}", want: "Headscale v0.26.1 does not know and ignores in spec.config: derp.server.verify_clients (only other releases have it, first v0.27)"},
		"a policy": {
			config: "{policy: {mode: database, acls: [], groups: {}}}",
			want: inConfig + "policy.acls (a policy is no part of the config: put it into a ConfigMap and name that in spec.files.policy, or set policy.mode to database and send it to Headscale), " +
				"policy.groups (a policy is no part of the config: put it into a ConfigMap and name that in spec.files.policy, or set policy.mode to database and send it to Headscale)",
		},
		"a typo in the section of the policy": {config: "{policy: {pth: x}}", want: inConfig + "policy.pth (did you mean policy.path?)"},
		"a section in place of a value":       {config: "{derp: {urls: {a: 1}}}", want: inConfig + "derp.urls (it must be a value, not a section)"},
		"a value in place of a section":       {config: "{log: debug}", want: inConfig + "log (it must be a section with keys of its own)"},
		"control characters":                  {config: `{"x\n\e[31my": 1}`, want: inConfig + "x y"},
		"variables": {
			config: "{server_url: x}",
			env:    []string{"HEADSCALE_DNS_MAGIC_DNS", "HEADSCALE_DEBUG_DEADLOCK", "TZ", "HEADSCALE_IP_PREFIXES", "HEADSCALE_RANDOMIZE_CLIENT_PORT"},
			want:   "Headscale v0.29.3 does not know and ignores in spec.pod.env: HEADSCALE_IP_PREFIXES",
		},
		"a release that is newer than all known ones": {version: "v0.99.0", config: "{ip_prefixes: [a], colour: blue}"},
		"no release": {version: "main", config: "{colour: blue}"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(draftOf(g, withConfig(g, test.version, test.config, test.env)).UnknownConfigKeys()).To(Equal(test.want))
		})
	}
}

func TestManyUnknownConfigKeys(t *testing.T) {
	g := NewWithT(t)
	var keys []string
	for i := range 1000 {
		keys = append(keys, fmt.Sprintf("k%04d: 1", i))
	}
	g.Expect(draftOf(g, withConfig(g, "", "{"+strings.Join(keys, ", ")+"}", nil)).UnknownConfigKeys()).To(HaveSuffix("k0008, k0009, and 990 more"))
}

// TestLongUnknownConfigKeys has names for which a search for a typo would take minutes.
func TestLongUnknownConfigKeys(t *testing.T) {
	g := NewWithT(t)
	document := map[string]any{}
	for i := range 10 {
		document[fmt.Sprintf("k%d%s", i, strings.Repeat("x", 26_000))] = 1
	}
	headscale := withConfig(g, "", "{}", nil)
	var err error
	headscale.Spec.Config, err = v1beta1.NewHeadscaleConfig(document)
	g.Expect(err).NotTo(HaveOccurred())
	draft := draftOf(g, headscale)
	begin := time.Now()
	sentence := draft.UnknownConfigKeys()
	g.Expect(time.Since(begin)).To(BeNumerically("<", 5*time.Second), "it took ten seconds on an idle machine once, and takes milliseconds")
	g.Expect(len(sentence)).To(BeNumerically("<", 2000))
}

// draftOf decodes the config of a Headscale.
func draftOf(g Gomega, headscale *v1beta1.Headscale) *resources.Draft {
	draft, err := resources.NewDraft(headscale)
	g.Expect(err).NotTo(HaveOccurred())
	return draft
}

// withConfig is a Headscale with a config as YAML.
func withConfig(g Gomega, version, config string, env []string) *v1beta1.Headscale {
	headscale := &v1beta1.Headscale{}
	headscale.Spec.Version = version
	if version == "" {
		headscale.Spec.Version = "v0.29.3"
	}
	document := map[string]any{}
	g.Expect(yaml.Unmarshal([]byte(config), &document)).To(Succeed())
	var err error
	headscale.Spec.Config, err = v1beta1.NewHeadscaleConfig(document)
	g.Expect(err).NotTo(HaveOccurred())
	for _, name := range env {
		headscale.Spec.Pod.Env = append(headscale.Spec.Pod.Env, corev1.EnvVar{Name: name, Value: "1"})
	}
	return headscale
}
