package redact

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// realLastWords are what Headscale v0.29.3 (and v0.28.0, on the database of a newer
// version) printed before it ended, and what of it tells the reason.
var realLastWords = []struct{ name, printed, words string }{
	{
		name: "a removed key",
		printed: "2026-11-23T23:55:18Z FTL \n" +
			"FATAL: The \"randomize_client_port\" configuration key has been removed. Set \"randomizeClientPort\": true at the top level of your policy file (see policy.path / policy.mode), or grant the cap per-node via a \"nodeAttrs\" entry. See CHANGELOG.md (BREAKING / Configuration).\n" +
			"\n",
		words: `FATAL: The "randomize_client_port" configuration key has been removed. Set "randomizeClientPort": true`,
	},
	{
		name: "a renamed key",
		printed: "2026-11-23T23:55:19Z FTL \n" +
			"FATAL: The \"oidc.expiry\" configuration key has been removed. Please use \"node.expiry\" instead.\n" +
			"\n",
		words: `FATAL: The "oidc.expiry" configuration key has been removed. Please use "node.expiry" instead.`,
	},
	{
		name:    "a server_url without a scheme",
		printed: "Error: initializing: loading configuration: Fatal config error: server_url must start with https:// or http://\n",
		words:   "Error: initializing: loading configuration: Fatal config error: server_url must start with https:// or http://",
	},
	{
		name: "a database that is away",
		printed: "2026-11-23T23:55:19Z INF no private key file at path, creating... path=/var/lib/headscale/noise.key\n" +
			"2026-11-23T23:55:19Z INF Opening database database=postgres path=\"host=127.0.0.1 dbname=headscale user=headscale\"\n" +
			"Error: initializing: creating new headscale: init state: initializing database: failed to connect to `user=headscale database=headscale`: 127.0.0.1:1 (127.0.0.1): dial error: dial tcp 127.0.0.1:1: connect: connection refused\n",
		words: "Error: initializing: creating new headscale: init state: initializing database: failed to connect to",
	},
	{
		name:    "a database of an unknown kind",
		printed: "2026-11-23T23:55:19Z FTL invalid database type \"mysql\", must be sqlite, sqlite3 or postgres\n",
		words:   `invalid database type "mysql", must be sqlite, sqlite3 or postgres`,
	},
	{
		name: "no relay",
		printed: "2026-11-23T23:55:19Z INF no private key file at path, creating... path=/var/lib/headscale/noise.key\n" +
			"2026-11-23T23:55:19Z INF Opening database database=sqlite3 path=/var/lib/headscale/db.sqlite\n" +
			"2026-11-23T23:55:19Z INF starting headscale commit=unknown version=v0.29.3\n" +
			"2026-11-23T23:55:19Z INF Clients with a lower minimum version will be rejected minimum_version=v1.80\n" +
			"2026-11-23T23:55:19Z INF batcher done channel closed, stopping to feed workers\n" +
			"Error: headscale ran into an error and had to shut down: initial DERPMap is empty, Headscale requires at least one entry\n",
		words: "Error: headscale ran into an error and had to shut down: initial DERPMap is empty",
	},
	{
		name:    "a prefix that is none",
		printed: "Error: initializing: loading configuration: parsing IPv4 prefix from config: netip.ParsePrefix(\"300.64.0.0/10\"): ParseAddr(\"300.64.0.0\"): IPv4 field has value >255\n",
		words:   "Error: initializing: loading configuration: parsing IPv4 prefix from config",
	},
	{
		name: "a policy that is away",
		printed: "2026-11-23T23:56:09Z INF no private key file at path, creating... path=/var/lib/headscale/noise.key\n" +
			"2026-11-23T23:56:09Z INF Opening database database=sqlite3 path=/var/lib/headscale/db.sqlite\n" +
			"Error: initializing: creating new headscale: init state: loading policy: open /nonexistent/policy.hujson: no such file or directory\n",
		words: "Error: initializing: creating new headscale: init state: loading policy: open /nonexistent/policy.hujson: no such file or directory",
	},
	{
		name: "a skipped version",
		printed: "2026-11-23T23:58:57Z INF Opening database database=sqlite3 path=/var/lib/headscale/db.sqlite\n" +
			"Error: initializing: creating new headscale: init state: initializing database: version check: headscale version v0.29.3 cannot be used with a database last used by v0.27.1, upgrading more than one minor version at a time is not supported, please upgrade to the latest v0.28.x release first, then to v0.29.3, release page: https://github.com/juanfont/headscale/releases: version upgrade not supported\n",
		words: "Error: initializing: creating new headscale: init state: initializing database: version check: headscale version v0.29.3 cannot be used with a database last used by v0.27.1, upgrading more than one minor version",
	},
	{
		name: "a database of a newer version",
		printed: "2026-11-23T23:56:08Z INF Opening database database=sqlite3 path=/var/lib/headscale/db.sqlite\n" +
			"SQLite schema failed to validate:\n" +
			"\n" +
			">> Remove table \"database_versions\"\n" +
			"\n" +
			"2026-11-23T23:56:08Z FTL github.com/juanfont/headscale@v0.28.0/cmd/headscale/cli/serve.go:32 > Error initializing error=\"creating new headscale: init state: init database: validating schema: invalid schema (-got, +want):\\n\\n>> Remove table \\\"database_versions\\\"\\n\"\n",
		words: `Error initializing error="creating new headscale: init state: init database: validating schema: invalid schema`,
	},
	{
		name:    "a config that is no YAML",
		printed: "2026-11-23T23:56:09Z FTL github.com/juanfont/headscale@v0.29.3/cmd/headscale/cli/root.go:49 > error loading config file /etc/headscale/config.yaml error=\"fatal error reading config file: While parsing config: yaml: line 11: did not find expected key\"\n",
		words:   `error loading config file /etc/headscale/config.yaml error="fatal error reading config file: While parsing config: yaml: line 11`,
	},
}

func TestLastWords(t *testing.T) {
	g := NewWithT(t)
	for _, test := range realLastWords {
		g.Expect(LastWords(test.printed)).To(HavePrefix(test.words), test.name)
	}
	g.Expect(LastWords("")).To(BeEmpty())
	g.Expect(LastWords("\n \n")).To(BeEmpty())
	g.Expect(LastWords("2026-11-23T23:58:57Z INF one\n\x1b[90m2026-11-23T23:58:58Z\x1b[0m \x1b[32mINF\x1b[0m two\n\n")).To(Equal("two"))
	g.Expect(LastWords("panic: no\n\ngoroutine 1 [running]:\nmain.main()")).To(Equal("panic: no"))
	g.Expect(LastWords("Error: no\nUsage:\n  headscale serve [flags]")).To(Equal("Error: no"))
	g.Expect(len(LastWords(strings.Repeat("x ", 1000)))).To(BeNumerically("<=", MaxLastWords))
	g.Expect(LastWords("host=db password=" + strings.Repeat("TOP ", 600) + "`: no\nError: second\n")).To(Equal("Error: second"))
	g.Expect(LastWords("host=db password=" + strings.Repeat("TOP ", 600) + "`: no\n")).To(Equal(tooLong))
}

// FuzzLastWords looks for output that cannot be read.
func FuzzLastWords(f *testing.F) {
	for _, test := range realLastWords {
		f.Add(test.printed)
	}
	f.Fuzz(func(t *testing.T, output string) {
		if words := LastWords(output); len(words) > MaxLastWords || strings.Contains(words, "\n") {
			t.Errorf("%q gives %q", output, words)
		}
	})
}
