package plugin

import (
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Columns that the bar of the time left has.
const (
	barOfOne  = 20
	barOfMany = 10
)

// showOne prints the state of a Headscale in full.
func (s screen) showOne(out io.Writer, report *statusReport, now time.Time) {
	state := cellOfState(report.Ready, report.Reason, report.Problem)
	all := []field{
		{"Headscale", fmt.Sprintf("%s/%s, %s: %s", report.Namespace, report.Name, report.Version, state.text), state.as},
		{"Pod", podLine(report, now), plain},
	}
	all = append(all, s.keyFields(&report.Key, now)...)
	all = append(all, problemField(report.Ready, report.Problem))
	for _, what := range report.Unread {
		all = append(all, field{"Unread", "you are not allowed to read " + what, yellow})
	}
	s.fields(out, all)
	s.conditions(out, report.Conditions, now)
}

// problemField is the line that says what is wrong.
func problemField(ready bool, problem string) field {
	switch {
	case problem == "":
		return field{"Problem", "none", green}
	case ready:
		return field{"Problem", problem, yellow}
	default:
		return field{"Problem", problem, red}
	}
}

// conditions prints the conditions of an object, if there are any.
func (s screen) conditions(out io.Writer, conditions []metav1.Condition, now time.Time) {
	if len(conditions) == 0 {
		return
	}
	_, _ = fmt.Fprintln(out)
	rows := [][]cell{headings("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE")}
	for i := range conditions {
		c := &conditions[i]
		rows = append(rows, []cell{{c.Type, plain}, {string(c.Status), plain}, {c.Reason, plain},
			{span(now.Sub(c.LastTransitionTime.Time)), plain}, {oneLine(c.Message), plain}})
	}
	s.table(out, rows)
}

// cellOfState is whether an object is ready, in a word.
func cellOfState(ready bool, reason, problem string) cell {
	switch {
	case !ready && (reason == "" || reason == v1beta1.ReasonReady):
		return cell{"NotReady", red}
	case !ready:
		return cell{reason, red}
	case problem != "":
		return cell{reason, yellow}
	default:
		return cell{reason, green}
	}
}

// podLine describes a pod in one line.
func podLine(report *statusReport, now time.Time) string {
	pod := report.Pod
	switch {
	case report.podForbidden:
		return report.podName + ": not known"
	case pod == nil:
		return report.podName + ": there is none"
	}
	ready, all, restarts := 0, 0, int32(0)
	trouble := ""
	for _, container := range pod.Containers {
		restarts += container.Restarts
		if container.done {
			continue
		}
		all++
		if container.Ready {
			ready++
		}
		if container.State != "Running" {
			trouble += fmt.Sprintf("; %s: %s", container.Name, container.State)
		}
	}
	return fmt.Sprintf("%s: %s for %s, %d of %d containers ready, %d restarts%s", pod.Name, pod.Phase,
		span(now.Sub(pod.CreatedAt.Time)), ready, all, restarts, trouble)
}

// showMany prints the state of several Headscales in a table.
func (s screen) showMany(out io.Writer, reports []statusReport, all bool, now time.Time) {
	columns := []string{"NAME", "VERSION", "STATE", "KEY", "LEFT", "ROTATION", "PROBLEM"}
	if all {
		columns = append([]string{"NAMESPACE"}, columns...)
	}
	rows := [][]cell{headings(columns...)}
	for i := range reports {
		report := &reports[i]
		left, rotation := cell{"-", plain}, "-"
		if report.Key.Expiration != nil {
			left = s.timeLeft(&report.Key, barOfMany, now)
		}
		if report.Key.NextRotation != nil {
			rotation = until(report.Key.NextRotation.Time, now)
		}
		row := []cell{{report.Name, plain}, {report.Version, plain}, cellOfState(report.Ready, report.Reason, report.Problem), {orDash(report.Key.Prefix), plain},
			left, {rotation, plain}, {report.Problem, plain}}
		if all {
			row = append([]cell{{report.Namespace, plain}}, row...)
		}
		rows = append(rows, row)
	}
	s.table(out, rows)
}

// orDash is a text, or "-" if it is empty.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// until says how long it is until a time, or how long ago it was.
func until(t, now time.Time) string {
	if d := t.Sub(now); d >= 0 {
		return "in " + span(d)
	}
	return span(now.Sub(t)) + " late"
}
