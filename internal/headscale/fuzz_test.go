package headscale

import (
	"strings"
	"testing"
)

// keySeeds has every format of a key and of a listed prefix, and near misses.
var keySeeds = []string{
	"", ".", "***", "-***", "hskey-api-", "hskey-api--***", "hskey-api-***",
	"hskey-api-0123456789ab-" + strings.Repeat("0123456789abcdef", 4),
	"hskey-api---_-_-_-_-_--" + strings.Repeat("-_", 32),
	"hskey-api-hskey-api-ab-" + strings.Repeat("hskey-api-ab-", 4) + "0123456789ab",
	"hskey-api-0123456789ab-" + strings.Repeat("0123456789abcdef", 4) + "\n",
	"hskey-auth-0123456789ab-" + strings.Repeat("0123456789abcdef", 4),
	"abc-_f7." + strings.Repeat("aB-_", 8),
	"abc-_f7890." + strings.Repeat("aB-_", 10) + "xyz",
	"hskey-api-." + strings.Repeat("aB-_", 10) + "xyz",
	"hskey-api-0123456789ab-***", "hskey-api-hskey-api-ab-***", "abc-_f7***", "abc-_f7890***",
	"abc-_f7", "abc-_f7890", "0123456789ab", "******", "\xff\xfe.\x00",
}

func FuzzKey(f *testing.F) {
	for _, seed := range keySeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key := NewKey(text)
		if key.Reveal() != text {
			t.Fatalf("%q became %q", text, key.Reveal())
		}
		prefix, ok := key.Prefix()
		switch {
		case !ok:
			if prefix != "" || key.String() != mask {
				t.Fatalf("%q has no structure, but the prefix %q and is shown as %q", text, prefix, key)
			}
			return
		case len(prefix) != legacyPrefixLength && len(prefix) != oldestPrefixLength && len(prefix) != keyPrefixLength:
			t.Fatalf("%q has a prefix of %d characters", text, len(prefix))
		case !isURLSafe(prefix), strings.TrimSpace(text) != text:
			t.Fatalf("%q has the prefix %q", text, prefix)
		}
		start, _, _ := strings.Cut(key.String(), mask)
		secret, begins := strings.CutPrefix(text, start)
		if !begins || len(secret) < legacySecretLength || len(key.String()) > len(start)+len(mask) {
			t.Fatalf("%q is shown as %q", text, key)
		}
		if masked := Redact("a " + text + " b"); strings.Contains(masked, secret) {
			t.Fatalf("%q is redacted to %q", text, masked)
		}
		if bare, masked := unmaskPrefix(strings.Replace(key.String(), ".", "", 1)); !masked || bare != prefix {
			t.Fatalf("the prefix %q comes back from a list as %q", prefix, bare)
		}
	})
}

func FuzzRedactPreAuthKey(f *testing.F) {
	for _, seed := range []string{"", " ", "\"", "-", "_", "x", "\n", "=", "hskey-auth-", "0", "é", "."} {
		f.Add(seed, seed)
	}
	secret := strings.Repeat("0f1e2d3c", 8)
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, key := range []string{"hskey-auth-0123456789ab-" + secret, secret[:48]} {
			if redacted := Redact(before + key + after); strings.Contains(redacted, secret[:48]) || strings.Contains(redacted, secret[16:]) {
				t.Fatalf("%q between %q and %q is redacted to %q", key, before, after, redacted)
			}
		}
	})
}

func FuzzUnmaskPrefix(f *testing.F) {
	for _, seed := range keySeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, listed string) {
		prefix, masked := unmaskPrefix(listed)
		switch {
		case masked != strings.HasSuffix(listed, mask):
			t.Fatalf("%q counts as masked: %v", listed, masked)
		case !masked && prefix != listed:
			t.Fatalf("%q, not masked, became %q", listed, prefix)
		case masked && listed != prefix+mask && listed != keyIntro+prefix+"-"+mask:
			t.Fatalf("%q became %q", listed, prefix)
		}
	})
}

func FuzzRecognise(f *testing.F) {
	for _, seed := range []string{"HTTP/1.1 ", "HTTP/2.0 ", "\x00\x00\x06\x04\x00\x00\x00\x00\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		if len(head) < frameHeaderLength {
			return
		}
		transport, err := recognise(head[:frameHeaderLength])
		if (transport == TransportUnknown) != (err != nil) {
			t.Fatalf("%q is %s with the error %v", head, transport, err)
		}
	})
}
