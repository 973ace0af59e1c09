package headscale

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
	"infrado.cloud/headscale-operator/internal/kube/apply"
	"infrado.cloud/headscale-operator/internal/kube/status"
	"infrado.cloud/headscale-operator/internal/resources"
)

// kstatus judges a Headscale by the rules that kstatus has published for resources of
// any kind: an old generation, then Reconciling, Stalled and Ready, in this order.
func kstatus(headscale *v1beta1.Headscale) string {
	conditions := headscale.Status.Conditions
	switch {
	case !headscale.DeletionTimestamp.IsZero():
		return "Terminating"
	case headscale.Status.ObservedGeneration != headscale.Generation:
		return "InProgress"
	case meta.IsStatusConditionTrue(conditions, "Reconciling"):
		return "InProgress"
	case meta.IsStatusConditionTrue(conditions, "Stalled"):
		return "Failed"
	case meta.FindStatusCondition(conditions, "Ready") != nil && !meta.IsStatusConditionTrue(conditions, "Ready"):
		return "InProgress"
	default:
		return "Current"
	}
}

// upToDate is the situation of a Headscale that is as it should be, and was for a day.
func upToDate() *situation {
	p := atWork()
	p.headscale.Generation = 2
	p.pod.Labels = map[string]string{appsv1.ControllerRevisionHashLabelKey: "one"}
	p.pod.CreationTimestamp = ago(24 * time.Hour)
	p.statefulSet = &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "headscale", Generation: 1},
		Status:     appsv1.StatefulSetStatus{ObservedGeneration: 1, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1, UpdateRevision: "one"},
	}
	return p
}

// down is the situation of a Headscale that has not been available for some time.
func down(since time.Duration, containers ...corev1.ContainerStatus) *situation {
	p := upToDate()
	p.pod.Status.ContainerStatuses = containers
	p.headscale.Status.Conditions[0] = metav1.Condition{Type: v1beta1.ConditionAvailable, Status: metav1.ConditionFalse, Reason: v1beta1.ReasonProgressing, LastTransitionTime: ago(since)}
	return p
}

// keyless is the situation of a Headscale whose key is not good, and has not been for some time.
func keyless(since time.Duration, change func(*situation)) *situation {
	p := upToDate()
	p.headscale.Status.Conditions[1] = metav1.Condition{Type: v1beta1.ConditionAPIKeyReady, Status: metav1.ConditionFalse, Reason: v1beta1.ReasonKeyPending, LastTransitionTime: ago(since)}
	change(p)
	return p
}

// changed is a situation after something about it has changed.
func changed(p *situation, change func(*situation)) *situation {
	change(p)
	return p
}

func TestWhenAMissingPodIsLookedForAgain(t *testing.T) {
	for name, test := range map[string]struct {
		since     time.Duration
		forbidden bool
		want      time.Duration
	}{
		"soon, at first":                   {time.Second, false, pollEvents},
		"later, when nothing is said":      {startGrace, false, pollEventsSlowly},
		"later, when it has lasted long":   {progressDeadline, false, pollEventsSlowly},
		"when it counts as trouble, blind": {time.Second, true, startGrace - time.Second},
		"when it counts as stalled, blind": {startGrace, true, progressDeadline - startGrace},
		"never, when that is said, blind":  {progressDeadline, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := changed(down(test.since), lastSaid(test.since))
			p.pod, p.eventsForbidden = nil, test.forbidden
			NewWithT(t).Expect(status.RequeueAfter(p.now, availability(p.scope, p.observed).ChangesAt, nil)).To(Equal(test.want))
		})
	}
}

func TestKstatusOfEveryReason(t *testing.T) {
	seen := map[string]bool{}
	for _, cases := range []map[string]kstatusCase{kstatusOfErrors(), kstatusOfStarts(), kstatusOfMissingPods(), kstatusOfKeys(), kstatusOfBackups()} {
		for name, test := range cases {
			t.Run(name, func(t *testing.T) { test.check(NewWithT(t), seen) })
		}
	}
	for _, reason := range everyReason(t) {
		NewWithT(t).Expect(seen).To(HaveKey(reason), "every reason is in the table")
	}
}

