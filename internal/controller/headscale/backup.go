package headscale

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/apply"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/redact"
	"infrado.cloud/headscale-operator/internal/resources"
)

// backupFacts are what the incarnation of a database follows from.
type backupFacts struct {
	// uid is that of the Headscale.
	uid types.UID
	// onClaim is the incarnation that the claim of the data volume names, or "".
	onClaim string
	// told is the incarnation that the pod was told, where the status does not say it, or "".
	told string
	// ran is whether Headscale ran on this volume before.
	ran bool
	// replicating is whether the pod, or the one that would follow on it, has Litestream.
	replicating bool
	// empty is whether the pod waits because its volume has no database.
	empty bool
	// begun is whether the pod has begun with what it was told of an empty volume, or is beyond it.
	begun bool
	// ready is whether Headscale is ready behind the gate.
	ready bool
	now   time.Time
}

// nextBackup decides which incarnation of the database is replicated. It is a function of its
// arguments alone.
func nextBackup(spec *v1beta1.BackupSpec, last *v1beta1.BackupStatus, f *backupFacts) *v1beta1.BackupStatus {
	if spec == nil {
		return whileReplicating(last, f)
	}
	var next v1beta1.BackupStatus
	switch {
	case last == nil:
		next = firstBackup(f)
	case last.StartedAt != nil && f.empty:
		next = v1beta1.BackupStatus{Incarnation: newIncarnation(f), Previous: lastReplicated(last, f), RestoreDone: last.RestoreDone}
	default:
		next = *last
	}
	order := restoreOrder(spec)
	if next.RestoreDone != order {
		next.RestoreDone = ""
	}
	if next.StartedAt != nil {
		return &next
	}
	// What is written after a pod has begun is for the next one.
	if last == nil || !f.begun {
		planRestore(&next, spec, order)
	}
	if f.ready {
		now := metav1.NewTime(f.now).Rfc3339Copy()
		next.StartedAt = &now
		if last != nil && next.RestoredFrom == cmp.Or(spec.RestoreFrom, next.Previous) && next.RestoredTo == pointInTime(spec) {
			next.RestoreDone = order
		}
	}
	return &next
}

// planRestore decides what an empty volume is restored from. An order is carried out once.
func planRestore(next *v1beta1.BackupStatus, spec *v1beta1.BackupSpec, order string) {
	next.RestoredFrom, next.RestoredTo = next.Previous, ""
	switch {
	case spec.Restore == v1beta1.RestoreNever:
		next.RestoredFrom = ""
	case order != "" && next.RestoreDone == "":
		next.RestoredFrom, next.RestoredTo = cmp.Or(spec.RestoreFrom, next.Previous), pointInTime(spec)
	}
}

// whileReplicating is the incarnation of a backup that is turned off: the one before, until there
// is no pod any more that replicates to its path. A change that is held, or taken back, goes on
// with it.
func whileReplicating(last *v1beta1.BackupStatus, f *backupFacts) *v1beta1.BackupStatus {
	if f.replicating {
		return last
	}
	return nil
}

// firstBackup is the first incarnation that the status names. A volume on which Headscale ran
// before is sealed at once: whether its database is there must not depend on a replica that was
// never tried.
func firstBackup(f *backupFacts) v1beta1.BackupStatus {
	first := v1beta1.BackupStatus{Incarnation: cmp.Or(f.told, newIncarnation(f))}
	if f.onClaim != first.Incarnation {
		first.Previous = f.onClaim
	}
	if f.ran {
		now := metav1.NewTime(f.now).Rfc3339Copy()
		first.StartedAt = &now
	}
	return first
}

// lastReplicated is the incarnation that an empty volume is restored from. The claim still names
// the one before where Headscale was not ready with the last one.
func lastReplicated(last *v1beta1.BackupStatus, f *backupFacts) string {
	if f.onClaim != "" && f.onClaim == last.Previous {
		return f.onClaim
	}
	return last.Incarnation
}

// newIncarnation is a name that no other incarnation has, also not one of another Headscale. They
// sort by their age.
func newIncarnation(f *backupFacts) string {
	return strings.ToLower(f.now.UTC().Format("20060102t150405z")) + "-" + shorten(string(f.uid), len("00000000"))
}

// pointInTime is the time that a backup is to be restored to, or "" for the newest.
func pointInTime(spec *v1beta1.BackupSpec) string {
	if spec.Restore == v1beta1.RestoreWhenEmpty || spec.Restore == v1beta1.RestoreNever {
		return ""
	}
	return spec.Restore
}

