package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// SourceOf is the source name of the part from the HeadscalePolicy with this name.
func SourceOf(name string) string { return "HeadscalePolicy " + name }

// Header is the header of the policy that is joined from the HeadscalePolicies of a Headscale.
func Header(namespace, name string) string {
	return fmt.Sprintf("Written by the operator, from the HeadscalePolicies of Headscale %s/%s.\nChange those: a change of this text is reverted.", namespace, name)
}

// Select returns the parts that can be joined, in the order that they have, and why the others
// cannot: of two that conflict, the younger is left out; of the same age, the one whose source is
// later in the alphabet. One that conflicts only with parts that are left out is kept.
func Select(parts []Part) (kept []Part, left []Conflict) {
	byAge := slices.Clone(parts)
	slices.SortStableFunc(byAge, func(a, b Part) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Source, b.Source))
	})
	out := map[string]bool{}
	for {
		_, conflicts := Join("", without(byAge, out))
		if len(conflicts) == 0 {
			return without(parts, out), left
		}
		certain := certainOf(conflicts)
		for _, conflict := range certain {
			out[conflict.Source] = true
		}
		left = append(left, certain...)
	}
}

// certainOf are the conflicts with parts that conflict with none that is older.
func certainOf(conflicts []Conflict) []Conflict {
	sources := map[string]bool{}
	for _, conflict := range conflicts {
		sources[conflict.Source] = true
	}
	return slices.DeleteFunc(slices.Clone(conflicts), func(c Conflict) bool { return sources[c.With] })
}

// without are the parts that are not left out.
func without(parts []Part, out map[string]bool) []Part {
	var kept []Part
	for _, part := range parts {
		if !out[part.Source] {
			kept = append(kept, part)
		}
	}
	return kept
}
