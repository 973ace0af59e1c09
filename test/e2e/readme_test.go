package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/pages"
)

// readyWithin is how long a new Headscale may take: a minute, as docs/install.md says, and two more on a busy
// machine. How long it took is in the report.
const readyWithin = 3 * time.Minute

// documented returns the blocks of shell commands below a heading of a document.
func documented(document, heading string) ([]string, error) {
	page, err := pages.Read(root, document)
	if err != nil {
		return nil, err
	}
	return page.Below(heading, "sh")
}

// run has a shell do what a document says, as it stands there, and returns what was
// printed. Settings are environment variables, name=value.
func run(ctx context.Context, script string, settings ...string) string {
	GinkgoHelper()
	// As an argument, for what reads the standard input would swallow what comes after it.
	printed, err := output(ctx, "", "env", append(settings, "sh", "-euc", script)...)
	Expect(err).NotTo(HaveOccurred())
	return printed
}

// mustDocument returns the commands below a heading of the README, as one script.
func mustDocument(heading string) string {
	GinkgoHelper()
	blocks, err := documented(readme, heading)
	Expect(err).NotTo(HaveOccurred())
	return strings.Join(blocks, "")
}

const (
	readme         = "README.md"
	installHeading = "Install"
)

var (
	operatorArgument = regexp.MustCompile(`\sIMG=(\S+)`)
	managerArgument  = regexp.MustCompile(`\sAPIKEY_MANAGER_IMG=(\S+)`)
)

// readmeImages are the names that the images have in the README's commands.
func readmeImages() (operator, manager string, err error) {
	blocks, err := documented(readme, installHeading)
	if err != nil {
		return "", "", err
	}
	script := strings.Join(blocks, "")
	operators, managers := operatorArgument.FindStringSubmatch(script), managerArgument.FindStringSubmatch(script)
	if operators == nil || managers == nil {
		return "", "", fmt.Errorf("the README's commands for the installation name no IMG and APIKEY_MANAGER_IMG")
	}
	return operators[1], managers[1], nil
}

// readmeSpecs do what the README says, word for word. Only docker has a substitute,
// because it may not be there; the images are in the cluster before.
func readmeSpecs() {
	hs := &server{namespace: "default", name: "headscale", secret: "headscale-api-key"}
	var (
		before   []string
		undeploy string
	)

	BeforeAll(func(ctx SpecContext) {
		operator, manager, err := readmeImages()
		Expect(err).NotTo(HaveOccurred())
		undeploy = "make undeploy IMG=" + operator + " APIKEY_MANAGER_IMG=" + manager + "\n"
		before = everything(ctx)
		DeferCleanup(func(ctx SpecContext) {
			run(ctx, undeploy)
			deleteVolume(ctx, hs)
		})
	})

	It("installs the operator and a first Headscale, which is ready in time, with the README's commands", func(ctx SpecContext) {
		operator, manager, err := readmeImages()
		Expect(err).NotTo(HaveOccurred())
		log := filepath.Join(GinkgoT().TempDir(), "container-tool.log")
		run(ctx, mustDocument(installHeading), "CONTAINER_TOOL="+filepath.Join(root, "test", "e2e", "container-tool"), "CONTAINER_TOOL_LOG="+log)
		calls, err := os.ReadFile(log)
		Expect(err).NotTo(HaveOccurred())
		Expect(strings.Split(strings.TrimSpace(string(calls)), "\n")).To(HaveExactElements(
			And(HavePrefix("build "), HaveSuffix(" -t "+operator+" -f Dockerfile .")),
			And(HavePrefix("build "), HaveSuffix(" -t "+manager+" -f Dockerfile.apikey-manager .")),
			Equal("push "+operator), Equal("push "+manager)))
		AddReportEntry("ready after", hs.readyAfter(ctx).String())
		Expect(hs.readyAfter(ctx)).To(BeNumerically("<=", readyWithin))
		Expect(hs.mustPod(ctx).Spec.Containers).To(ContainElement(HaveField("Image", manager)))
	})

	It("shows what the README shows", func(ctx SpecContext) {
		rows := strings.Split(mustKube(ctx, "get", "headscale"), "\n")
		Expect(strings.Join(strings.Fields(rows[0]), " ")).To(Equal("NAME VERSION READY REASON SECRET KEY EXPIRES AGE"))
		Expect(strings.Fields(rows[1])).To(HaveExactElements(
			Equal("headscale"), Equal(newerHeadscale), Equal("True"), Equal("Ready"), Equal(hs.secret), MatchRegexp(`^20\d\d-.*Z$`), Not(BeEmpty())))
		printed := run(ctx, mustDocument("When something is wrong"))
		Expect(printed).To(ContainSubstring("Stored a new API key"))
		Expect(printed).To(MatchRegexp(`20\d\d-\S*Zyes\nyes\n$`), "the expiration, and both rights")
	})

	It("stores a key that works from another pod through the Service", func(ctx SpecContext) { hs.keepsItsPromises(ctx) })

	It("replaces the key when the README's annotation asks for it", func(ctx SpecContext) {
		old := hs.keepsItsPromises(ctx)
		run(ctx, block(readme, "kubectl annotate headscale").Text)
		hs.awaitOtherKey(ctx, old)
		hs.keepsItsPromises(ctx)
		hs.isRefused(ctx, old)
	})

	It("leaves nothing but the volume when it is removed with make undeploy", func(ctx SpecContext) {
		run(ctx, undeploy)
		expectOnlyKept(ctx, before, kept(hs)...)
	})
}

// readyAfter is how long the resource took from when it was made until it was ready, in
// whole seconds.
func (s *server) readyAfter(ctx context.Context) time.Duration {
	GinkgoHelper()
	object := &v1beta1.Headscale{}
	Expect(admin.Get(ctx, s.key(s.name), object)).To(Succeed())
	ready := meta.FindStatusCondition(object.Status.Conditions, v1beta1.ConditionReady)
	Expect(ready).To(HaveField("Status", BeEquivalentTo("True")))
	return ready.LastTransitionTime.Sub(object.CreationTimestamp.Time)
}
