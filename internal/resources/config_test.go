package resources

import (
	"testing"

	. "github.com/onsi/gomega"
	gtypes "github.com/onsi/gomega/types"
)

// at matches a document by the value at a path; nil means that nothing is there.
func at(want any, path ...string) gtypes.GomegaMatcher {
	return WithTransform(func(document map[string]any) any {
		var value any = document
		for _, part := range path {
			section, ok := value.(map[string]any)
			if !ok {
				return nil
			}
			value = section[part]
		}
		return value
	}, matcherFor(want))
}

// matcherFor matches a value, or that there is none.
func matcherFor(want any) gtypes.GomegaMatcher {
	if want == nil {
		return BeNil()
	}
	return Equal(want)
}

func TestCompletion(t *testing.T) {
	embedded := And(at(true, "derp", "server", "enabled"), at(999.0, "derp", "server", "region_id"), at("0.0.0.0:3478", "derp", "server", "stun_listen_addr"))
	for name, test := range map[string]struct {
		config string
		want   gtypes.GomegaMatcher
	}{
		"a start needs nothing from outside": {"", And(
			at("0.0.0.0:8080", "listen_addr"), at("0.0.0.0:9090", "metrics_listen_addr"), at("0.0.0.0:50443", "grpc_listen_addr"),
			at("/var/run/headscale/headscale.sock", "unix_socket"), at("/var/lib/headscale/noise_private.key", "noise", "private_key_path"),
			at("sqlite", "database", "type"), at("/var/lib/headscale/db.sqlite", "database", "sqlite", "path"),
			at("100.64.0.0/10", "prefixes", "v4"), at("fd7a:115c:a1e0::/48", "prefixes", "v6"), at("sequential", "prefixes", "allocation"),
			at(false, "dns", "magic_dns"), at(false, "dns", "override_local_dns"), at("tailnet.internal", "dns", "base_domain"),
			at(true, "disable_check_updates"), embedded, at([]any{}, "derp", "urls"), at(false, "derp", "auto_update_enabled"),
		)},
		"what was written wins": {
			`, listen_addr: ":80", unix_socket: /a/b, disable_check_updates: false, noise: {private_key_path: /n}, prefixes: {v4: 10.0.0.0/8, v6: "fd00::/8", allocation: random}`,
			And(at(":80", "listen_addr"), at("/a/b", "unix_socket"), at(false, "disable_check_updates"), at("/n", "noise", "private_key_path"),
				at("10.0.0.0/8", "prefixes", "v4"), at("fd00::/8", "prefixes", "v6"), at("random", "prefixes", "allocation")),
		},
		"empty is written":           {`, metrics_listen_addr: "", dns: {base_domain: ""}`, And(at("", "metrics_listen_addr"), at("", "dns", "base_domain"))},
		"null is not written":        {`, unix_socket: null, derp: null, prefixes: {v4: null}`, And(at("/var/run/headscale/headscale.sock", "unix_socket"), embedded, at("100.64.0.0/10", "prefixes", "v4"))},
		"the keys are with the data": {`, database: {sqlite: {path: /data/x.db}}`, And(at("/data/noise_private.key", "noise", "private_key_path"), at("/data/derp_server_private.key", "derp", "server", "private_key_path"))},
		"PostgreSQL gets no SQLite": {`, database: {type: postgres, postgres: {host: db}}`, And(
			at(nil, "database", "sqlite"), at("db", "database", "postgres", "host"), at("/var/lib/headscale/noise_private.key", "noise", "private_key_path"))},
		"PostgreSQL beside an SQLite path":   {`, database: {type: postgres, sqlite: {path: /data/x.db}}`, at("/var/lib/headscale/noise_private.key", "noise", "private_key_path")},
		"one range of addresses is a choice": {`, prefixes: {v4: 100.64.0.0/24}`, And(at("100.64.0.0/24", "prefixes", "v4"), at(nil, "prefixes", "v6"))},
		"MagicDNS gets a domain":             {`, dns: {magic_dns: true}`, And(at(true, "dns", "magic_dns"), at("tailnet.internal", "dns", "base_domain"))},
		"a domain keeps Headscale's MagicDNS": {`, dns: {base_domain: a.example}`, And(
			at(nil, "dns", "magic_dns"), at("a.example", "dns", "base_domain"), at(false, "dns", "override_local_dns"))},
		"name servers keep Headscale's override": {`, dns: {nameservers: {global: [1.1.1.1]}}`, at(nil, "dns", "override_local_dns")},
		"no name servers do not":                 {`, dns: {nameservers: {global: []}}`, at(false, "dns", "override_local_dns")},
		"a written override stays":               {`, dns: {override_local_dns: true}`, at(true, "dns", "override_local_dns")},
		"a DERP map from elsewhere is enough":    {`, derp: {urls: ["https://a"]}`, And(at(nil, "derp", "server"), at(nil, "derp", "auto_update_enabled"))},
		"a DERP map as a file is enough":         {`, derp: {paths: [/a]}`, at(nil, "derp", "server")},
		"no DERP server when it is off":          {`, derp: {server: {enabled: false}}`, And(at(false, "derp", "server", "enabled"), at(nil, "derp", "server", "region_id"))},
		"an own DERP server is completed":        {`, derp: {urls: [u], server: {enabled: true, region_id: 7}}`, And(at(7.0, "derp", "server", "region_id"), at("headscale", "derp", "server", "region_code"), at(nil, "derp", "auto_update_enabled"))},
		"empty lists are no DERP map":            {`, derp: {urls: [], paths: []}`, embedded},
		"certificates of its own are kept":       {`, tls_letsencrypt_hostname: a.example`, at("/var/lib/headscale/cache", "tls_letsencrypt_cache_dir")},
		"others are not":                         {`, tls_cert_path: /a`, at(nil, "tls_letsencrypt_cache_dir")},
		"a mode in quotes":                       {`, unix_socket_permission: "0770"`, at("0770", "unix_socket_permission")},
		"unknown keys stay":                      {`, new_in_v99: {deep: [1, 2.5, {a: null}]}`, at([]any{1.0, 2.5, map[string]any{"a": nil}}, "new_in_v99", "deep")},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(configOf(g, t, test.config)).To(test.want)
		})
	}
}

