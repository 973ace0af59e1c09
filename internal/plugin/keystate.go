package plugin

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

// States of a key, as programs read them.
const (
	// keyValid says that Headscale accepts the key.
	keyValid = "Valid"
	// keyOverdue says that the key is valid and should have been replaced by now.
	keyOverdue = "Overdue"
	// keyExpired says that the key has expired.
	keyExpired = "Expired"
	// keyMissing says that no key is stored.
	keyMissing = "Missing"
	// keyNotOurs says that the Secret belongs to someone else.
	keyNotOurs = "NotOurs"
	// keyUnknown says that the Secret may not be read, and that the Headscale's status
	// says nothing of a key; or that it can be read, and the operator has not said yet
	// whose it is.
	keyUnknown = "Unknown"
)

// overdueAfter is how long after its time a rotation counts as late: the operator says
// so after half of this.
const overdueAfter = time.Minute

// Where what is known of a key is from.
const (
	sourceSecret = "Secret"
	sourceStatus = "Status"
)

// keyReport is what is known of a key.
type keyReport struct {
	// Secret is the name of the Secret that holds the key.
	Secret string `json:"secret"`
	// Managed is whether the API Key Manager looks after the key.
	Managed bool `json:"managed"`
	// State is Valid, Overdue, Expired, Missing, NotOurs or Unknown.
	State string `json:"state"`
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
	// owner is the Headscale that the Secret goes with, where that is another one.
	owner string
}

// retiringKey is a key that was replaced and is valid until it is revoked.
type retiringKey struct {
	Prefix     string      `json:"prefix"`
	ValidUntil metav1.Time `json:"validUntil"`
}

// usable tells whether a consumer can use the key.
func (k *keyReport) usable() bool { return k.State == keyValid || k.State == keyOverdue }

// secretView is what could be read of a Secret: its metadata, nil where there is no such
// Secret, or nothing where it may not be read.
type secretView struct {
	metadata  *metav1.PartialObjectMetadata
	forbidden bool
}

// describeKey says what is known of a Headscale's key at some time.
func describeKey(headscale *v1beta1.Headscale, secret secretView, now time.Time) keyReport {
	spec := &headscale.Spec.APIKey
	key := keyReport{Secret: spec.EffectiveSecretName(), Managed: spec.Managed(), Source: sourceSecret}
	switch {
	case secret.forbidden:
		key.fromStatus(headscale.Status.APIKey)
	case secret.metadata != nil && !v1beta1.IsAPIKeySecret(secret.metadata.Labels):
		key.State = keyNotOurs
		return key
	case secret.metadata != nil && conflict(headscale) == "":
		if key.owner = otherOwner(headscale, secret.metadata); key.owner != "" {
			key.State = keyNotOurs
			return key
		}
		if key.Managed && !lookedAt(headscale) {
			key.State = keyUnknown
			return key
		}
		key.fromAnnotations(secret.metadata.Annotations)
	}
	if conflict(headscale) != "" {
		key = keyReport{Secret: key.Secret, Managed: key.Managed, Source: key.Source, State: keyNotOurs}
		return key
	}
	key.judge(spec, now)
	return key
}

// fromStatus takes what the operator wrote to the Headscale's status.
func (k *keyReport) fromStatus(status *v1beta1.APIKeyStatus) {
	k.Source = sourceStatus
	if status == nil || status.SecretName != k.Secret {
		k.State = keyUnknown
		return
	}
	k.Prefix, k.Expiration = oneLine(status.KeyPrefix), status.Expiration
}

// fromAnnotations takes what the API Key Manager wrote to the Secret.
func (k *keyReport) fromAnnotations(notes map[string]string) {
	k.Prefix = oneLine(notes[v1beta1.AnnotationKeyPrefix])
	k.Expiration = readTime(notes[v1beta1.AnnotationExpiration])
	k.CreatedAt = readTime(notes[v1beta1.AnnotationCreatedAt])
	k.Retiring = readRetiring(notes[v1beta1.AnnotationRetiring])
}

