package plugin

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// completionScript is what kubectl runs to complete kubectl headscale.
//
//go:embed kubectl_complete-headscale
var completionScript string

// completionTimeout is how long a user who pressed Tab waits at most. Tests wait longer.
var completionTimeout = 3 * time.Second

// completionCommand is kubectl headscale completion.
func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion",
		Short: "Print the script by which kubectl completes this plugin",
		Long: `Prints the script by which kubectl completes the commands, flags and NAMEs of this
plugin. Where kubectl itself is completed, this is all that it takes:

  kubectl headscale completion >~/.local/bin/kubectl_complete-headscale
  chmod +x ~/.local/bin/kubectl_complete-headscale

The directory must be on the PATH.`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(a.Streams.Out, completionScript)
			return err
		},
	}
}

// completeName offers the Headscales of the namespace.
func (a *app) completeName(command *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completeOne(command, args, typed, func(ctx context.Context, c *cluster) ([]string, error) {
		headscales, err := c.listHeadscales(ctx, c.namespace)
		names := make([]string, len(headscales))
		for i := range headscales {
			names[i] = headscales[i].Name
		}
		return names, err
	})
}

// completeOne offers a first argument, and no further one.
func (a *app) completeOne(command *cobra.Command, args []string, typed string, find func(context.Context, *cluster) ([]string, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(command.Context(), typed, find)
}

// complete offers the names that begin with what was typed. If that fails, it offers nothing: a
// message would corrupt the command line.
func (a *app) complete(ctx context.Context, typed string, find func(context.Context, *cluster) ([]string, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	c, err := a.cluster()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found, err := find(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return beginningWith(typed, found), cobra.ShellCompDirectiveNoFileComp
}

// beginningWith are those of the names that begin with what was typed, in order.
func beginningWith(typed string, names []string) []cobra.Completion {
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, typed) })
	slices.Sort(names)
	return names
}

// completeFlags offers values of the flags that kubectl has, too.
func (a *app) completeFlags(root *cobra.Command) {
	namespaces := func(command *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.complete(command.Context(), typed, func(ctx context.Context, c *cluster) ([]string, error) {
			list, err := c.core.Namespaces().List(ctx, metav1.ListOptions{})
			if err != nil {
				return nil, err
			}
			names := make([]string, len(list.Items))
			for i := range list.Items {
				names[i] = list.Items[i].Name
			}
			return names, nil
		})
	}
	contexts := func(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		config, err := a.flags.ToRawKubeConfigLoader().RawConfig()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := make([]string, 0, len(config.Contexts))
		for name := range config.Contexts {
			names = append(names, name)
		}
		return beginningWith(typed, names), cobra.ShellCompDirectiveNoFileComp
	}
	// The flags exist, so that this cannot fail.
	_ = root.RegisterFlagCompletionFunc("namespace", namespaces)
	_ = root.RegisterFlagCompletionFunc("context", contexts)
}
