package main

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// text is a value in a unit, both as Grafana calls and writes them.
func text(value float64, unit string) string {
	switch unit {
	case "s":
		return spell(value)
	case "bytes":
		return scaled(value/(1<<20)) + " MiB"
	case "ops":
		return scaled(value) + " ops/s"
	case "cpm":
		return scaled(value) + " /min"
	case "bool_yes_no":
		if value == 1 {
			return "Yes"
		}
		return "No"
	default:
		return scaled(value)
	}
}

// spell is a time in seconds in the largest unit that it fills.
func spell(value float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{86400, "days"}, {3600, "hours"}, {60, "min"}, {1, "s"}} {
		if math.Abs(value) >= unit.size {
			return scaled(value/unit.size) + " " + unit.name
		}
	}
	if value == 0 {
		return "0 s"
	}
	return scaled(value*1000) + " ms"
}

// scaled is a number with three digits or so.
func scaled(value float64) string {
	switch size := math.Abs(value); {
	case value == math.Trunc(value):
		return strconv.FormatFloat(value, 'f', 0, 64)
	case size >= 100:
		return fmt.Sprintf("%.0f", value)
	case size >= 10:
		return trim(fmt.Sprintf("%.1f", value))
	case size >= 0.1:
		return trim(fmt.Sprintf("%.2f", value))
	default:
		return trim(fmt.Sprintf("%.4f", value))
	}
}

// trim drops zeros at the end of a fraction.
func trim(number string) string {
	for number[len(number)-1] == '0' {
		number = number[:len(number)-1]
	}
	if number[len(number)-1] == '.' {
		number = number[:len(number)-1]
	}
	return number
}

// stepsOf are the distances that lines of a grid may have, for a unit.
func stepsOf(unit string) []float64 {
	switch unit {
	case "s":
		return []float64{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600}
	case "bytes":
		return []float64{1 << 20, 2 << 20, 5 << 20, 10 << 20, 20 << 20, 50 << 20, 100 << 20}
	default:
		return []float64{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000}
	}
}

// ticks are the lines of a grid from low to high, of which there are few; whole: at whole
// numbers.
func ticks(low, high float64, unit string, whole bool) []float64 {
	steps := stepsOf(unit)
	step := steps[len(steps)-1]
	for _, candidate := range steps {
		if (high-low)/candidate <= gridLines && (candidate >= 1 || !whole) {
			step = candidate
			break
		}
	}
	var lines []float64
	for value := math.Ceil(low/step) * step; value <= high+step/1000; value += step {
		lines = append(lines, value)
	}
	return lines
}

// clock is a time of day.
func clock(at time.Time) string { return at.UTC().Format("15:04") }
