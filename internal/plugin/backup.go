package plugin

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// States of a backup for which there is no condition.
const (
	backupOff      = "Off"
	backupStarting = "Starting"
	backupOn       = "On"
)

// backupReport is which incarnation of a Headscale's database is backed up.
type backupReport struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// State is Off, Starting or On, or the reason of the condition BackedUp.
	State string `json:"state"`
	// Incarnation is the one that is backed up, and StartedAt is when its backup started.
	Incarnation string       `json:"incarnation,omitempty"`
	StartedAt   *metav1.Time `json:"startedAt,omitempty"`
	// Previous is the incarnation before it.
	Previous string `json:"previous,omitempty"`
	// RestoredFrom is the incarnation that it was restored from, and RestoredTo the point in time.
	// Both are empty if it started with an empty database, and the time is empty for the newest
	// state.
	RestoredFrom string `json:"restoredFrom,omitempty"`
	RestoredTo   string `json:"restoredTo,omitempty"`
	// Verification is the last restore of the backup into an empty directory.
	Verification *backupVerified `json:"verification,omitempty"`
	// Condition is BackedUp, if the operator sets it.
	Condition *metav1.Condition `json:"condition,omitempty"`
}

// backupVerified is the result of the last verification of a backup.
type backupVerified struct {
	Outcome v1beta1.VerificationOutcome `json:"outcome"`
	// VerifiedAt is when the last successful one started, and Rows are the row counts of the
	// database then.
	VerifiedAt *metav1.Time        `json:"verifiedAt,omitempty"`
	Rows       *v1beta1.BackupRows `json:"rows,omitempty"`
}

// backupCommand is kubectl headscale backup.
func (a *app) backupCommand() *cobra.Command {
	var all bool
	var format tableOutput
	command := &cobra.Command{
		Use:   "backup [NAME]",
		Short: "Show which backup the database of a Headscale has",
		Long: `Shows which incarnation of a Headscale's database is backed up, since when, and from which
one it was restored. All of this is in the Headscale's status; neither the pod nor the
replica is asked. Without NAME, all Headscales of the namespace are shown, or of all
namespaces with -A.

Exits with status 3 if a backup of those that are shown has not begun, or its condition
BackedUp is not true: changes do not reach the storage, it cannot be restored, or neither
is known.`,
		Example: `  kubectl headscale backup
  kubectl headscale backup headscale -o json | jq -r .incarnation`,
		Args: func(c *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usagef("-A shows the Headscales of all namespaces: leave out the NAME, or name its namespace with -n")
			}
			return oneName(c, args)
		},
		ValidArgsFunction: a.completeName,
		RunE: func(c *cobra.Command, args []string) error {
			cluster, err := a.cluster()
			if err != nil {
				return err
			}
			found, namespace, err := cluster.read(c.Context(), args, all)
			if err != nil {
				return err
			}
			reports := make([]*backupReport, len(found))
			for i := range found {
				reports[i] = describeBackup(&found[i])
			}
			return a.showBackups(reports, len(args) > 0, namespace, &format)
		},
	}
	command.Flags().BoolVarP(&all, "all-namespaces", "A", false, "show the Headscales of all namespaces")
	format.addTo(command)
	return command
}

// describeBackup returns the state of a Headscale's backup.
func describeBackup(hs *v1beta1.Headscale) *backupReport {
	report := &backupReport{Namespace: hs.Namespace, Name: hs.Name, State: backupOff}
	report.Condition = meta.FindStatusCondition(hs.Status.Conditions, v1beta1.ConditionBackedUp)
	if backup := hs.Status.Backup; backup != nil {
		report.Incarnation, report.StartedAt, report.Previous = backup.Incarnation, backup.StartedAt, backup.Previous
		report.RestoredFrom, report.RestoredTo = backup.RestoredFrom, backup.RestoredTo
	}
	if last := hs.Status.BackupVerification; last != nil {
		report.Verification = &backupVerified{Outcome: last.Outcome, VerifiedAt: last.VerifiedAt, Rows: last.Rows}
	}
	switch {
	case hs.Spec.Backup == nil && hs.Status.Backup == nil:
	case report.Condition != nil:
		report.State = report.Condition.Reason
	case report.StartedAt == nil || !seen(hs):
		report.State = backupStarting
	default:
		report.State = backupOn
	}
	return report
}

// inOrder reports whether the database is backed up, if it should be.
func (b *backupReport) inOrder() bool {
	if b.Condition != nil {
		return b.Condition.Status == metav1.ConditionTrue
	}
	return b.State != backupStarting
}

