package headscale_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
)

var urlSafe64 = strings.Repeat("5ecre-7_", 8)

// keyFormats is every structure of a key, and what looks like one.
var keyFormats = []struct {
	name, text, prefix, shown string
}{
	{"current", "hskey-api-0123456789ab-" + urlSafe64, "0123456789ab", "hskey-api-0123456789ab-***"},
	{"current, with separators inside", "hskey-api---_-_-_-_-_--" + urlSafe64, "--_-_-_-_-_-", "hskey-api---_-_-_-_-_--***"},
	{"current, looking like itself", "hskey-api-hskey-api-ab-" + urlSafe64, "hskey-api-ab", "hskey-api-hskey-api-ab-***"},
	{"0.25 to 0.27", "aB3-_-x." + urlSafe64[:32], "aB3-_-x", "aB3-_-x.***"},
	{"up to 0.24", "aB3-_-x012." + urlSafe64[:43], "aB3-_-x012", "aB3-_-x012.***"},
	{"old, looking like a current one", "hskey-api-." + urlSafe64[:43], "hskey-api-", "hskey-api-.***"},

	{"empty", "", "", "***"},
	{"a newline after it", "hskey-api-0123456789ab-" + urlSafe64 + "\n", "", "***"},
	{"a space before it", " aB3-_-x." + urlSafe64[:32], "", "***"},
	{"a newline after an old one", "aB3-_-x." + urlSafe64[:32] + "\n", "", "***"},
	{"a short prefix", "hskey-api-0123456789a-" + urlSafe64, "", "***"},
	{"a long prefix", "hskey-api-0123456789abc-" + urlSafe64, "", "***"},
	{"a short secret", "hskey-api-0123456789ab-" + urlSafe64[1:], "", "***"},
	{"a long secret", "hskey-api-0123456789ab-" + urlSafe64 + "x", "", "***"},
	{"no dash before the secret", "hskey-api-0123456789ab_" + urlSafe64, "", "***"},
	{"nothing but the secret", "hskey-api-" + urlSafe64, "", "***"},
	{"other characters in the prefix", "hskey-api-01234+6789ab-" + urlSafe64, "", "***"},
	{"other characters in the secret", "hskey-api-0123456789ab-" + urlSafe64[1:] + "=", "", "***"},
	{"a pre-auth key", "hskey-auth-0123456789ab-" + urlSafe64, "", "***"},
	{"a prefix of 8", "aB3-_-x0." + urlSafe64[:32], "", "***"},
	{"a file name", "version.2", "", "***"},
	{"two dots", "aB3-_-x." + urlSafe64[:16] + "." + urlSafe64[:16], "", "***"},
	{"no secret", "aB3-_-x.", "", "***"},
}

func TestKeyIsSplitByItsStructure(t *testing.T) {
	for _, format := range keyFormats {
		t.Run(format.name, func(t *testing.T) {
			g := NewWithT(t)
			key := headscale.NewKey(format.text)
			prefix, ok := key.Prefix()
			g.Expect(prefix).To(Equal(format.prefix))
			g.Expect(ok).To(Equal(format.prefix != ""))
			g.Expect(key.String()).To(Equal(format.shown))
			g.Expect(key.Reveal()).To(Equal(format.text))
			g.Expect(key.IsZero()).To(Equal(format.text == ""))
			g.Expect(key).To(BeIdenticalTo(headscale.NewKey(strings.Clone(format.text))), "keys compare with ==")
		})
	}
}

// holder has a Key where fmt cannot call its methods.
type holder struct {
	key  headscale.Key
	keys map[string][]headscale.Key
	any  any
}

func TestKeyIsNotPrinted(t *testing.T) {
	for _, format := range keyFormats {
		if format.text == "" {
			continue
		}
		t.Run(format.name, func(t *testing.T) {
			g := NewWithT(t)
			key := headscale.NewKey(format.text)
			hidden := holder{key, map[string][]headscale.Key{"a": {key}}, &key}
			for _, printed := range []any{key, &key, []headscale.Key{key}, hidden, &hidden, struct{ Key any }{key}} {
				for _, verb := range []string{"v", "+v", "#v", "s", "q", "x", "X", "d", "p", "t", "U", "e", "w", "100s", "-5.50v"} {
					expectRedacted(g, fmt.Sprintf("%"+verb, printed), format.text)
				}
				expectRedacted(g, fmt.Sprint(printed)+fmt.Sprintln(printed), format.text)
				text, err := json.Marshal(printed)
				g.Expect(err).NotTo(HaveOccurred())
				expectRedacted(g, string(text), format.text)
				var logged bytes.Buffer
				slog.New(slog.NewJSONHandler(&logged, nil)).Info("key", "key", printed)
				slog.New(slog.NewTextHandler(&logged, nil)).Info("key", "key", printed)
				expectRedacted(g, logged.String(), format.text)
			}
			g.Expect(fmt.Sprintf("%s", key)).To(Equal(format.shown)) //nolint:gocritic // the verb is what is tested
			g.Expect(json.Marshal(key)).To(MatchJSON(`"` + format.shown + `"`))
			g.Expect(key.LogValue().String()).To(Equal(format.shown))
			g.Expect(key.GoString()).To(Equal(format.shown))
		})
	}
}

