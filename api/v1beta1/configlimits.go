package v1beta1

import "fmt"

// How large spec.config may be. A schema with preserved unknown fields cannot limit them, so
// the operator counts before it decodes: a decoded document takes up to a hundred times the
// memory of its text. Headscale's own example has 400 bytes in some 70 settings.
const (
	// MaxConfigSize is the longest config, in bytes of JSON.
	MaxConfigSize = 256 << 10
	// MaxConfigEntries is how many values a config may have in all its sections and lists.
	MaxConfigEntries = 10_000
	// MaxConfigDepth is how deep sections and lists may be nested.
	MaxConfigDepth = 32
)

// checkSize refuses a config that is larger than the limits. It reads the text once, and
// keeps nothing of it.
func (c *HeadscaleConfig) checkSize() error {
	if len(c.document) > MaxConfigSize {
		return fmt.Errorf("it has %d bytes, and %d are allowed: make it shorter", len(c.document), MaxConfigSize)
	}
	entries, depth := countJSON(c.document)
	switch {
	case entries > MaxConfigEntries:
		return fmt.Errorf("it has %d values, and %d are allowed: make it shorter", entries, MaxConfigEntries)
	case depth > MaxConfigDepth:
		return fmt.Errorf("it has %d levels of sections and lists, and %d are allowed: nest it less", depth, MaxConfigDepth)
	default:
		return nil
	}
}

// countJSON counts the values in all objects and arrays of valid JSON, and how deep they are
// nested.
func countJSON(text []byte) (entries, depth int) {
	level, inString, escaped := 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = c == '\\', c != '"'
		case c == '"':
			inString = true
		case c == '{', c == '[':
			entries++
			level++
			depth = max(depth, level)
		case c == '}', c == ']':
			level--
		case c == ',':
			entries++
		}
	}
	return entries, depth
}
