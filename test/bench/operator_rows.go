package main

import "fmt"

// What the operator should cost.
const (
	wantedMemory      = 50.0 // MiB with wantedSize Headscales
	wantedMade        = 1.5  // seconds until wantedSize StatefulSets exist
	wantedSize        = 100
	wantedOtherWrites = 2.0 // for a new Headscale, besides one for each object
	wantedGrowth      = 1.2 // times the cost for each, with many Headscales as against a few
	// fewest is how many Headscales are a few: what one costs is mostly what the operator costs
	// without any.
	fewest = 20
)

// operatorRows are about the operator's costs, with the fewest Headscales first.
func operatorRows(costs []operatorCost) (rows []row) {
	var others, touching float64
	for _, c := range costs {
		if c.size == wantedSize {
			rows = c.rows()
		}
		others = max(others, c.each(c.making.writes-c.making.created))
		touching += float64(c.touching.writes)
	}
	rows = append(rows,
		atMost("writes for a new Headscale besides one for each object", "%.1f", others, wantedOtherWrites),
		atMost("writes for touches that change nothing", "%.0f", touching, 0))
	for few := range costs {
		if many := len(costs) - 1; costs[few].size >= fewest && few < many {
			return append(rows, growthRows(costs, few, many)...)
		}
	}
	return rows
}

// rows are about the number of Headscales for which something is wanted.
func (c operatorCost) rows() []row {
	with := fmt.Sprintf("with %d Headscales", c.size)
	sets := fmt.Sprintf("%d StatefulSets exist", c.size)
	return []row{
		atMost("operator's memory (PSS) "+with, "%.1f MiB", c.proportional, wantedMemory),
		noted(sets+", the least possible, after", "%.2f s", c.floor.Seconds()),
		noted(fmt.Sprintf("requests for each of %d new Headscales", c.size), "%.1f", c.each(c.making.requests)),
		noted("change until changed StatefulSet "+with+", median", "%.0f ms", 1000*median(c.changing).Seconds()),
		noted("operator's processor at rest "+with, "%.2f %%", c.percent()),
		atMost(sets+" after", "%.2f s", c.made.Seconds(), wantedMade),
	}
}

// each is a number for each Headscale.
func (c operatorCost) each(total int) float64 { return float64(total) / float64(c.size) }

// growthRows compare what each of many Headscales costs with what each of a few does. The memory
// is that for each that there are more than in the measurement before; in the first, than none.
func growthRows(costs []operatorCost, few, many int) (rows []row) {
	compare := func(what string, cost func(i int, c operatorCost) float64) {
		what = fmt.Sprintf("%s, for each of %d as against each of %d", what, costs[many].size, costs[few].size)
		rows = append(rows, atMost(what, "%.2f", cost(many, costs[many])/cost(few, costs[few]), wantedGrowth))
	}
	compare("requests", func(_ int, c operatorCost) float64 { return c.each(c.making.requests) })
	compare("writes", func(_ int, c operatorCost) float64 { return c.each(c.making.writes) })
	compare("time until its StatefulSet exists", func(_ int, c operatorCost) float64 { return c.each(int(c.made)) })
	compare("processor time until it is at rest", func(_ int, c operatorCost) float64 { return c.each(int(c.busy)) })
	compare("memory for each more", func(i int, c operatorCost) float64 {
		memory, size := c.memoryBefore, 0
		if i > 0 {
			memory, size = costs[i-1].proportional, costs[i-1].size
		}
		return (c.proportional - memory) / float64(c.size-size)
	})
	compare("change until changed StatefulSet, median", func(_ int, c operatorCost) float64 { return float64(median(c.changing)) })
	return rows
}
