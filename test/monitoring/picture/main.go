// Command picture makes the picture of the dashboard in the documentation. It runs the
// operator and three Headscales with keys that live for minutes on real servers, lets some
// things go wrong, and has a real Prometheus scrape them for twenty minutes:
//
//	picture record --data out/picture
//
// and then draws the panels of the dashboard from what Prometheus has, as one page:
//
//	picture draw --data out/picture --output out/picture/dashboard.html
//
// It is not Grafana that draws them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"infrado.cloud/headscale-operator/test/serverbuild"
)

func main() {
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

// settings are what the command line says.
type settings struct {
	root, data, output string
}

// run is the whole program.
func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("say what to do: record or draw")
	}
	var s settings
	flags := flag.NewFlagSet("picture "+args[0], flag.ContinueOnError)
	flags.StringVar(&s.data, "data", filepath.Join("out", "picture"), "directory for what Prometheus records")
	flags.StringVar(&s.output, "output", filepath.Join("out", "picture", "dashboard.html"), "file for the page that is drawn")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	var err error
	if s.root, err = serverbuild.FindRoot(); err != nil {
		return err
	}
	if s.data, err = filepath.Abs(s.data); err != nil {
		return err
	}
	switch args[0] {
	case "record":
		return record(ctx, s)
	case "draw":
		return draw(ctx, s)
	default:
		return fmt.Errorf("%q is neither record nor draw", args[0])
	}
}