// showBackups prints the backups of Headscales: one in full, several in a table.
func (a *app) showBackups(reports []*backupReport, named bool, namespace string, format *tableOutput) error {
	out, s, all := a.Streams.Out, newScreen(a.Streams.Out, a.Getenv), namespace == metav1.NamespaceAll
	switch {
	case format.output != "" && named:
		if err := format.write(out, reports[0]); err != nil {
			return err
		}
	case format.output != "":
		if err := format.write(out, list[*backupReport]{Items: reports}); err != nil {
			return err
		}
	case len(reports) == 0:
		a.sayNone(namespace)
	case len(reports) == 1 && !all && !format.wide:
		s.showBackup(out, reports[0], a.Now())
	default:
		s.showBackupRows(out, reports, all, format.wide, a.Now())
	}
	if slices.ContainsFunc(reports, func(report *backupReport) bool { return !report.inOrder() }) {
		return errNotReady
	}
	return nil
}

// cell is the state of a backup in a table.
func (b *backupReport) cell() cell {
	switch {
	case b.State == backupOff:
		return cell{b.State, plain}
	case b.State == backupStarting:
		return cell{b.State, yellow}
	case b.inOrder():
		return cell{b.State, green}
	default:
		return cell{b.State, red}
	}
}

// restored describes what the incarnation was restored from.
func (b *backupReport) restored() string {
	switch {
	case b.RestoredFrom == "":
		return "-"
	case b.RestoredTo == "":
		return b.RestoredFrom
	default:
		return b.RestoredFrom + ", as of " + b.RestoredTo
	}
}

// started says since when the incarnation is backed up.
func (b *backupReport) started(now time.Time) string {
	if b.StartedAt == nil {
		return "-"
	}
	return span(now.Sub(b.StartedAt.Time)) + " ago"
}

// showBackup prints the backup of a Headscale in full.
func (s screen) showBackup(out io.Writer, b *backupReport, now time.Time) {
	state := b.cell()
	all := []field{{"Headscale", b.Namespace + "/" + b.Name, plain}}
	if b.State == backupOff {
		s.fields(out, append(all, field{"Backup", "Off: spec.backup is not set", plain}))
		return
	}
	all = append(all, field{"Backup", state.text, state.as}, field{"Incarnation", orDash(b.Incarnation), plain})
	if b.StartedAt != nil {
		all = append(all, field{"Started", fmt.Sprintf("%s, at %s", b.started(now), instant(b.StartedAt.Time)), plain})
	} else {
		all = append(all, field{"Started", "not yet: Headscale was not ready with it", yellow})
	}
	all = append(all, field{"Previous", orDash(b.Previous), plain}, field{"Restored", b.restored(), plain})
	if b.Verification != nil {
		all = append(all, b.Verification.field(now))
	}
	s.fields(out, all)
	if b.Condition != nil {
		s.conditions(out, []metav1.Condition{*b.Condition}, now)
	}
}

// field describes the result of the last verification, and the row counts of the last successful
// one.
func (v *backupVerified) field(now time.Time) field {
	text, as := string(v.Outcome), yellow
	switch v.Outcome {
	case v1beta1.VerificationPassed:
		as = green
	case v1beta1.VerificationFailed:
		as = red
	}
	if v.VerifiedAt != nil {
		text += fmt.Sprintf(", last passed %s ago", span(now.Sub(v.VerifiedAt.Time)))
	}
	if v.Rows == nil {
		return field{"Verified", text, as}
	}
	var rows []string
	for _, table := range []struct {
		rows *int64
		name string
	}{{v.Rows.Users, "users"}, {v.Rows.Nodes, "nodes"}, {v.Rows.PreAuthKeys, "pre-auth keys"}, {v.Rows.APIKeys, "API keys"}} {
		if table.rows != nil {
			rows = append(rows, fmt.Sprintf("%s: %d", table.name, *table.rows))
		}
	}
	return field{"Verified", fmt.Sprintf("%s (%s)", text, strings.Join(rows, ", ")), as}
}

// showBackupRows prints the backups of several Headscales in a table.
func (s screen) showBackupRows(out io.Writer, reports []*backupReport, all, wide bool, now time.Time) {
	names := []string{"NAME", "STATE", "INCARNATION", "STARTED", "RESTORED FROM"}
	if wide {
		names = append(names, "RESTORED TO", "PREVIOUS")
	}
	names = append(names, "MESSAGE")
	if all {
		names = append([]string{"NAMESPACE"}, names...)
	}
	rows := [][]cell{headings(names...)}
	for _, b := range reports {
		row := []cell{{b.Name, plain}, b.cell(), {orDash(b.Incarnation), plain}, {b.started(now), plain}, {orDash(b.RestoredFrom), plain}}
		if wide {
			row = append(row, cell{orDash(b.RestoredTo), plain}, cell{orDash(b.Previous), plain})
		}
		message := "-"
		if b.Condition != nil {
			message = orDash(oneLine(b.Condition.Message))
		}
		row = append(row, cell{message, plain})
		if all {
			row = append([]cell{{b.Namespace, plain}}, row...)
		}
		rows = append(rows, row)
	}
	s.table(out, rows)
}