// What kstatus says.
const (
	current    = "Current"
	inProgress = "InProgress"
	failed     = "Failed"
)

// How long something has lasted: not long, or too long.
const (
	moment = time.Second
	long   = progressDeadline
)

// kstatusCase is a situation, and the reason and status that it has.
type kstatusCase struct {
	situation *situation
	err       error
	reason    string
	want      string
}

// check judges the situation, and adds the reasons of all its conditions to those that were seen.
func (c *kstatusCase) check(g *WithT, seen map[string]bool) {
	headscale := judged(c.situation, c.err)
	conditions := headscale.Status.Conditions
	g.Expect(meta.FindStatusCondition(conditions, v1beta1.ConditionReady).Reason).To(Equal(c.reason))
	g.Expect(kstatus(headscale)).To(Equal(c.want))
	for _, condition := range conditions {
		seen[condition.Reason] = true
		g.Expect(condition.ObservedGeneration).To(Equal(headscale.Generation))
	}
	g.Expect(meta.IsStatusConditionTrue(conditions, v1beta1.ConditionReconciling)).To(Equal(meta.IsStatusConditionTrue(conditions, v1beta1.ConditionProgressing)))
	if c.want == failed {
		g.Expect(meta.IsStatusConditionTrue(conditions, v1beta1.ConditionProgressing)).To(BeFalse())
	}
}

// kstatusOfErrors are cases of a reconcile that ends with an error, or without anything to say.
func kstatusOfErrors() map[string]kstatusCase {
	return map[string]kstatusCase{
		"all is well":                   {upToDate(), nil, v1beta1.ReasonReady, current},
		"no key is managed":             {changed(upToDate(), func(p *situation) { p.headscale.Spec.APIKey.AutoManage = new(false) }), nil, v1beta1.ReasonReady, current},
		"a name that is taken":          {upToDate(), &apply.ForeignError{Owner: &v1beta1.Headscale{}, Objects: []string{"Role x"}}, v1beta1.ReasonConflict, failed},
		"a spec that cannot be":         {upToDate(), &resources.InvalidError{Field: "config"}, v1beta1.ReasonInvalidConfig, failed},
		"a version that cannot be":      {upToDate(), &resources.UpgradeError{}, v1beta1.ReasonUpgradeRefused, failed},
		"a volume that grows":           {upToDate(), &status.WaitError{Because: v1beta1.ReasonVolumeWaiting, Message: "wait"}, v1beta1.ReasonVolumeWaiting, inProgress},
		"a change whose preflight runs": {upToDate(), &heldError{reason: v1beta1.ReasonProgressing, waiting: true}, v1beta1.ReasonProgressing, inProgress},
		"a change that is refused":      {upToDate(), &heldError{reason: v1beta1.ReasonInvalidConfig}, v1beta1.ReasonInvalidConfig, failed},
		"inconclusive so far":           {upToDate(), &heldError{reason: v1beta1.ReasonPreflightUnknown, waiting: true}, v1beta1.ReasonPreflightUnknown, inProgress},
		"inconclusive for too long":     {upToDate(), &heldError{reason: v1beta1.ReasonPreflightUnknown}, v1beta1.ReasonPreflightUnknown, failed},
		"an API server that is away":    {upToDate(), errors.New("away"), v1beta1.ReasonReconcileFailed, inProgress},
	}
}

