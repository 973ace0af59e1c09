// Command demo shows what the operator does, on this machine alone: a real API
// server, the real operator, the real Headscale and the real API Key Manager run
// as local processes, without a cluster and without containers. It stays up until
// Ctrl-C, or ends by itself with DEMO_EXIT=1, and leaves nothing behind.
package main

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
)

// exitInterrupted is the usual exit status of a program that Ctrl-C ended.
const exitInterrupted = 130

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	status := run(ctx, newNarrator(os.Stdout), os.Getenv("DEMO_EXIT") == "1")
	stop()
	os.Exit(status)
}

// run tells the story and returns the exit status.
func run(ctx context.Context, n *narrator, exit bool) (status int) {
	s := &stage{narrator: n, World: &env.World{}}
	defer func() {
		if err := s.Close(); err != nil {
			n.say("Cleaning up failed: %v", err)
			status = 1
			return
		}
		n.say("Everything is stopped and removed.")
	}()
	err := s.perform(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		n.say("Interrupted.")
		return exitInterrupted
	case err != nil:
		n.say("FAILED: %v", err)
		s.showLogs()
		return 1
	case exit:
		return 0
	}
	if err := s.stayUp(ctx); err != nil {
		n.say("FAILED: %v", err)
		s.showLogs()
		return 1
	}
	return 0
}

// stayUp goes on telling what happens to the key, until Ctrl-C. The operator's end
// is a failure.
func (s *stage) stayUp(ctx context.Context) error {
	kubectl := "kubectl"
	if _, err := exec.LookPath(kubectl); err != nil {
		kubectl = s.Servers.Kubectl()
	}
	s.say("Look around, as long as you like, in another terminal; Ctrl-C ends the demo and removes everything:")
	s.detail("export KUBECONFIG=%s", s.Plane.Kubeconfig())
	s.detail("%s get headscale,statefulset,service,secret", kubectl)
	s.detail("%s annotate headscale headscale %s=$(date +%%s) --overwrite    # a new key, now", kubectl, v1beta1.AnnotationRotateRequestedAt)
	return s.followKey(ctx)
}
