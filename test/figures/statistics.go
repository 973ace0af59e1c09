// Package figures is what measurements have in common on their way into a document:
// medians, Markdown tables, and the marks between which a table stands.
package figures

import "slices"

// number is what can be measured.
type number interface{ ~int | ~int64 | ~float64 }

// Median is that of a list that is not empty.
func Median[N number](values []N) N {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Percentile90 is the value that nine in ten of a list, which is not empty, do not exceed.
func Percentile90[N number](values []N) N {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)*9+9)/10-1]
}
