package redact

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	. "github.com/onsi/gomega"
)

func TestLine(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"plain":                        {"all is well", "all is well"},
		"several lines":                {" a\r\n\tb\u2028c\u0085d ", "a b c d"},
		"colours":                      {"\x1b[31;1mred\x1b[0m", "red"},
		"a window title":               {"a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc"},
		"the cursor, and the screen":   {"a\x1b[2J\x1b[1;1Hb\x1bcd", "abd"},
		"an unfinished sequence":       {"a\x1b[", "a"},
		"control characters":           {"a\x00b\x07c\x7fd\u009be", "abcde"},
		"directions":                   {"a\u202eb\u2066c\u200fd", "abcd"},
		"characters that are not seen": {"a\u200bb\ufeffc\u00add\U000e0041e", "abcde"},
		"letters beyond ASCII":         {"größer 東京 é", "größer 東京 é"},
		"no UTF-8":                     {"a\xffb", "a�b"},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(Line(test.text, 100)).To(Equal(test.want))
		})
	}
}

func TestCut(t *testing.T) {
	g := NewWithT(t)
	g.Expect(Cut("abcdef", 6)).To(Equal("abcdef"))
	g.Expect(Cut("abcdefg", 6)).To(Equal("abc…"))
	g.Expect(Cut("ääää", 6)).To(Equal("ä…"))
	g.Expect(Cut("abc", 2)).To(BeEmpty())
}