// kstatusOfStarts are cases of a pod that starts, or does not.
func kstatusOfStarts() map[string]kstatusCase {
	oldPod := func(p *situation) { p.pod.Labels[appsv1.ControllerRevisionHashLabelKey] = "zero" }
	starting, invalidImage := waiting(server, "ContainerCreating", ""), waiting(server, "InvalidImageName", "")
	noImage, noConfig := waiting(server, "ImagePullBackOff", ""), waiting(server, "CreateContainerConfigError", "")
	return map[string]kstatusCase{
		"nothing made yet":              {changed(down(moment), func(p *situation) { p.statefulSet, p.pod = nil, nil }), nil, v1beta1.ReasonProgressing, inProgress},
		"starting":                      {down(moment, starting), nil, v1beta1.ReasonProgressing, inProgress},
		"starting for too long":         {down(long, starting), nil, v1beta1.ReasonProgressing, failed},
		"being replaced":                {changed(upToDate(), oldPod), nil, v1beta1.ReasonProgressing, inProgress},
		"the broken pod being replaced": {changed(down(long, invalidImage), oldPod), nil, v1beta1.ReasonImagePullFailed, inProgress},
		"a new pod after a broken one":  {changed(down(long, starting), func(p *situation) { p.pod.CreationTimestamp = ago(moment) }), nil, v1beta1.ReasonProgressing, inProgress},
		"stopped": {changed(down(long), func(p *situation) {
			p.headscale.Spec.Replicas, p.pod, p.statefulSet.Status.Replicas = new(int32(0)), nil, 0
		}), nil, v1beta1.ReasonScaledToZero, inProgress},
		"crashing":               {down(moment, crashed(server, "no")), nil, v1beta1.ReasonCrashing, inProgress},
		"crashing for long":      {down(long, crashed(server, "no")), nil, v1beta1.ReasonCrashing, failed},
		"no restore":             {down(moment, waiting(server, "PodInitializing", ""), crashed(resources.ContainerRestore, "no")), nil, v1beta1.ReasonRestoreFailed, inProgress},
		"no restore for long":    {down(long, waiting(server, "PodInitializing", ""), crashed(resources.ContainerRestore, "no")), nil, v1beta1.ReasonRestoreFailed, failed},
		"not answering":          {down(moment, started(ago(startLimit))), nil, v1beta1.ReasonNotAnswering, inProgress},
		"not answering for long": {down(long, started(ago(startLimit))), nil, v1beta1.ReasonNotAnswering, failed},
		"no image":               {down(moment, noImage), nil, v1beta1.ReasonImagePullFailed, inProgress},
		"no image for long":      {down(long, noImage), nil, v1beta1.ReasonImagePullFailed, failed},
		"an image that is none":  {down(moment, invalidImage), nil, v1beta1.ReasonImagePullFailed, failed},
		"no config":              {down(moment, noConfig), nil, v1beta1.ReasonCannotStart, inProgress},
		"no config for long":     {down(long, noConfig), nil, v1beta1.ReasonCannotStart, failed},
	}
}

// kstatusOfMissingPods are cases of a pod that has no node or no volume, or that there is not.
func kstatusOfMissingPods() map[string]kstatusCase {
	noPod := func(p *situation) { p.pod = nil }
	with := func(kind string, since time.Duration) func(*situation) {
		return func(p *situation) {
			p.headscale.Status.Conditions = append(p.headscale.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, LastTransitionTime: ago(since)})
		}
	}
	cutOff := func(p *situation) {
		p.pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue}}
	}
	evicted := func(p *situation) { p.pod.Status.Phase, p.pod.Status.Reason = corev1.PodFailed, "Evicted" }
	unbound := func(p *situation) { p.claim = &corev1.PersistentVolumeClaim{} }
	unscheduled := func(p *situation) {
		p.pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}}
	}
	return map[string]kstatusCase{
		"no node":                    {changed(down(moment), unscheduled), nil, v1beta1.ReasonUnschedulable, inProgress},
		"no node for long":           {changed(down(long), unscheduled), nil, v1beta1.ReasonUnschedulable, failed},
		"no volume":                  {changed(changed(down(moment), unbound), func(p *situation) { p.pod.CreationTimestamp = ago(time.Minute) }), nil, v1beta1.ReasonVolumePending, inProgress},
		"no volume for long":         {changed(down(long), unbound), nil, v1beta1.ReasonVolumePending, failed},
		"a lost volume":              {changed(changed(down(moment), unbound), func(p *situation) { p.claim.Status.Phase = corev1.ClaimLost }), nil, v1beta1.ReasonVolumePending, failed},
		"no pod":                     {changed(changed(down(time.Minute), noPod), lastSaid(time.Minute)), nil, v1beta1.ReasonPodMissing, inProgress},
		"no pod for long":            {changed(changed(down(long), noPod), lastSaid(long)), nil, v1beta1.ReasonPodMissing, failed},
		"no pod, without times":      {changed(changed(down(time.Minute), noPod), with(v1beta1.ConditionProgressing, time.Minute)), nil, v1beta1.ReasonPodMissing, inProgress},
		"no pod for long, without":   {changed(changed(down(long), noPod), with(v1beta1.ConditionProgressing, long)), nil, v1beta1.ReasonPodMissing, failed},
		"no pod for longer, without": {changed(changed(down(long), noPod), with(v1beta1.ConditionStalled, moment)), nil, v1beta1.ReasonPodMissing, failed},
		"a pod that was refused":     {changed(down(moment), evicted), nil, v1beta1.ReasonPodFailed, inProgress},
		"pods refused for long":      {changed(down(long), evicted), nil, v1beta1.ReasonPodFailed, failed},
		"a lost node":                {changed(down(moment), cutOff), nil, v1beta1.ReasonNodeLost, inProgress},
		"a node lost for long":       {changed(down(long), cutOff), nil, v1beta1.ReasonNodeLost, failed},
	}
}

