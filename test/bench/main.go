// Command bench measures what the operator and the API Key Manager cost and how fast they
// are: the released programs, on real servers. It prints one table of the figures that
// count, and can write all that it found into a document. Nothing that it finds is an error.
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

	"infrado.cloud/headscale-operator/test/serverbuild"
)

// summaryTable is the name of the marks in the document between which the figures of all
// subjects are.
const summaryTable = "summary"

// subject is something that is measured.
type subject struct {
	// name is that of the subject's marks in the document, too.
	name    string
	measure func(context.Context, *settings) report
}

// subjects are all of them, in the order in which they are measured.
var subjects = []subject{
	{"size", measureSizes},
	{"sidecar", measureSidecar},
	{"firstkey", measureFirstKeys},
	{"rotation", measureRotations},
	{"operator", measureOperators},
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
	root, err := serverbuild.FindRoot()
	if err != nil {
		return err
	}
	machine := thisMachine(ctx, root)
	var all error
	var targets []target
	for _, subject := range s.subjects {
		say("%s", subject.name)
		var found report
		if err := attempt(func() { found = subject.measure(ctx, s) }); err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", subject.name, err))
			continue
		}
		targets = append(targets, found.targets...)
		all = errors.Join(all, write(s.document, subject.name, found.text()+"\n\n"+measuredOn(machine)))
		if s.document == "" {
			say("%s:\n\n%s\n", subject.name, found.text())
		}
	}
	summary := compare(targets) + "\n\n" + measuredOn(machine)
	fmt.Println(summary)
	if all == nil && len(s.subjects) == len(subjects) {
		all = write(s.document, summaryTable, summary)
	}
	return all
}

// say tells of progress, which does not belong to the tables on standard output.
func say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", arguments...)
}

// write puts what was found of a subject into a document, if there is one.
func write(document, name, text string) error {
	if document == "" {
		return nil
	}
	content, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	filled, err := fillIn(string(content), name, text)
	if err != nil {
		return fmt.Errorf("%s: %w", document, err)
	}
	return os.WriteFile(document, []byte(filled), 0o644)
}

// settings are what the command line says.
type settings struct {
	subjects []subject
	document string
	images   string
	// sizes and rest are the operator's, and sidecarRest is that of the API Key Manager.
	sizes             []int
	rest, sidecarRest time.Duration
	// runs is how often anything about keys is measured.
	runs int
}

// parseFlags reads the command line.
func parseFlags(arguments []string) (*settings, error) {
	s := &settings{}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	names := make([]string, len(subjects))
	for i, subject := range subjects {
		names[i] = subject.name
	}
	only := flags.String("only", strings.Join(names, ","), "`subjects` to measure, separated by commas")
	sizes := flags.String("sizes", "1,20,100,500", "how many `Headscales` the operator is measured with, separated by commas: each number on a fresh API server")
	flags.DurationVar(&s.rest, "rest", 5*time.Minute, "how long to watch the operator at rest with the most Headscales; with fewer, half of it")
	flags.DurationVar(&s.sidecarRest, "sidecar-rest", time.Minute, "how long to watch the API Key Manager at rest")
	flags.IntVar(&s.runs, "runs", 20, "how many first keys and rotations are measured")
	flags.StringVar(&s.document, "write", "", "`document` whose tables are replaced by the new ones")
	flags.StringVar(&s.images, "images", "out/images", "`directory` in which make images left the programs and the images")
	_ = flags.Parse(arguments) // ExitOnError
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: there are flags only; --help lists them", flags.Arg(0))
	}
	if s.runs < 1 || s.rest <= 0 || s.sidecarRest <= 0 {
		return nil, errors.New("--runs, --rest and --sidecar-rest must be positive")
	}
	var err error
	if s.images, err = filepath.Abs(s.images); err != nil {
		return nil, err
	}
	unknown := strings.Split(strings.ReplaceAll(*only, " ", ""), ",")
	for _, subject := range subjects {
		if slices.Contains(unknown, subject.name) {
			s.subjects = append(s.subjects, subject)
			unknown = slices.DeleteFunc(unknown, func(name string) bool { return name == subject.name })
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("--only has %q, which is no subject; --help names them", unknown[0])
	}
	for text := range strings.SplitSeq(*sizes, ",") {
		size, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || size < 1 {
			return nil, fmt.Errorf("--sizes has %q, which is not a positive number", text)
		}
		s.sizes = append(s.sizes, size)
	}
	slices.Sort(s.sizes)
	s.sizes = slices.Compact(s.sizes)
	return s, nil
}

// restWith is how long the operator is watched at rest with that many Headscales.
func (s *settings) restWith(size int) time.Duration {
	if size == slices.Max(s.sizes) {
		return s.rest
	}
	return s.rest / 2
}
