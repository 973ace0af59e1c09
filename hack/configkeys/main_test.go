package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/resources"
)

const releasesDirectory = "../../test/servers/headscale"

// commented is a line of an example config with a setting, an item of a list, or a comment on
// one of these, that is commented out, or an empty comment.
var commented = regexp.MustCompile(`^( *)# ?( *(?:[a-z_0-9.]+:(?: .*)?|- .*|#.*|))$`)

// TestExamples reads the example config of every release, as it is and with all that is
// commented out, and expects that the release knows every key of it.
func TestExamples(t *testing.T) {
	releases, err := findReleases(releasesDirectory)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for _, release := range releases {
		t.Run(release.name, func(t *testing.T) {
			g := NewWithT(t)
			source, err := sourceOf(t.Context(), filepath.Join(releasesDirectory, release.name))
			g.Expect(err).NotTo(HaveOccurred())
			example, err := os.ReadFile(filepath.Join(source, "config-example.yaml"))
			g.Expect(err).NotTo(HaveOccurred())
			documents := append(uncommented(string(example)), string(example))
			read := map[string]bool{}
			for _, document := range documents {
				values := map[string]any{}
				if yaml.Unmarshal([]byte(document), &values) != nil {
					continue // prose that looks like a setting
				}
				config, err := v1beta1.NewHeadscaleConfig(values)
				g.Expect(err).NotTo(HaveOccurred())
				note(values, "", read)
				headscale := &v1beta1.Headscale{Spec: v1beta1.HeadscaleSpec{Version: release.name, Config: config}}
				draft, err := resources.NewDraft(headscale)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(draft.UnknownConfigKeys()).To(BeEmpty())
			}
			g.Expect(read).To(And(HaveKey("database.postgres.host"), HaveKey("database.postgres.ssl"), HaveKey("oidc.issuer"),
				HaveKey("oidc.allowed_domains"), HaveKey("dns.extra_records_path")), "parts that are commented out")
		})
	}
}

// note collects the paths of all settings.
func note(section map[string]any, path string, paths map[string]bool) {
	for key, value := range section {
		paths[path+key] = true
		if inner, ok := value.(map[string]any); ok {
			note(inner, path+key+".", paths)
		}
	}
}

// uncommented are variants of an example: in each, one run of settings that are commented out
// counts.
func uncommented(example string) []string {
	lines := strings.Split(example, "\n")
	var variants []string
	for begin := 0; begin < len(lines); begin++ {
		end := begin
		variant := slices.Clone(lines)
		for ; end < len(lines) && (commented.MatchString(lines[end]) || end > begin && lines[end] == ""); end++ {
			variant[end] = commented.ReplaceAllString(lines[end], "$1$2")
		}
		if end > begin {
			variants = append(variants, strings.Join(variant, "\n"))
			begin = end
		}
	}
	return variants
}

func TestReadKeys(t *testing.T) {
	g := NewWithT(t)
	source := t.TempDir()
	g.Expect(os.MkdirAll(filepath.Join(source, "cmd"), 0o755)).To(Succeed())
	g.Expect(os.Mkdir(filepath.Join(source, "hscontrol"), 0o755)).To(Succeed())
	write := func(name, code string) {
		g.Expect(os.WriteFile(filepath.Join(source, "hscontrol", name), []byte("package hscontrol\n"+code), 0o600)).To(Succeed())
	}
	write("config_test.go", `var _ = viper.GetString("of.a.test")`)
	_, err := readKeys(source)
	g.Expect(err).To(MatchError(ContainSubstring("no key is read by viper")))

	write("config.go", `
		func mode(key string) string { return viper.GetString(key) }
		func refuse(key string) bool { return viper.IsSet(key) }
		var (
			_ = viper.GetBool("Plain.Flag")
			_ = viper.GetStringMapString("free.form")
			_ = viper.IsSet("only.asked")
			_ = mode("by.helper")
			_ = refuse("refused")
			_ = other.GetString("of.another.package")
		)
		func init() { viper.SetDefault("only.default", 1) }`)
	g.Expect(readKeys(source)).To(Equal(map[string]bool{"plain.flag": false, "free.form": true, "only.asked": false, "by.helper": false}))
}

func TestSpans(t *testing.T) {
	g := NewWithT(t)
	has, lacks := map[string]bool{"k": false}, map[string]bool{}
	g.Expect(spans("k", []map[string]bool{has, has, lacks, has})).To(Equal([]span{{0, 1}, {3, 3}}))
	g.Expect(spans("k", []map[string]bool{lacks})).To(BeEmpty())
}

// TestTableIsCurrent writes the table anew and compares it with the committed one.
func TestTableIsCurrent(t *testing.T) {
	g := NewWithT(t)
	output := filepath.Join(t.TempDir(), "table.go")
	g.Expect(run(t.Context(), releasesDirectory, output)).To(Succeed())
	written, err := os.ReadFile(output)
	g.Expect(err).NotTo(HaveOccurred())
	committed, err := os.ReadFile("../../internal/resources/zz_generated.configkeys.go")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(written)).To(Equal(string(committed)), "run make generate")
}
