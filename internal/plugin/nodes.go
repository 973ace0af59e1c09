package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// nodeFlags are the flags that all commands about nodes have.
type nodeFlags struct {
	// headscale is the name of the Headscale, or "" for the only one.
	headscale string
}

// nodesCommand is kubectl headscale nodes.
func (a *app) nodesCommand() *cobra.Command {
	flags := &nodeFlags{}
	var format tableOutput
	command := &cobra.Command{
		Use:     "nodes [NODE]",
		Aliases: []string{"node"},
		Short:   "Show the nodes of a tailnet, approve their routes, expire and delete them",
		Long: `Shows the nodes of a Headscale: whether they are online, when they were last seen, when
they expire, which of their routes are approved and which wait for it. Headscale is asked
through a forwarded port of its pod, with the API key of its Secret.

NODE is the name of a node, its id or one of its addresses. Without it, all nodes are
shown.`,
		Example: `  kubectl headscale nodes
  kubectl headscale nodes -o json | jq -r '.items[] | select(.waitingRoutes != []) | .name'
  kubectl headscale nodes approve-routes router 10.1.0.0/24`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s takes one NODE, and was given %d: %q", c.CommandPath(), len(args), args)
			}
			return nil
		},
		ValidArgsFunction: a.completeNode(flags, nil),
		RunE: func(c *cobra.Command, args []string) error {
			return a.nodes(c.Context(), flags, args, &format)
		},
	}
	command.PersistentFlags().StringVar(&flags.headscale, "headscale", "", "the Headscale, if the namespace has several")
	// The flag exists, so that this cannot fail.
	_ = command.RegisterFlagCompletionFunc("headscale", a.completeName)
	format.addTo(command)
	command.AddCommand(a.approveRoutesCommand(flags), a.expireNodeCommand(flags), a.deleteNodeCommand(flags))
	return command
}

// nodes shows the nodes of a Headscale.
func (a *app) nodes(ctx context.Context, flags *nodeFlags, args []string, format *tableOutput) error {
	t, nodes, err := a.tailnetNodes(ctx, flags)
	if err != nil {
		return err
	}
	defer t.close()
	out, s := a.Streams.Out, newScreen(a.Streams.Out, a.Getenv)
	if len(args) > 0 {
		node, err := findNode(t.hs, nodes, args[0])
		switch {
		case err != nil:
			return err
		case format.output != "":
			return format.write(out, node)
		case format.wide:
			nodes = []*nodeReport{node}
		default:
			s.showNode(out, node, a.Now())
			return nil
		}
	}
	switch {
	case format.output != "":
		return format.write(out, list[*nodeReport]{Items: nodes})
	case len(nodes) == 0:
		_, _ = fmt.Fprintf(a.Streams.ErrOut, "Headscale %s/%s has no nodes.\n", t.hs.Namespace, t.hs.Name)
	default:
		s.showNodes(out, nodes, format.wide, a.Now())
	}
	return nil
}

// tailnet is a connection to a Headscale, to list and change its nodes.
type tailnet struct {
	hs *v1beta1.Headscale
	*endpoint
	app *app
}

// tailnetNodes connects to the Headscale that the flags name, or to the only one, and lists its nodes.
// The connection is the caller's to close.
func (a *app) tailnetNodes(ctx context.Context, flags *nodeFlags) (*tailnet, []*nodeReport, error) {
	c, err := a.cluster()
	if err != nil {
		return nil, nil, err
	}
	t, err := a.tailnet(ctx, c, flags)
	if err != nil {
		return nil, nil, err
	}
	nodes, err := t.nodes(ctx)
	if err != nil {
		t.close()
		return nil, nil, err
	}
	return t, nodes, nil
}

