package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"
)

// Digest is the SHA-256 of the document's meaning: comments, formatting and the order of keys do
// not count, but the order of lists does.
func (d *Document) Digest() string {
	digest := sha256.Sum256([]byte(meaning(d.value)))
	return hex.EncodeToString(digest[:])
}

// meaning is a text that is the same for values that mean the same.
func meaning(value hujson.Value) string {
	var out bytes.Buffer
	writeMeaning(&out, value)
	return out.String()
}

func writeMeaning(out *bytes.Buffer, value hujson.Value) {
	switch v := value.Value.(type) {
	case *hujson.Object:
		writeObject(out, v)
	case *hujson.Array:
		out.WriteByte('[')
		for i := range v.Elements {
			separate(out, i)
			writeMeaning(out, v.Elements[i])
		}
		out.WriteByte(']')
	case hujson.Literal:
		out.WriteString(literal(v))
	}
}

func writeObject(out *bytes.Buffer, object *hujson.Object) {
	out.WriteByte('{')
	for i, member := range sorted(object) {
		separate(out, i)
		out.WriteString(quotedKey(&member) + ": ")
		writeMeaning(out, member.Value)
	}
	out.WriteByte('}')
}

// separate writes what is before an entry.
func separate(out *bytes.Buffer, entry int) {
	if entry > 0 {
		out.WriteString(", ")
	}
}

// sorted are the members of an object in the order of their keys.
func sorted(object *hujson.Object) []hujson.ObjectMember {
	members := slices.Clone(object.Members)
	slices.SortFunc(members, func(a, b hujson.ObjectMember) int { return strings.Compare(keyOf(&a), keyOf(&b)) })
	return members
}

// quotedKey is the key of a member in quotes.
func quotedKey(member *hujson.ObjectMember) string { return strconv.Quote(keyOf(member)) }

// literal is a literal that is the same for those that mean the same. Whole numbers are not
// rounded, as a floating-point number would be.
func literal(l hujson.Literal) string {
	switch l.Kind() {
	case '"':
		return strconv.Quote(l.String())
	case '0':
		if !bytes.ContainsAny(l, ".eE") {
			return string(l)
		}
		number, err := strconv.ParseFloat(string(l), 64)
		if err != nil {
			return string(l)
		}
		if whole := math.Trunc(number); whole == number && math.Abs(whole) < 1<<53 {
			return strconv.FormatInt(int64(whole), 10)
		}
		return strconv.FormatFloat(number, 'g', -1, 64)
	default:
		return string(l)
	}
}

// Differing are the sections in which two documents differ, in the order of their names. One that
// is nil has none.
func Differing(a, b *Document) []string {
	left, right := a.meanings(), b.meanings()
	var sections []string
	for section, text := range left {
		if other, found := right[section]; !found || other != text {
			sections = append(sections, section)
		}
	}
	for section := range right {
		if _, found := left[section]; !found {
			sections = append(sections, section)
		}
	}
	slices.Sort(sections)
	return sections
}

// meanings are those of the sections.
func (d *Document) meanings() map[string]string {
	found := map[string]string{}
	if d == nil {
		return found
	}
	for i := range d.root.Members {
		found[keyOf(&d.root.Members[i])] = meaning(d.root.Members[i].Value)
	}
	return found
}