func TestTextOfAPreAuthKeyIsNotPrinted(t *testing.T) {
	for _, text := range []string{"hskey-auth-0123456789ab-" + urlSafe64, strings.Repeat("5ecre7", 8), "5ecre7", strings.Repeat("0f", 20) + "5ecre7a1"} {
		g := NewWithT(t)
		key := headscale.PreAuthKey{ID: 7, Key: headscale.NewKey(text), Tags: []string{"tag:web"}}
		for _, printed := range []any{key, &key, []headscale.PreAuthKey{key}, map[string]any{"a": &key}, struct{ key headscale.PreAuthKey }{key}} {
			for _, verb := range []string{"v", "+v", "#v", "s", "q", "x", "d"} {
				expectRedacted(g, fmt.Sprintf("%"+verb, printed), text)
			}
			encoded, err := json.Marshal(printed)
			g.Expect(err).NotTo(HaveOccurred())
			expectRedacted(g, string(encoded), text)
			var logged bytes.Buffer
			slog.New(slog.NewJSONHandler(&logged, nil)).Info("key", "key", printed)
			expectRedacted(g, logged.String(), text)
		}
		g.Expect(key.Key.String()).To(Equal("***"))
		g.Expect(key.Key.Reveal()).To(Equal(text))
	}
}

func TestPreAuthKeysAreRedacted(t *testing.T) {
	legacy := strings.Repeat("0f1e2d", 8)
	for text, redacted := range map[string]string{
		"saving hskey-auth-0123456789ab-" + urlSafe64 + " failed": "saving *** failed",
		"saving hskey-auth-0123456789ab-*** failed":               "saving ****** failed",
		"UNIQUE constraint failed: " + legacy:                     "UNIQUE constraint failed: ***",
		`{"key":"` + legacy + `"}`:                                `{"key":"***"}`,
		"key=" + strings.ToUpper(legacy) + ", user=1":             "key=***, user=1",
		"hskey-api-0123456789ab-" + urlSafe64 + " and " + legacy:  "hskey-api-0123456789ab-*** and ***",
		"user not found":   "user not found",
		legacy[:47]:        legacy[:47],
		"x" + legacy + "x": "x***x",
	} {
		NewWithT(t).Expect(headscale.Redact(text)).To(Equal(redacted))
	}
}

func TestKeyIsNotEncoded(t *testing.T) {
	g := NewWithT(t)
	var encoded bytes.Buffer
	g.Expect(gob.NewEncoder(&encoded).Encode(map[string]headscale.Key{"k": headscale.NewKey(keyFormats[0].text)})).
		NotTo(Succeed(), "gob has no use for a key that shows its prefix only")
	expectRedacted(g, encoded.String(), keyFormats[0].text)

	text, err := json.Marshal(map[headscale.Key]int{headscale.NewKey(keyFormats[0].text): 1})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(text)).To(Equal(`{"hskey-api-0123456789ab-***":1}`))
}

func TestKeyInAnErrorIsNotPrinted(t *testing.T) {
	g := NewWithT(t)
	key := headscale.NewKey(keyFormats[0].text)
	err := errors.Join(fmt.Errorf("storing %s", key), fmt.Errorf("storing %v", holder{key: key}))
	expectRedacted(g, err.Error(), keyFormats[0].text)
}

func expectRedacted(g Gomega, printed, key string) {
	const tail = 12 // characters of the secret that nobody else has
	g.Expect(printed).NotTo(BeEmpty())
	g.Expect(printed).NotTo(ContainSubstring(key[max(0, len(key)-tail):]))
	g.Expect(strings.ToLower(printed)).NotTo(ContainSubstring(fmt.Sprintf("%x", key[max(0, len(key)-tail):])))
}
