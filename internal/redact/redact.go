// Package redact makes text that other programs wrote fit to be shown: in conditions and
// events, which many people may read, in logs, and on terminals.
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
	authorizations = regexp.MustCompile(`(?i)\b(bearer|basic)[ :]+[^\s"'` + "`" + `,;]{4,}`)
	// inURL is what stands before the host of a URL, which may have spaces and slashes in it.
	inURL = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^"'` + "`" + `\n]*@`)
	// halfURL is a URL that broke off in its password: what follows the colon is no port.
	halfURL = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^\s/:@"'` + "`" + `]+:\d*[^\s\d/:@"'` + "`" + `][^\s/@:"'` + "`" + `]*`)
	// passwords begin the password of a connection string, which Headscale writes without
	// quotes: it may go on to the string's end.
	passwords = regexp.MustCompile(`(?i)\bpass(?:word|wd|phrase)?=`)
	// named are values of settings whose names say that they are secret. A text in quotes
	// goes to its end, and else to the next space.
	named = regexp.MustCompile(`(?i)([\w.-]*(?:passwd|password|passphrase|_pass|\bpass|secret|token|api_?key|auth_?key|private_?key|credentials?)["']?(?:\s*=\s*|:\s*))` +
		`(?:"(?:[^"\\]|\\.)*"?|'[^']*'?|` + "`[^`]*`?" + `|[^\s,;"'` + "`" + `]+)`)
	// keys are those of Headscale and Tailscale, which say what they are.
	keys = regexp.MustCompile(`\b((?:hskey|tskey)-[a-z]+-|[a-z]*key:)[\w-]{6,}`)
	// tokens are long enough to be a secret; whether one is, its characters tell.
	tokens = regexp.MustCompile(`[A-Za-z0-9_+=~-]{20,}`)
)

// Secrets returns a text with everything masked that looks like a credential. A secret that
// looks like an ordinary word, and is not introduced by anything that says what it is, cannot
// be recognised.
func Secrets(text string) string {
	text = privateKeys.ReplaceAllString(text, Mask)
	text = authorizations.ReplaceAllString(text, "$1 "+Mask)
	text = inURL.ReplaceAllString(text, "$1"+Mask+"@")
	text = halfURL.ReplaceAllString(text, "$1"+Mask)
	text = connectionStrings(text)
	text = named.ReplaceAllStringFunc(text, func(setting string) string {
		if strings.HasSuffix(strings.TrimSuffix(setting, `\`), Mask) { // by what came before
			return setting
		}
		return named.ReplaceAllString(setting, "$1"+Mask)
	})
	text = keys.ReplaceAllString(text, "$1"+Mask)
	return tokens.ReplaceAllStringFunc(text, func(token string) string {
		if looksRandom(token) {
			return Mask
		}
		return token
	})
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

// looksRandom tells whether a long word was probably made by a machine: letters and digits
// are mixed. Names of settings and versions are not.
func looksRandom(token string) bool {
	letters := strings.ContainsFunc(token, unicode.IsLetter)
	digits := 0
	for _, r := range token {
		if unicode.IsDigit(r) {
			digits++
		}
	}
	return letters && digits >= 3 || !strings.ContainsAny(token, "_-=") && mixedCase(token)
}

// mixedCase tells whether capital letters stand among small ones more often than in a name.
func mixedCase(token string) bool {
	changes := 0
	for i := 1; i < len(token); i++ {
		if unicode.IsUpper(rune(token[i])) != unicode.IsUpper(rune(token[i-1])) {
			changes++
		}
	}
	return changes > len(token)/3
}
