package instance

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/resources"
)

// Problem is why an object cannot be what it should be in its Headscale. Something reports when
// that changes: a watch, or the next poll of the Headscale.
type Problem struct {
	// Because is the reason of the condition that reports it.
	Because string
	// Message is a sentence that says what is wrong and what to do.
	Message string
	// Lasting is whether it lasts until somebody acts. Else it is waited for.
	Lasting bool
	// Cause is the error of the call that it comes from, or nil.
	Cause error

	// common is whether all objects of the Headscale have it, because nobody can ask that. Those that a
	// reconcile finds itself are of its object.
	common bool
}

// Error is the message.
func (p *Problem) Error() string { return p.Message }

// Unwrap returns the error of the call that it comes from, or nil.
func (p *Problem) Unwrap() error { return p.Cause }

// Reason is the reason of the condition that reports it.
func (p *Problem) Reason() string { return p.Because }

// Waiting reports whether it ends by itself.
func (p *Problem) Waiting() bool { return !p.Lasting }

// IsOutOfReach reports whether an error says that the Headscale cannot be asked, and that this is
// not a matter of waiting: it is not there, or is not to run, or does not let the namespace, or
// nobody keeps a key for the operator.
func IsOutOfReach(err error) bool {
	var problem *Problem
	if !errors.As(err, &problem) {
		return false
	}
	switch problem.Because {
	case v1beta1.ReasonNoHeadscale, v1beta1.ReasonNotAllowed, v1beta1.ReasonManagerOff, v1beta1.ReasonScaledToZero:
		return true
	default:
		return false
	}
}

// problemOf is what is wrong with a Headscale by its own resource, or nil: of what is left, its
// pod, its Secret and its endpoint say.
func problemOf(name fmt.Stringer, headscale *v1beta1.Headscale) error {
	switch {
	case headscale == nil:
		return &Problem{Because: v1beta1.ReasonNoHeadscale, Message: fmt.Sprintf("There is no Headscale %s", name)}
	case !headscale.DeletionTimestamp.IsZero():
		return &Problem{Because: v1beta1.ReasonNoHeadscale, Message: fmt.Sprintf("Headscale %s is being deleted", name)}
	case headscale.Spec.Replicas != nil && *headscale.Spec.Replicas == 0:
		return &Problem{Because: v1beta1.ReasonScaledToZero, Lasting: true, Message: fmt.Sprintf(
			"Headscale %s is stopped because its spec.replicas is 0; set it to 1 to start it", name)}
	case !headscale.Spec.APIKey.Managed():
		return &Problem{Because: v1beta1.ReasonManagerOff, Lasting: true, Message: fmt.Sprintf(
			"No API Key Manager runs next to Headscale %s, because its spec.api_key.auto_manage is false; the operator needs the key that it manages: set it to true", name)}
	default:
		return nil
	}
}

// notReady says that a Headscale is not ready, in the words of its own condition.
func notReady(headscale *v1beta1.Headscale, because string) error {
	message := fmt.Sprintf("Headscale %s/%s is not ready: %s", headscale.Namespace, headscale.Name, because)
	if ready := meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionReady); ready != nil && ready.Status != metav1.ConditionTrue {
		message = fmt.Sprintf("Headscale %s/%s is not ready (%s): %s", headscale.Namespace, headscale.Name, ready.Reason, ready.Message)
	}
	return &Problem{Because: v1beta1.ReasonNotReady, Message: message, common: true}
}

// explain says what an error of a call means for whoever needs the Headscale. Errors with which
// Headscale answered stay as they are, but for those that are about the call itself.
func explain(name, address string, err error) error {
	problem := &Problem{Cause: err, common: true}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, headscale.ErrUnauthorized):
		problem.Because = v1beta1.ReasonKeyRefused
		problem.Message = fmt.Sprintf("The API Key Manager of Headscale %s refuses the API key in its Secret: "+
			"somebody else wrote that Secret, or the key was just replaced; see kubectl headscale status", name)
	case errors.Is(err, headscale.ErrPinMismatch):
		problem.Because = v1beta1.ReasonEndpointUnreachable
		problem.Message = fmt.Sprintf("The certificate at %s is not the one that the Secret of the API key of Headscale %s identifies: "+
			"its API Key Manager has just started, or cannot write the Secret, or another server answers there", address, name)
	case errors.Is(err, headscale.ErrUnavailable):
		problem.Because = v1beta1.ReasonEndpointUnreachable
		problem.Message = fmt.Sprintf("The admin endpoint of Headscale %s at %s cannot be reached; "+
			"does a NetworkPolicy block the operator's connections to port %d of the pod? %v", name, address, resources.AdminPort, err)
	case errors.Is(err, headscale.ErrUnsupported):
		problem.Because, problem.Lasting = v1beta1.ReasonUnsupported, true
		problem.Message = fmt.Sprintf("The release of Headscale %s cannot do this: %v", name, err)
	default:
		return err
	}
	return problem
}
