//go:build faultinjection

package user

import (
	"os"
	"syscall"
)

// killAfter names the step after which a build with the tag faultinjection kills itself the hard
// way, as a node that loses power would.
var killAfter = step(os.Getenv("OPERATOR_KILL_AFTER"))

func faultpoint(at step) {
	if at == killAfter {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
