// Command bench measures what the operator and the API Key Manager cost and how fast they
// are: the released programs, on real servers. It prints a table of all figures. Nothing
// that it finds is an error.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// subjects are what can be measured, by name. Another row is one more in what a subject returns,
// and in the summary of docs/performance.md.
var subjects = map[string]func(context.Context, *settings) []row{
	"size":      measureSizes,
	"sidecar":   measureSidecar,
	"firstkey":  measureFirstKeys,
	"rotation":  measureRotations,
	"operator":  measureOperators,
	"preflight": measurePreflights,
	"tailnet":   measureTailnet,
	"backup":    measureBackup,
}

type settings struct {
	subjects          []string
	images            string
	sizes             []int
	rest, sidecarRest time.Duration
	runs, entries     int
}

func main() {
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures every subject that is asked for. One that fails does not keep the others
// from being measured.
func run(ctx context.Context) error {
	s, err := parseFlags(os.Args[1:])
	if err != nil {
		return err
	}
	machine := thisMachine(ctx)
	var all error
	var rows []row
	for _, subject := range s.subjects {
		say("%s", subject)
		if err := attempt(func() { rows = append(rows, subjects[subject](ctx, s)...) }); err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", subject, err))
		}
	}
	fmt.Print(table(rows), "\n", machine, "\n")
	return all
}

// say reports progress, which does not belong to the table on standard output.
func say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", arguments...)
}

func parseFlags(arguments []string) (s *settings, err error) {
	s = &settings{}
	flags := pflag.NewFlagSet("bench", pflag.ExitOnError)
	flags.StringSliceVar(&s.subjects, "only", []string{"size", "sidecar", "firstkey", "rotation", "operator", "preflight", "tailnet", "backup"}, "`subjects` to measure")
	flags.IntSliceVar(&s.sizes, "sizes", []int{1, 20, 100, 500}, "how many `Headscales` the operator is measured with, each number on a fresh API server")
	flags.DurationVar(&s.rest, "rest", 150*time.Second, "how long to watch the operator at rest")
	flags.DurationVar(&s.sidecarRest, "sidecar-rest", time.Minute, "how long to watch the API Key Manager at rest")
	flags.IntVar(&s.runs, "runs", 20, "how many first keys and rotations are measured")
	flags.IntVar(&s.entries, "entries", 1000, "how many HeadscaleUsers and HeadscalePreAuthKeys one Headscale has")
	flags.StringVar(&s.images, "images", "out/images", "`directory` in which make images left the programs and the images")
	_ = flags.Parse(arguments) // ExitOnError
	slices.Sort(s.sizes)
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: there are flags only; --help lists them", flags.Arg(0))
	}
	if min(s.runs, s.entries, s.sizes[0]) < 1 || min(s.rest, s.sidecarRest) <= 0 {
		return nil, errors.New("--sizes, --runs, --entries, --rest and --sidecar-rest must be positive")
	}
	for _, name := range s.subjects {
		if subjects[name] == nil {
			return nil, fmt.Errorf("--only has %q, which is no subject; --help names them", name)
		}
	}
	s.images, err = filepath.Abs(s.images)
	return s, err
}
