package preauthkey

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// readRecord reads the Secret of an object. What cannot be read of it counts as missing.
func readRecord(key *v1beta1.HeadscalePreAuthKey, secret *corev1.Secret) rotation.Record {
	notes := secret.Annotations
	record := rotation.Record{
		Ours:       foreignBecause(key, secret) == "",
		Immutable:  ptr.Deref(secret.Immutable, false),
		Text:       headscale.NewKey(string(secret.Data[entryOf(key, secret)])),
		ID:         notes[v1beta1.AnnotationPreAuthKeyID],
		Digest:     notes[v1beta1.AnnotationPreAuthKeyDigest],
		Expiration: rotation.ParseTime(notes[v1beta1.AnnotationPreAuthKeyExpiration]),
		CreatedAt:  rotation.ParseTime(notes[v1beta1.AnnotationPreAuthKeyCreatedAt]),
		Pending:    rotation.ParsePending(notes[v1beta1.AnnotationPreAuthKeyPending]),
		Retiring:   rotation.ParseRetiring(notes[v1beta1.AnnotationPreAuthKeyRetiring]),
		Requested:  requestOf(notes),
		Handled:    notes[v1beta1.AnnotationPreAuthKeyHandled],
	}
	record.Regular = equality.Semantic.DeepEqual(writeRecord(key, record, secret), secret)
	return record
}

// requestOf is the request for another key; "": there is no valid one.
func requestOf(notes map[string]string) string {
	if request := notes[v1beta1.AnnotationPreAuthKeyRequested]; len(request) <= v1beta1.MaxRotationRequest {
		return request
	}
	return ""
}

// entryOf is the entry of a Secret that holds the key now.
func entryOf(key *v1beta1.HeadscalePreAuthKey, secret *corev1.Secret) string {
	if noted := secret.Annotations[v1beta1.AnnotationPreAuthKeyEntry]; noted != "" {
		return noted
	}
	return key.Spec.SecretKey
}

// foreignBecause says why a Secret does not belong to the object, as the end of a sentence; "": it
// does.
func foreignBecause(key *v1beta1.HeadscalePreAuthKey, secret *corev1.Secret) string {
	object, entry := secret.Annotations[v1beta1.AnnotationPreAuthKeyObject], entryOf(key, secret)
	controller := metav1.GetControllerOfNoCopy(secret)
	_, occupied := secret.Data[key.Spec.SecretKey]
	switch {
	case !v1beta1.IsPreAuthKeySecret(secret.Labels):
		return "exists already and does not belong to this HeadscalePreAuthKey: delete it, or choose another secretName"
	case object != "" && object != key.Name:
		return fmt.Sprintf("belongs to HeadscalePreAuthKey %s: choose another secretName", object)
	case controller != nil && !isOwner(key, controller):
		return fmt.Sprintf("belongs to %s %s: choose another secretName", controller.Kind, controller.Name)
	case occupied && entry != key.Spec.SecretKey:
		return fmt.Sprintf("has an entry %s already, which the operator did not write: choose another secretKey", key.Spec.SecretKey)
	default:
		return ""
	}
}

// isOwner reports whether an owner is the object, or was one of its name.
func isOwner(key *v1beta1.HeadscalePreAuthKey, owner *metav1.OwnerReference) bool {
	return owner.UID == key.UID ||
		owner.Kind == v1beta1.KindPreAuthKey && owner.Name == key.Name && strings.HasPrefix(owner.APIVersion, v1beta1.GroupVersion.Group+"/")
}

// writeRecord returns a copy of the Secret that says what the record says. Everything in it that is
// not ours stays.
func writeRecord(key *v1beta1.HeadscalePreAuthKey, record rotation.Record, secret *corev1.Secret) *corev1.Secret {
	before := entryOf(key, secret)
	secret = secret.DeepCopy()
	applyTemplate(key, secret)
	metav1.SetMetaDataLabel(&secret.ObjectMeta, v1beta1.LabelManagedBy, v1beta1.ManagedBy)
	metav1.SetMetaDataLabel(&secret.ObjectMeta, v1beta1.LabelComponent, v1beta1.ComponentPreAuthKey)
	for name, value := range annotationsOf(key, record) {
		annotate(secret, name, value)
	}
	if record.Text != nil && record.Text.Reveal() != "" {
		if secret.Data == nil {
			secret.Data = map[string][]byte{}
		}
		delete(secret.Data, before)
		secret.Data[key.Spec.SecretKey] = []byte(record.Text.Reveal())
	}
	setOwner(key, secret)
	return secret
}

// annotate sets an annotation, or removes it where it would be empty.
func annotate(secret *corev1.Secret, name, value string) {
	if value == "" {
		delete(secret.Annotations, name)
		return
	}
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, name, value)
}

