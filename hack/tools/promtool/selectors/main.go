// Command selectors prints what PromQL expressions are about. It reads a JSON array of
// expressions and prints a JSON array with, for each, the series that it selects and the
// labels by which it groups and matches. An expression that cannot be parsed is an error.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// subject is what an expression is about.
type subject struct {
	// Selectors are in the order in which they stand in the expression.
	Selectors []selector `json:"selectors"`
	// Labels are those of by, without, on, ignoring and group_left or group_right.
	Labels []string `json:"labels"`
	// Made are labels that the expression itself makes, by label_replace.
	Made []string `json:"made"`
}

// selector is the name of a metric and the labels that are asked for with it.
type selector struct {
	Metric string   `json:"metric"`
	Labels []string `json:"labels"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "selectors:", err)
		os.Exit(1)
	}
}

func run(input io.Reader, output io.Writer) error {
	var expressions []string
	if err := json.NewDecoder(input).Decode(&expressions); err != nil {
		return fmt.Errorf("reading the expressions: %w", err)
	}
	subjects := make([]subject, 0, len(expressions))
	for _, text := range expressions {
		expression, err := parser.NewParser(parser.Options{}).ParseExpr(text)
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		subjects = append(subjects, subjectOf(expression))
	}
	return json.NewEncoder(output).Encode(subjects)
}

// subjectOf looks at every part of an expression.
func subjectOf(expression parser.Expr) subject {
	found := subject{Selectors: []selector{}, Labels: []string{}, Made: []string{}}
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		switch part := node.(type) {
		case *parser.VectorSelector:
			found.Selectors = append(found.Selectors, selectorOf(part))
		case *parser.AggregateExpr:
			found.Labels = append(found.Labels, part.Grouping...)
		case *parser.BinaryExpr:
			if part.VectorMatching != nil {
				found.Labels = append(found.Labels, part.VectorMatching.MatchingLabels...)
				found.Labels = append(found.Labels, part.VectorMatching.Include...)
			}
		case *parser.Call:
			if name, ok := madeBy(part); ok {
				found.Made = append(found.Made, name)
			}
		}
		return nil
	})
	return found
}

// madeBy is the label that a call makes, if it makes one.
func madeBy(call *parser.Call) (string, bool) {
	if call.Func.Name != "label_replace" {
		return "", false
	}
	name, ok := call.Args[1].(*parser.StringLiteral)
	if !ok {
		return "", false
	}
	return name.Val, true
}

// selectorOf takes the metric's name from the matchers.
func selectorOf(vector *parser.VectorSelector) selector {
	found := selector{Metric: vector.Name, Labels: []string{}}
	for _, matcher := range vector.LabelMatchers {
		switch {
		case matcher.Name != labels.MetricName:
			found.Labels = append(found.Labels, matcher.Name)
		case found.Metric == "":
			found.Metric = matcher.Value
		}
	}
	return found
}
