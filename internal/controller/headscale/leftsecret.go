package headscale

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// withUnexpired adds to the event about a Secret that is not looked after any more which
// keys its ledger has that nothing is going to expire: those wait for the end of a
// revocation_delay, or were on their way.
func (r *HeadscaleReconciler) withUnexpired(ctx context.Context, before *v1beta1.Headscale, events []occurrence) []occurrence {
	for i := range events {
		if events[i].reason != v1beta1.EventSecretLeft {
			continue
		}
		secret, err := readSecret(ctx, r.Client, client.ObjectKey{Namespace: before.Namespace, Name: before.Status.APIKey.SecretName})
		if err != nil {
			log.FromContext(ctx).Error(err, "Cannot say which keys of the Secret that is not looked after any more are still valid")
			continue
		}
		events[i].note += unexpired(secret)
	}
	return events
}

// unexpired says which keys besides the stored one Headscale still accepts, and what to do
// about them; "" if there is none.
func unexpired(secret *metav1.PartialObjectMetadata) string {
	if secret == nil {
		return ""
	}
	var note strings.Builder
	for prefix := range v1beta1.LedgerEntries(secret.Annotations[v1beta1.AnnotationRetiring]) {
		fmt.Fprintf(&note, "; key %[1]s was replaced and is valid until its own expiration, unless you expire it: headscale apikeys expire --prefix %[1]s", prefix)
	}
	for expiration := range v1beta1.LedgerEntries(secret.Annotations[v1beta1.AnnotationPending]) {
		fmt.Fprintf(&note, "; a key was on its way: if headscale apikeys list shows one that expires at %s, expire it", expiration)
	}
	return note.String()
}
