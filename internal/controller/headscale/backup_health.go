package headscale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/kube/metrics"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/redact"
	"infrado.cloud/headscale-operator/internal/resources"
)

const (
	// backupInterval is how often Litestream is asked, and backupRecheck how soon again where
	// that may change what is known.
	backupInterval, backupRecheck = 15 * time.Second, 5 * time.Second
	// maxBackupPage is how much of Litestream's metrics is read, in bytes; v0.5.10 has some 10,000.
	maxBackupPage = 256 << 10
)

// backupWatcher asks the Litestream of each Headscale again and again how the replication is, and
// triggers a reconcile when that has changed. It asks nobody else, and writes nothing. A nil
// backupWatcher asks nobody.
type backupWatcher struct {
	// ctx ends all requests.
	ctx    context.Context
	client *http.Client
	now    func() time.Time
	// events name the Headscales whose replication has changed.
	events chan event.GenericEvent
	// slots limit how many are asked at once.
	slots chan struct{}
	// interval and recheck are backupInterval and backupRecheck; tests change them.
	interval, recheck time.Duration

	lock sync.Mutex
	// watched are those that are asked, by their Headscales.
	watched map[client.ObjectKey]*watchedBackup
}

// watchedBackup is the Litestream of one pod.
type watchedBackup struct {
	pod    types.UID
	url    string
	cancel context.CancelFunc
	track  backupTrack
}

// newBackupWatcher returns a backupWatcher that asks until the context ends.
func newBackupWatcher(ctx context.Context, now func() time.Time) *backupWatcher {
	return &backupWatcher{
		ctx: ctx, now: now, interval: backupInterval, recheck: backupRecheck,
		client: &http.Client{
			Timeout:       probeTimeout,
			Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxProbeHeaders},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		events:  make(chan event.GenericEvent),
		slots:   make(chan struct{}, maxConcurrentProbes),
		watched: map[client.ObjectKey]*watchedBackup{},
	}
}

// about returns what is known of the Litestream in the pod of a Headscale, which is asked from now on.
func (w *backupWatcher) about(headscale *v1beta1.Headscale, pod *corev1.Pod) backupTrack {
	if w == nil {
		return backupTrack{}
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	url := "http://" + net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(resources.BackupPort)) + "/metrics"
	key := client.ObjectKeyFromObject(headscale)
	known := w.watched[key]
	if known != nil && known.pod == pod.UID && known.url == url {
		return known.track
	}
	if known != nil {
		known.cancel()
	}
	watched := &watchedBackup{pod: pod.UID, url: url}
	said := meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionBackedUp)
	if known == nil && said != nil && said.Reason == v1beta1.ReasonNotReplicating {
		watched.track = doubt(said.LastTransitionTime.Time)
	}
	watched.track.syncInterval = syncIntervalOf(headscale)
	var ctx context.Context
	ctx, watched.cancel = context.WithCancel(w.ctx)
	w.watched[key] = watched
	go w.watch(ctx, key, watched)
	return watched.track
}

