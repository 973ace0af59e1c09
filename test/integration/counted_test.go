package integration_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/test/env"
)

// A backup is another's where the key is not in the database: no release may have it in a form that is not
// found there.
var _ = Describe("The database that each release writes", func() {
	It("has its rows counted, and its API key found", func(ctx SpecContext) {
		for version, program := range servers.Headscale {
			By(version)
			hs, err := env.StartHeadscale(ctx, env.HeadscaleOptions{Binary: program, Guard: guard, Output: GinkgoWriter})
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(hs.Stop)
			direct := headscale.NewClient(headscale.UnixSocket(hs.SocketPath()))
			DeferCleanup(direct.Close)
			for _, name := range []string{"alice", "bob"} {
				_, err = direct.CreateUser(ctx, headscale.NewUser{Name: name})
				Expect(err).NotTo(HaveOccurred())
			}
			var prefix string
			for range 3 {
				key, err := direct.CreateAPIKey(ctx, time.Now().Add(time.Hour))
				Expect(err).NotTo(HaveOccurred())
				var whole bool
				prefix, whole = key.Prefix()
				Expect(whole).To(BeTrue())
			}
			Expect(hs.Stop()).To(Succeed())

			dir := filepath.Dir(hs.SocketPath())
			examined := func(prefix string) (report v1beta1.BackupReport) {
				file := filepath.Join(dir, "report.json")
				Expect(apikey.CountRows([]string{"--database=" + filepath.Join(dir, hs.Database), "--report=" + file, "--api-key-prefix=" + prefix})).To(Succeed())
				raw, err := os.ReadFile(file)
				Expect(err).NotTo(HaveOccurred())
				Expect(json.Unmarshal(raw, &report)).To(Succeed())
				return report
			}
			rows := v1beta1.BackupRows{Users: ptr.To[int64](2), Nodes: ptr.To[int64](0), PreAuthKeys: ptr.To[int64](0), APIKeys: ptr.To[int64](3)}
			Expect(examined(prefix)).To(Equal(v1beta1.BackupReport{Rows: rows, HasAPIKey: ptr.To(true)}), version)
			Expect(examined(prefix[:len(prefix)-1]+"~")).To(Equal(v1beta1.BackupReport{Rows: rows, HasAPIKey: ptr.To(false)}), version)
		}
	})
})