func TestBaseDomainIsNotTheServersOwn(t *testing.T) {
	for serverURL, want := range map[string]string{
		"https://headscale.example.com":      "tailnet.internal",
		"https://tailnet.internal":           "headscale.internal",
		"https://TAILNET.internal:8443/path": "headscale.internal",
		"http://a.b.tailnet.internal:8080":   "headscale.internal",
		"http://nottailnet.internal":         "tailnet.internal",
		"http://headscale.internal":          "tailnet.internal",
		"http://[::1":                        "tailnet.internal",
	} {
		NewWithT(t).Expect(freeBaseDomain(document{"server_url": serverURL})).To(Equal(want), serverURL)
	}
}

// Headscale counts a number that it cannot read exactly as another one.
func TestNumbersSurvive(t *testing.T) {
	g := NewWithT(t)
	objects, err := Build(headscaleOf(t, shortSpec(", a: 9223372036854775807, b: 0.1, c: -3, d: 1.5e10, e: 1e300")), operatorOptions)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(objects.ConfigMap.Data["config.yaml"]).To(And(
		ContainSubstring("a: 9223372036854775807\n"), ContainSubstring("b: 0.1\n"), ContainSubstring("c: -3\n"), ContainSubstring("d: 15000000000\n"), ContainSubstring("e: 1e+300\n")))
}

// Another text would restart Headscale.
func TestTextOfConfigIsAlwaysTheSame(t *testing.T) {
	g := NewWithT(t)
	headscale := headscaleOf(t, shortSpec(`, dns: {magic_dns: false, nameservers: {split: {2.0.192.in-addr.arpa: [192.0.2.1], 1x.example: [192.0.2.1], 10.in-addr.arpa: [192.0.2.1]}}},
		oidc: {extra_params: {"9٠": a, "2000": b, "9222": c}}`))
	for range 50 {
		objects, err := Build(headscale, operatorOptions)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(objects.ConfigMap.Data[ConfigFile]).To(MatchRegexp(`(?s)10.in-addr.arpa:.*1x.example:.*2.0.192.in-addr.arpa:.*2000.*9222.*9٠`))
	}
}
