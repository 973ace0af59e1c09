package apply

import (
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// edits compares an object with its desired state, to find conflicting changes by others. want and
// live are the two as JSON.
type edits struct {
	want, live any
	*ownership
}

// outdated are the entries of lists that were applied and are not wanted any more. They are removed
// as a whole: a field that another manager wrote into an entry must not preserve a part of it.
func (e *edits) outdated() *fieldpath.Set {
	paths := fieldpath.NewSet()
	for path := range e.applied().All() {
		for i := range path {
			if _, wanted := at(e.want, path[:i+1]); !wanted && path[i].Key != nil {
				paths.Insert(path[:i+1].Copy())
				break
			}
		}
	}
	return paths
}

// displacing are the entries of lists that somebody put in the place of wanted ones, by changing
// the merge key of the list. They include containers that have a port of a wanted one, or all its
// arguments: the containers of a pod share the network, so one of the two could not run, or both
// would do the same work.
func (e *edits) displacing() *fieldpath.Set {
	return e.items(func(item map[string]any, key fieldpath.PathElement, wanted, present []any) bool {
		return slices.ContainsFunc(wanted, func(entry any) bool {
			fields, _ := entry.(map[string]any)
			missing := !slices.ContainsFunc(present, func(other any) bool { return sameKey(other, entry, key) })
			return missing && sameButKey(item, fields, key) || sharesPort(item, fields) || hasArguments(item, fields)
		})
	})
}

// duplicates are the entries of a list that have the same value as a wanted one in a field that
// must be unique in the list. field is its path without keys.
func (e *edits) duplicates(field []string) *fieldpath.Set {
	list, name := field[:len(field)-1], field[len(field)-1]
	found := fieldpath.NewSet()
	for path := range e.items(func(item map[string]any, _ fieldpath.PathElement, wanted, _ []any) bool {
		return slices.ContainsFunc(wanted, func(entry any) bool {
			fields, _ := entry.(map[string]any)
			return item[name] != nil && fields[name] == item[name]
		})
	}).All() {
		if slices.Equal(namesOf(path), list) {
			found.Insert(path.Copy())
		}
	}
	return found
}

// items are those entries of lists that other managers have and that are not wanted, for
// which a condition holds: of the entry, its key, the wanted entries of the list and all.
func (e *edits) items(holds func(item map[string]any, key fieldpath.PathElement, wanted, present []any) bool) *fieldpath.Set {
	found := fieldpath.NewSet()
	for _, path := range e.foreign() {
		for i, element := range path {
			item, _ := at(e.live, path[:i+1])
			fields, isMap := item.(map[string]any)
			if element.Key == nil || !isMap {
				continue
			}
			if _, isWanted := at(e.want, path[:i+1]); !isWanted && holds(fields, element, listAt(e.want, path[:i]), listAt(e.live, path[:i])) {
				found.Insert(path[:i+1].Copy())
			}
		}
	}
	return found
}

// near are the fields of other managers that may be why the API server refuses the object for these
// causes: duplicates, and fields in the same struct as a refused field.
func (e *edits) near(causes []metav1.StatusCause) *fieldpath.Set {
	found := fieldpath.NewSet()
	for _, cause := range causes {
		field := strings.Split(indexes.ReplaceAllString(cause.Field, ""), ".")
		if cause.Type == metav1.CauseTypeFieldValueDuplicate {
			found = found.Union(e.duplicates(field))
			continue
		}
		for _, path := range e.foreign() {
			if e.beside(path, field) {
				found.Insert(path)
			}
		}
	}
	return found
}

// indexes are the parts of a field's name in a refusal that choose an entry.
var indexes = regexp.MustCompile(`\[[^]]*]`)

// roots are the structs whose fields are independent of each other.
var roots = []string{"metadata", "spec", "template"}

// beside reports whether a path leads to a refused field, or into the same struct, within
// entries that are wanted.
func (e *edits) beside(path fieldpath.Path, field []string) bool {
	for i := range path {
		if _, wanted := at(e.want, path[:i+1]); path[i].Key != nil && !wanted {
			return false
		}
	}
	names, parent := namesOf(path), field[:len(field)-1]
	if len(parent) == 0 || slices.Contains(roots, parent[len(parent)-1]) {
		parent = field
	}
	return len(names) >= len(parent) && slices.Equal(names[:len(parent)], parent)
}

// namesOf is a path without keys.
func namesOf(path fieldpath.Path) []string {
	var names []string
	for _, element := range path {
		if element.FieldName != nil {
			names = append(names, *element.FieldName)
		}
	}
	return names
}

// sameButKey reports whether an entry of a list equals a wanted one except for the key.
func sameButKey(item, wanted map[string]any, key fieldpath.PathElement) bool {
	rest := map[string]any{}
	for name, content := range wanted {
		if !slices.ContainsFunc(*key.Key, func(field value.Field) bool { return field.Name == name }) {
			rest[name] = content
		}
	}
	return hasValue(rest) && includes(item, rest)
}

// sharesPort reports whether two containers have a port in common.
func sharesPort(a, b map[string]any) bool {
	ports, _ := a["ports"].([]any)
	others, _ := b["ports"].([]any)
	return slices.ContainsFunc(ports, func(port any) bool {
		fields, _ := port.(map[string]any)
		return fields["containerPort"] != nil && slices.ContainsFunc(others, func(other any) bool {
			return includes(other, map[string]any{"containerPort": fields["containerPort"], "protocol": fields["protocol"]})
		})
	})
}

// hasArguments reports whether a container has all arguments of another one that has some.
func hasArguments(container, other map[string]any) bool {
	wanted, _ := other["args"].([]any)
	return len(wanted) > 0 && includes(container["args"], wanted)
}

// at is what a path leads to in a JSON document, and whether there is something.
func at(document any, path fieldpath.Path) (any, bool) {
	for _, element := range path {
		switch parent := document.(type) {
		case map[string]any:
			if element.FieldName == nil {
				return nil, false
			}
			content, ok := parent[*element.FieldName]
			if !ok {
				return nil, false
			}
			document = content
		case []any:
			i := slices.IndexFunc(parent, func(item any) bool { return isAt(item, element) })
			if i < 0 {
				return nil, false
			}
			document = parent[i]
		default:
			return nil, false
		}
	}
	return document, true
}

// listAt is the list that a path leads to; nil where there is none.
func listAt(document any, path fieldpath.Path) []any {
	content, _ := at(document, path)
	list, _ := content.([]any)
	return list
}

// isAt reports whether an entry of a list is the one that an element of a path means.
func isAt(item any, element fieldpath.PathElement) bool {
	if element.Value != nil {
		return value.Equals(value.NewValueInterface(item), *element.Value)
	}
	fields, ok := item.(map[string]any)
	return ok && element.Key != nil && !slices.ContainsFunc(*element.Key, func(field value.Field) bool {
		return !value.Equals(value.NewValueInterface(fields[field.Name]), field.Value)
	})
}

// sameKey reports whether two entries of a list have the same key, of whose fields key is an
// example.
func sameKey(a, b any, key fieldpath.PathElement) bool {
	one, isMap := a.(map[string]any)
	other, areMaps := b.(map[string]any)
	return isMap && areMaps && !slices.ContainsFunc(*key.Key, func(field value.Field) bool {
		return !value.Equals(value.NewValueInterface(one[field.Name]), value.NewValueInterface(other[field.Name]))
	})
}

// hasValue reports whether there is a value in a JSON document, and not structs alone.
func hasValue(document any) bool {
	switch content := document.(type) {
	case map[string]any:
		for _, field := range content {
			if hasValue(field) {
				return true
			}
		}
		return false
	case []any:
		return slices.ContainsFunc(content, hasValue)
	default:
		return true
	}
}

// includes reports whether a JSON document has all that another has.
func includes(document, part any) bool {
	switch wanted := part.(type) {
	case map[string]any:
		fields, ok := document.(map[string]any)
		for name, content := range wanted {
			ok = ok && includes(fields[name], content)
		}
		return ok
	case []any:
		list, ok := document.([]any)
		return ok && !slices.ContainsFunc(wanted, func(content any) bool {
			return !slices.ContainsFunc(list, func(item any) bool { return includes(item, content) })
		})
	default:
		return document == part
	}
}
