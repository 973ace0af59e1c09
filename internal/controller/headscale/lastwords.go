package headscale

import (
	"regexp"
	"strings"
)

// maxWords is how much of a program's last words is quoted, in bytes.
const maxWords = 1024

var (
	// escapes are the colours of a terminal.
	escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")
	// stamp is what Headscale's log puts before a message: the time, the level and
	// sometimes the place in its source. Without it the same failure has the same words.
	stamp = regexp.MustCompile(`^[0-9-]+T[0-9:.]+(Z|[+-][0-9:]+) (TRC|DBG|INF|WRN|ERR|FTL|PNC) (\S+\.go:[0-9]+ > )?`)
	// verdicts begin the lines in which a Go program says why it ends.
	verdicts = regexp.MustCompile(`^(Error: |FATAL: |fatal error: |panic: |apikey-manager: )|^\S+ (FTL|PNC) `)
)

// lastWords is the reason in what a program printed before it ended: from the last
// line that says so, or else the last line that says anything. It ends where a stack
// trace begins.
func lastWords(output string) string {
	lines := strings.Split(escapes.ReplaceAllString(output, ""), "\n")
	begin := lastFilled(lines)
	for i, line := range lines {
		if verdicts.MatchString(line) && stamp.ReplaceAllString(line, "") != "" {
			begin = i
		}
	}
	if begin < 0 {
		return ""
	}
	var words []string
	for _, line := range lines[begin:] {
		line = strings.TrimSpace(stamp.ReplaceAllString(line, ""))
		if strings.HasPrefix(line, "goroutine ") || strings.HasPrefix(line, "Usage:") {
			break
		}
		if line != "" {
			words = append(words, line)
		}
	}
	return cut(strings.Join(words, " "), maxWords)
}

// lastFilled is the index of the last line with something in it, or -1.
func lastFilled(lines []string) int {
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.TrimSpace(lines[i]) != "" {
			return i
		}
	}
	return -1
}
