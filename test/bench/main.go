// Command bench measures what the operator costs: on a real API server, with a number
// of Headscales at once, it counts every request of the operator in the audit log and
// reads its memory and its processor time. It prints a table and can write it into a
// document.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// settings are what the command line says.
type settings struct {
	sizes  []int
	rest   time.Duration
	output string
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

// run measures every size and shows the results.
func run(ctx context.Context) error {
	s, err := parseFlags()
	if err != nil {
		return err
	}
	var results []measurement
	for _, size := range s.sizes {
		fmt.Fprintf(os.Stderr, "%d Headscales…\n", size)
		m, err := measure(ctx, size, s.rest)
		if err != nil {
			return fmt.Errorf("with %d Headscales: %w", size, err)
		}
		results = append(results, m)
	}
	text := table(results)
	fmt.Print(text)
	if s.output == "" {
		return nil
	}
	return replaceTable(s.output, text)
}

// parseFlags reads the command line.
func parseFlags() (*settings, error) {
	var s settings
	sizes := flag.String("sizes", "1,20,100,500", "how many Headscales, separated by commas: each number is measured on a fresh API server")
	flag.DurationVar(&s.rest, "rest", 5*time.Minute, "how long to watch the operator at rest")
	flag.StringVar(&s.output, "write", "", "document whose table is replaced by the new one")
	flag.Parse()
	for text := range strings.SplitSeq(*sizes, ",") {
		size, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || size < 1 {
			return nil, fmt.Errorf("--sizes has %q, which is not a positive number", text)
		}
		s.sizes = append(s.sizes, size)
	}
	return &s, nil
}
