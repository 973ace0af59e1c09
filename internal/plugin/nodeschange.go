package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// nodeChange is a planned change of a node.
type nodeChange struct {
	// question asks before it is done, and done says that it was. Where do is nil, done says why there
	// is nothing to do.
	question, done string
	do             func(ctx context.Context, c *headscale.Client) error
}

// approveRoutesCommand is kubectl headscale nodes approve-routes.
func (a *app) approveRoutesCommand(flags *nodeFlags) *cobra.Command {
	return a.nodeChangeCommand(flags, &cobra.Command{
		Use:   "approve-routes NODE [ROUTE...]",
		Short: "Approve routes that a node announces",
		Long: `Approves routes of a node: those that are given, or all that wait for it. Those that were
approved before stay so. Either route of an exit node, 0.0.0.0/0 and ::/0, stands for both.

Asks before it does that.`,
		Example: `  kubectl headscale nodes approve-routes router
  kubectl headscale nodes approve-routes router 10.1.0.0/24 --yes`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s takes a NODE, and the ROUTEs, unless all that wait for approval are to be approved", c.CommandPath())
			}
			return checkRoutes(args[1:])
		},
		ValidArgsFunction: a.completeNode(flags, func(node *nodeReport) []string { return node.WaitingRoutes }),
	}, planRoutes)
}

// checkRoutes returns an error for what Headscale would not accept as a route, or would normalize
// to another one.
func checkRoutes(routes []string) error {
	for _, route := range routes {
		prefix, err := netip.ParsePrefix(route)
		switch {
		case err != nil:
			return usagef("%q is no ROUTE, such as 10.1.0.0/24", route)
		case prefix != prefix.Masked():
			return usagef("%s is no ROUTE, because it has bits behind its mask: %s is one", route, prefix.Masked())
		}
	}
	return nil
}

// planRoutes plans the approval of more routes of a node.
func planRoutes(node *nodeReport, routes []string) nodeChange {
	if len(routes) == 0 {
		routes = node.WaitingRoutes
	}
	missing := without(routes, node.ApprovedRoutes)
	if len(missing) == 0 {
		why := "no route of node " + node.String() + " waits for approval"
		if len(routes) > 0 {
			why = "node " + node.String() + " has " + join(routes) + " approved already"
		}
		return nodeChange{done: "Nothing to do: " + why + "."}
	}
	question := fmt.Sprintf("Approve %s for node %s?", join(missing), node)
	if unknown := without(missing, node.AvailableRoutes); len(unknown) > 0 {
		question += fmt.Sprintf(" The node does not announce %s now.", join(unknown))
	}
	return nodeChange{
		question: question, done: fmt.Sprintf("Approved %s for node %s.", join(missing), node),
		do: func(ctx context.Context, c *headscale.Client) error {
			return c.SetApprovedRoutes(ctx, node.ID, slices.Concat(node.ApprovedRoutes, missing))
		},
	}
}

// join is a list in a sentence.
func join(list []string) string { return oneLine(strings.Join(list, ", ")) }

// expireNodeCommand is kubectl headscale nodes expire.
func (a *app) expireNodeCommand(flags *nodeFlags) *cobra.Command {
	return a.nodeChangeCommand(flags, &cobra.Command{
		Use:   "expire NODE",
		Short: "Expire a node, so that it has to log in again",
		Long: `Expires a node: it is cut off from the tailnet until it logs in again, and keeps its
addresses.

Asks before it does that.`,
		Example:           `  kubectl headscale nodes expire laptop`,
		Args:              oneNode,
		ValidArgsFunction: a.completeNode(flags, nil),
	}, planExpiry)
}

func planExpiry(node *nodeReport, _ []string) nodeChange {
	if node.Expired {
		return nodeChange{done: fmt.Sprintf("Nothing to do: node %s expired at %s.", node, instant(node.Expiry.Time))}
	}
	return nodeChange{
		question: fmt.Sprintf("Expire node %s? It is cut off until it logs in again.", node),
		done:     fmt.Sprintf("Expired node %s: it is cut off until it logs in again.", node),
		do:       func(ctx context.Context, c *headscale.Client) error { return c.ExpireNode(ctx, node.ID) },
	}
}

