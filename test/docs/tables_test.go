package docs_test

import (
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/test/pages"
)

var _ = Describe("docs/security.md", func() {
	It("lists the rights of the operator, and no others", func() {
		role := &rbacv1.ClusterRole{}
		Expect(yaml.UnmarshalStrict([]byte(readAll("config/rbac/role.yaml")), role)).To(Succeed())
		granted := map[string][]string{}
		for _, rule := range role.Rules {
			Expect(rule.ResourceNames).To(BeEmpty())
			for _, resource := range rule.Resources {
				granted[resource] = append(granted[resource], rule.Verbs...)
			}
		}
		told := map[string][]string{}
		for _, row := range rowsBelow("docs/security.md", "### The operator's rights") {
			for _, resource := range pages.Quoted(row[0]) {
				told[resource] = append(told[resource], pages.Quoted(row[1])...)
			}
		}
		for _, rights := range []map[string][]string{granted, told} {
			for _, verbs := range rights {
				slices.Sort(verbs)
			}
		}
		Expect(told).To(Equal(granted))
	})

	It("names, for all that somebody can do to others, the tests that show what limits it", func() {
		for _, row := range rowsBelow("docs/security.md", "### Who can do what to whom") {
			Expect(row).To(HaveLen(5), "%s", row)
			file, tests := "", 0
			for _, name := range pages.Quoted(row[4]) {
				if strings.HasSuffix(name, "_test.go") {
					file = name
					continue
				}
				tests++
				Expect(file).NotTo(BeEmpty(), name)
				Expect(readAll(file)).To(MatchRegexp(`(?m)func %[1]s\(|\b(It|Entry|DescribeTable)\("%[1]s|^\s*"%[1]s": `, regexp.QuoteMeta(name)), "%s has no test %q", file, name)
			}
			Expect(tests).To(BeNumerically(">", 0), "%s", row)
		}
	})
})

var _ = DescribeTable("The reasons of a condition are all explained in",
	func(file, heading string, kinds []string, but ...string) {
		var explained []string
		for _, row := range rowsBelow(file, heading) {
			explained = append(explained, pages.Quoted(row[0])...)
		}
		var asked []string
		for _, kind := range kinds {
			asked = append(asked, reasons(kind)...)
		}
		asked = slices.DeleteFunc(asked, func(reason string) bool { return slices.Contains(but, reason) })
		Expect(len(asked)).To(BeNumerically(">", 1))
		Expect(explained).To(ConsistOf(asked))
	},
	Entry("the page about trouble, but for those of a Headscale that has none", "docs/troubleshooting.md", "## `Ready` is false",
		[]string{"Reasons of the conditions above.", "Reasons that say how Headscale's pod is.", "Reasons that say how the API key is."},
		"Ready", "Complete", "Available", "NotManaged", "KeyValid"),
	Entry("the page about trouble, with users", "docs/troubleshooting.md", "## A HeadscaleUser is not ready",
		[]string{"Reasons of what exists within a Headscale, such as a HeadscaleUser."}),
	Entry("the page about trouble, with policies", "docs/troubleshooting.md", "## A HeadscalePolicy is not ready",
		[]string{"Reasons of a HeadscalePolicy, besides those."}),
	Entry("the page about trouble, with pre-auth keys", "docs/troubleshooting.md", "## A HeadscalePreAuthKey is not ready",
		[]string{"Reasons of a HeadscalePreAuthKey, besides those."}),
	Entry("the page about a Headscale that is down, as far as they are about its pod", "docs/runbooks/HeadscaleDown.md", "## Mitigation",
		[]string{"Reasons that say how Headscale's pod is."}, "Available"),
)

// reasons are the constants of api/v1beta1/conditions.go below a comment.
func reasons(comment string) []string {
	GinkgoHelper()
	_, block, found := strings.Cut(readAll("api/v1beta1/conditions.go"), "\n// "+comment+"\n")
	Expect(found).To(BeTrue(), comment)
	block, _, _ = strings.Cut(block, "\n)\n")
	var values []string
	for _, match := range regexp.MustCompile(`\tReason\w+ += "(\w+)"`).FindAllStringSubmatch(block, -1) {
		values = append(values, match[1])
	}
	return values
}

var _ = Describe("docs/design.md", func() {
	// hack/structure checks that it names every package of the programs.
	It("names every directory of test", func() {
		page := readAll("docs/design.md")
		directories, err := filepath.Glob(filepath.Join(root, "test", "*"))
		Expect(err).NotTo(HaveOccurred())
		Expect(directories).NotTo(BeEmpty())
		for _, directory := range directories {
			Expect(page).To(ContainSubstring("`test/" + filepath.Base(directory) + "`"))
		}
	})
})

var _ = Describe("docs/rotation-settings.md", func() {
	It("compares settings by what follows from them", func() {
		for _, row := range rowsBelow("docs/rotation-settings.md", "## Compared") {
			var settings []time.Duration
			for _, text := range row[:3] {
				setting, err := time.ParseDuration(strings.Trim(text, " `"))
				Expect(err).NotTo(HaveOccurred())
				settings = append(settings, setting)
			}
			inUse := settings[0] - settings[1]
			Expect(inWords(row[3])).To(Equal(inUse), "%s", row)
			Expect(strings.TrimSpace(row[4])).To(Equal(fmt.Sprint(math.Ceil((365*24*time.Hour).Hours()/inUse.Hours()))), "%s", row)
			Expect(inWords(row[5])).To(Equal(settings[1]), "%s", row)
			Expect(inWords(row[6])).To(Equal(inUse+settings[2]), "%s", row)
		}
	})
})

// inWords is a length of time as it is written for people, such as 3 days and 8 h.
func inWords(text string) (length time.Duration) {
	GinkgoHelper()
	for _, match := range regexp.MustCompile(`(\d+) (days|h|min)`).FindAllStringSubmatch(text, -1) {
		number, err := strconv.Atoi(match[1])
		Expect(err).NotTo(HaveOccurred())
		length += time.Duration(number) * map[string]time.Duration{"days": 24 * time.Hour, "h": time.Hour, "min": time.Minute}[match[2]]
	}
	return length
}

// rowsBelow are the cells of the first table below a heading, without its head.
func rowsBelow(file, heading string) [][]string {
	GinkgoHelper()
	_, section, found := strings.Cut(readAll(file), "\n"+heading+"\n")
	Expect(found).To(BeTrue(), "%s: %s", file, heading)
	var rows [][]string
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "|") {
			rows = append(rows, strings.Split(strings.Trim(line, "|"), "|"))
		} else if len(rows) > 0 {
			break
		}
	}
	Expect(len(rows)).To(BeNumerically(">", 2), "%s: %s", file, heading)
	return rows[2:]
}
