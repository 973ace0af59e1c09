package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Formats for programs.
const (
	formatJSON = "json"
	formatYAML = "yaml"
)

var formats = []string{formatJSON, formatYAML}

// output is the value of the flag -o: json, yaml, or "" for people.
type output string

func (o *output) String() string { return string(*o) }

// Set refuses formats that there are not.
func (o *output) Set(value string) error {
	if !slices.Contains(formats, value) {
		return fmt.Errorf("the formats are %s", strings.Join(formats, " and "))
	}
	*o = output(value)
	return nil
}

// Type is what the help calls a value.
func (o *output) Type() string { return "format" }

// addTo adds the flag -o to a command.
func (o *output) addTo(c *cobra.Command) {
	c.Flags().VarP(o, "output", "o", "print for programs: "+strings.Join(formats, " or "))
	// The flag exists, so that this cannot fail.
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

// write prints a value in a format for programs.
func (o *output) write(out io.Writer, value any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	result := text.Bytes()
	if *o == formatYAML {
		var err error
		if result, err = yaml.JSONToYAML(result); err != nil {
			return err
		}
	}
	_, err := out.Write(result)
	return err
}

// formatWide is a table with more columns.
const formatWide = "wide"

var formatsOfTables = append([]string{formatWide}, formats...)

// tableOutput is the value of the flag -o of a command that prints a table: an output, or wide.
type tableOutput struct {
	output
	wide bool
}

func (o *tableOutput) String() string {
	if o.wide {
		return formatWide
	}
	return o.output.String()
}

// Set refuses formats that there are not.
func (o *tableOutput) Set(value string) error {
	if o.wide = value == formatWide; o.wide {
		o.output = ""
		return nil
	}
	if o.output.Set(value) != nil {
		return fmt.Errorf("the formats are %s and %s", strings.Join(formatsOfTables[:len(formatsOfTables)-1], ", "), formatsOfTables[len(formatsOfTables)-1])
	}
	return nil
}

// addTo adds the flag -o to a command.
func (o *tableOutput) addTo(c *cobra.Command) {
	c.Flags().VarP(o, "output", "o", "print more columns, or for programs: "+strings.Join(formatsOfTables[:len(formatsOfTables)-1], ", ")+" or "+formatsOfTables[len(formatsOfTables)-1])
	// The flag exists, so that this cannot fail.
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formatsOfTables, cobra.ShellCompDirectiveNoFileComp))
}

// list is a list of values for programs.
type list[T any] struct {
	Items []T `json:"items"`
}
