package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// fieldManager is the name under which the operator owns fields.
const fieldManager = "headscale-operator"

const (
	// reconcileTimeout ends a reconcile that hangs. A policy is sent, and another one after a refusal, each of
	// which may take half a minute.
	reconcileTimeout = 2 * time.Minute
	// refusedRetry is how long until a policy is tried again that Headscale refused: that may depend
	// on what else it has. It is long, because a release is in danger of using it meanwhile.
	refusedRetry = 10 * time.Minute
	// fileRetry is how long until a policy is sent again to a pod that still reads a file, if the pod that
	// replaces it has not woken the reconcile before. Until then, that one allows everything.
	fileRetry = 5 * time.Second
	// lateRetry is how long the cache is given to catch up, if no event ends that before.
	lateRetry = 100 * time.Millisecond
)

// What the operator may do with HeadscalePolicies.
//
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscalepolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscalepolicies/status,verbs=patch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscales,verbs=get;list;watch
// +kubebuilder:rbac:groups=headscale.infrado.cloud,resources=headscales/status,verbs=patch

// Reconciler reconciles the HeadscalePolicies of a Headscale with its policy. A request names the
// Headscale.
type Reconciler struct {
	// Client reads from the cache, and writes.
	Client client.Client
	// Live reads from the API server. No status is written before it was asked.
	Live client.Reader
	// Instances leads to the Headscales.
	Instances *instance.Instances
	// Now is the clock.
	Now func() time.Time
	// Events takes the events for users; left out, those of the manager.
	Events status.Recorder

	// kind is what Instances know of HeadscalePolicies; made by SetupWithManager.
	kind *instance.Kind

	lock sync.Mutex
	// known are the Headscales that have, or just had, HeadscalePolicies.
	known map[client.ObjectKey]memory
}

// scope is what one reconcile is about.
type scope struct {
	key      client.ObjectKey
	now      time.Time
	instance *instance.Instance
	memory   memory
	// place is that among those that wait for the Headscale; nil: there is none.
	place    *instance.Place
	policies []*v1beta1.HeadscalePolicy
	// done is what was decided, and came of it.
	done *decision
	// unknown is whether it is not known what became of a policy that was sent, or what is stored was refused
	// when it was sent again: v0.29.3 may have another one in memory. It is sent again later. Known is that
	// it has in memory what it has stored.
	unknown, known bool
	// corrected is whether a change by hand was reverted.
	corrected bool
}

// Reconcile brings the policy of one Headscale to what its HeadscalePolicies say, and reports on it.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.fetch(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(s.policies) == 0 {
		return r.leave(ctx, s)
	}
	s.memory = r.recall(s)
	if s.instance, err = r.Instances.Find(ctx, s.key.Namespace, s.key); err != nil {
		return reconcile.Result{}, err
	}
	err = status.Recovered(ctx, v1beta1.KindPolicy, func() error { return r.sync(ctx, s) })
	return r.report(ctx, s, err)
}

// fetch reads the HeadscalePolicies of a Headscale.
func (r *Reconciler) fetch(ctx context.Context, key client.ObjectKey) (*scope, error) {
	s := &scope{key: key, now: r.Now(), done: &decision{action: keep}}
	listed, err := r.list(ctx, key)
	if err != nil {
		return nil, err
	}
	for _, object := range listed {
		if object.DeletionTimestamp.IsZero() {
			s.policies = append(s.policies, object)
		}
	}
	slices.SortFunc(s.policies, v1beta1.ComparePolicies)
	return s, nil
}

// sync does what is to be done.
func (r *Reconciler) sync(ctx context.Context, s *scope) error {
	defer func() { s.place.Leave() }()
	f := r.gather(ctx, s)
	if instance.IsBusy(f.problem) {
		return f.problem
	}
	s.done = decide(f)
	if len(s.done.joined) > 0 {
		if _, err := r.noteJoined(ctx, s.instance.Headscale, true); err != nil {
			return err
		}
	}
	err := r.act(ctx, s, f)
	switch {
	case s.known:
		s.memory.sent = ""
	case s.unknown:
		s.memory.sent = f.sending()
	}
	r.remember(s.key, s.memory)
	return err
}

