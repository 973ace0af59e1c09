package reliability_test

import (
	"context"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/serverbuild"
)

// The programs under test: the manager as it is shipped, and one that kills itself
// after the step that APIKEY_MANAGER_KILL_AFTER names.
var managerBinary, killableBinary string

func buildManagers(ctx context.Context) {
	GinkgoHelper()
	managerBinary = buildManager(ctx, "apikey-manager")
	killableBinary = buildManager(ctx, "apikey-manager-killable", "faultinjection")
}

func buildManager(ctx context.Context, name string, tags ...string) string {
	GinkgoHelper()
	path := filepath.Join(guard.Dir(), name)
	Expect(serverbuild.BuildProgram(ctx, root, "./cmd/apikey-manager", path, GinkgoWriter, tags...)).To(Succeed())
	return path
}
