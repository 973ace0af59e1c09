package plugin

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// showPolicy prints the policies of a Headscale: what is known of them, and their texts.
func (s screen) showPolicy(out io.Writer, report *policyReport, now time.Time) {
	s.fields(out, policyFields(report, now))
	if len(report.Policies) > 0 {
		_, _ = fmt.Fprintln(out)
		s.table(out, policyRows(report, now))
	}
	if report.InForce != nil && !isNone(*report.InForce) {
		s.section(out, "IN FORCE", *report.InForce)
	}
	if report.Joined != nil {
		s.section(out, "JOINED FROM THE HEADSCALEPOLICIES", *report.Joined)
	}
	if report.Difference != "" {
		s.section(out, "DIFFERENCE", report.Difference)
	}
}

// policyFields are the lines about the policies of a Headscale.
func policyFields(report *policyReport, now time.Time) []field {
	all := []field{{"Headscale", report.Namespace + "/" + report.Name, plain}, inForceField(report, now), differenceField(report)}
	for _, what := range report.Unread {
		all = append(all, field{"Unread", what, yellow})
	}
	return all
}

// inForceField says what is in force.
func inForceField(report *policyReport, now time.Time) field {
	switch {
	case report.InForce == nil:
		return field{"In force", "not known", yellow}
	case isNone(*report.InForce):
		return field{"In force", "none, which allows everything", red}
	case report.SetAt == nil:
		return field{"In force", fmt.Sprintf("%d bytes", len(*report.InForce)), plain}
	default:
		return field{"In force", fmt.Sprintf("%d bytes, for %s, since %s", len(*report.InForce), span(now.Sub(report.SetAt.Time)), instant(report.SetAt.Time)), plain}
	}
}

// differenceField says in what that differs from what the HeadscalePolicies make.
func differenceField(report *policyReport) field {
	const label = "Difference"
	switch {
	case report.Same != nil && *report.Same:
		return field{label, "none", green}
	case report.Same != nil:
		return field{label, oneLine(strings.Join(report.Sections, ", ")), red}
	case report.Joined == nil && len(report.Policies) > 0:
		return field{label, "the HeadscalePolicies cannot be joined as they are now, and nothing is sent until that is mended", red}
	case report.Joined == nil && len(report.Unread) == 0:
		return field{label, "there is no HeadscalePolicy", plain}
	default:
		return field{label, "not known", yellow}
	}
}

// policyRows are the table of the HeadscalePolicies.
func policyRows(report *policyReport, now time.Time) [][]cell {
	rows := [][]cell{headings("HEADSCALEPOLICY", "ORDER", "READY", "REASON", "APPLIED", "MESSAGE")}
	for i := range report.Policies {
		part := &report.Policies[i]
		ready, applied := cell{"False", red}, "-"
		if part.Ready {
			ready = cell{"True", green}
		}
		if part.AppliedAt != nil {
			applied = span(now.Sub(part.AppliedAt.Time)) + " ago"
		}
		rows = append(rows, []cell{{part.Name, plain}, {fmt.Sprint(part.Order), plain}, ready, {orDash(part.Reason), plain}, {applied, plain}, {part.Message, plain}})
	}
	return rows
}

// section prints a text under a heading, without anything that could change what a terminal shows.
func (s screen) section(out io.Writer, heading, text string) {
	_, _ = fmt.Fprintf(out, "\n%s\n", s.paint(strong, heading))
	for line := range strings.Lines(text) {
		line = strings.Map(func(r rune) rune {
			if r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf)) {
				return -1
			}
			return r
		}, line)
		_, _ = fmt.Fprintln(out, s.paint(styleOfLine(heading, line), s.text(line)))
	}
}

// styleOfLine is the style of a line of a diff.
func styleOfLine(heading, line string) style {
	switch {
	case heading != "DIFFERENCE":
		return plain
	case strings.HasPrefix(line, "+"):
		return green
	case strings.HasPrefix(line, "-"):
		return red
	default:
		return plain
	}
}
