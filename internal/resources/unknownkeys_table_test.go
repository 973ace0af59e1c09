package resources

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// TestEveryLaterKeyNamesItsFirstRelease writes each key of the table for each release that does
// not have it yet.
func TestEveryLaterKeyNamesItsFirstRelease(t *testing.T) {
	written := 0
	for _, key := range configKeys {
		for release := range key.first {
			if isRemoved(key.path) {
				continue
			}
			written++
			version := knownReleases[release].String()
			t.Run(version+" "+key.path, func(t *testing.T) {
				g := NewWithT(t)
				headscale := &v1beta1.Headscale{}
				headscale.Spec.Version = "v" + version + ".0"
				var err error
				headscale.Spec.Config, err = v1beta1.NewHeadscaleConfig(nested(key.path))
				g.Expect(err).NotTo(HaveOccurred())
				draft, err := NewDraft(headscale)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(draft.UnknownConfigKeys()).To(HaveSuffix("(only other releases have it, first v" + knownReleases[firstWith(key.path, release)].String() + ")"))
			})
		}
	}
	NewWithT(t).Expect(written).To(BeNumerically(">", 10))
}

// nested is a config with one key.
func nested(path string) map[string]any {
	name, rest, isSection := strings.Cut(path, ".")
	if isSection {
		return map[string]any{name: nested(rest)}
	}
	return map[string]any{name: "1"}
}

// firstWith is the first release that has what a release does not know of a path: its first
// section that has no key there, or the key itself.
func firstWith(path string, release int) int {
	names := strings.Split(path, ".")
	for i := range names {
		first := len(knownReleases)
		for _, key := range configKeys {
			if strings.HasPrefix(key.path+".", strings.Join(names[:i+1], ".")+".") {
				first = min(first, key.first)
			}
		}
		if first > release {
			return first
		}
	}
	return -1
}