// act does what was decided.
func (r *Reconciler) act(ctx context.Context, s *scope, f *facts) error {
	switch s.done.action {
	case apply, correct:
		return r.apply(ctx, s, f)
	case restore:
		return r.restore(ctx, s, f)
	default:
		s.known = s.done.inForce
		return nil
	}
}

// gather finds out what a decision depends on.
func (r *Reconciler) gather(ctx context.Context, s *scope) *facts {
	f := &facts{headscale: s.instance.Headscale, policies: s.policies, memory: s.memory, now: s.now}
	if f.problem = s.instance.CheckHeadscale(); f.problem != nil || checkMode(f.headscale) != nil {
		return f
	}
	if s.place, f.problem = s.instance.Enter(r.kind, s.policies[0]); f.problem != nil {
		return f
	}
	var snapshot *instance.Snapshot
	if snapshot, f.problem = s.instance.Policy(ctx); f.problem == nil {
		f.inForce = snapshot.Policy().Text
	}
	return f
}

// errOutdated says that something has changed since a decision: it is taken again at once.
var errOutdated = status.Later(time.Millisecond, &instance.Problem{Because: v1beta1.ReasonReconcileFailed, Message: "Something has changed meanwhile; it is decided again"})

// apply sends the policy. Before, it is noted that this is about to happen: should the operator end
// meanwhile, Headscale may have in memory what it refused. Where the policy is stored already, it is sent
// because another one may be in memory: the note of that one stays until there is an answer.
func (r *Reconciler) apply(ctx context.Context, s *scope, f *facts) error {
	if err := r.checkCurrent(ctx, s); err != nil {
		return err
	}
	doubtful := f.sending() != ""
	if len(s.done.sections) > 0 {
		if err := r.noteSending(ctx, s, f.acceptedUnanswered()); err != nil {
			return err
		}
	}
	f.policies = s.policies
	var refused *refusal
	var readsFile, refusedStored bool
	err := r.write(ctx, s, f, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		refused, readsFile, refusedStored = nil, false, false // It is called again where the credentials have changed.
		accepted, err := api.SetPolicy(ctx, s.done.text)
		if err == nil {
			accepted.Text = cmp.Or(accepted.Text, s.done.text)
			snapshot.PutPolicy(accepted)
			return nil
		}
		if readsFile = errors.Is(err, headscale.ErrPolicyMode); readsFile {
			return nil
		}
		if refused = r.refusalOf(s, err); refused == nil || !refused.read && !doubtful {
			return refused.or(err)
		}
		stored, err := resend(ctx, api, snapshot.Policy().Text)
		if refusedStored = stored != nil; refusedStored {
			refused.problem.Message += "; it refuses what it has stored, too, when that is sent again: " + stored.Words
		}
		return err
	})
	switch {
	case readsFile:
		s.done.refuseAll(s.done.joined, stillReadsFile(s.key.Name))
	case refused != nil:
		s.memory.refused = refused
		s.done.blame(refused)
		s.done.noteForeign(f)
	case err == nil:
		s.memory.refused = nil
		s.corrected, s.done.inForce = s.done.action == correct, true
	}
	s.unknown = err != nil && !isOutdated(err) || refusedStored
	s.known = err == nil && !refusedStored
	return err
}

// errLate says that the cache does not have the HeadscalePolicies as they are.
var errLate = status.Later(lateRetry, &instance.Problem{Because: v1beta1.ReasonReconcileFailed, Message: "The HeadscalePolicies have changed meanwhile; it is decided again"})

// checkCurrent returns errLate where the cache is late. Else a change that another operator has just
// applied would be taken for one by hand, and so would one of this operator whose status the cache does not have yet.
func (r *Reconciler) checkCurrent(ctx context.Context, s *scope) error {
	live := &v1beta1.HeadscalePolicyList{}
	if err := r.Live.List(ctx, live, client.InNamespace(s.key.Namespace)); err != nil {
		return fmt.Errorf("listing HeadscalePolicies before a policy is sent: %w", err)
	}
	current := map[types.UID]*v1beta1.HeadscalePolicy{}
	for i := range live.Items {
		if object := &live.Items[i]; keyOf(object) == s.key && object.DeletionTimestamp.IsZero() {
			current[object.UID] = object
		}
	}
	for _, object := range s.policies {
		now := current[object.UID]
		if now == nil || now.Generation != object.Generation || !equality.Semantic.DeepEqual(now.Status, object.Status) {
			return errLate
		}
		delete(current, object.UID)
	}
	if len(current) > 0 {
		return errLate
	}
	return nil
}

