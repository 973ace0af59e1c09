package policy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/tailscale/hujson"
)

// maxDepth is how deep objects and lists may be nested. A policy needs 5; input for a parser that
// recurses without a limit can exhaust the memory.
const maxDepth = 100

// errEmpty is of a policy without any section.
var errEmpty = errors.New("it is empty: an empty policy allows everything")

// Document is a policy, or a part of one.
type Document struct {
	value hujson.Value
	root  *hujson.Object
}

// Parse reads a policy: an object of HuJSON, with at least one section, in which no key stands
// twice. Spellings of the names of sections that are the same to Headscale are the same name.
func Parse(text string) (*Document, error) {
	// A comment on the last line needs no line break for people, and one for the parser.
	raw := append([]byte(text), '\n')
	if err := checkDepth(raw); err != nil {
		return nil, err
	}
	value, err := hujson.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("it is no HuJSON: %w", err)
	}
	root, ok := value.Value.(*hujson.Object)
	switch {
	case !ok:
		return nil, errors.New("it is no object: a policy begins with {")
	case len(root.Members) == 0:
		return nil, errEmpty
	}
	return &Document{value: value, root: root}, checkKeys(value, nil)
}

// checkDepth refuses a document that is nested too deeply. Brackets in texts and comments do not
// count.
func checkDepth(text []byte) error {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			i = endOfString(text, i)
		case bytes.HasPrefix(text[i:], []byte("//")):
			i = endOf(text, i, "\n")
		case bytes.HasPrefix(text[i:], []byte("/*")):
			i = endOf(text, i+2, "*/")
		case text[i] == '{' || text[i] == '[':
			depth++
		case text[i] == '}' || text[i] == ']':
			depth--
		}
		if depth > maxDepth {
			return fmt.Errorf("it is nested more than %d levels deep", maxDepth)
		}
	}
	return nil
}

// endOfString is where a text ends that begins at a place.
func endOfString(text []byte, i int) int {
	for i++; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i
}

// endOf is the last byte of the next occurrence of a mark.
func endOf(text []byte, i int, mark string) int {
	if i >= len(text) {
		return len(text)
	}
	found := bytes.Index(text[i:], []byte(mark))
	if found < 0 {
		return len(text)
	}
	return i + found + len(mark) - 1
}

// where is the place of a value, which is not written out until somebody asks for it. nil: the document.
type where struct {
	in    *where
	key   string
	index int
	// isEntry is whether it is an entry of a list.
	isEntry bool
}

// String names the place for people.
func (w *where) String() string {
	switch {
	case w == nil:
		return ""
	case w.isEntry:
		return fmt.Sprintf("%s[%d]", w.in, w.index)
	default:
		return placeOf(w.in.String(), w.key)
	}
}

// hasSections reports whether the names there are those of sections, or of autoApprovers.
func (w *where) hasSections() bool {
	return w == nil || w.in == nil && canonical(w.key, known) == autoApprovers
}

// checkKeys refuses a key that stands twice in an object: releases differ in which of them counts.
func checkKeys(value hujson.Value, place *where) error {
	switch v := value.Value.(type) {
	case *hujson.Object:
		return checkMembers(v, place)
	case *hujson.Array:
		for i := range v.Elements {
			if err := checkKeys(v.Elements[i], &where{in: place, index: i, isEntry: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkMembers does it for one object.
func checkMembers(object *hujson.Object, place *where) error {
	same := func(key string) string { return key }
	if place.hasSections() {
		same = fold
	}
	seen := make(map[string]string, len(object.Members))
	for i := range object.Members {
		key := keyOf(&object.Members[i])
		here := &where{in: place, key: key}
		first, found := seen[same(key)]
		switch {
		case found && first != key:
			return fmt.Errorf("%s stands twice, first as %q: neither case nor _ and - count", here, first)
		case found:
			return fmt.Errorf("%s stands twice", here)
		}
		seen[same(key)] = key
		if err := checkKeys(object.Members[i].Value, here); err != nil {
			return err
		}
	}
	return nil
}

// fold is the same for the names of sections that are the same to a release of Headscale. Every one takes
// them in any case, as strings.EqualFold does, and those from v0.27 on ignore _ and -, too.
func fold(key string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return -1
		}
		least := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		return least
	}, key)
}

// canonical is the name of a section as every release takes it, of a name that is the same to one of
// them. A name that is not known stays as it is.
func canonical(name string, names []string) string {
	for _, right := range names {
		if fold(name) == fold(right) {
			return right
		}
	}
	return name
}

// keyOf is the key of a member.
func keyOf(member *hujson.ObjectMember) string {
	name, ok := member.Name.Value.(hujson.Literal)
	if !ok {
		return ""
	}
	return name.String()
}

// placeOf names a key for people. Of a long one, the beginning has to do.
func placeOf(place, key string) string {
	const most = 100
	if len(key) > most {
		key = strings.ToValidUTF8(key[:most], "") + "…"
	}
	if place == "" {
		return fmt.Sprintf("%q", key)
	}
	return fmt.Sprintf("%s.%q", place, key)
}

// Sections are the keys of the document.
func (d *Document) Sections() []string {
	keys := make([]string, len(d.root.Members))
	for i := range d.root.Members {
		keys[i] = keyOf(&d.root.Members[i])
	}
	return keys
}

// KeysOf are the keys of a section that is a map, however it is spelled.
func (d *Document) KeysOf(section string) []string {
	var keys []string
	for i := range d.root.Members {
		entries, isMap := d.root.Members[i].Value.Value.(*hujson.Object)
		if !isMap || fold(keyOf(&d.root.Members[i])) != fold(section) {
			continue
		}
		for j := range entries.Members {
			keys = append(keys, keyOf(&entries.Members[j]))
		}
	}
	return keys
}

// known are the sections that a release of Headscale has, to tell a misspelled one.
var known = []string{
	"groups", "hosts", "tagOwners", "acls", "grants", "autoApprovers", "ssh", "sshTests", "tests",
	"nodeAttrs", "postures", "ipsets", "randomizeClientPort", "derpMap", "disableIPv4", "OneCGNATRoute",
}

// approvers are the names within autoApprovers.
var approvers = []string{"routes", "exitNode"}

// Misspelled says which sections are written in another way than a known one, and how that one is
// written: Headscale refuses such a section, or, depending on the release, ignores it. Names that Join
// replaces are none of them.
func (d *Document) Misspelled() map[string]string {
	found := map[string]string{}
	for _, section := range d.Sections() {
		if slices.Contains(known, canonical(section, known)) {
			continue
		}
		for _, right := range known {
			if bare(section) == bare(right) {
				found[section] = right
			}
		}
	}
	return found
}

// bare is a key without what people write in more than one way.
func bare(key string) string {
	return strings.TrimSuffix(strings.ReplaceAll(strings.ToLower(fold(key)), " ", ""), "s")
}

// AllowsAll reports whether a release of Headscale would allow everything, because the document has no
// rules: an empty list allows nothing, and none allows everything.
func (d *Document) AllowsAll() bool {
	for i := range d.root.Members {
		member := &d.root.Members[i]
		name := canonical(keyOf(member), known)
		if (name == "acls" || name == "grants") && member.Value.Value.Kind() == '[' {
			return false
		}
	}
	return true
}

// MayHaveRules reports whether a text is, or could be, a policy that does not allow everything. Where it
// cannot be read, that is not known.
func MayHaveRules(text string) bool {
	if strings.TrimSpace(text) == "" {
		return false
	}
	document, err := Parse(text)
	if err != nil {
		return !errors.Is(err, errEmpty)
	}
	return !document.AllowsAll()
}