// deleteNodeCommand is kubectl headscale nodes delete.
func (a *app) deleteNodeCommand(flags *nodeFlags) *cobra.Command {
	return a.nodeChangeCommand(flags, &cobra.Command{
		Use:   "delete NODE",
		Short: "Delete a node",
		Long: `Deletes a node: it loses its addresses and its approved routes, and has to register as a
new one.

Asks before it does that.`,
		Example:           `  kubectl headscale nodes delete laptop`,
		Args:              oneNode,
		ValidArgsFunction: a.completeNode(flags, nil),
	}, planDeletion)
}

func planDeletion(node *nodeReport, _ []string) nodeChange {
	return nodeChange{
		question: fmt.Sprintf("Delete node %s? It loses its addresses and routes, and has to register as a new one.", node),
		done:     fmt.Sprintf("Deleted node %s.", node),
		do:       func(ctx context.Context, c *headscale.Client) error { return c.DeleteNode(ctx, node.ID) },
	}
}

// oneNode requires exactly one NODE.
func oneNode(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s takes one NODE, and was given %d: %q", c.CommandPath(), len(args), args)
	}
	return nil
}

// nodeChangeCommand completes a command so that it changes a node.
func (a *app) nodeChangeCommand(flags *nodeFlags, command *cobra.Command, plan func(node *nodeReport, args []string) nodeChange) *cobra.Command {
	var yes bool
	var format output
	command.RunE = func(c *cobra.Command, args []string) error {
		if !yes && !a.canAsk() {
			return usagef("%s asks for confirmation, and there is no terminal to ask on: use --yes to skip the question", c.CommandPath())
		}
		return a.changeNode(c.Context(), flags, args, yes, &format, plan)
	}
	command.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	format.addTo(command)
	return command
}

// changeNode asks for confirmation, changes a node, and prints what it has done.
func (a *app) changeNode(ctx context.Context, flags *nodeFlags, args []string, yes bool, format *output, plan func(*nodeReport, []string) nodeChange) error {
	t, nodes, err := a.tailnetNodes(ctx, flags)
	if err != nil {
		return err
	}
	defer t.close()
	node, err := findNode(t.hs, nodes, args[0])
	if err != nil {
		return err
	}
	done, err := t.change(ctx, node, yes, func(node *nodeReport) nodeChange { return plan(node, args[1:]) })
	if err != nil {
		return err
	}
	if *format == "" {
		_, err = fmt.Fprintln(a.Streams.Out, newScreen(a.Streams.Out, a.Getenv).text(done))
		return err
	}
	if now, err := t.again(ctx, node); err == nil {
		node = now // and one that was deleted is printed as it was
	}
	return format.write(a.Streams.Out, node)
}

// change changes a node as it is planned, and says what was done.
func (t *tailnet) change(ctx context.Context, node *nodeReport, yes bool, plan func(*nodeReport) nodeChange) (done string, err error) {
	change := plan(node)
	if change.do != nil && !yes {
		if err := t.app.confirm(ctx, change.question); err != nil {
			return "", err
		}
		// Waiting for a person took time: the change is planned again, for the same node.
		if node, err = t.again(ctx, node); err != nil {
			return "", err
		}
		change = plan(node)
	}
	if change.do != nil {
		err = t.outcome(change.do(ctx, t.Client))
	}
	return change.done, err
}

// again reads the current state of a node, if it is still the same node.
func (t *tailnet) again(ctx context.Context, node *nodeReport) (*nodeReport, error) {
	nodes, err := t.nodes(ctx)
	if err != nil {
		return nil, err
	}
	same := nodesThat(nodes, func(n *nodeReport) bool {
		return n.ID == node.ID && n.Name == node.Name && n.CreatedAt.Equal(node.CreatedAt)
	})
	if len(same) == 0 {
		return nil, fmt.Errorf("node %s was deleted or renamed meanwhile: nothing was changed", node)
	}
	return same[0], nil
}

// outcome explains an error of a change.
func (t *tailnet) outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, headscale.ErrNodeNotFound):
		return errors.New("the node was deleted meanwhile: nothing was changed")
	case errors.Is(err, headscale.ErrUnavailable):
		return fmt.Errorf("%w; kubectl headscale nodes shows whether it was done", t.explain(t.hs, err))
	default:
		return t.explain(t.hs, err)
	}
}