// judge says how a key is by the times that are known of it.
func (k *keyReport) judge(spec *v1beta1.APIKeySpec, now time.Time) {
	switch {
	case k.State == keyUnknown:
		return
	case k.Expiration == nil:
		k.State = keyMissing
		return
	}
	lifetime, err := spec.Lifetime()
	if err == nil {
		k.lifetime = lifetime.Expiration
	}
	if k.CreatedAt != nil {
		k.lifetime = k.Expiration.Sub(k.CreatedAt.Time)
	}
	if k.Managed && err == nil {
		k.NextRotation = &metav1.Time{Time: k.Expiration.Add(-lifetime.RotationBuffer)}
	}
	switch {
	case !now.Before(k.Expiration.Time):
		k.State = keyExpired
	case k.NextRotation != nil && !now.Before(k.NextRotation.Add(overdueAfter)):
		k.State = keyOverdue
	default:
		k.State = keyValid
	}
}

// conflict says why the Secret that a Headscale names is not its own, as the operator
// found; "" where it is, or where another name was given since.
func conflict(headscale *v1beta1.Headscale) string {
	condition := meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionAPIKeyReady)
	status := headscale.Status.APIKey
	if condition == nil || condition.Reason != v1beta1.ReasonConflict || status == nil || status.SecretName != headscale.Spec.APIKey.EffectiveSecretName() {
		return ""
	}
	return condition.Message
}

// lookedAt tells whether the operator has looked at a Headscale's key since it is in the
// Secret that is named now. Before, that Secret may as well be another Headscale's.
func lookedAt(headscale *v1beta1.Headscale) bool {
	status := headscale.Status.APIKey
	return status != nil && status.SecretName == headscale.Spec.APIKey.EffectiveSecretName() &&
		meta.FindStatusCondition(headscale.Status.Conditions, v1beta1.ConditionAPIKeyReady) != nil
}

// otherOwner is the name of the other Headscale that a Secret goes with, or "". A Secret
// that one Headscale gave up and another looks after now keeps its owner: that it is so,
// the operator says by finding everything as asked for.
func otherOwner(headscale *v1beta1.Headscale, secret *metav1.PartialObjectMetadata) string {
	if headscale.Spec.APIKey.Managed() && lookedAt(headscale) && meta.IsStatusConditionTrue(headscale.Status.Conditions, v1beta1.ConditionReady) {
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

// readTime reads a time of an annotation; nil where there is none.
func readTime(text string) *metav1.Time {
	instant, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil
	}
	return &metav1.Time{Time: instant.UTC()}
}

// readRetiring reads the list "<prefix>@<not before>,…" of replaced keys.
func readRetiring(text string) []retiringKey {
	var keys []retiringKey
	for prefix, until := range v1beta1.LedgerEntries(text) {
		keys = append(keys, retiringKey{Prefix: oneLine(prefix), ValidUntil: metav1.Time{Time: until}})
	}
	return keys
}

// complaint says why a key cannot be used, as a sentence with what to do; "" where it
// can be.
func (k *keyReport) complaint(headscale *v1beta1.Headscale) string {
	logs := fmt.Sprintf("kubectl logs -n %s %s -c %s tells why", headscale.Namespace, resources.PodName(headscale), managerContainer)
	switch k.State {
	case keyMissing:
		if !k.Managed {
			return fmt.Sprintf("no API key is in Secret %s, and none will be: spec.api_key.auto_manage is false", k.Secret)
		}
		return fmt.Sprintf("no API key is in Secret %s yet; %s if this lasts", k.Secret, logs)
	case keyUnknown:
		if k.Source == sourceSecret {
			return fmt.Sprintf("the operator has not looked at Headscale %s yet as it is now, so that nobody knows whose key is in Secret %s; %s", headscale.Name, k.Secret, whereOperator)
		}
		return fmt.Sprintf("nothing is known of the API key: you are not allowed to read Secret %s, and the status of Headscale %s says nothing of it", k.Secret, headscale.Name)
	case keyNotOurs:
		if told := conflict(headscale); told != "" {
			return told
		}
		if k.owner != "" {
			return fmt.Sprintf("Secret %s is that of Headscale %s, and so is the API key in it: set spec.api_key.secret_name to another name", k.Secret, k.owner)
		}
		return fmt.Sprintf("Secret %s was not made by the API Key Manager and is left alone: delete it, or set spec.api_key.secret_name to another name", k.Secret)
	case keyExpired:
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