// forget stops asking the Litestream of a Headscale.
func (w *backupWatcher) forget(headscale client.ObjectKey) {
	if w == nil {
		return
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	if known := w.watched[headscale]; known != nil {
		known.cancel()
		delete(w.watched, headscale)
	}
}

// known is what is known of the Litestream of a Headscale; nothing where it is not asked.
func (w *backupWatcher) known(headscale client.ObjectKey) backupTrack {
	if w == nil {
		return backupTrack{}
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	if known := w.watched[headscale]; known != nil {
		return known.track
	}
	return backupTrack{}
}

// watch asks one Litestream until the context ends.
func (w *backupWatcher) watch(ctx context.Context, headscale client.ObjectKey, watched *watchedBackup) {
	for {
		reading, err := w.ask(ctx, watched.url)
		if ctx.Err() != nil {
			return
		}
		w.lock.Lock()
		before := watched.track.state
		if err != nil {
			watched.track.miss(w.now())
		} else {
			watched.track.read(reading)
		}
		changed, wait := watched.track.state != before, w.interval
		if !watched.track.settled() {
			wait = w.recheck
		}
		w.lock.Unlock()
		if changed && !w.tell(ctx, headscale) {
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// tell triggers a reconcile. It reports false where the context ends.
func (w *backupWatcher) tell(ctx context.Context, headscale client.ObjectKey) bool {
	object := &v1beta1.Headscale{}
	object.Namespace, object.Name = headscale.Namespace, headscale.Name
	select {
	case w.events <- event.GenericEvent{Object: object}:
		return true
	case <-ctx.Done():
		return false
	}
}

// ask reads the metrics of a Litestream.
func (w *backupWatcher) ask(ctx context.Context, url string) (reading backupReading, err error) {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return reading, ctx.Err()
	}
	defer func() { <-w.slots }()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return reading, err
	}
	response, err := w.client.Do(request)
	if err != nil {
		return reading, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	page, err := io.ReadAll(io.LimitReader(response.Body, maxBackupPage))
	if err != nil {
		return reading, err
	}
	reading, isOne := parseBackupReading(page)
	if response.StatusCode != http.StatusOK || !isOne {
		return reading, fmt.Errorf("what answers at %s with status %d is not Litestream", url, response.StatusCode)
	}
	reading.at = w.now()
	return reading, nil
}

// observeBackup asks the Litestream of a pod that runs one how the replication is.
func (r *Reconciler) observeBackup(s scope, o *observed) {
	if o.pod == nil || o.pod.Status.PodIP == "" || !o.pod.DeletionTimestamp.IsZero() || !litestreamRuns(o.pod) {
		r.backups.forget(client.ObjectKeyFromObject(s.headscale))
		return
	}
	o.replication = r.backups.about(s.headscale, o.pod)
}

// syncIntervalOf is how long Litestream waits between two files; zero: not longer than it does by default.
func syncIntervalOf(headscale *v1beta1.Headscale) time.Duration {
	if headscale.Spec.Backup == nil {
		return 0
	}
	return resources.SyncInterval(&headscale.Spec.Backup.Replica)
}

// litestreamRuns reports whether Litestream replicates in a pod.
func litestreamRuns(pod *corev1.Pod) bool {
	container := containerStatus(pod, resources.ContainerBackup)
	return container != nil && container.State.Running != nil
}

// backedUp is the condition BackedUp, or nil where there is no backup. It is a function of its
// arguments alone.
func backedUp(s scope, o observed) *metav1.Condition {
	if s.headscale.Spec.Backup == nil && (o.pod == nil || containerStatus(o.pod, resources.ContainerBackup) == nil) {
		return nil
	}
	unknown := func(reason, format string, arguments ...any) *metav1.Condition {
		return &metav1.Condition{Status: metav1.ConditionUnknown, Reason: reason, Message: fmt.Sprintf(format, arguments...)}
	}
	switch trouble := troubleOfBackup(o); {
	case trouble != "":
		return &metav1.Condition{Status: metav1.ConditionFalse, Reason: v1beta1.ReasonBackupNotRunning, Message: trouble}
	case stopped(s.headscale) && o.pod == nil:
		return unknown(v1beta1.ReasonScaledToZero, "Headscale is scaled to zero, and Litestream with it")
	case o.pod == nil || !litestreamRuns(o.pod) || !o.pod.DeletionTimestamp.IsZero():
		return unknown(v1beta1.ReasonProgressing, "Litestream is not running yet")
	}
	return replication(s, o)
}

// troubleOfBackup says why the container of Litestream does not run, or "".
func troubleOfBackup(o observed) string {
	if o.pod == nil || !o.pod.DeletionTimestamp.IsZero() {
		return ""
	}
	container := containerStatus(o.pod, resources.ContainerBackup)
	if container == nil {
		return ""
	}
	trouble := stateOfContainer(o.pod.Name, "Litestream", container)
	if trouble == nil {
		return ""
	}
	return "The database is not backed up: " + trouble.Message
}

// replication is the condition BackedUp where Litestream runs.
func replication(s scope, o observed) *metav1.Condition {
	pod, track := o.pod.Name, &o.replication
	condition := &metav1.Condition{Status: metav1.ConditionUnknown}
	switch {
	case track.state == backupUnknown:
		condition.Reason, condition.Message = v1beta1.ReasonProgressing, fmt.Sprintf("Litestream in pod %s is being asked", pod)
	case track.state == backupUnreachable:
		condition.Reason, condition.Message = v1beta1.ReasonMetricsUnreachable, fmt.Sprintf(
			"Unknown whether Litestream in pod %s replicates: the operator cannot read its metrics at port %d of the pod; does a NetworkPolicy forbid it?", pod, resources.BackupPort)
	case s.headscale.Spec.Backup != nil && !resources.CountsUploads(s.headscale.Spec.Backup.Replica.Type):
		condition.Reason, condition.Message = v1beta1.ReasonNotMeasured, fmt.Sprintf(
			"Litestream in pod %[1]s runs, and does not count what it writes to a replica of type %[2]s; kubectl logs %[1]s -c %[3]s tells of errors", pod, s.headscale.Spec.Backup.Replica.Type, resources.ContainerBackup)
	case track.state == backupBegins:
		condition.Status, condition.Reason = metav1.ConditionFalse, v1beta1.ReasonProgressing
		condition.Message = fmt.Sprintf("Litestream in pod %s has not replicated anything since it was started", pod)
	case track.state == backupBehind:
		condition.Status, condition.Reason = metav1.ConditionFalse, v1beta1.ReasonNotReplicating
		condition.Message = fmt.Sprintf("The changes %s are not in the backup: Litestream in pod %s cannot write to its storage, "+
			"which cannot be reached, is full, or refuses the credentials. It tries again at least every 5 minutes, and Headscale runs; kubectl logs %[2]s -c %[3]s tells more",
			sinceOf(track.complete, "of the database"), pod, resources.ContainerBackup)
	case track.state == backupBlind:
		condition.Status, condition.Reason = metav1.ConditionFalse, v1beta1.ReasonNotReplicating
		condition.Message = fmt.Sprintf("The changes %s are not in the backup: Litestream in pod %s fails to read the database; kubectl logs %[2]s -c %[3]s tells why",
			sinceOf(track.complete, "of the database"), pod, resources.ContainerBackup)
	default:
		condition.Status, condition.Reason = metav1.ConditionTrue, v1beta1.ReasonReplicating
		condition.Message = fmt.Sprintf("Litestream in pod %s replicates the database", pod)
	}
	return condition
}

// sinceOf says since when, or something else where that is not known.
func sinceOf(at time.Time, otherwise string) string {
	if at.IsZero() {
		return otherwise
	}
	return "since " + text(at)
}

// withVerification is the condition with what a restore of the backup has shown. failed is when it was first seen that
// changes do not reach the storage; zero: that is not known.
func withVerification(condition *metav1.Condition, last *v1beta1.BackupVerification, failed time.Time) *metav1.Condition {
	switch {
	case last == nil:
	case last.Outcome == v1beta1.VerificationFailed && slices.Contains([]string{v1beta1.ReasonReplicating, v1beta1.ReasonNotMeasured}, condition.Reason):
		return &metav1.Condition{Status: metav1.ConditionFalse, Reason: v1beta1.ReasonVerificationFailed, Message: fmt.Sprintf(
			"The last verification of the backup failed: %s. It is tried again; do not delete the volume, nor an older backup", last.Message)}
	case last.Outcome == v1beta1.VerificationFailed && condition.Reason == v1beta1.ReasonNotReplicating:
		condition.Message += ". The last verification of the backup failed, too: " + last.Message
	case last.Outcome == v1beta1.VerificationPassed && condition.Reason == v1beta1.ReasonNotReplicating && !failed.IsZero() &&
		last.VerifiedAt != nil && last.VerifiedAt.After(failed):
		condition.Message += fmt.Sprintf(". At %s the storage could be read, so it is full, or these credentials may not write", text(last.VerifiedAt.Time))
	case last.Outcome == v1beta1.VerificationPassed && condition.Reason == v1beta1.ReasonNotMeasured:
		return &metav1.Condition{Status: metav1.ConditionTrue, Reason: v1beta1.ReasonVerified, Message: fmt.Sprintf(
			"The backup was restored and checked at %s. %s", text(last.EndedAt.Time), condition.Message)}
	case last.Outcome == v1beta1.VerificationUnknown:
		condition.Message += ". It could not be verified that it can be restored: " + last.Message
	}
	return condition
}

// setBackedUp sets the condition BackedUp, or removes it where there is no backup.
func setBackedUp(conditions *[]metav1.Condition, verification *v1beta1.BackupVerification, s scope, o observed) {
	condition := backedUp(s, o)
	if condition == nil {
		meta.RemoveStatusCondition(conditions, v1beta1.ConditionBackedUp)
		return
	}
	condition = withVerification(condition, verification, o.replication.trouble())
	if said := meta.FindStatusCondition(*conditions, v1beta1.ConditionBackedUp); said != nil && notAskedYet(o) && slices.Contains(measuredReasons, said.Reason) {
		condition = said.DeepCopy()
	}
	condition.Type, condition.ObservedGeneration = v1beta1.ConditionBackedUp, s.headscale.Generation
	condition.LastTransitionTime = metav1.NewTime(s.now.Truncate(time.Second))
	condition.Message = redact.Line(condition.Message, maxBackupMessage)
	meta.SetStatusCondition(conditions, *condition)
}

// measuredReasons are those that follow from what Litestream said, or did not say.
var measuredReasons = []string{
	v1beta1.ReasonReplicating, v1beta1.ReasonNotReplicating, v1beta1.ReasonMetricsUnreachable, v1beta1.ReasonNotMeasured,
	v1beta1.ReasonVerified, v1beta1.ReasonVerificationFailed,
}

// notAskedYet reports whether Litestream runs and this operator has not asked it yet, so that what
// was known before, by another operator, still counts.
func notAskedYet(o observed) bool {
	return troubleOfBackup(o) == "" && o.pod != nil && o.pod.DeletionTimestamp.IsZero() && litestreamRuns(o.pod) && o.replication.state == backupUnknown
}

// maxBackupMessage is how much the condition says, in bytes.
const maxBackupMessage = 4 << 10

// backupReasons are the reasons of BackedUp that are worth a warning event.
var backupReasons = []string{v1beta1.ReasonNotReplicating, v1beta1.ReasonBackupNotRunning, v1beta1.ReasonMetricsUnreachable, v1beta1.ReasonVerificationFailed}

// backupEvents are the events of a change of the condition BackedUp.
func backupEvents(before, after []metav1.Condition) []status.Event {
	events := status.Warnings(before, after, []string{v1beta1.ConditionBackedUp}, backupReasons)
	was, is := status.ReasonOf(before, v1beta1.ConditionBackedUp), meta.FindStatusCondition(after, v1beta1.ConditionBackedUp)
	if is != nil && is.Status == metav1.ConditionTrue && is.Reason != was {
		events = append(events, status.Event{Reason: is.Reason, Note: is.Message})
	}
	return events
}

// exposeBackup exposes how far the backup of a Headscale is, where Litestream says so.
func (r *Reconciler) exposeBackup(headscale *v1beta1.Headscale, gauge metrics.Gauge) {
	if last := headscale.Status.BackupVerification; last != nil && last.VerifiedAt != nil {
		gauge(verifiedDesc, float64(last.VerifiedAt.Unix()))
	}
	backup := headscale.Spec.Backup
	if backup == nil || !resources.CountsUploads(backup.Replica.Type) {
		return
	}
	track := r.backups.known(client.ObjectKeyFromObject(headscale))
	if !track.lastSync.IsZero() {
		gauge(lastSyncDesc, float64(track.lastSync.Unix()))
	}
	if !track.last.at.IsZero() {
		gauge(pendingDesc, track.pending())
	}
}
