package reliability_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
)

// observation is what was seen of one failure in one spec: a row of a table in
// docs/reliability.md. Ginkgo's report has them all (-ginkgo.json-report=FILE).
type observation struct {
	// Section is the heading of the table. Failure says what went wrong, Produced how it was made to.
	Section, Failure, Produced string
	// Headscale is the version that it was seen with.
	Headscale string
	// Times is how often the failure was produced; 0 stands for once.
	Times int
	// Created is how many keys were created from the failure until all was well, all times
	// together, Wanted how many of them somebody had asked for, and Left how many of our keys
	// were unexpired in the end.
	Created, Wanted, Left int
	// Heal is how long it took each time until all was well, in seconds, counted from the end of
	// the failure.
	Heal []float64
	// Calls is how often a consumer called Headscale with the key that it had just read,
	// Refusals how often it was refused, Streak how often in a row at most.
	Calls, Refusals, Streak int
	// Midway is how many of the times hit a manager between two steps, where that was left to
	// chance.
	Midway int
	// Note is one more thing worth telling.
	Note string
}

// note adds what was seen to the report of the current spec.
func note(o observation) {
	GinkgoHelper()
	AddReportEntry(strings.Join([]string{o.Section, o.Failure, o.Headscale}, ": "), o, ReportEntryVisibilityFailureOrVerbose)
}
