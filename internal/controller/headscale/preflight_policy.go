package headscale

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/policy"
	"infrado.cloud/headscale-operator/internal/resources"
)

// maxPreflightData is how much the ConfigMap of a preflight holds, the configs and the policy, in
// bytes: the limit of Kubernetes.
const maxPreflightData = 1 << 20

// storedPolicy is the policy that a release finds in its database.
type storedPolicy struct {
	// text is the policy that a preflight is to try, or "": there is none, as far as HeadscalePolicies
	// tell, or it is not read, or not tried.
	text string
	// unknown says why it is not known which policy there is, and what to do, or is "".
	unknown string
}

// storedPolicy is the policy that the next release of a Headscale will find in its database: a
// release that finds it invalid does not start. There is none where the release stays.
func (r *Reconciler) storedPolicy(ctx context.Context, s scope, want *resources.Objects) (storedPolicy, error) {
	if runs := s.headscale.Status.Version; runs == "" || runs == s.headscale.Spec.Version || !want.PolicyInDatabase {
		return storedPolicy{}, nil
	}
	list := &v1beta1.HeadscalePolicyList{}
	if err := r.Client.List(ctx, list, client.InNamespace(s.headscale.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return storedPolicy{}, fmt.Errorf("listing HeadscalePolicies for the preflight: %w", err)
	}
	var own []*v1beta1.HeadscalePolicy
	for i := range list.Items {
		object := &list.Items[i]
		if object.Spec.HeadscaleRef == s.headscale.Name && object.Status.AppliedDigest != "" && object.DeletionTimestamp.IsZero() {
			own = append(own, object)
		}
	}
	slices.SortFunc(own, v1beta1.ComparePolicies)
	stored := acceptedPolicy(s.headscale, own)
	if len(stored.text)+want.PreflightSize() > maxPreflightData {
		return storedPolicy{}, nil
	}
	return stored, nil
}

// acceptedPolicy is the policy that Headscale accepted of these objects. It is unknown where one
// of them has changed since, or is gone.
func acceptedPolicy(hs *v1beta1.Headscale, objects []*v1beta1.HeadscalePolicy) storedPolicy {
	if len(objects) == 0 {
		return storedPolicy{}
	}
	var parts []policy.Part
	for _, object := range objects {
		document, err := policy.Parse(object.Text())
		if err != nil || document.Digest() != object.Status.AppliedDigest {
			return storedPolicy{unknown: fmt.Sprintf("HeadscalePolicy %s has changed, and that is not in force yet, so the policy that Headscale has stored is not known: "+
				"wait until it is Ready, or undo its change", object.Name)}
		}
		parts = append(parts, policy.Part{Source: policy.SourceOf(object.Name), Document: document})
	}
	text, conflicts := policy.Join(policy.Header(hs.Namespace, hs.Name), parts)
	if len(conflicts) == 0 && madeOf(text, objects) {
		return storedPolicy{text: text}
	}
	return storedPolicy{unknown: fmt.Sprintf("the HeadscalePolicies (%s) do not make the policy that Headscale has stored, as one was deleted or changed and that is not in force yet: "+
		"wait until all are Ready", namesOf(objects))}
}

// madeOf reports whether a text is the policy that Headscale accepted last of objects.
func madeOf(text string, objects []*v1beta1.HeadscalePolicy) bool {
	joined, err := policy.Parse(text)
	return err == nil && joined.Digest() == objects[0].Status.PolicyDigest
}

// maxNamed is how many HeadscalePolicies are named.
const maxNamed = 5

// namesOf are the names of some objects.
func namesOf(objects []*v1beta1.HeadscalePolicy) string {
	var names []string
	for i, object := range objects {
		if i == maxNamed {
			names = append(names, "…")
			break
		}
		names = append(names, object.Name)
	}
	return strings.Join(names, ", ")
}
