package plugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/headscale"
)

// policyCommand is kubectl headscale policy.
func (a *app) policyCommand() *cobra.Command {
	var format output
	command := &cobra.Command{
		Use:   "policy [NAME]",
		Short: "Show the policy in force, and the one that the HeadscalePolicies make",
		Long: `Shows the policy that Headscale has, the one that its HeadscalePolicies make when they
are joined, and the difference. Headscale is asked through a forwarded port of its pod,
with the API key of its Secret.

Exits with status 3 if the two differ, if a HeadscalePolicy is not ready, or if it is not
known what is in force.`,
		Example: `  kubectl headscale policy
  kubectl headscale policy headscale -o json | jq -r .inForce`,
		Args:              oneName,
		ValidArgsFunction: a.completeName,
		RunE: func(c *cobra.Command, args []string) error {
			return a.policy(c.Context(), args, &format)
		},
	}
	format.addTo(command)
	return command
}

// policy shows the policies of a Headscale.
func (a *app) policy(ctx context.Context, args []string, format *output) error {
	c, hs, err := a.choose(ctx, args)
	if err != nil {
		return err
	}
	report, err := a.lookAtPolicies(ctx, c, hs)
	if err != nil {
		return err
	}
	if *format != "" {
		err = format.write(a.Streams.Out, report)
	} else {
		newScreen(a.Streams.Out, a.Getenv).showPolicy(a.Streams.Out, report, a.Now())
	}
	if err == nil && !report.inOrder() {
		return errNotReady
	}
	return err
}

// lookAtPolicies reads the HeadscalePolicies of a Headscale and asks it for its policy, each as far
// as that is possible. It fails where neither is.
func (a *app) lookAtPolicies(ctx context.Context, c *cluster, hs *v1beta1.Headscale) (*policyReport, error) {
	policies, listErr := c.listPolicies(ctx, hs)
	if listErr != nil && !apierrors.IsForbidden(listErr) {
		return nil, listErr
	}
	inForce, askErr := a.askPolicy(ctx, c, hs)
	report := describePolicies(hs, policies, inForce)
	if listErr != nil {
		report.Unread = append(report.Unread, fmt.Sprintf(
			"you are not allowed to list the HeadscalePolicies of namespace %s, so that the policy they make is not known", hs.Namespace))
	}
	if askErr != nil {
		report.Unread = append(report.Unread, oneLine(askErr.Error())+", so that the policy in force is not known")
	}
	if listErr != nil && askErr != nil {
		return nil, fmt.Errorf("%s; and %s", report.Unread[0], report.Unread[1])
	}
	return report, nil
}

// listPolicies reads the HeadscalePolicies of a Headscale.
func (c *cluster) listPolicies(ctx context.Context, of *v1beta1.Headscale) ([]v1beta1.HeadscalePolicy, error) {
	all, err := listKind[v1beta1.HeadscalePolicy](ctx, c, "headscalepolicies", of.Namespace, func() runtime.Object { return &v1beta1.HeadscalePolicyList{} })
	var found []v1beta1.HeadscalePolicy
	for i := range all {
		if all[i].Spec.HeadscaleRef == of.Name && all[i].DeletionTimestamp.IsZero() {
			found = append(found, all[i])
		}
	}
	return found, err
}

// askPolicy asks a Headscale for its policy. The error is a sentence without an end.
func (a *app) askPolicy(ctx context.Context, c *cluster, hs *v1beta1.Headscale) (*headscale.Policy, error) {
	forwarded, err := a.connectTo(ctx, c, hs)
	if err != nil {
		return nil, err
	}
	defer func() { _ = forwarded.Close() }()
	inForce, err := forwarded.GetPolicy(ctx)
	switch {
	case errors.Is(err, headscale.ErrNoPolicy):
		return &headscale.Policy{}, nil
	case err != nil:
		return nil, forwarded.explain(hs, err)
	default:
		return &inForce, nil
	}
}