// restoreOrder is what the spec says of the next restore that is done only once, or "".
func restoreOrder(spec *v1beta1.BackupSpec) string {
	return strings.Trim(spec.RestoreFrom+" "+pointInTime(spec), " ")
}

// syncBackup writes the incarnation of the database into the status before a pod learns of it: a
// pod must never replicate to a path that the operator would not find again.
func (r *Reconciler) syncBackup(ctx context.Context, s scope, o *observed) (v1beta1.BackupStatus, error) {
	if s.headscale.Spec.Backup == nil && s.headscale.Status.Backup == nil {
		return v1beta1.BackupStatus{}, nil
	}
	facts, err := r.backupFacts(ctx, s, o)
	if err != nil {
		return v1beta1.BackupStatus{}, err
	}
	statusOf := func(headscale *v1beta1.Headscale) any { return &headscale.Status }
	// What it is called with last is the newest that is known.
	_, _, err = status.Patch(ctx, r.Live, r.Client, s.headscale, FieldManager, statusOf, func(headscale *v1beta1.Headscale) {
		headscale.Status.Backup = nextBackup(s.headscale.Spec.Backup, headscale.Status.Backup, facts)
		o.backup = headscale.Status.Backup
	})
	if err != nil || o.backup == nil {
		return v1beta1.BackupStatus{}, err
	}
	return *o.backup, nil
}

// backupFacts gathers what the incarnation of the database follows from.
func (r *Reconciler) backupFacts(ctx context.Context, s scope, o *observed) (*backupFacts, error) {
	facts := &backupFacts{
		uid: s.headscale.UID, now: s.now, ran: lastVersion(s, *o) != "" || startedVersion(*o) != "", replicating: replicating(o),
		empty: o.pod != nil && resources.IsEmptyVolume(failedGate(o.pod)), ready: o.pod != nil && behindGate(o.pod),
		begun: o.pod != nil && (atGate(o.pod) || passedGate(o.pod)),
	}
	if o.claim != nil {
		facts.onClaim = o.claim.Annotations[resources.AnnotationBackupIncarnation]
	}
	if !facts.replicating || s.headscale.Status.Backup != nil {
		return facts, nil
	}
	plan, err := r.backupPlan(ctx, s)
	if plan != nil {
		facts.told = resources.TargetOf(plan.Data)
	}
	return facts, err
}

// backupPlan reads the ConfigMap of the backup; nil where there is none of this Headscale.
func (r *Reconciler) backupPlan(ctx context.Context, s scope) (*corev1.ConfigMap, error) {
	plan := &corev1.ConfigMap{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.headscale.Namespace, Name: resources.BackupName(s.headscale)}, plan)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading the ConfigMap of the backup: %w", err)
	case !metav1.IsControlledBy(plan, s.headscale):
		return nil, nil
	default:
		return plan, nil
	}
}

// replicating reports whether there is a pod with Litestream, or one is to be made. A pod that
// has no state of its containers yet is the StatefulSet's.
func replicating(o *observed) bool {
	if o.pod != nil && containerStatus(o.pod, resources.ContainerBackup) != nil {
		return true
	}
	return o.statefulSet != nil && slices.ContainsFunc(o.statefulSet.Spec.Template.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == resources.ContainerBackup
	})
}

// keepBackup goes on with the backup of a Headscale whose spec is refused: its pod runs, and what
// becomes of an empty volume must not stay what it was before Headscale was ready.
func (r *Reconciler) keepBackup(ctx context.Context, s scope, o *observed) error {
	if s.headscale.Status.Backup == nil {
		return nil
	}
	state, err := r.syncBackup(ctx, s, o)
	if err != nil || s.headscale.Spec.Backup == nil || o.backup == nil {
		return err
	}
	return errors.Join(r.replan(ctx, s, &state), r.labelBackup(ctx, o))
}

// replan changes of the ConfigMap of a backup only what becomes of an empty volume.
func (r *Reconciler) replan(ctx context.Context, s scope, state *v1beta1.BackupStatus) error {
	live, err := r.backupPlan(ctx, s)
	if live == nil {
		return err
	}
	changed := resources.RestorePlan(state)
	maps.DeleteFunc(changed, func(entry, value string) bool { return live.Data[entry] == value })
	if len(changed) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": live.UID}, "data": changed})
	if err != nil {
		return fmt.Errorf("encoding what becomes of an empty volume: %w", err)
	}
	target := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: live.Namespace, Name: live.Name}}
	err = r.Client.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldManager))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("changing ConfigMap %s: %w", live.Name, err)
	}
	return nil
}

