package reliability_test

import (
	"context"
	"os/exec"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// The programs under test: the manager as it is shipped, and one that kills itself
// after the step that APIKEY_MANAGER_KILL_AFTER names.
var managerBinary, killableBinary string

func buildManagers(ctx context.Context) {
	GinkgoHelper()
	managerBinary = buildManager(ctx, "apikey-manager", "-tags=grpcnotrace")
	killableBinary = buildManager(ctx, "apikey-manager-killable", "-tags=grpcnotrace,faultinjection")
}

func buildManager(ctx context.Context, name string, flags ...string) string {
	GinkgoHelper()
	path := filepath.Join(guard.Dir(), name)
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", path}, flags...)
	build := exec.CommandContext(ctx, "go", append(args, "./cmd/apikey-manager")...)
	build.Dir = root
	output, err := build.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(output))
	return path
}
