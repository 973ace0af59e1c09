//go:build faultinjection

package apikey

import (
	"os"
	"syscall"

	"infrado.cloud/headscale-operator/internal/rotation"
)

// killAfter names the step after which a build with the tag faultinjection kills
// itself the hard way, as a node that loses power would.
var killAfter = rotation.Step(os.Getenv("APIKEY_MANAGER_KILL_AFTER"))

func faultpoint(step rotation.Step) {
	if step == killAfter {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
