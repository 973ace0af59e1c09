// Command testpod is what the end-to-end suite runs in pods of its own. It has no
// shell and needs none, so that it runs where the project's images run.
//
//	testpod idle                          does nothing, for others to exec into
//	testpod request METHOD URL            one request to Headscale; the key is on stdin
//	testpod consume --url … --file …      uses the key all the time, and counts
//	testpod inspect DIR                   what a process, such as /proc/1, can read and write
//	testpod kill POD-UID PROGRAM          ends a container's process at once
//	testpod interrupt --pod=… --mark=…    ends a process in the middle of a rotation
//	testpod get DIR PATH                  one request to the API server, as a container
//
// Called as sleep, sh or tar, it stands in the place of busybox: see shell.go.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	command := run
	if standIn, found := shellCommands[filepath.Base(os.Args[0])]; found {
		command = standIn
	}
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testpod:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) error{
		"idle": idle, "request": request, "consume": consume, "inspect": inspect, "kill": kill, "interrupt": interrupt, "get": get,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("the first argument must be a command; there are idle, request, consume, inspect, kill, interrupt and get")
	}
	return commands[args[0]](ctx, args[1:])
}

// idle waits for the end.
func idle(ctx context.Context, _ []string) error {
	<-ctx.Done()
	return nil
}
