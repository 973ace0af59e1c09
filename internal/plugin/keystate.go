package plugin

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/keystate"
	"infrado.cloud/headscale-operator/internal/resources"
)

// Where the information about a key comes from.
const (
	sourceSecret = "Secret"
	sourceStatus = "Status"
)

// keyReport is what is known of a key.
type keyReport struct {
	// Secret is the name of the Secret that holds the key.
	Secret string `json:"secret"`
	// Managed is whether the API Key Manager manages the key.
	Managed bool `json:"managed"`
	// State is Valid, Overdue, Expired, Missing, NotOurs or Unknown.
	State keystate.State `json:"state"`
	// Prefix is the public part of the key.
	Prefix string `json:"prefix,omitempty"`
	// CreatedAt is when the key was created; unknown without the right to read the Secret.
	CreatedAt *metav1.Time `json:"createdAt,omitempty"`
	// Expiration is when the key expires.
	Expiration *metav1.Time `json:"expiration,omitempty"`
	// NextRotation is when the key will be replaced; there is none unless it is managed.
	NextRotation *metav1.Time `json:"nextRotation,omitempty"`
	// Retiring are the keys that were replaced and that Headscale still accepts.
	Retiring []retiringKey `json:"retiring,omitempty"`
	// Source is where this is from: Secret, or Status (of the Headscale) where the
	// Secret may not be read.
	Source string `json:"source"`
	// Value is the key itself; only with --reveal.
	Value string `json:"value,omitempty"`

	// lifetime is how long the key lives in all; zero where that is not known.
	lifetime time.Duration
	// owner is the Headscale that owns the Secret, where that is another one.
	owner string
}

// retiringKey is a key that was replaced and is valid until it is revoked.
type retiringKey struct {
	Prefix     string      `json:"prefix"`
	ValidUntil metav1.Time `json:"validUntil"`
}

// usable reports whether a consumer can use the key.
func (k *keyReport) usable() bool { return k.State.Usable() }

// secretView is what could be read of a Secret: its metadata, nil where there is no such
// Secret, or nothing where it may not be read.
type secretView struct {
	metadata  *metav1.PartialObjectMetadata
	forbidden bool
}

// describeKey says what is known of a Headscale's key at some time.
func describeKey(headscale *v1beta1.Headscale, secret secretView, now time.Time) keyReport {
	spec := &headscale.Spec.APIKey
	report := keyReport{Secret: spec.EffectiveSecretName(), Managed: spec.Managed(), Source: sourceSecret}
	if secret.forbidden {
		report.Source = sourceStatus
	}
	if conflict(headscale) != "" {
		report.State = keystate.NotOurs
		return report
	}
	if secret.forbidden {
		report.fill(keystate.FromStatus(spec, headscale.Status.APIKey, now))
		return report
	}
	key := keystate.FromSecret(spec, secret.metadata, now)
	if secret.metadata != nil && key.State != keystate.NotOurs {
		if report.owner = otherOwner(headscale, secret.metadata); report.owner != "" {
			report.State = keystate.NotOurs
			return report
		}
		if report.Managed && !keyObserved(headscale) {
			report.State = keystate.Unknown
			return report
		}
	}
	report.fill(key)
	return report
}

// fill copies the state of a key and its details.
func (k *keyReport) fill(key keystate.Key) {
	k.State, k.Prefix, k.lifetime = key.State, oneLine(key.Prefix), key.Lifetime
	k.CreatedAt, k.Expiration, k.NextRotation = apiTime(key.CreatedAt), apiTime(key.Expiration), apiTime(key.NextRotation)
	for _, retiring := range key.Retiring {
		k.Retiring = append(k.Retiring, retiringKey{Prefix: oneLine(retiring.Prefix), ValidUntil: metav1.Time{Time: retiring.RevokedAt}})
	}
}

// apiTime is a time as the API has it; nil for one that is not known.
func apiTime(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t}
}

// conflict says why the Secret that a Headscale names is not its own, according to the operator; ""
// if it is, or if the spec names another Secret since.
func conflict(headscale *v1beta1.Headscale) string {
	condition := meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionAPIKeyReady)
	status := headscale.Status.APIKey
	if condition == nil || condition.Reason != v1beta1.ReasonConflict || status == nil || status.SecretName != headscale.Spec.APIKey.EffectiveSecretName() {
		return ""
	}
	return condition.Message
}

// keyObserved reports whether the operator has observed a Headscale's key since the spec
// names the present Secret. Before, that Secret may as well be another Headscale's.
func keyObserved(headscale *v1beta1.Headscale) bool {
	status := headscale.Status.APIKey
	return status != nil && status.SecretName == headscale.Spec.APIKey.EffectiveSecretName() &&
		meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionAPIKeyReady) != nil
}

// otherOwner is the name of the other Headscale that owns a Secret, or "". A Secret that one
// Headscale released and another manages now keeps its owner reference: the condition Ready then
// shows that the operator found no conflict.
func otherOwner(headscale *v1beta1.Headscale, secret *metav1.PartialObjectMetadata) string {
	if headscale.Spec.APIKey.Managed() && keyObserved(headscale) && meta.IsStatusConditionTrue(headscale.Status.Conditions, v1beta1.ConditionReady) {
		return ""
	}
	other := ""
	for _, owner := range secret.OwnerReferences {
		group, _, _ := strings.Cut(owner.APIVersion, "/")
		switch {
		case group != v1beta1.GroupName || owner.Kind != v1beta1.Kind:
		case owner.UID == headscale.UID:
			return ""
		default:
			other = owner.Name
		}
	}
	return other
}

// complaint says why a key cannot be used, as a sentence with what to do; "" where it
// can be.
func (k *keyReport) complaint(headscale *v1beta1.Headscale) string {
	logs := fmt.Sprintf("kubectl logs -n %s %s -c %s tells why", headscale.Namespace, resources.PodName(headscale), managerContainer)
	switch k.State {
	case keystate.Missing:
		if !k.Managed {
			return fmt.Sprintf("no API key is in Secret %s, and none will be: spec.api_key.auto_manage is false", k.Secret)
		}
		return fmt.Sprintf("no API key is in Secret %s yet; %s if this lasts", k.Secret, logs)
	case keystate.Unknown:
		if k.Source == sourceSecret {
			return fmt.Sprintf("the operator has not observed Headscale %s yet as it is now, so it is not known whose key is in Secret %s; %s", headscale.Name, k.Secret, whereOperator)
		}
		return fmt.Sprintf("nothing is known of the API key: you are not allowed to read Secret %s, and the status of Headscale %s says nothing of it", k.Secret, headscale.Name)
	case keystate.NotOurs:
		if told := conflict(headscale); told != "" {
			return told
		}
		if k.owner != "" {
			return fmt.Sprintf("Secret %s is that of Headscale %s, and so is the API key in it: set spec.api_key.secret_name to another name", k.Secret, k.owner)
		}
		return fmt.Sprintf("Secret %s was not created by the API Key Manager and is left alone: delete it, or set spec.api_key.secret_name to another name", k.Secret)
	case keystate.Expired:
		if !k.Managed {
			return fmt.Sprintf("the API key in Secret %s expired at %s, and none will replace it: spec.api_key.auto_manage is false", k.Secret, instant(k.Expiration.Time))
		}
		return fmt.Sprintf("the API key in Secret %s expired at %s and was not replaced; %s", k.Secret, instant(k.Expiration.Time), logs)
	default:
		return ""
	}
}

// instant is a time for people.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }
