package integration_test

import (
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/env"
)

// projectedFile is a file in a volume as the kubelet keeps it: a link to a directory that is
// swapped for another by a rename, after which the old one is removed.
type projectedFile struct{ dir, name string }

// path is where the file is mounted.
func (f projectedFile) path() string { return filepath.Join(f.dir, f.name) }

// write replaces the file's content.
func (f projectedFile) write(content string) {
	GinkgoHelper()
	old, _ := os.Readlink(filepath.Join(f.dir, "..data"))
	next, err := os.MkdirTemp(f.dir, "..version-")
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(filepath.Join(next, f.name), []byte(content), 0o600)).To(Succeed())
	link := filepath.Join(f.dir, "..data_tmp")
	Expect(os.Symlink(filepath.Base(next), link)).To(Succeed())
	Expect(os.Rename(link, filepath.Join(f.dir, "..data"))).To(Succeed())
	if old == "" {
		Expect(os.Symlink(filepath.Join("..data", f.name), f.path())).To(Succeed())
		return
	}
	Expect(os.RemoveAll(filepath.Join(f.dir, old))).To(Succeed())
}

// The operator relies on this: a changed file of DNS records replaces no pod.
var _ = Describe("A file of DNS records that the kubelet swaps", func() {
	It("is read by every release, again and again, without a restart", func(ctx SpecContext) {
		const first = `[{"name": "a.example.com", "type": "A", "value": "100.64.0.1"}]`
		const second = `[{"name": "a.example.com", "type": "A", "value": "100.64.0.1"}, {"name": "b.example.com", "type": "A", "value": "100.64.0.2"}]`
		for release, binary := range servers.Headscale {
			file := projectedFile{dir: GinkgoT().TempDir(), name: "extra_records.json"}
			file.write(first)
			headscale, err := env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: binary, Guard: guard, Output: GinkgoWriter, Config: map[string]any{
				"log": map[string]any{"level": "trace"},
				"dns": map[string]any{"magic_dns": true, "override_local_dns": false, "base_domain": "tailnet.example.com", "extra_records_path": file.path()},
			}})
			Expect(err).NotTo(HaveOccurred(), release)
			DeferCleanup(headscale.Kill)
			log := func() string { return headscale.Process().Log().String() }

			file.write(second)
			Eventually(log).WithContext(ctx).Should(ContainSubstring("extra records updated from path, count old: 1, new: 2"), release)
			file.write(first)
			Eventually(log).WithContext(ctx).Should(ContainSubstring("extra records updated from path, count old: 2, new: 1"), release)
			file.write(second)
			Eventually(func() int { return strings.Count(log(), "count old: 1, new: 2") }).WithContext(ctx).Should(Equal(2), release)
			Expect(headscale.Process().Running()).To(BeTrue(), release)
		}
	})
})