// kstatusOfKeys are cases of the API key, and of its manager.
func kstatusOfKeys() map[string]kstatusCase {
	noSecret := func(p *situation) { p.secret = nil }
	expired := func(p *situation) { p.secret.Annotations[v1beta1.AnnotationExpiration] = podNow.Format(time.RFC3339) }
	return map[string]kstatusCase{
		"no key":                     {keyless(moment, noSecret), nil, v1beta1.ReasonKeyPending, inProgress},
		"no key for a minute":        {keyless(failingAfter, noSecret), nil, v1beta1.ReasonRotationFailing, inProgress},
		"no key for long":            {keyless(long, noSecret), nil, v1beta1.ReasonRotationFailing, failed},
		"an expired key":             {keyless(moment, expired), nil, v1beta1.ReasonKeyExpired, inProgress},
		"a key expired for long":     {keyless(long, expired), nil, v1beta1.ReasonKeyExpired, failed},
		"somebody's Secret":          {keyless(moment, func(p *situation) { p.secret.Labels = nil }), nil, v1beta1.ReasonConflict, failed},
		"no key and no manager":      {keyless(moment, func(p *situation) { noSecret(p); p.pod.Status.ContainerStatuses[1] = crashed(sidecar, "no") }), nil, v1beta1.ReasonManagerFailing, inProgress},
		"neither of them for long":   {keyless(long, func(p *situation) { noSecret(p); p.pod.Status.ContainerStatuses[1] = crashed(sidecar, "no") }), nil, v1beta1.ReasonManagerFailing, failed},
		"a late key":                 {changed(upToDate(), func(p *situation) { p.now = podNow.Add(250 * time.Hour) }), nil, v1beta1.ReasonKeyOverdue, current},
		"a key that is not replaced": {changed(upToDate(), func(p *situation) { p.secret.Annotations[v1beta1.AnnotationPending] = asked(time.Minute) }), nil, v1beta1.ReasonRotationFailing, current},
		"a key and no manager":       {changed(upToDate(), func(p *situation) { p.pod.Status.ContainerStatuses[1] = crashed(sidecar, "no") }), nil, v1beta1.ReasonManagerFailing, current},
	}
}

// judged is a Headscale with the status that a situation gives it.
func judged(p *situation, err error) *v1beta1.Headscale {
	headscale := p.headscale.DeepCopy()
	describeStatus(&headscale.Status, p.scope, p.observed, judge(p.scope, p.observed, status.Classify(err)))
	return headscale
}

// lastSaid is a StatefulSet without a pod, of which nothing new was said for some time.
func lastSaid(before time.Duration) func(*situation) {
	return func(p *situation) {
		at := ago(before)
		p.statefulSet.ManagedFields = []metav1.ManagedFieldsEntry{{Subresource: "status", Time: &at}}
		p.statefulSet.Status.Replicas, p.statefulSet.Status.UpdatedReplicas = 0, 0
	}
}

