package e2e_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/test/pages"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// pluginName is the program that kubectl runs as kubectl headscale.
const pluginName = "kubectl-headscale"

// guide does what pages say, as it stands there. What a block has left, files and shell
// variables, is there for the next.
type guide struct {
	// dir is where the commands run.
	dir string
	// state is a file with the shell variables that the blocks before have set.
	state string
	// settings are environment variables, name=value.
	settings []string
	// followed are the texts of the blocks that were followed.
	followed []string
}

// newGuide begins in an empty directory, with kubectl headscale, and with a namespace as that
// of the context.
func newGuide(ctx context.Context, namespace string) *guide {
	GinkgoHelper()
	temporary := GinkgoT().TempDir()
	g := &guide{dir: filepath.Join(temporary, "work"), state: filepath.Join(temporary, "state")}
	Expect(os.Mkdir(g.dir, 0o700)).To(Succeed())
	Expect(serverbuild.BuildProgram(ctx, root, "./cmd/"+pluginName, filepath.Join(temporary, pluginName), GinkgoWriter)).To(Succeed())
	kubeconfig := filepath.Join(temporary, "kubeconfig")
	Expect(os.WriteFile(kubeconfig, []byte(mustKube(ctx, "config", "view", "--raw", "--flatten")), 0o600)).To(Succeed())
	mustKube(ctx, "--kubeconfig", kubeconfig, "config", "set-context", "--current", "--namespace="+namespace)
	g.settings = []string{
		"KUBECONFIG=" + kubeconfig, "PATH=" + searchPath() + string(os.PathListSeparator) + temporary,
		// Where the locale is not UTF-8, kubectl headscale prints ASCII only.
		"LC_ALL=C.UTF-8",
	}
	return g
}

// follow does what blocks say, keeps manifests as the files that they name, and returns what
// was printed. What a transcript shows must be printed.
func (g *guide) follow(ctx context.Context, blocks ...pages.Block) string {
	GinkgoHelper()
	var printed strings.Builder
	for _, b := range blocks {
		g.followed = append(g.followed, b.Text)
		switch b.Language {
		case "yaml":
			if name := b.File(); name != "" {
				Expect(os.WriteFile(filepath.Join(g.dir, name), []byte(b.Text), 0o600)).To(Succeed())
			}
		case "console":
			for _, e := range pages.ParseTranscript(b.Text) {
				Expect(g.run(ctx, e.Command)).To(MatchRegexp(pages.Pattern(e.Output).String()), "%s\nis shown to print\n%s", e.Command, e.Output)
			}
		case "sh":
			printed.WriteString(g.run(ctx, b.Text))
		default:
			Fail("nothing can be done with " + b.Name())
		}
	}
	return printed.String()
}

// endForwarding ends what a block runs in the background when one of its commands fails.
const endForwarding = `trap '[ -z "${!:-}" ] || kill "$!" 2>/dev/null || :' EXIT` + "\n"

// run has a shell carry out commands, in the directory, and returns what they printed.
func (g *guide) run(ctx context.Context, commands string) string {
	GinkgoHelper()
	if _, err := exec.LookPath("curl"); err != nil && strings.Contains(commands, "curl ") {
		Skip("this machine has no curl, which the page's commands call")
	}
	return run(ctx, "cd '"+g.dir+"'\n"+endForwarding+pages.Script(commands, g.state), g.settings...)
}

// forward starts a block that forwards a port of this machine, which must be free, and waits
// until something listens there. It runs until the end of the spec.
func (g *guide) forward(ctx context.Context, b pages.Block, port string) {
	GinkgoHelper()
	needPort(ctx, port)
	g.followed = append(g.followed, b.Text)
	p, err := process.Start(process.Command{
		Name: b.Name(), Path: "/bin/sh", Args: []string{"-euc", b.Text}, Dir: g.dir,
		Env: append(os.Environ(), g.settings...), Output: GinkgoWriter,
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(p.Kill)
	Eventually(func() error { return dial(ctx, port) }).Should(Succeed(), p.Log())
}

// needPort skips the spec where a port that a page forwards is taken on this machine.
func needPort(ctx context.Context, port string) {
	if dial(ctx, port) == nil {
		Skip("the page forwards port " + port + ", which is taken on this machine")
	}
}

// dialTimeout bounds a try to connect to a port of this machine.
const dialTimeout = time.Second

func dial(ctx context.Context, port string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return err
	}
	return connection.Close()
}

// blocksOf reads the blocks of a page that are wanted, of which there must be some.
func blocksOf(file, what string, wanted func(pages.Block) bool) []pages.Block {
	GinkgoHelper()
	page, err := pages.Read(root, file)
	Expect(err).NotTo(HaveOccurred())
	found := slices.DeleteFunc(page.Blocks, func(b pages.Block) bool { return !wanted(b) })
	Expect(found).NotTo(BeEmpty(), "%s has no block %s", file, what)
	return found
}

// section returns the blocks of a page below a heading.
func section(file, heading string) []pages.Block {
	GinkgoHelper()
	return blocksOf(file, "below "+heading, func(b pages.Block) bool { return b.Heading == heading })
}

// marked returns the blocks of a page of which a comment says that this spec runs them.
func marked(file string) []pages.Block {
	GinkgoHelper()
	return blocksOf(file, "for this spec", namesThisSpec)
}

// namesThisSpec reports whether a comment before a block says that this spec runs it.
func namesThisSpec(b pages.Block) bool {
	words, found := strings.CutPrefix(b.Comment, `test: e2e "`)
	return found && strings.Contains(CurrentSpecReport().LeafNodeText, strings.TrimSuffix(words, `"`))
}

// hasMissed lists the blocks of all pages that name this spec and were not followed.
func (g *guide) hasMissed() []string {
	GinkgoHelper()
	all, err := pages.ReadAll(root)
	Expect(err).NotTo(HaveOccurred())
	var missed []string
	for _, p := range all {
		for _, b := range p.Blocks {
			if namesThisSpec(b) && !slices.Contains(g.followed, b.Text) {
				missed = append(missed, p.Path+", "+b.Name())
			}
		}
	}
	return missed
}

// block returns the only block of a page that begins so.
func block(file, beginning string) pages.Block {
	GinkgoHelper()
	found := blocksOf(file, "that begins with "+beginning, func(b pages.Block) bool { return strings.HasPrefix(b.Text, beginning) })
	Expect(found).To(HaveLen(1))
	return found[0]
}
