package plugin

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// backedUp gives a Headscale a backup with a status.
func backedUp(status *v1beta1.BackupStatus, conditions ...metav1.Condition) func(*v1beta1.Headscale) {
	return func(hs *v1beta1.Headscale) {
		hs.Spec.Backup = &v1beta1.BackupSpec{Replica: v1beta1.BackupReplica{Type: "s3"}}
		hs.Status.Backup = status
		hs.Status.Conditions = append(hs.Status.Conditions, conditions...)
	}
}

// backupsShown are backups in all states that are shown differently.
func backupsShown() []*backupReport {
	started := at(-3 * day)
	first := &v1beta1.BackupStatus{Incarnation: "20261124t120000z-0123abcd", StartedAt: &started}
	restored := &v1beta1.BackupStatus{
		Incarnation: "20261124t120000z-0123abcd", Previous: "20261101t080000z-0123abcd", RestoredFrom: "20261001t080000z-0123abcd",
		RestoredTo: "2026-11-20T12:00:00Z", StartedAt: &started, RestoreDone: "2026-11-20T12:00:00Z",
	}
	failing := condition(v1beta1.ConditionBackedUp, false, "BackupFailing", "the replica does not answer:\x1b[2J access denied")
	verified := func(outcome v1beta1.VerificationOutcome, rows *v1beta1.BackupRows) func(*v1beta1.Headscale) {
		passed := at(-time.Hour)
		return func(hs *v1beta1.Headscale) {
			hs.Status.BackupVerification = &v1beta1.BackupVerification{Outcome: outcome, VerifiedAt: &passed, Rows: rows}
		}
	}
	return []*backupReport{
		describeBackup(headscaleNamed("off")),
		describeBackup(headscaleNamed("new", backedUp(nil))),
		describeBackup(headscaleNamed("starting", backedUp(&v1beta1.BackupStatus{Incarnation: "20261127t115900z-0123abcd", Previous: "20261124t120000z-0123abcd", RestoredFrom: "20261124t120000z-0123abcd"}))),
		describeBackup(headscaleNamed("on", backedUp(first))),
		describeBackup(headscaleNamed("restored", backedUp(restored, condition(v1beta1.ConditionBackedUp, true, "Verified", "The backup was restored and read at 2026-11-27T11:00:00Z")),
			verified(v1beta1.VerificationPassed, &v1beta1.BackupRows{Users: ptr.To[int64](12), Nodes: ptr.To[int64](40), PreAuthKeys: ptr.To[int64](0)}))),
		describeBackup(headscaleNamed("failing", backedUp(first, failing), verified(v1beta1.VerificationFailed, nil))),
	}
}

func TestGoldenBackup(t *testing.T) {
	for name, s := range map[string]screen{"backup": pipe, "backup-posix": inPOSIX, "backup-coloured": coloured} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			s.showBackupRows(&out, backupsShown(), name == "backup", name == "backup", now)
			s.showBackupRows(&out, backupsShown(), false, false, now)
			for _, report := range backupsShown() {
				out.WriteString("\n")
				s.showBackup(&out, report, now)
			}
			golden(t, name, out.String())
		})
	}
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			o := output(format)
			NewWithT(t).Expect(o.write(&out, list[*backupReport]{Items: backupsShown()})).To(Succeed())
			golden(t, "backup-"+format, out.String())
		})
	}
	var inOrder []string
	for _, report := range backupsShown() {
		if report.inOrder() {
			inOrder = append(inOrder, report.Name)
		}
	}
	NewWithT(t).Expect(inOrder).To(Equal([]string{"off", "on", "restored"}))
}

var _ = Describe("kubectl headscale backup", func() {
	It("shows what the status says, and nothing else is read", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		Expect(run(ctx, namespace, "backup")).To(Equal(result{"", "There is no Headscale in namespace " + namespace + "; -A shows those of all namespaces.\n", 0}))
		newHeadscale(ctx, namespace, "plain")
		newHeadscale(ctx, namespace, "saved")
		started := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
		hs := &v1beta1.Headscale{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "saved"}, hs)).To(Succeed())
		hs.Spec.Backup = &v1beta1.BackupSpec{Replica: v1beta1.BackupReplica{Type: "file", Path: "/backup"}}
		Expect(admin.Update(ctx, hs)).To(Succeed())
		viewer := person(ctx, namespace, "headscale-operator-headscale-viewer-role")
		Expect(as(ctx, viewer, "backup", "saved")).To(And(HaveField("Status", ExitNotReady), HaveField("Stdout", ContainSubstring("Backup       Starting\n"))))

		hs.Status.ObservedGeneration, hs.Status.Backup = hs.Generation, &v1beta1.BackupStatus{Incarnation: "20261124t120000z-0123abcd", StartedAt: &started}
		Expect(admin.Status().Update(ctx, hs)).To(Succeed())
		got := as(ctx, viewer, "backup")
		Expect(got).To(And(HaveField("Status", 0), HaveField("Stderr", ""), HaveField("Stdout", And(
			MatchRegexp(`(?m)^NAME +STATE +INCARNATION +STARTED +RESTORED FROM +MESSAGE$`), MatchRegexp(`(?m)^plain +Off +- +- +- +-$`), MatchRegexp(`(?m)^saved +On +20261124t120000z-0123abcd +60m ago +- +-$`)))))
		Expect(as(ctx, viewer, "backup", "-o", "wide").Stdout).To(ContainSubstring("RESTORED TO  PREVIOUS"))
		Expect(run(ctx, namespace, "backup", "-A").Stdout).To(MatchRegexp(`(?m)^` + namespace + ` +saved +On `))
		var report backupReport
		Expect(json.Unmarshal([]byte(as(ctx, viewer, "backup", "headscale/saved", "-o", "json").Stdout), &report)).To(Succeed())
		Expect(report).To(And(HaveField("Incarnation", "20261124t120000z-0123abcd"), HaveField("StartedAt.Time", BeTemporally("==", started.Time))))

		hs.Status.Conditions = append(hs.Status.Conditions, condition(v1beta1.ConditionBackedUp, false, "Failing", "the replica does not answer"))
		Expect(admin.Status().Update(ctx, hs)).To(Succeed())
		Expect(as(ctx, viewer, "backup", "saved")).To(And(HaveField("Status", ExitNotReady), HaveField("Stdout", MatchRegexp(`(?m)^BackedUp +False +Failing +\S+ +the replica does not answer$`))))
		Expect(as(ctx, viewer, "__complete", "backup", "s").Stdout).To(Equal("saved\n:4\n"))
		Expect(as(ctx, viewer, "backup", "-A", "saved")).To(HaveField("Status", ExitUsage))
		Expect(as(ctx, person(ctx, newNamespace(ctx)), "backup")).To(And(HaveField("Status", ExitFailure), HaveField("Stderr", ContainSubstring(`cannot list resource "headscales"`))))
	})
})
