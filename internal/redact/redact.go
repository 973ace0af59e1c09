// Package redact sanitizes text that other programs wrote, for conditions and events, which
// many people may read, for logs, and for terminals.
package redact

import (
	"regexp"
	"strings"
	"unicode"
)

// Mask stands in the place of what was taken out.
const Mask = "***"

// sequences are the control sequences of terminals (ECMA-48): CSI and OSC ones, and those of
// one character.
var sequences = regexp.MustCompile(`\x1b\[[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[\x20-\x7e]?`)

// Line returns a text on one line without anything that a terminal or a reader could be
// deceived by: control sequences, control characters, and characters that are not seen or
// that change the direction of others. It is cut to a number of bytes.
func Line(text string, length int) string {
	text = sequences.ReplaceAllString(strings.ToValidUTF8(text, "�"), "")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), unicode.In(r, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.IsControl(r), unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs):
			return -1
		default:
			return r
		}
	}, text)
	return Cut(strings.Join(strings.Fields(text), " "), length)
}

// Cut shortens a text to a number of bytes. One that was cut ends with an ellipsis.
func Cut(text string, length int) string {
	const ellipsis = "…"
	if len(text) <= length {
		return text
	}
	if length < len(ellipsis) {
		return ""
	}
	return strings.ToValidUTF8(text[:length-len(ellipsis)], "") + ellipsis
}

// What looks like a credential. Each takes rather too much than too little.
var (
	// privateKeys are PEM blocks, also where their end is missing.
	privateKeys = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]*-----|$)`)
	// authorizations are credentials of HTTP.
	authorizations = regexp.MustCompile(`(?i)\b(bearer|basic)([ :]+)([^\s"'` + "`" + `,;]{4,})`)
	// inURL is what stands before the host of a URL, which may have slashes in it, and
	// inSpacedURL the same with spaces, after a user's name.
	inURL       = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^\s"'` + "`" + `]*@`)
	inSpacedURL = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@:"'` + "`" + `]+:([^"'` + "`" + `\n]*)@`)
	// port is what stands behind the colon of a URL without a password.
	port = regexp.MustCompile(`^\d+(?:[/\s]|$)`)
	// halfURL is a URL that broke off in its password: what follows the colon is no port.
	halfURL = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^\s/:@"'` + "`" + `]+:\d*[^\s\d/:@"'` + "`" + `][^\s/@:"'` + "`" + `]*`)
	// passwords begin the password of a connection string, which Headscale writes without
	// quotes: it may go on to the string's end.
	passwords = regexp.MustCompile(`(?i)\bpass(?:word|wd|phrase)?=`)
	// named are values of settings whose names say that they are secret. A text in quotes or
	// brackets goes to its end, and else to the next space.
	named = regexp.MustCompile(`(?i)([\w./-]*(?:passwd|password|passphrase|pwd|_pass|\bpass|secret|access_?key(?:_?id)?|token|api_?key|auth_?key|private_?key|credential|authorization)s?)` +
		`(\\?["']?\s*[=:]\s*)` +
		`(\\"(?:[^"\\]|\\[^"])*(?:\\")?|"(?:[^"\\]|\\.)*"?|'[^']*'?|` + "`[^`]*`?" + `|\[[^\]]*\]?|[^\s,;"'` + "`" + `]+)`)
	// prose is the first word behind a name in a sentence, such as an error of the system.
	prose = regexp.MustCompile(`(?i)^(?:a|an|the|no|not|is|are|was|must|permission|unexpected|invalid|cannot|could|failed|file|open|read|unsupported|unknown|missing|expected|required|found|and)[.,:!]?$`)
	// keys are those of Headscale and Tailscale, of AWS, and web tokens: they say what they are.
	keys = regexp.MustCompile(`\b((?:hskey|tskey)-[a-z]+-|[a-z]*key:|AKIA|ASIA|eyJ)[\w-]{6,}(?:\.[\w-]+){0,2}`)
	// tokens are long enough to be a secret; whether one is, its characters show.
	tokens = regexp.MustCompile(`[A-Za-z0-9_+=/~]{20,}`)
)