// labelBackup notes the incarnation on the claim of the data volume, which outlives the
// Headscale and its status.
func (r *Reconciler) labelBackup(ctx context.Context, o *observed) error {
	if o.claim == nil || !o.claim.DeletionTimestamp.IsZero() || o.backup == nil || o.backup.StartedAt == nil || o.pod == nil || !behindGate(o.pod) {
		return nil
	}
	if o.claim.Annotations[resources.AnnotationBackupIncarnation] == o.backup.Incarnation {
		return nil
	}
	return r.patchClaim(ctx, o, map[string]any{"annotations": map[string]string{resources.AnnotationBackupIncarnation: o.backup.Incarnation}})
}

// pruneBackup deletes the ConfigMap of a backup that is turned off, once the pod does without it.
func (r *Reconciler) pruneBackup(ctx context.Context, s scope, o *observed) error {
	if s.headscale.Spec.Backup != nil || !o.applied || o.backup != nil {
		return nil
	}
	return apply.Delete[corev1.ConfigMap](ctx, r.Client, r.Client, s.headscale, resources.BackupName(s.headscale))
}

// failedGate is what the container printed that failed to restore a database, and "" where it
// passed, runs, or cannot be started.
func failedGate(pod *corev1.Pod) string {
	gate := containerStatus(pod, resources.ContainerRestore)
	if gate == nil || !pod.DeletionTimestamp.IsZero() || notMade(gate) {
		return ""
	}
	end := gate.State.Terminated
	if end == nil && gate.State.Running == nil {
		end = gate.LastTerminationState.Terminated
	}
	if end == nil || end.ExitCode == 0 {
		return ""
	}
	return cmp.Or(end.Message, end.Reason, "it printed nothing")
}

// notMade reports whether the kubelet cannot make a container, whatever an earlier one printed.
func notMade(container *corev1.ContainerStatus) bool {
	waiting := container.State.Waiting
	return waiting != nil && (slices.Contains(imageReasons, waiting.Reason) || slices.Contains(startReasons, waiting.Reason))
}

// atGate reports whether a pod is looking for its database.
func atGate(pod *corev1.Pod) bool {
	gate := containerStatus(pod, resources.ContainerRestore)
	return gate != nil && gate.State.Running != nil
}

// passedGate reports whether a pod has the database of its volume, or began an empty one.
func passedGate(pod *corev1.Pod) bool {
	gate := containerStatus(pod, resources.ContainerRestore)
	return gate != nil && gate.State.Terminated != nil && gate.State.Terminated.ExitCode == 0 && pod.DeletionTimestamp.IsZero()
}

// behindGate reports whether Headscale is ready in a pod that has the database of its volume.
func behindGate(pod *corev1.Pod) bool {
	container := containerStatus(pod, resources.ContainerHeadscale)
	return passedGate(pod) && container != nil && container.Ready
}

// stateOfRestore says why a pod waits for its database.
func stateOfRestore(pod *corev1.Pod, printed string) status.Condition {
	if resources.IsEmptyVolume(printed) {
		return status.False(v1beta1.ReasonProgressing, fmt.Sprintf("The data volume of pod %s has no database, and Litestream is about to restore one", pod.Name))
	}
	return status.False(v1beta1.ReasonRestoreFailed, fmt.Sprintf(
		"Pod %[1]s waits for its database, which Litestream neither found nor restored: %[2]s. It tries again; "+
			"Headscale does not start with an empty database unless spec.backup.restore is Never; kubectl logs %[1]s -c %[3]s tells more",
		pod.Name, redact.LastWords(printed), resources.ContainerRestore))
}

// backupWarnings say why the database of a Headscale that works is not replicated.
func backupWarnings(o observed) []string {
	if o.backup == nil || o.pod == nil {
		return nil
	}
	container := containerStatus(o.pod, resources.ContainerBackup)
	if container == nil {
		return nil
	}
	trouble := stateOfContainer(o.pod.Name, "Litestream", container)
	if trouble == nil {
		return nil
	}
	return []string{"the database is not backed up: " + trouble.Message}
}