func TestSecrets(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"a password with a space in a connection string": {
			"failed to parse `host=db user=hs password=foo TOPSECRET dbname=x`: failed to parse as keyword/value (invalid keyword/value)",
			"failed to parse `host=db user=hs password=***`: failed to parse as keyword/value (invalid keyword/value)",
		},
		"one that was masked up to the space": {
			"cannot parse `password=xxxxx TOPSECRET`: failed to parse", "cannot parse `password=***`: failed to parse",
		},
		"a password with the quote in it":    {"cannot parse `password=a`b`: no", "cannot parse `password=***`: no"},
		"a connection string without quotes": {"connecting to host=db password=a b c", "connecting to host=db password=***"},
		"one in an escaped quote":            {`error="cannot parse \"host=db password=a b\": no"`, `error="cannot parse \"host=db password=***\": no"`},
		"each line by itself":                {"password=a b\nand then", "password=***\nand then"},
		"a URL":                              {"parse \"postgres://hs:p%20w@db:5432/x\": no", "parse \"postgres://***@db:5432/x\": no"},
		"a URL with a space and an @":        {"dial postgres://hs:TOP SE@CRET@db/x: no", "dial postgres://***@db/x: no"},
		"half a URL":                         {"lookup postgres://hs:TOP: no such host", "lookup postgres://***: no such host"},
		"URLs with ports":                    {"http://a:80/x https://[::1]:8080 http://127.0.0.1:1", "http://a:80/x https://[::1]:8080 http://127.0.0.1:1"},
		"a setting":                          {"client_secret: abc, issuer: x", "client_secret: ***, issuer: x"},
		"passwords that begin with a word":   {"password: open-sesame, token: a-b-c client_secret: no-one-knows", "password: ***, token: *** client_secret: ***"},
		"a name before a sentence":           {"reading the password: no such file; token: is expired. secret: not found", "reading the password: no such file; token: is expired. secret: not found"},
		"a setting in JSON":                  {`{"token":"a\"b c","x":1}`, `{"token":***,"x":1}`},
		"a variable":                         {"HEADSCALE_DATABASE_POSTGRES_PASS=abc def", "HEADSCALE_DATABASE_POSTGRES_PASS=*** def"},
		"bearer":                             {"got Bearer abcdef123 here", "got Bearer *** here"},
		"basic":                              {"authorization: basic dXNlcjpwYXNzd29yZA", "authorization: *** ***"},
		"a private key":                      {"a -----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY----- b", "a *** b"},
		"half a private key":                 {"a -----BEGIN PRIVATE KEY-----\nMHc\nAbc", "a ***"},
		"a machine's key":                    {"invalid privkey:0a1b2c3d4e5f", "invalid privkey:***"},
		"an API key":                         {"hskey-api-abcdefghijkl-xyz", "hskey-api-***"},
		"an old API key":                     {"abcdefg.0123456789abcdef0123456789abcdef", "abcdefg.***"},
		"a random word":                      {"reading kJ8dh2Lq0Zx5Vb7Nm3Pw: no", "reading ***: no"},
		"a path, a module and a version": {
			"github.com/juanfont/headscale@v0.29.3/cmd/headscale/cli/serve.go:32 > /var/lib/headscale/noise_private.key",
			"github.com/juanfont/headscale@v0.29.3/cmd/headscale/cli/serve.go:32 > /var/lib/headscale/noise_private.key",
		},
		"names of settings": {"database.postgres.conn_max_idle_time_secs oidc.only_start_if_oidc_is_available randomizeClientPort HEADSCALE_DATABASE_POSTGRES_PASS",
			"database.postgres.conn_max_idle_time_secs oidc.only_start_if_oidc_is_available randomizeClientPort HEADSCALE_DATABASE_POSTGRES_PASS"},
		"names of AWS":                 {"AWS_SECRET_ACCESS_KEY=abcd/efgh+ijkl secret_access_key: abcd/efgh", "AWS_SECRET_ACCESS_KEY=*** secret_access_key: ***"},
		"keys of AWS":                  {"id AKIAIOSFODNN7EXAMPLE and wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "id AKIA*** and ***"},
		"short names":                  {"pwd=hunter2 Authorization: token123 passwords=[a b]", "pwd=*** Authorization: *** passwords=***"},
		"JSON in a quoted text":        {`error="{\"password\":\"hunter2 three\",\"x\":1}"`, `error="{\"password\":***,\"x\":1}"`},
		"a list":                       {`{"client_secret": ["abc", "def"]}`, `{"client_secret": ***}`},
		"a web token":                  {"eyJhbGciOi.eyJzdWIiOiIxIn0.abcdef", "eyJ***"},
		"many digits":                  {"is 1234567890123456789012345678", "is ***"},
		"a path that does not exist":   {"open /etc/headscale/oidc_client_secret: no such file", "open /etc/headscale/oidc_client_secret: no such file"},
		"a path that is forbidden":     {"stat /var/run/secrets/token: permission denied", "stat /var/run/secrets/token: permission denied"},
		"a sentence about a token":     {"invalid token: unexpected end", "invalid token: unexpected end"},
		"a sentence about a field":     {"spec.api_key: must be an object", "spec.api_key: must be an object"},
		"a URL and an address":         {"see https://headscale.net/ or mail me@example.com", "see https://headscale.net/ or mail me@example.com"},
		"a URL with a port, and so on": {"see http://h:80/ or mail me@example.com", "see http://h:80/ or mail me@example.com"},
		"a sentence about HTTP":        {"basic auth is required, bearer token missing", "basic auth is required, bearer token missing"},
		"a pod's name":                 {"pod headscale-7d9f8b6c5d-abcde12 failed", "pod headscale-7d9f8b6c5d-abcde12 failed"},
		"a refused password":           {`FATAL: password authentication failed for user "hs" (SQLSTATE 28P01)`, `FATAL: password authentication failed for user "hs" (SQLSTATE 28P01)`},
		"a path of a password":         {"client_secret_path is unset, private_key_path=/x", "client_secret_path is unset, private_key_path=/x"},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(Secrets(test.text)).To(Equal(test.want))
		})
	}
}

// FuzzLine looks for text that is not sanitized after all.
func FuzzLine(f *testing.F) {
	f.Add("a\x1b[31mb\u202ec", 10)
	f.Add("\x1b]0;x", 3)
	f.Fuzz(func(t *testing.T, text string, length int) {
		length = max(length%1000, 0)
		line := Line(Secrets(text), length)
		unfit := func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) }
		if len(line) > length || !utf8.ValidString(line) || strings.ContainsFunc(line, unfit) {
			t.Errorf("%q gives %q", text, line)
		}
	})
}

// FuzzPassword looks for a password of a connection string that comes through.
func FuzzPassword(f *testing.F) {
	f.Add("foo TOPSECRET", "host=db")
	f.Fuzz(func(t *testing.T, password, before string) {
		if strings.ContainsAny(password+before, "\n") || len(password) < 8 {
			t.Skip("a connection string is one line, and what is short may be anywhere")
		}
		text := "cannot parse `host=db password=" + password + " dbname=x`: no"
		if secret := "\x02" + password; strings.Contains(strings.ReplaceAll(Secrets(text), "password=", "\x02"), secret) {
			t.Errorf("%q gives %q", text, Secrets(text))
		}
	})
}
