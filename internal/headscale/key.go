package headscale

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"unique"
)

// The shapes of an API key, from the releases that created them.
const (
	// keyIntro begins a key of Headscale 0.28 and later: "hskey-api-<12>-<64>".
	keyIntro = "hskey-api-"
	// keyPrefixLength is the number of characters of the prefix of such a key.
	keyPrefixLength = 12
	// keySecretLength is the number of characters of its secret.
	keySecretLength = 64

	// legacyPrefixLength is the number of characters of the prefix of a key of
	// Headscale 0.25 to 0.27: "<7>.<32>".
	legacyPrefixLength = 7
	// oldestPrefixLength is the same of Headscale up to 0.24, where the seven
	// random bytes of the prefix were not cut after encoding: "<10>.<43>".
	oldestPrefixLength = 10
	// legacySecretLength is the number of characters of the shortest secret that
	// a release with either of these shapes created.
	legacySecretLength = 32

	// mask is what Headscale, and this package, show in the place of a secret.
	mask = "***"
)

// Key is an API key, or the text of a pre-auth key, that cannot be printed by accident. However
// it is formatted, logged, marshalled or dumped, it shows at most the prefix of an API key;
// Reveal is the one way to its text. The text is behind a pointer that fmt does not follow, so
// this holds for a Key in an unexported field and in a panic too, where no method
// of it is called.
//
// Keys compare with == by their text. The zero Key is the empty text.
type Key struct {
	text unique.Handle[string]
}

var (
	_ fmt.Formatter  = Key{}
	_ fmt.GoStringer = Key{}
	_ json.Marshaler = Key{}
	_ slog.LogValuer = Key{}
)

// NewKey makes a Key of its text, whatever that looks like.
func NewKey(text string) Key {
	if text == "" {
		return Key{}
	}
	return Key{text: unique.Make(text)}
}

// Reveal returns the text of the key, a credential.
func (k Key) Reveal() string {
	if k.IsZero() {
		return ""
	}
	return k.text.Value()
}

// IsZero says whether the key is the empty text.
func (k Key) IsZero() bool { return k == Key{} }

// Prefix returns the bare prefix by which Headscale lists and expires the key: 12
// characters of "hskey-api-<12>-<64>", 7 or 10 of the older "<7>.<32>" and
// "<10>.<43>". It is not ok when the text has none of these structures, and so
// for a key with a newline or a space around it.
func (k Key) Prefix() (prefix string, ok bool) {
	prefix, _, ok = splitKey(k.Reveal())
	return prefix, ok
}

// String shows the key with its secret masked: "hskey-api-<12>-***", "<7>.***",
// or "***" where no known structure separates the prefix from the secret.
func (k Key) String() string {
	prefix, current, ok := splitKey(k.Reveal())
	switch {
	case !ok:
		return mask
	case current:
		return keyIntro + prefix + "-" + mask
	default:
		return prefix + "." + mask
	}
}

// GoString is String: %#v shows no more than %v.
func (k Key) GoString() string { return k.String() }

// Format writes String, whatever the verb and its flags are.
func (k Key) Format(state fmt.State, _ rune) {
	_, _ = io.WriteString(state, k.String()) // fmt's own buffer, which takes everything
}

// MarshalText returns String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// MarshalJSON returns String, quoted.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// LogValue is String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// splitKey finds the prefix of a key from both ends of its text, because prefix and
// secret may themselves contain the characters that separate them. current distinguishes
// "hskey-api-<12>-<64>" from the older structures.
func splitKey(text string) (prefix string, current, ok bool) {
	if rest, found := strings.CutPrefix(text, keyIntro); found && len(rest) > keySecretLength {
		head, secret := rest[:len(rest)-keySecretLength], rest[len(rest)-keySecretLength:]
		prefix, dashed := strings.CutSuffix(head, "-")
		if dashed && len(prefix) == keyPrefixLength && isURLSafe(prefix) && isURLSafe(secret) {
			return prefix, true, true
		}
	}
	prefix, secret, dotted := strings.Cut(text, ".")
	known := len(prefix) == legacyPrefixLength || len(prefix) == oldestPrefixLength
	if dotted && known && len(secret) >= legacySecretLength && isURLSafe(prefix) && isURLSafe(secret) {
		return prefix, false, true
	}
	return "", false, false
}

// unmaskPrefix returns the bare prefix of one that Headscale lists, and whether it
// was masked. A form that no known release sends comes back as it is, less the mask.
func unmaskPrefix(listed string) (prefix string, masked bool) {
	prefix, masked = strings.CutSuffix(listed, mask)
	if !masked {
		return listed, false
	}
	bare, introduced := strings.CutPrefix(prefix, keyIntro)
	bare, dashed := strings.CutSuffix(bare, "-")
	if introduced && dashed && len(bare) == keyPrefixLength {
		return bare, true
	}
	return prefix, true
}

// isURLSafe says whether text is made of the characters of URL-safe base64 only,
// of which Headscale makes its keys up to 0.29 (later ones are hexadecimal).
func isURLSafe(text string) bool {
	for _, c := range []byte(text) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// keyLike finds what may be a key inside other text, rather too much than too little: an API
// key, a pre-auth key from 0.28 on, and one of before, which is 48 hexadecimal digits.
var keyLike = regexp.MustCompile(keyIntro + `[\w-]+|hskey-auth-[\w-]+|[\w-]{7,}\.[\w-]{32,}|[0-9a-fA-F]{48,}`)

// Redact masks what may be an API key or a pre-auth key in text that came from elsewhere.
func Redact(text string) string {
	return keyLike.ReplaceAllStringFunc(text, func(found string) string {
		return NewKey(found).String()
	})
}
