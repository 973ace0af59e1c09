// Command busybox is what the pages run in pods of busybox, for a cluster that cannot pull
// that image: sh, tar and sleep, with rm within sh. It is called by these names, as links to
// it. It is a module of its own, because nothing else needs a shell.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/interp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, filepath.Base(os.Args[0]), os.Args[1:])
	stop()
	var status interp.ExitStatus
	if errors.As(err, &status) {
		os.Exit(int(status))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, args []string) error {
	switch name {
	case "sh":
		return shell(ctx, args)
	case "sleep":
		return sleep(ctx, args)
	case "tar":
		return runTar(args)
	default:
		return fmt.Errorf("call it as sh, sleep or tar")
	}
}

// sleep waits for some seconds, or for the end.
func sleep(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("needs a number of seconds")
	}
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(seconds) * time.Second):
		return nil
	}
}
