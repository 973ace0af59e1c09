package redact

import (
	"regexp"
	"strings"
)

// MaxLastWords is how much of a program's last words is quoted, in bytes.
const MaxLastWords = 1024

// maxOutput is how much of a container's log the kubelet keeps for the status of its pod, in
// bytes (MaxContainerTerminationMessageLogLength). An output of that length may begin in the
// middle of a line, and of a secret that nothing introduces any more.
const maxOutput = 2048

// tooLong stands for a last line whose beginning the kubelet does not keep.
const tooLong = "the last line of its log is too long to be quoted"

var (
	// colours are the sequences by which Headscale colours its log.
	colours = regexp.MustCompile("\x1b\\[[0-9;]*m")
	// stamp is what Headscale's log puts before a message: the time, the level and
	// sometimes the place in its source. Without it the same failure has the same words.
	stamp = regexp.MustCompile(`^[0-9-]+T[0-9:.]+(Z|[+-][0-9:]+) (TRC|DBG|INF|WRN|ERR|FTL|PNC) (\S+\.go:[0-9]+ > )?`)
	// reasons begin the lines in which a Go program says why it exits.
	reasons = regexp.MustCompile(`^(Error: |FATAL: |fatal error: |panic: |apikey-manager: )|^\S+ (FTL|PNC) `)
)

// LastWords returns the reason in what a program printed before it exited: from the last line
// that says why, or else the last line that says anything. It ends where a stack trace or a
// usage message begins, is one line, and has no credentials.
func LastWords(output string) string {
	if len(output) >= maxOutput {
		_, output, _ = strings.Cut(output[len(output)-maxOutput:], "\n")
		if strings.TrimSpace(output) == "" {
			return tooLong
		}
	}
	lines := strings.Split(colours.ReplaceAllString(output, ""), "\n")
	begin := lastFilled(lines)
	for i, line := range lines {
		if reasons.MatchString(line) && stamp.ReplaceAllString(line, "") != "" {
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
	return Line(Secrets(strings.Join(words, "\n")), MaxLastWords)
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