// restore sends what Headscale has stored once more.
func (r *Reconciler) restore(ctx context.Context, s *scope, f *facts) error {
	var refused *headscale.Refusal
	err := r.write(ctx, s, f, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) (err error) {
		refused, err = resend(ctx, api, snapshot.Policy().Text)
		return err
	})
	s.unknown = err != nil || refused != nil
	s.known = !s.unknown
	return err
}

// write changes Headscale, if the decision is still the same by what it has at this moment.
func (r *Reconciler) write(ctx context.Context, s *scope, f *facts, change func(context.Context, instance.API, *instance.Snapshot) error) error {
	outdated := false
	err := s.instance.Write(ctx, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		inForce, err := api.GetPolicy(ctx)
		if err != nil && !errors.Is(err, headscale.ErrNoPolicy) {
			return err
		}
		snapshot.PutPolicy(inForce)
		now := *f
		now.inForce = inForce.Text
		again := decide(&now)
		if outdated = again.action != s.done.action || again.digest != s.done.digest; outdated {
			return nil
		}
		return change(ctx, api, snapshot)
	})
	if err == nil && outdated {
		return errOutdated
	}
	return err
}

// resend sends what was in force after something was refused: v0.29.3 has the refused one in memory
// otherwise. An empty policy is never sent: it would allow everything. What Headscale has stored it
// may refuse, too, such as where a test in it fails since a user is gone.
func resend(ctx context.Context, api instance.API, inForce string) (*headscale.Refusal, error) {
	if strings.TrimSpace(inForce) == "" {
		return nil, nil
	}
	_, err := api.SetPolicy(ctx, inForce)
	if refused := aboutText(err); refused != nil {
		return refused, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sending again what Headscale has stored: %w", err)
	}
	return nil, nil
}

// aboutText is what Headscale has against a policy that was sent; nil: nothing, or nothing against what
// it says.
func aboutText(err error) *headscale.Refusal {
	var refused *headscale.Refusal
	for _, other := range []error{headscale.ErrUnauthorized, headscale.ErrUnsupported, headscale.ErrTooLarge, headscale.ErrPolicyMode} {
		if errors.Is(err, other) {
			return nil
		}
	}
	if errors.As(err, &refused) {
		return refused
	}
	return nil
}

// refusalOf is what follows from an error of a policy that was sent; nil: it is not known whether
// it was taken, or it was refused whatever it says.
func (r *Reconciler) refusalOf(s *scope, err error) *refusal {
	made := &refusal{digest: s.done.digest, version: s.instance.Headscale.Status.Version, until: s.now.Add(refusedRetry)}
	refused := aboutText(err)
	switch {
	case errors.Is(err, headscale.ErrTooLarge):
		made.problem = problem(v1beta1.ReasonTooLarge, "The joined policy is too large, and what was in force stays: %v", err)
	case refused != nil:
		made.read = true
		made.problem = problem(v1beta1.ReasonRefused, "Headscale refuses the policy, and what was in force stays: %s", refused.Words)
	default:
		return nil
	}
	made.problem.Cause = err
	return made
}

// stillReadsFile is that a Headscale takes no policy although its resource says that it has it in its
// database. It says nothing about the policy, and so is not remembered: the pod that replaces this one
// has none, and must be sent it at once.
func stillReadsFile(name string) error {
	return status.Later(fileRetry, &instance.Problem{Because: v1beta1.ReasonPolicyMode, Message: fmt.Sprintf("The pod of Headscale %s that runs "+
		"still reads its policy from a file; the policy is sent to the one that replaces it. If it stays so, see the conditions of the Headscale", name)})
}

// or is an error that is no refusal.
func (r *refusal) or(err error) error {
	if r == nil {
		return err
	}
	return nil
}

// isOutdated reports whether a decision has to be taken again.
func isOutdated(err error) bool { return errors.Is(err, errOutdated) || errors.Is(err, errLate) }