func annotationsOf(key *v1beta1.HeadscalePreAuthKey, record rotation.Record) map[string]string {
	return map[string]string{
		v1beta1.AnnotationPreAuthKeyObject:     key.Name,
		v1beta1.AnnotationPreAuthKeyEntry:      key.Spec.SecretKey,
		v1beta1.AnnotationPreAuthKeyID:         record.ID,
		v1beta1.AnnotationPreAuthKeyDigest:     record.Digest,
		v1beta1.AnnotationPreAuthKeyExpiration: rotation.FormatTime(record.Expiration),
		v1beta1.AnnotationPreAuthKeyCreatedAt:  rotation.FormatTime(record.CreatedAt),
		v1beta1.AnnotationPreAuthKeyPending:    rotation.FormatPending(record.Pending),
		v1beta1.AnnotationPreAuthKeyRetiring:   rotation.FormatRetiring(record.Retiring),
		v1beta1.AnnotationPreAuthKeyHandled:    record.Handled,
		v1beta1.AnnotationPreAuthKeyTemplate:   strings.Join(templateNames(key), templateSeparator),
	}
}

// How AnnotationPreAuthKeyTemplate names labels and annotations.
const (
	templateSeparator  = ","
	templateLabel      = "label/"
	templateAnnotation = "annotation/"
)

// templateNames are the names of all labels and annotations of the template, sorted.
func templateNames(key *v1beta1.HeadscalePreAuthKey) []string {
	var names []string
	for name := range key.Spec.SecretTemplate.Labels {
		names = append(names, templateLabel+name)
	}
	for name := range key.Spec.SecretTemplate.Annotations {
		names = append(names, templateAnnotation+name)
	}
	slices.Sort(names)
	return names
}

// applyTemplate sets the labels and annotations of the template on a Secret, and removes those of
// an earlier template.
func applyTemplate(key *v1beta1.HeadscalePreAuthKey, secret *corev1.Secret) {
	dropTemplate(secret)
	for name, value := range key.Spec.SecretTemplate.Labels {
		metav1.SetMetaDataLabel(&secret.ObjectMeta, name, string(value))
	}
	for name, value := range key.Spec.SecretTemplate.Annotations {
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, name, string(value))
	}
}

// dropTemplate removes the labels and annotations of the template from a Secret.
func dropTemplate(secret *corev1.Secret) {
	for noted := range strings.SplitSeq(secret.Annotations[v1beta1.AnnotationPreAuthKeyTemplate], templateSeparator) {
		if name, isLabel := strings.CutPrefix(noted, templateLabel); isLabel {
			delete(secret.Labels, name)
		}
		if name, isAnnotation := strings.CutPrefix(noted, templateAnnotation); isAnnotation {
			delete(secret.Annotations, name)
		}
	}
}

// setOwner makes the object the owner of its Secret, so that this goes with it, unless there is
// something else in it, or it is to stay.
func setOwner(key *v1beta1.HeadscalePreAuthKey, secret *corev1.Secret) {
	if key.Retained() || hasOthers(key, secret) {
		dropOwner(key, secret)
		return
	}
	if controller := metav1.GetControllerOfNoCopy(secret); controller != nil && controller.UID == key.UID {
		return
	}
	dropOwner(key, secret)
	secret.OwnerReferences = append(secret.OwnerReferences, metav1.OwnerReference{
		APIVersion: v1beta1.GroupVersion.String(), Kind: v1beta1.KindPreAuthKey, Name: key.Name, UID: key.UID, Controller: ptr.To(true),
	})
}

// dropOwner removes the object, and former ones of its name, from the owners of a Secret.
func dropOwner(key *v1beta1.HeadscalePreAuthKey, secret *corev1.Secret) {
	secret.OwnerReferences = slices.DeleteFunc(secret.OwnerReferences, func(owner metav1.OwnerReference) bool { return isOwner(key, &owner) })
	if len(secret.OwnerReferences) == 0 {
		secret.OwnerReferences = nil
	}
}

// hasOthers reports whether a Secret holds something besides the key.
func hasOthers(key *v1beta1.HeadscalePreAuthKey, secret *corev1.Secret) bool {
	for entry := range secret.Data {
		if entry != entryOf(key, secret) {
			return true
		}
	}
	return false
}

// withoutKey returns a copy of the Secret without anything that the operator wrote.
func withoutKey(key *v1beta1.HeadscalePreAuthKey, secret *corev1.Secret) *corev1.Secret {
	left := secret.DeepCopy()
	delete(left.Data, entryOf(key, secret))
	dropTemplate(left)
	for name := range left.Annotations {
		if strings.HasPrefix(name, v1beta1.PreAuthKeyAnnotationPrefix) {
			delete(left.Annotations, name)
		}
	}
	delete(left.Labels, v1beta1.LabelManagedBy)
	delete(left.Labels, v1beta1.LabelComponent)
	dropOwner(key, left)
	return left
}
