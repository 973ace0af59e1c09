package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Exit statuses, which scripts rely on.
const (
	// ExitFailure says that the command failed.
	ExitFailure = 1
	// ExitUsage says that the command line is invalid.
	ExitUsage = 2
	// ExitNotReady says that something that was shown is not ready: a Headscale, an object within
	// it, or a key that cannot be used.
	ExitNotReady = 3
	// ExitInterrupted says that the program was interrupted by Ctrl-C or SIGTERM; it is the usual
	// status for that.
	ExitInterrupted = 130
)

// Requests to the API server in a second, and how many may come at once: what kubectl
// allows itself.
const (
	queriesPerSecond = 50
	queryBurst       = 300
)

// Environment is what the plugin takes from the process that it runs in.
type Environment struct {
	Streams genericiooptions.IOStreams
	// Getenv reads a variable, such as NO_COLOR or LANG.
	Getenv func(string) string
	// Now is the clock.
	Now   func() time.Time
	Build Build
}

// Build is what the linker knows of a program.
type Build struct {
	Version, Commit, Date string
}

// app is one run of the plugin.
type app struct {
	Environment
	flags *genericclioptions.ConfigFlags
}

// Run is the whole program; it returns the exit status.
func Run(ctx context.Context, args []string, environment Environment) int {
	a := &app{Environment: environment, flags: genericclioptions.NewConfigFlags(true)}
	// There is no discovery, so there is nothing to cache.
	a.flags.CacheDir = nil
	a.flags.WrapConfigFn = func(config *rest.Config) *rest.Config {
		config.UserAgent = "kubectl-headscale/" + a.Build.Version
		config.QPS, config.Burst = queriesPerSecond, queryBurst
		config.WarningHandler = rest.NewWarningWriter(a.Streams.ErrOut, rest.WarningWriterOptions{Deduplicate: true})
		return config
	}
	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	status, sentence := outcome(ctx, err)
	if sentence != "" {
		_, _ = fmt.Fprintln(a.Streams.ErrOut, "error: "+sentence)
	}
	return status
}

// rootCommand is the command that all others are below.
func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-headscale",
		Short: "Manage Headscales, their API keys and their nodes",
		Long: `Shows how the Headscales of a cluster and their API keys are, reveals a key to a
script, and has a key replaced. Shows users, pre-auth keys, backups, the policy in force
and the nodes of a tailnet; approves routes of nodes, expires and deletes them.

Where NAME is left out, the only Headscale of the namespace is meant.

Exit statuses: 0 it is done, and what was shown is in order; 1 it could not be done;
2 the command line cannot be used; 3 a Headscale or an object within it that is not
ready, or a key that cannot be used, was shown; 130 interrupted.`,
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl headscale"},
		Args:              a.noSuchCommand,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(a.Streams.In)
	root.SetOut(a.Streams.Out)
	root.SetErr(a.Streams.ErrOut)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w; %s --help lists the flags", err, c.CommandPath())
	})
	a.flags.AddFlags(root.PersistentFlags())
	root.AddCommand(a.statusCommand(), a.keyCommand(), a.rotateCommand(), a.eventsCommand(), a.policyCommand(), a.versionCommand(), a.completionCommand())
	root.AddCommand(a.usersCommand(), a.preAuthKeysCommand(), a.nodesCommand(), a.backupCommand())
	a.completeFlags(root)
	return root
}

// noSuchCommand returns an error for an argument that is not a command.
func (a *app) noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := c.CommandPath() + " --help lists the commands"
	if similar := c.SuggestionsFor(args[0]); len(similar) > 0 {
		hint = fmt.Sprintf("did you mean %s?", similar[0])
	}
	return usagef("there is no command %q; %s", args[0], hint)
}

// oneName accepts at most one argument, the NAME of a Headscale.
func oneName(c *cobra.Command, args []string) error {
	return oneNameOf(c, args, v1beta1.Kind, kinds)
}

// oneNameOf accepts at most one argument, the NAME of an object of a kind, which kubectl writes in
// several ways.
func oneNameOf(c *cobra.Command, args []string, kind string, kinds []string) error {
	if len(args) > 1 {
		return usagef("%s takes one NAME, and was given %d: %q", c.CommandPath(), len(args), args)
	}
	for _, arg := range args {
		if _, err := nameOf(arg, kind, kinds); err != nil {
			return err
		}
	}
	return nil
}

// noArguments refuses every argument.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments, and was given %q", c.CommandPath(), args)
	}
	return nil
}

// exit is an error that ends the program with a status of its own.
type exit struct {
	status int
	err    error
}

func (e *exit) Error() string { return e.err.Error() }

func (e *exit) Unwrap() error { return e.err }

// usagef says what is wrong with the command line.
func usagef(format string, args ...any) error {
	return &exit{ExitUsage, fmt.Errorf(format, args...)}
}

// errNotReady ends the program without a message: everything was already printed.
var errNotReady = errors.New("not ready")

// outcome is the exit status of an error, and its message; empty if everything was already printed.
func outcome(ctx context.Context, err error) (status int, sentence string) {
	var own *exit
	switch {
	case errors.Is(err, errNotReady):
		return ExitNotReady, ""
	case errors.As(err, &own):
		return own.status, own.Error()
	case ctx.Err() != nil:
		return ExitInterrupted, "interrupted"
	default:
		return ExitFailure, explain(err)
	}
}
