package policy

import (
	"cmp"
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/controller/instance"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/kube/status"
)

// leftRetry is how long until what is left in force is sent again where Headscale could not be asked: no watch
// may report when it can be.
const leftRetry = 30 * time.Second

// noteJoined notes at a Headscale whether HeadscalePolicies were joined for it, and reports whether that
// is another than before.
func (r *Reconciler) noteJoined(ctx context.Context, hs *v1beta1.Headscale, joined bool) (bool, error) {
	statusOf := func(hs *v1beta1.Headscale) any { return &hs.Status }
	changed, _, err := status.Patch(ctx, r.Live, r.Client, hs, fieldManager, statusOf, func(hs *v1beta1.Headscale) {
		hs.Status.HasPolicies = joined
	})
	return changed != nil, err
}

// leave reports, once, that the last HeadscalePolicy of a Headscale is gone, whether or not an operator ran
// at that moment. What is said to stay in force is sent again before, unless it is known to be in memory.
func (r *Reconciler) leave(ctx context.Context, s *scope) (reconcile.Result, error) {
	r.lock.Lock()
	known, had := r.known[s.key]
	r.lock.Unlock()
	reader := client.Reader(r.Client)
	if had {
		reader = r.Live // the cache may not have what was noted
	}
	hs := &v1beta1.Headscale{}
	err := reader.Get(ctx, s.key, hs)
	gone := apierrors.IsNotFound(err)
	if err != nil && !gone {
		return reconcile.Result{}, err
	}
	if gone || !hs.DeletionTimestamp.IsZero() || !hs.Status.HasPolicies {
		r.forget(s.key)
		return reconcile.Result{}, nil
	}
	if !had || known.sent != "" {
		if failed := status.Classify(r.restoreLeft(ctx, s)); failed != nil {
			return retryLeft(ctx, failed)
		}
	}
	// That may have taken its time. A HeadscalePolicy that is created meanwhile has a reconcile of its own.
	if err := r.checkCurrent(ctx, s); isOutdated(err) {
		return reconcile.Result{RequeueAfter: lateRetry}, nil
	} else if err != nil {
		return reconcile.Result{}, err
	}
	changed, err := r.noteJoined(ctx, hs, false)
	if err != nil {
		return reconcile.Result{}, err
	}
	r.forget(s.key)
	if changed {
		status.Record(r.Events, hs, status.Event{Warning: true, Action: status.ActionReconcile, Reason: v1beta1.EventPolicyLeft,
			Note: "The last HeadscalePolicy is gone. What is in force stays, since an empty policy allows everything: create another HeadscalePolicy to change it"})
	}
	return reconcile.Result{}, nil
}

// retryLeft has it tried again. No object is left that could say why.
func retryLeft(ctx context.Context, failed *status.Failure) (reconcile.Result, error) {
	if failed.Transient != nil {
		return reconcile.Result{}, failed.Transient
	}
	wait := cmp.Or(failed.RetryAfter, leftRetry)
	log.FromContext(ctx).Info("The last HeadscalePolicy is gone, and what is in force cannot be sent again yet", "reason", failed.Reason, "message", failed.Message, "retryAfter", wait)
	return reconcile.Result{RequeueAfter: wait}, nil
}

// restoreLeft sends what Headscale has stored once more, after the last HeadscalePolicy is gone: v0.29.3 may have in
// memory what it refused of it, and nothing else would ever replace that. What does not run has nothing in memory, and
// what Headscale refuses, reads from a file or finds too large is left to it.
func (r *Reconciler) restoreLeft(ctx context.Context, s *scope) error {
	var err error
	if s.instance, err = r.Instances.Find(ctx, s.key.Namespace, s.key); err != nil {
		return err
	}
	if s.instance.CheckHeadscale() != nil || checkMode(s.instance.Headscale) != nil {
		return nil //nolint:nilerr // there is no policy to send: the Headscale itself says why
	}
	return s.instance.TryWrite(ctx, func(ctx context.Context, api instance.API, snapshot *instance.Snapshot) error {
		stored, err := api.GetPolicy(ctx)
		if errors.Is(err, headscale.ErrNoPolicy) {
			return nil
		}
		if err != nil {
			return err
		}
		snapshot.PutPolicy(stored)
		if _, err = resend(ctx, api, stored.Text); errors.Is(err, headscale.ErrPolicyMode) || errors.Is(err, headscale.ErrTooLarge) {
			return nil
		}
		return err
	})
}
