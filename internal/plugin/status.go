package plugin

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// statusCommand is kubectl headscale status.
func (a *app) statusCommand() *cobra.Command {
	var all bool
	var format output
	command := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show the state of Headscales and their keys",
		Long: `Shows how a Headscale is: its pod, its API key, when that is replaced, and what is
wrong. Without NAME, all Headscales of the namespace are shown, or of all namespaces
with -A.

Exits with status 3 if one of those that are shown is not ready.`,
		Example: `  kubectl headscale status
  kubectl headscale status headscale -o json
  kubectl headscale status -A`,
		Args: func(c *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usagef("-A shows the Headscales of all namespaces: leave out the NAME, or name its namespace with -n")
			}
			return oneName(c, args)
		},
		ValidArgsFunction: a.completeName,
		RunE: func(c *cobra.Command, args []string) error {
			return a.status(c.Context(), args, all, &format)
		},
	}
	command.Flags().BoolVarP(&all, "all-namespaces", "A", false, "show the Headscales of all namespaces")
	format.addTo(command)
	return command
}

// status shows the state of Headscales.
func (a *app) status(ctx context.Context, args []string, all bool, format *output) error {
	c, err := a.cluster()
	if err != nil {
		return err
	}
	reports, err := a.reports(ctx, c, args, all)
	if err != nil {
		return err
	}
	if err := a.showReports(reports, len(args) > 0, all, c.namespace, format); err != nil {
		return err
	}
	for i := range reports {
		if !reports[i].Ready {
			return errNotReady
		}
	}
	return nil
}

// reports looks at the Headscales that are asked for.
func (a *app) reports(ctx context.Context, c *cluster, args []string, all bool) ([]statusReport, error) {
	headscales, namespace, err := c.read(ctx, args, all)
	if err != nil {
		return nil, err
	}
	return c.describeAll(ctx, headscales, namespace, a.Now())
}

// read reads the Headscales that are asked for, and says of which namespace: of all with "".
func (c *cluster) read(ctx context.Context, args []string, all bool) ([]v1beta1.Headscale, string, error) {
	if len(args) > 0 {
		headscale, err := c.named(ctx, args[0])
		if err != nil {
			return nil, "", err
		}
		return []v1beta1.Headscale{*headscale}, headscale.Namespace, nil
	}
	namespace := c.namespace
	if all {
		namespace = metav1.NamespaceAll
	}
	headscales, err := c.listHeadscales(ctx, namespace)
	return headscales, namespace, err
}

// showReports prints the state of Headscales: one in full, several in a table.
func (a *app) showReports(reports []statusReport, named, all bool, namespace string, format *output) error {
	out := a.Streams.Out
	switch {
	case *format != "" && named:
		return format.write(out, reports[0])
	case *format != "":
		return format.write(out, list[statusReport]{Items: reports})
	case len(reports) == 0 && all:
		a.sayNone(metav1.NamespaceAll)
	case len(reports) == 0:
		a.sayNone(namespace)
	case len(reports) == 1 && !all:
		newScreen(out, a.Getenv).showOne(out, &reports[0], a.Now())
	default:
		newScreen(out, a.Getenv).showMany(out, reports, all, a.Now())
	}
	return nil
}

// sayNone says that a namespace, or all with "", has no Headscale.
func (a *app) sayNone(namespace string) {
	if namespace == metav1.NamespaceAll {
		_, _ = fmt.Fprintln(a.Streams.ErrOut, "There is no Headscale in any namespace.")
		return
	}
	_, _ = fmt.Fprintf(a.Streams.ErrOut, "There is no Headscale in namespace %s; -A shows those of all namespaces.\n", namespace)
}
