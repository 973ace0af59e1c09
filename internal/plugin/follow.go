package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// How often a rotation is polled: often at first, because most take less than a
// second.
const (
	firstLook = 100 * time.Millisecond
	lastLook  = time.Second
)

// lastWord is how long the plugin may take to find the cause after a timeout.
const lastWord = 10 * time.Second

// follow waits until a request is executed, and reports its progress.
func (a *app) follow(ctx context.Context, c *cluster, r *rotation, timeout time.Duration, p *progress) (*rotationReport, error) {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p.begin(fmt.Sprintf("Requested a new API key for Headscale %s.", r.key))
	defer p.end()
	reached := stageAsked
	var last observation
	var trouble error
	for pause := firstLook; ; pause = min(pause*3/2, lastLook) {
		seen, err := c.look(limited, r)
		var final *exit
		switch {
		case errors.As(err, &final):
			return nil, err
		case err == nil:
			last, trouble = seen, nil
			for at := r.stage(seen.headscale, seen.secret); reached < at; {
				reached++
				p.reached(reached, r, seen)
			}
		case limited.Err() == nil:
			trouble = err
		}
		if reached == stageDone {
			return r.report(last.headscale, last.secret, rotationDone), nil
		}
		p.waiting(reached)
		select {
		case <-limited.Done(): // the time is over, or the whole was interrupted
			if ctx.Err() != nil {
				return nil, &exit{ExitInterrupted, errors.New("interrupted; the request for a new key stays")}
			}
			return nil, c.late(ctx, r, timeout, reached, last, trouble)
		case <-time.After(pause):
		}
	}
}

// observation is the state of a rotation as read at some time.
type observation struct {
	headscale *v1beta1.Headscale
	secret    secretView
}

// look reads the progress of a rotation. The error is an exit if polling further cannot find the
// new key.
func (c *cluster) look(ctx context.Context, r *rotation) (observation, error) {
	headscale, err := c.headscales(r.key.Namespace).Get(ctx, r.key.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return observation{}, &exit{ExitFailure, fmt.Errorf("the Headscale %s was deleted before it had a new key", r.key)}
	case err != nil:
		return observation{}, err
	case headscale.UID != r.uid:
		return observation{}, &exit{ExitFailure, fmt.Errorf("the Headscale %s was deleted and recreated before it had a new key", r.key)}
	}
	if err := refuseRotation(headscale); err != nil {
		return observation{}, &exit{ExitFailure, err}
	}
	secret, err := c.viewSecret(ctx, headscale)
	return observation{headscale, secret}, err
}

// late says why a new key was not stored in time.
func (c *cluster) late(ctx context.Context, r *rotation, timeout time.Duration, reached stage, last observation, trouble error) error {
	if trouble != nil || last.headscale == nil {
		if trouble == nil {
			trouble = context.DeadlineExceeded
		}
		return fmt.Errorf("no new API key was seen within %s: %s", timeout, explain(trouble))
	}
	ctx, cancel := context.WithTimeout(ctx, lastWord)
	defer cancel()
	pod, err := c.viewPod(ctx, last.headscale)
	if err != nil {
		pod = podView{forbidden: true}
	}
	why := oneLine(obstacle(reached, last, pod))
	if reached == stageStored {
		return fmt.Errorf("the new API key %s is stored, and the old one, %s, was not revoked within %s: %s",
			prefixOf(last.headscale, last.secret), r.oldPrefix, timeout, why)
	}
	return fmt.Errorf("no new API key was stored within %s: %s. The request stays, and is executed when this is fixed", timeout, why)
}

// obstacle says what blocks a rotation at a stage.
func obstacle(reached stage, last observation, pod podView) string {
	headscale := last.headscale
	if reached == stageAsked {
		return whyNotForwarded(last)
	}
	available := meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionAvailable)
	key := meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionAPIKeyReady)
	switch {
	case available != nil && available.Status != metav1.ConditionTrue:
		return available.Message
	case troubleOf(pod, headscale) != "":
		return troubleOf(pod, headscale)
	case key != nil && (key.Status != metav1.ConditionTrue || key.Reason == v1beta1.ReasonManagerFailing):
		return key.Message
	default:
		return fmt.Sprintf("the API Key Manager has not done it, as far as can be seen from outside; kubectl logs -n %s %s -c %s tells why",
			headscale.Namespace, resources.PodName(headscale), managerContainer)
	}
}

// whyNotForwarded says why the operator did not write a request to the Secret.
func whyNotForwarded(last observation) string {
	headscale := last.headscale
	condition := meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionAPIKeyReady)
	name := headscale.Spec.APIKey.EffectiveSecretName()
	switch {
	case condition == nil || !seen(headscale):
		return "the operator has not observed this Headscale; " + whereOperator
	case condition.Status != metav1.ConditionTrue && condition.Reason != v1beta1.ReasonKeyExpired:
		return condition.Message
	case !last.secret.forbidden && last.secret.metadata == nil:
		return fmt.Sprintf("Secret %s is gone, and no new one was created; kubectl logs -n %s %s -c %s tells why", name, headscale.Namespace, resources.PodName(headscale), managerContainer)
	case last.secret.metadata != nil && !v1beta1.IsAPIKeySecret(last.secret.metadata.Labels):
		return fmt.Sprintf("Secret %s was not created by the API Key Manager and is left alone: delete it, or set spec.api_key.secret_name to another name", name)
	default:
		return fmt.Sprintf("the operator did not forward the request to Secret %s, so it does not seem to run; %s", name, whereOperator)
	}
}

// troubleOf says why the API Key Manager does not run, or "" where it does or nothing is
// known.
func troubleOf(pod podView, headscale *v1beta1.Headscale) string {
	switch {
	case pod.forbidden:
		return ""
	case pod.pod == nil:
		return fmt.Sprintf("there is no pod %s, in which the API Key Manager would run", resources.PodName(headscale))
	case pod.pod.Status.Phase == corev1.PodPending:
		return fmt.Sprintf("pod %s has not started; kubectl describe pod -n %[2]s %[1]s tells why", resources.PodName(headscale), headscale.Namespace)
	}
	for _, container := range describePod(pod.pod).Containers {
		if container.Name == managerContainer && container.State != "Running" {
			return fmt.Sprintf("the API Key Manager in pod %s does not run (%s); kubectl logs -n %s %[1]s -c %[4]s --previous tells why",
				resources.PodName(headscale), container.State, headscale.Namespace, managerContainer)
		}
	}
	return ""
}
