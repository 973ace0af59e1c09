package apply

import (
	"fmt"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// ownership says which field manager has which fields of an object, by its managedFields.
// Subresources do not count: a write through them is not an edit of the object.
type ownership struct {
	entries []metav1.ManagedFieldsEntry
	sets    []*fieldpath.Set
	// own is the index of what our field manager applied; negative: nothing.
	own int
}

// readOwnership decodes managedFields, as seen by a field manager.
func readOwnership(entries []metav1.ManagedFieldsEntry, fieldManager string) (*ownership, error) {
	o := &ownership{own: -1}
	for _, entry := range entries {
		set := &fieldpath.Set{}
		if entry.FieldsV1 != nil {
			if err := set.FromJSON(entry.FieldsV1.GetRawReader()); err != nil {
				return nil, fmt.Errorf("reading the fields of manager %s: %w", entry.Manager, err)
			}
		}
		if entry.Manager == fieldManager && entry.Operation == metav1.ManagedFieldsOperationApply && entry.Subresource == "" {
			o.own = len(o.sets)
		}
		o.entries, o.sets = append(o.entries, entry), append(o.sets, set)
	}
	return o, nil
}

// applied are the fields that our field manager applied.
func (o *ownership) applied() *fieldpath.Set {
	if o.own < 0 {
		return &fieldpath.Set{}
	}
	return o.sets[o.own]
}

// foreign iterates over what other field managers have, each field with its manager.
func (o *ownership) foreign() iter.Seq2[string, fieldpath.Path] {
	return func(yield func(string, fieldpath.Path) bool) {
		for i, set := range o.sets {
			if i == o.own || o.entries[i].Subresource != "" {
				continue
			}
			for path := range set.All() {
				if !yield(o.entries[i].Manager, path.Copy()) {
					return
				}
			}
		}
	}
}

// managers are the names of the other field managers that have something of the object's
// own fields.
func (o *ownership) managers() []string {
	var names []string
	for name := range o.foreign() {
		names = appendNew(names, name)
	}
	return names
}

// take moves the ownership of everything at and below some paths from other field managers to ours,
// and returns the names of the managers that owned a part of it.
func (o *ownership) take(paths *fieldpath.Set) []string {
	var from []string
	for i, set := range o.sets {
		if i == o.own || o.own < 0 || o.entries[i].Subresource != "" {
			continue
		}
		rest := set.RecursiveDifference(paths)
		if rest.Equals(set) {
			continue
		}
		o.sets[o.own] = o.sets[o.own].Union(set.Difference(rest)).Union(paths)
		o.sets[i] = rest
		from = appendNew(from, o.entries[i].Manager)
	}
	return from
}

// encode returns the managedFields.
func (o *ownership) encode() ([]metav1.ManagedFieldsEntry, error) {
	var entries []metav1.ManagedFieldsEntry
	for i, set := range o.sets {
		if set.Empty() {
			continue
		}
		raw, err := set.ToJSON()
		if err != nil {
			return nil, fmt.Errorf("encoding the fields of manager %s: %w", o.entries[i].Manager, err)
		}
		entry := o.entries[i]
		entry.FieldsV1 = metav1.NewFieldsV1(string(raw))
		entries = append(entries, entry)
	}
	return entries, nil
}

// appendNew appends a name that is not there yet.
func appendNew(names []string, name string) []string {
	for _, known := range names {
		if known == name {
			return names
		}
	}
	return append(names, name)
}