// tailnet connects to the Headscale that the flags name, or to the only one.
func (a *app) tailnet(ctx context.Context, c *cluster, flags *nodeFlags) (*tailnet, error) {
	var args []string
	if flags.headscale != "" {
		args = []string{flags.headscale}
	}
	hs, err := c.chosen(ctx, args)
	var own *exit
	if errors.As(err, &own) && len(args) == 0 {
		return nil, &exit{own.status, fmt.Errorf("%w; name one with --headscale", err)}
	}
	if err != nil {
		return nil, err
	}
	forwarded, err := a.connectTo(ctx, c, hs)
	if err != nil {
		return nil, notAsked(hs, err)
	}
	return &tailnet{hs, forwarded, a}, nil
}

// notAsked says why a Headscale cannot be queried.
func notAsked(hs *v1beta1.Headscale, why error) error {
	return fmt.Errorf("%w, so Headscale %s/%s cannot be queried", why, hs.Namespace, hs.Name)
}

func (t *tailnet) close() { _ = t.Close() }

// nodes lists all nodes, sorted by name.
func (t *tailnet) nodes(ctx context.Context) ([]*nodeReport, error) {
	listed, err := t.ListNodes(ctx)
	if err != nil {
		return nil, notAsked(t.hs, t.explain(t.hs, err))
	}
	reports := make([]*nodeReport, len(listed))
	for i := range listed {
		reports[i] = describeNode(t.hs, &listed[i], t.app.Now())
	}
	slices.SortFunc(reports, func(a, b *nodeReport) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return reports, nil
}

// findNode finds a node of a Headscale by its name, its id or one of its addresses, and else by the name
// of its host.
func findNode(hs *v1beta1.Headscale, nodes []*nodeReport, argument string) (*nodeReport, error) {
	found := nodesThat(nodes, func(n *nodeReport) bool {
		return n.Name == argument || strconv.FormatUint(n.ID, 10) == argument || slices.ContainsFunc(n.Addresses, func(address string) bool { return sameAddress(address, argument) })
	})
	if len(found) == 0 {
		found = nodesThat(nodes, func(n *nodeReport) bool { return n.Hostname == argument })
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("there is no node %q in Headscale %s/%s; kubectl headscale nodes lists its nodes", argument, hs.Namespace, hs.Name)
	case 1:
		return found[0], nil
	}
	several := make([]string, len(found))
	for i, node := range found {
		several[i] = node.String()
	}
	return nil, fmt.Errorf("%q is more than one node, so name the address of one: %s", argument, strings.Join(several, ", "))
}

// nodesThat returns the nodes that match.
func nodesThat(nodes []*nodeReport, fits func(*nodeReport) bool) (found []*nodeReport) {
	for _, node := range nodes {
		if fits(node) {
			found = append(found, node)
		}
	}
	return found
}

// sameAddress reports whether two texts are the same address.
func sameAddress(one, other string) bool {
	a, err := netip.ParseAddr(one)
	if err != nil {
		return false
	}
	b, err := netip.ParseAddr(other)
	return err == nil && a == b
}

// completeNode offers the nodes of a Headscale, and then what there is to say about the one that was
// named.
func (a *app) completeNode(flags *nodeFlags, then func(*nodeReport) []string) cobra.CompletionFunc {
	return func(command *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 && then == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.complete(command.Context(), typed, func(ctx context.Context, c *cluster) ([]string, error) {
			t, err := a.tailnet(ctx, c, flags)
			if err != nil {
				return nil, err
			}
			defer t.close()
			nodes, err := t.nodes(ctx)
			if err != nil || len(args) == 0 {
				return namesOfNodes(nodes), err
			}
			node, err := findNode(t.hs, nodes, args[0])
			if err != nil {
				return nil, err
			}
			return slices.DeleteFunc(then(node), func(text string) bool { return slices.Contains(args, text) }), nil
		})
	}
}

// namesOfNodes are the names that can be typed.
func namesOfNodes(nodes []*nodeReport) []string {
	var names []string
	for _, node := range nodes {
		if node.Name != "" && oneLine(node.Name) == node.Name {
			names = append(names, node.Name)
		}
	}
	return names
}
