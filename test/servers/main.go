// Command servers makes sure that the real servers for tests and the demo are
// in the cache: it builds what is missing and is quiet when nothing is.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"infrado.cloud/headscale-operator/test/serverbuild"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	if interrupted {
		fmt.Fprintln(os.Stderr, "servers: interrupted; what is built so far is kept")
		os.Exit(1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	root, err := serverbuild.FindRoot()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("servers", flag.ExitOnError)
	headscale := flags.String("headscale", serverbuild.DefaultHeadscale, "versions of Headscale, separated by commas, or all, or none")
	backup := flags.Bool("backup", false, "an S3 server, too, as with all versions of Headscale")
	oldest := flags.Bool("oldest", false, "the oldest supported Kubernetes instead of the newest")
	printAssets := flags.Bool("print", false, "print the directory of etcd, kube-apiserver and kubectl, for "+serverbuild.AssetsVariable)
	program := flags.String("program", "", "also build a package of this repository: output=package, such as bin/demo=./test/demo; without an output, =./cmd/... compiles for Go's cache only")
	_ = flags.Parse(args)
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	versions, err := headscaleVersions(root, *headscale)
	if err != nil {
		return err
	}
	servers, err := serverbuild.Ensure(ctx, serverbuild.Options{
		Root: root, Headscale: versions, Litestream: len(versions) > 0, Backup: *headscale == "all" || *backup, Oldest: *oldest, Log: os.Stderr,
	})
	if err != nil {
		return err
	}
	if output, pkg, wanted := strings.Cut(*program, "="); wanted {
		if err := serverbuild.BuildProgram(ctx, root, pkg, output, os.Stderr); err != nil {
			return err
		}
	}
	if *printAssets {
		fmt.Println(servers.Assets)
	}
	return nil
}

// headscaleVersions reads the value of the flag --headscale.
func headscaleVersions(root, value string) ([]string, error) {
	switch value {
	case "none", "":
		return nil, nil
	case "all":
		return serverbuild.HeadscaleVersions(root)
	default:
		return strings.Split(value, ","), nil
	}
}
