// Command bench measures what the operator and the API Key Manager cost and how fast they
// are: the released programs, on real servers. It prints a table of all figures. Nothing
// that it finds is an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// subjects are what can be measured, by name.
var subjects = map[string]func(context.Context, *settings) []row{
	"size":     measureSizes,
	"sidecar":  measureSidecar,
	"firstkey": measureFirstKeys,
	"rotation": measureRotations,
	"operator": measureOperators,
}

// settings are what the command line says.
type settings struct {
	subjects []string
	images   string
	// sizes and rest are the operator's, and sidecarRest is that of the API Key Manager.
	sizes             []int
	rest, sidecarRest time.Duration
	// runs is how often anything about keys is measured.
	runs int
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

// say tells of progress, which does not belong to the table on standard output.
func say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", arguments...)
}

// parseFlags reads the command line.
func parseFlags(arguments []string) (*settings, error) {
	s := &settings{}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	only := flags.String("only", "size,sidecar,firstkey,rotation,operator", "`subjects` to measure, separated by commas")
	sizes := flags.String("sizes", "1,20,100,500", "how many `Headscales` the operator is measured with, the fewest first: each number on a fresh API server")
	flags.DurationVar(&s.rest, "rest", 150*time.Second, "how long to watch the operator at rest")
	flags.DurationVar(&s.sidecarRest, "sidecar-rest", time.Minute, "how long to watch the API Key Manager at rest")
	flags.IntVar(&s.runs, "runs", 20, "how many first keys and rotations are measured")
	flags.StringVar(&s.images, "images", "out/images", "`directory` in which make images left the programs and the images")
	_ = flags.Parse(arguments) // ExitOnError
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: there are flags only; --help lists them", flags.Arg(0))
	}
	if s.runs < 1 || s.rest <= 0 || s.sidecarRest <= 0 {
		return nil, errors.New("--runs, --rest and --sidecar-rest must be positive")
	}
	for _, name := range strings.Split(*only, ",") {
		if subjects[name] == nil {
			return nil, fmt.Errorf("--only has %q, which is no subject; --help names them", name)
		}
		s.subjects = append(s.subjects, name)
	}
	var err error
	if s.sizes, err = parseSizes(*sizes); err != nil {
		return nil, err
	}
	s.images, err = filepath.Abs(s.images)
	return s, err
}

// parseSizes reads numbers of Headscales, each larger than the one before.
func parseSizes(text string) (sizes []int, err error) {
	for number := range strings.SplitSeq(text, ",") {
		size, err := strconv.Atoi(number)
		if err != nil || size < 1 || len(sizes) > 0 && size <= slices.Max(sizes) {
			return nil, fmt.Errorf("--sizes has %q, which is not a positive number, or not larger than the one before", number)
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}