// Secrets returns a text with everything masked that looks like a credential. A secret that
// looks like an ordinary word, and is not introduced by anything that says what it is, cannot
// be recognised.
func Secrets(text string) string {
	text = privateKeys.ReplaceAllString(text, Mask)
	text = replace(authorizations, text, func(m []string) string {
		if len(m[3]) < minSecret && !strings.ContainsAny(m[3], "0123456789") {
			return m[0] // a word of a sentence
		}
		return m[1] + m[2] + Mask
	})
	text = inURL.ReplaceAllString(text, "$1"+Mask+"@")
	text = replace(inSpacedURL, text, func(m []string) string {
		if port.MatchString(m[2]) {
			return m[0]
		}
		return m[1] + Mask + "@"
	})
	text = halfURL.ReplaceAllString(text, "$1"+Mask)
	text = connectionStrings(text)
	text = replace(named, text, maskSetting)
	text = keys.ReplaceAllString(text, "$1"+Mask)
	return tokens.ReplaceAllStringFunc(text, func(token string) string {
		if looksRandom(token) {
			return Mask
		}
		return token
	})
}

// minSecret is the length from which on a word after Bearer or Basic is a credential even
// without a digit.
const minSecret = 16

// replace replaces each match of a pattern by what a function makes of its submatches.
func replace(pattern *regexp.Regexp, text string, with func([]string) string) string {
	return pattern.ReplaceAllStringFunc(text, func(match string) string { return with(pattern.FindStringSubmatch(match)) })
}

// maskSetting masks the value of a setting: m has the whole, the name, the separator and the
// value. A colon behind a path, or before the words of a sentence, separates no setting.
func maskSetting(m []string) string {
	name, separator, value := m[1], m[2], m[3]
	colon := strings.HasPrefix(separator, ":")
	switch {
	case strings.TrimSuffix(value, `\`) == Mask: // by what came before
		return m[0]
	case colon && (strings.Contains(name, "/") || prose.MatchString(value)):
		return m[0]
	default:
		return name + separator + Mask
	}
}

// connectionStrings masks from a password to the end of the connection string that it is in:
// to the last quote of the kind that opened it, or else to the end of the line.
func connectionStrings(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		found := passwords.FindStringIndex(line)
		if found == nil {
			continue
		}
		end := len(line)
		if quote := openQuote(line[:found[0]]); quote != "" {
			if last := strings.LastIndex(line[found[1]:], quote); last >= 0 {
				end = found[1] + last
			}
		}
		lines[i] = line[:found[1]] + Mask + line[end:]
	}
	return strings.Join(lines, "\n")
}

// quotes are what may stand around a connection string.
var quotes = regexp.MustCompile(`\\?["'` + "`]")

// openQuote is the innermost quote that a text leaves open, or "".
func openQuote(text string) string {
	var open []string
	for _, quote := range quotes.FindAllString(text, -1) {
		switch {
		case len(open) > 0 && open[len(open)-1] == quote:
			open = open[:len(open)-1]
		case quote == "'" && len(open) == 0: // an apostrophe is no quote
		default:
			open = append(open, quote)
		}
	}
	if len(open) == 0 {
		return ""
	}
	return open[len(open)-1]
}

// looksRandom reports whether a long word was probably made by a machine: letters and digits are
// mixed, or capital and small letters. Names of settings, versions and paths are not.
func looksRandom(token string) bool {
	digits, letters, changes := 0, 0, 0
	for i, r := range token {
		switch {
		case unicode.IsDigit(r):
			digits++
		case unicode.IsLetter(r):
			letters++
		}
		if i > 0 && unicode.IsUpper(r) != unicode.IsUpper(rune(token[i-1])) {
			changes++
		}
	}
	switch {
	case strings.ContainsAny(token, "/_"):
		return digits > 0 && changes > len(token)/5
	default:
		return digits >= 3 && letters > 0 || digits >= 20 || changes > len(token)/3
	}
}