// everyReason lists the values of the constants whose names begin with Reason, but those of
// what exists within a Headscale, such as a HeadscaleUser.
func everyReason(t *testing.T) []string {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "..", "api", "v1beta1", "conditions.go"), nil, parser.ParseComments)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	var values []string
	ast.Inspect(file, func(node ast.Node) bool {
		if group, ok := node.(*ast.GenDecl); ok {
			about := group.Doc.Text()
			return !strings.Contains(about, "within a Headscale") && !strings.Contains(about, "besides those")
		}
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
			value, err := strconv.Unquote(literal.Value)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			values = append(values, value)
		}
		return true
	})
	NewWithT(t).Expect(values).NotTo(BeEmpty())
	return values
}

var _ = Describe("For Argo CD and Flux, a Headscale", func() {
	live := func(ctx context.Context, o *operator) func(Gomega) string {
		return func(g Gomega) string { return kstatus(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(g)) }
	}

	It("is in progress until it is ready, and again while it is being changed", func(ctx context.Context) {
		o := startOperator(ctx)
		o.stop()
		Expect(create(ctx, o.namespace, shortest)).To(Succeed())
		Expect(live(ctx, o)(NewGomega(Fail))).To(Equal("InProgress"), "no operator has seen it")

		o = startOperatorIn(o.namespace)
		progressing := condition(ctx, o.namespace, "headscale", v1beta1.ConditionProgressing)
		Eventually(progressing).WithContext(ctx).Should(be("True", v1beta1.ReasonProgressing, ""))
		Expect(live(ctx, o)(NewGomega(Fail))).To(Equal("InProgress"))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(progressing).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyPending, ""))
		Expect(live(ctx, o)(NewGomega(Fail))).To(Equal("InProgress"))
		Expect(admin.Create(ctx, keySecret(o.namespace, "headscale-api-key", o.time().Add(v1beta1.DefaultExpiration)))).To(Succeed())
		Eventually(live(ctx, o)).WithContext(ctx).Should(Equal("Current"))
		Expect(progressing(NewGomega(Fail))).To(be("False", v1beta1.ReasonComplete, ""))

		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {log: {level: debug}}}}`)).To(Succeed())
		Expect(live(ctx, o)(NewGomega(Fail))).To(Equal("InProgress"))
		Eventually(condition(ctx, o.namespace, "headscale", v1beta1.ConditionReconciling)).WithContext(ctx).Should(be("True", v1beta1.ReasonProgressing, "is being replaced"))
		Expect(live(ctx, o)(NewGomega(Fail))).To(Equal("InProgress"))
		runPod(ctx, o.namespace, "headscale", 1)
		Eventually(live(ctx, o)).WithContext(ctx).Should(Equal("Current"))
		Expect(get[v1beta1.Headscale](ctx, o.namespace, "headscale")(NewGomega(Fail)).Status.Conditions).NotTo(
			ContainElement(HaveField("Type", BeElementOf(v1beta1.ConditionReconciling, v1beta1.ConditionStalled))))
	})

	It("has failed where only the user can help", func(ctx context.Context) {
		o := startOperator(ctx)
		Expect(create(ctx, o.namespace, shortest+"    acl_policy_path: /policy.hujson\n")).To(Succeed())
		Eventually(live(ctx, o)).WithContext(ctx).Should(Equal("Failed"))
		Expect(condition(ctx, o.namespace, "headscale", v1beta1.ConditionProgressing)(NewGomega(Fail))).To(be("False", v1beta1.ReasonInvalidConfig, "spec.config.acl_policy_path"))
		Expect(patch(ctx, o.namespace, "headscale", `{spec: {config: {acl_policy_path: null}}}`)).To(Succeed())
		Eventually(live(ctx, o)).WithContext(ctx).Should(Equal("InProgress"))
	})

	It("shows an overdue key within a minute, without anyone touching it", func(ctx context.Context) {
		o := startOperator(ctx)
		o.advance(keystate.OverdueAfter - 3*time.Second)
		secret := keySecret(o.namespace, "headscale-api-key", time.Now().Add(time.Hour))
		Expect(admin.Create(ctx, secret)).To(Succeed())
		Expect(create(ctx, o.namespace, shortest+"  api_key: {expiration: 2h, rotation_buffer: 1h}\n")).To(Succeed())
		key := condition(ctx, o.namespace, "headscale", v1beta1.ConditionAPIKeyReady)
		Eventually(key).WithContext(ctx).Should(be("True", v1beta1.ReasonKeyOverdue, ""))
	})
})
