package main

import (
	"fmt"
	"slices"
	"strings"

	"infrado.cloud/headscale-operator/test/figures"
	"infrado.cloud/headscale-operator/test/reliability/observation"
)

// row is what was seen of one failure, with every Headscale.
type row struct {
	observation.Observation
	versions []string
	notes    []string
}

// rows puts observations of the same failure together, in the order in which they came.
func rows(observations []observation.Observation) []*row {
	var all []*row
	known := map[[2]string]*row{}
	for i := range observations {
		o := &observations[i]
		name := [2]string{o.Section, o.Failure}
		if known[name] == nil {
			known[name] = &row{Observation: observation.Observation{Section: o.Section, Failure: o.Failure, Slow: true}}
			all = append(all, known[name])
		}
		known[name].add(o)
	}
	return all
}

func (r *row) add(o *observation.Observation) {
	r.Times += o.Times
	r.Minted += o.Minted
	r.Wanted += o.Wanted
	r.Left = max(r.Left, o.Left)
	r.Heal = append(r.Heal, o.Heal...)
	r.Calls += o.Calls
	r.Refusals += o.Refusals
	r.Streak = max(r.Streak, o.Streak)
	r.Midway += o.Midway
	r.Slow = r.Slow && o.Slow
	r.Produced = appendNew(strings.Split(r.Produced, "; "), o.Produced)
	version, _, _ := strings.Cut(o.Headscale, " ")
	if !slices.Contains(r.versions, version) {
		r.versions = append(r.versions, version)
		slices.Sort(r.versions)
	}
	if o.Note != "" && !slices.Contains(r.notes, o.Note) {
		r.notes = append(r.notes, o.Note)
	}
}

// appendNew is the list with the text, unless it is in it, on one line.
func appendNew(list []string, text string) string {
	list = slices.DeleteFunc(list, func(s string) bool { return s == "" })
	if !slices.Contains(list, text) {
		list = append(list, text)
	}
	return strings.Join(list, "; ")
}

// failure names the failure, and marks what only the slow suite shows.
func (r *row) failure() string {
	if r.Slow {
		return r.Failure + " *"
	}
	return r.Failure
}

func (r *row) headscale() string { return strings.Join(r.versions, ", ") }

func (r *row) minted() string { return fmt.Sprintf("%d of %d", r.Minted, r.Wanted) }

// heal shows the median and the longest.
func (r *row) heal() string {
	switch len(r.Heal) {
	case 0:
		return "–"
	case 1:
		return fmt.Sprintf("%.2f s", r.Heal[0])
	default:
		return fmt.Sprintf("%.2f s / %.2f s", figures.Median(r.Heal), slices.Max(r.Heal))
	}
}

// consumer shows refusals of calls, and the longest streak.
func (r *row) consumer() string {
	if r.Calls == 0 {
		return "–"
	}
	return fmt.Sprintf("%d of %d (%d)", r.Refusals, r.Calls, r.Streak)
}

func (r *row) note() string {
	notes := r.notes
	if r.Midway > 0 {
		notes = append(slices.Clone(notes), fmt.Sprintf("%d times between two steps", r.Midway))
	}
	return strings.Join(notes, "; ")
}
