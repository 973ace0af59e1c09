package policy

import (
	"bytes"
	"strings"
	"time"

	"github.com/tailscale/hujson"
)

// Part is what one source contributes to a policy.
type Part struct {
	// Source is its name in a comment and in conflicts.
	Source string
	// Created is when the source was made: of two that conflict, the younger is left out.
	Created time.Time
	*Document
}

// autoApprovers is the section whose own members are lists and maps that are joined as sections are.
const autoApprovers = "autoApprovers"

// Conflict is a place at which two parts say different things.
type Conflict struct {
	// Source is the source of the part whose value came later.
	Source string
	// Place names the keys, such as "groups"."group:web".
	Place string
	// With is the source of the part that has the other value.
	With string
}

// Join joins parts in their order: maps by key, lists one after the other. A section has the name
// that every release takes, however the parts write it; one that is not known has that of the first
// part. If two parts have different values for the same key, or differ in something other than a
// map or a list, this is a conflict, and there is no text.
func Join(header string, parts []Part) (string, []Conflict) {
	j := &joiner{several: len(parts) > 1, entries: map[*hujson.Object]map[string]entry{}}
	joined := &hujson.Object{}
	text := hujson.Value{BeforeExtra: comment(header), Value: joined}
	for i := range parts {
		copied := parts[i].value.Clone()
		root, ok := copied.Value.(*hujson.Object)
		if !ok {
			continue
		}
		text.BeforeExtra = append(text.BeforeExtra, copied.BeforeExtra...)
		j.source = parts[i].Source
		j.joinSections(joined, root, "")
		text.AfterExtra = append(text.AfterExtra, copied.AfterExtra...)
	}
	if len(j.conflicts) > 0 {
		return "", j.conflicts
	}
	text.Format()
	return string(text.Pack()), nil
}

// comment makes comments of lines. What could end a comment is only a line break.
func comment(lines string) hujson.Extra {
	var out bytes.Buffer
	for line := range strings.Lines(lines) {
		out.WriteString("// " + strings.TrimSpace(line) + "\n")
	}
	return out.Bytes()
}

// joiner joins what a source has to what others had before.
type joiner struct {
	// several is whether there is more than one source, so that each is named.
	several bool
	source  string
	// entries are the keys of what is joined, so that none is searched for.
	entries   map[*hujson.Object]map[string]entry
	conflicts []Conflict
}

// entry is a key of an object.
type entry struct {
	source string
	index  int
}

// joinSections adds the sections of a source, or those of autoApprovers.
func (j *joiner) joinSections(to, from *hujson.Object, place string) {
	leading := to.AfterExtra
	for i := range from.Members {
		member := &from.Members[i]
		member.Name.BeforeExtra = join(leading, member.Name.BeforeExtra)
		leading = nil
		key := keyOf(member)
		nested := place == "" && canonical(key, known) == autoApprovers
		before, found := j.entries[to][fold(key)]
		if !found {
			if place == "" && !bytes.Contains(member.Name.BeforeExtra, []byte("\n")) {
				member.Name.BeforeExtra = join(hujson.Extra("\n"), member.Name.BeforeExtra) // a line of its own
			}
			rename(member, place)
			j.addSection(to, *member, placeOf(place, key), nested)
			continue
		}
		leading = comments(member)
		j.joinSection(&to.Members[before.index].Value, &member.Value, placeOf(place, key), nested, before.source)
	}
	to.AfterExtra = join(leading, from.AfterExtra)
}

// rename gives a section the name that every release accepts: a release that ignores another
// spelling would allow what the section forbids.
func rename(member *hujson.ObjectMember, place string) {
	names := known
	if place != "" {
		names = approvers
	}
	if right := canonical(keyOf(member), names); right != keyOf(member) {
		member.Name.Value = hujson.String(right)
	}
}

// comments are those of a member around its name, which goes.
func comments(member *hujson.ObjectMember) hujson.Extra {
	return join(join(member.Name.BeforeExtra, member.Name.AfterExtra), join(member.Value.BeforeExtra, member.Value.AfterExtra))
}

// addSection adds a section that no source had before.
func (j *joiner) addSection(to *hujson.Object, member hujson.ObjectMember, place string, nested bool) {
	j.own(to, fold(keyOf(&member)))
	switch value := member.Value.Value.(type) {
	case *hujson.Object:
		empty := &hujson.Object{}
		member.Value.Value = empty
		if nested {
			j.joinSections(empty, value, place)
		} else {
			j.joinMap(empty, value, place)
		}
	case *hujson.Array:
		empty := &hujson.Array{}
		member.Value.Value = empty
		j.joinList(empty, value)
	}
	to.Members = append(to.Members, member)
}

// joinSection joins a section with that of a source before.
func (j *joiner) joinSection(to, from *hujson.Value, place string, nested bool, owner string) {
	switch value := from.Value.(type) {
	case *hujson.Object:
		if before, ok := to.Value.(*hujson.Object); ok {
			if nested {
				j.joinSections(before, value, place)
			} else {
				j.joinMap(before, value, place)
			}
			return
		}
	case *hujson.Array:
		if before, ok := to.Value.(*hujson.Array); ok {
			j.joinList(before, value)
			return
		}
	}
	if meaning(*to) != meaning(*from) {
		j.conflicts = append(j.conflicts, Conflict{Source: j.source, Place: place, With: owner})
	}
}

// joinMap adds the entries of a map.
func (j *joiner) joinMap(to, from *hujson.Object, place string) {
	leading := j.lead(to.AfterExtra)
	for i := range from.Members {
		member := &from.Members[i]
		member.Name.BeforeExtra = join(leading, member.Name.BeforeExtra)
		leading = nil
		key := keyOf(member)
		before, found := j.entries[to][key]
		if !found {
			j.own(to, key)
			to.Members = append(to.Members, *member)
			continue
		}
		leading = comments(member)
		if meaning(to.Members[before.index].Value) != meaning(member.Value) {
			j.conflicts = append(j.conflicts, Conflict{Source: j.source, Place: placeOf(place, key), With: before.source})
		}
	}
	if len(from.Members) == 0 {
		leading = to.AfterExtra
	}
	to.AfterExtra = join(leading, from.AfterExtra)
}

// joinList adds the entries of a list.
func (j *joiner) joinList(to, from *hujson.Array) {
	leading := to.AfterExtra
	if len(from.Elements) > 0 {
		first := &from.Elements[0]
		first.BeforeExtra = join(j.lead(leading), first.BeforeExtra)
		leading = nil
	}
	to.Elements = append(to.Elements, from.Elements...)
	to.AfterExtra = join(leading, from.AfterExtra)
}

// lead is what stands before the first entry of a source: comments that were left, and its name.
func (j *joiner) lead(left hujson.Extra) hujson.Extra {
	if !j.several {
		return left
	}
	return join(left, join(hujson.Extra("\n"), comment(j.source)))
}

// own records the source of a key that is about to be added.
func (j *joiner) own(of *hujson.Object, key string) {
	if j.entries[of] == nil {
		j.entries[of] = map[string]entry{}
	}
	j.entries[of][key] = entry{j.source, len(of.Members)}
}

// join is one after the other, in a slice of its own.
func join(a, b hujson.Extra) hujson.Extra {
	if len(a)+len(b) == 0 {
		return nil
	}
	if bytes.HasSuffix(a, []byte("\n")) {
		// A line break of its own ends the comment already.
		b = bytes.TrimPrefix(bytes.TrimLeft(b, " \t"), []byte("\n"))
	}
	return append(append(make(hujson.Extra, 0, len(a)+len(b)), a...), b...)
}
