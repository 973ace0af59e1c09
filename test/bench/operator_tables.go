package main

import (
	"fmt"
	"slices"
	"time"
)

// What the operator should cost.
const (
	wantedMemory      = 50.0 // MiB with wantedSize Headscales
	wantedMade        = 1.5  // seconds until wantedSize StatefulSets exist
	wantedSize        = 100
	wantedOtherWrites = 2.0 // for a new Headscale, besides one for each object
	wantedGrowth      = 1.2 // times the cost for each, with many Headscales as against a few
)

// describeOperators makes the tables of the operator's costs, with the fewest Headscales first.
func describeOperators(costs []*operatorCost) report {
	compareMemory(costs)
	tables := []string{makingTable(costs), restTable(costs)}
	if few, many := endsOf(costs); few != many {
		tables = append(tables, growthTable(few, many))
	}
	return report{tables, operatorTargets(costs)}
}

// makingTable is about new and touched Headscales.
func makingTable(costs []*operatorCost) string {
	return table("Headscales | all StatefulSets exist after | the least possible | requests each | objects created each | "+
		"other writes each (status, events, others) | processor each | writes for a touch of all | requests for a touch, each",
		costs, func(c *operatorCost) []string {
			m := c.making
			return []string{
				fmt.Sprint(c.size), seconds(c.made), seconds(c.floor), tenths(c.each(m.requests)), tenths(c.each(m.created)),
				fmt.Sprintf("%.1f (%.1f, %.1f, %.1f)", c.each(m.writes()-m.created), c.each(m.status), c.each(m.events), c.each(m.other)),
				milliseconds(c.busyMaking / time.Duration(c.size)),
				fmt.Sprint(c.touching.writes()), tenths(c.each(c.touching.requests)),
			}
		})
}

// restTable is about changes one after another, and about rest.
func restTable(costs []*operatorCost) string {
	return table("Headscales | change until changed StatefulSet: median | 90 % | writes and requests at rest | of | "+
		"processor at rest | memory (PSS) | of which anonymous | more memory for each more",
		costs, func(c *operatorCost) []string {
			return []string{
				fmt.Sprint(c.size), milliseconds(median(c.changing)), milliseconds(percentile90(c.changing)),
				fmt.Sprintf("%d and %d", c.requests.writes(), c.requests.requests), c.rest.String(), fmt.Sprintf("%.2f %%", c.percent()),
				mebibytes(c.proportional), mebibytes(c.anonymous), fmt.Sprintf("%.0f KiB", c.memoryEach),
			}
		})
}

// growthTable compares what each of many Headscales costs with what each of a few does.
func growthTable(few, many *operatorCost) string {
	return table(fmt.Sprintf("for each Headscale | with %d | with %d | ratio", few.size, many.size), perHeadscale, func(c eachCost) []string {
		a, b := c.of(few), c.of(many)
		return []string{c.name, fmt.Sprintf(c.format, a), fmt.Sprintf(c.format, b), fmt.Sprintf("%.2f", b/a)}
	})
}

// eachCost is a cost of each Headscale.
type eachCost struct {
	name, format string
	of           func(*operatorCost) float64
}

// perHeadscale are the costs that should not depend on how many Headscales there are.
var perHeadscale = []eachCost{
	{"requests", "%.1f", func(c *operatorCost) float64 { return c.each(c.making.requests) }},
	{"writes", "%.1f", func(c *operatorCost) float64 { return c.each(c.making.writes()) }},
	{"time until its StatefulSet exists", "%.1f ms", func(c *operatorCost) float64 { return inMilliseconds(c.made) / float64(c.size) }},
	{"processor time until it is at rest", "%.1f ms", func(c *operatorCost) float64 { return inMilliseconds(c.busyMaking) / float64(c.size) }},
	{"memory for each more", "%.0f KiB", func(c *operatorCost) float64 { return c.memoryEach }},
	{"change until changed StatefulSet, median", "%.0f ms", func(c *operatorCost) float64 { return inMilliseconds(median(c.changing)) }},
}

// endsOf are the measurements whose costs for each Headscale are compared: the most, and a
// few. What the only one costs is mostly what the operator costs without any.
func endsOf(costs []*operatorCost) (few, many *operatorCost) {
	few, many = costs[0], costs[len(costs)-1]
	if few.size < 20 && len(costs) > 1 {
		few = costs[1]
	}
	return few, many
}

// operatorTargets compares what can be compared with the sizes that were measured.
func operatorTargets(costs []*operatorCost) []target {
	var targets []target
	for _, c := range costs {
		if c.size != wantedSize {
			continue
		}
		targets = append(targets,
			atMost(fmt.Sprintf("operator's memory (PSS) with %d Headscales", c.size), c.proportional, wantedMemory, "%.1f MiB"),
			noted(fmt.Sprintf("%d StatefulSets exist, the least possible, after", c.size), seconds(c.floor)),
			noted(fmt.Sprintf("requests for each of %d new Headscales", c.size), tenths(c.each(c.making.requests))),
			noted(fmt.Sprintf("change until changed StatefulSet with %d Headscales, median", c.size), milliseconds(median(c.changing))),
			noted(fmt.Sprintf("operator's processor at rest with %d Headscales", c.size), fmt.Sprintf("%.2f %%", c.percent())),
			atMost(fmt.Sprintf("%d StatefulSets exist after", c.size), c.made.Seconds(), wantedMade, "%.2f s"))
	}
	others := make([]float64, len(costs))
	touched := 0
	for i, c := range costs {
		others[i] = c.each(c.making.writes() - c.making.created)
		touched += c.touching.writes()
	}
	targets = append(targets,
		atMost("writes for a new Headscale besides one for each object", slices.Max(others), wantedOtherWrites, "%.1f"),
		atMost("writes for touches that change nothing", float64(touched), 0, "%.0f"))
	if few, many := endsOf(costs); few != many {
		for _, cost := range perHeadscale {
			what := fmt.Sprintf("%s, for each of %d as against each of %d", cost.name, many.size, few.size)
			targets = append(targets, atMost(what, cost.of(many)/cost.of(few), wantedGrowth, "%.2f"))
		}
	}
	return targets
}

// each is a number for each Headscale.
func (c *operatorCost) each(total int) float64 { return float64(total) / float64(c.size) }

// compareMemory works out by how much the operator is larger for each Headscale that it has
// more than in the measurement before; in the first, than without any.
func compareMemory(costs []*operatorCost) {
	memory, size := costs[0].memoryBefore, 0
	for _, c := range costs {
		c.memoryEach = (c.proportional - memory) * 1024 / float64(c.size-size)
		memory, size = c.proportional, c.size
	}
}

func tenths(value float64) string { return fmt.Sprintf("%.1f", value) }
