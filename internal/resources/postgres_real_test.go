package resources_test

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/resources"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// TestRealConnectionValues shows for every release that Headscale reads a password as one value
// exactly where it is not refused.
func TestRealConnectionValues(t *testing.T) {
	g := NewWithT(t)
	root, err := serverbuild.FindRoot()
	g.Expect(err).NotTo(HaveOccurred())
	versions, err := serverbuild.HeadscaleVersions(root)
	g.Expect(err).NotTo(HaveOccurred())
	servers, err := serverbuild.Find(serverbuild.Options{Root: root, Headscale: versions})
	g.Expect(err).NotTo(HaveOccurred(), "make servers builds them")
	for _, version := range versions {
		for value, usable := range resources.ConnectionValues {
			t.Run(fmt.Sprintf("%s/%q", version, value), func(t *testing.T) {
				g := NewWithT(t)
				output := connect(t, servers.Headscale[version], value)
				if usable {
					g.Expect(output).To(ContainSubstring("connection refused"))
					g.Expect(resources.ConnectionHint(output)).To(BeEmpty())
				} else {
					g.Expect(resources.ConnectionHint(output)).To(HavePrefix("If the database password contains a space"), output)
				}
			})
		}
	}
}

// connect runs Headscale with a password for a database that nobody serves and returns what it
// printed.
func connect(t *testing.T, binary, password string) string {
	output, err := env.RefuseConfig(t.Context(), env.HeadscaleOptions{Binary: binary, Dir: t.TempDir(), Config: map[string]any{
		"database": map[string]any{"type": "postgres", "postgres": map[string]any{
			"host": "127.0.0.1", "port": 1, "name": "hs", "user": "hs", "pass": password,
		}},
	}})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return output
}
