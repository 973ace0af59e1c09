package docs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/pages"
	"infrado.cloud/headscale-operator/test/process"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// commandLimit is how long one block of commands may take, somewhat more than the longest --timeout of a page.
const commandLimit = 6 * time.Minute

// settles matches commands that only read what follows on what came before, a moment later: a line of a log, or
// how Headscale takes a key. They are repeated, as a reader would, for as long as settleLimit.
var settles = regexp.MustCompile(`^(kubectl logs|curl) `)

const settleLimit = time.Minute

// reader does what a page says.
type reader struct {
	// dir is where the commands run.
	dir string
	// state is a file with the shell variables that the blocks before have set.
	state string
	// pods and bin are for the kubectl in testdata.
	pods, bin string
}

// follow does what a block says.
func (r *reader) follow(ctx context.Context, b pages.Block) {
	GinkgoHelper()
	i, err := readInstruction(b)
	Expect(err).NotTo(HaveOccurred())
	switch i.manner {
	case commands:
		p := r.start(ctx, b.Text)
		err := r.wait(ctx, p)
		Expect(err).NotTo(HaveOccurred(), "%s\n%s", describeBlock(b), p.Log())
	case transcript:
		r.compare(ctx, b)
	case manifest, partOf:
		r.keep(b)
		r.check(ctx, b, i)
	case file:
		r.keep(b)
	case values:
		checkValues(b)
	case until:
		r.interrupt(ctx, b, i.words)
	}
}

// inClone matches commands that run in the clone.
var inClone = regexp.MustCompile(`(?m)^go `)

// asBuilt has go compile as serverbuild does, so that what a page builds is in Go's cache
// and its deadline does not cover compiling.
var asBuilt = []string{"CGO_ENABLED=0", "GOFLAGS=-trimpath -tags=grpcnotrace"}

// start starts a block of commands.
func (r *reader) start(ctx context.Context, script string) *process.Process {
	GinkgoHelper()
	Expect(node.describe(ctx, r.pods)).To(Succeed())
	dir := r.dir
	var build []string
	if inClone.MatchString(script) {
		dir, build = root, asBuilt
	}
	p, err := process.Start(process.Command{
		Name: "sh", Path: "/bin/sh", Dir: dir, Guard: guard, Output: GinkgoWriter,
		Args: []string{"-c", pages.Script(script, r.state, "HEADSCALE_URL=$1"), "sh",
			node.url(client.ObjectKey{Namespace: workNamespace, Name: "headscale"})},
		Env: append(append(os.Environ(), build...),
			"PATH="+r.bin+string(os.PathListSeparator)+os.Getenv("PATH"),
			// Some programs draw with other characters where the locale is not UTF-8.
			"LC_ALL=C.UTF-8",
			"KUBECONFIG="+plane.Kubeconfig(), "KUBECACHEDIR="+filepath.Join(guard.Dir(), "kubectl"),
			"DOCS_KUBECTL="+world.Servers.Kubectl(), "DOCS_PODS="+r.pods),
	})
	Expect(err).NotTo(HaveOccurred())
	return p
}

// wait waits for the end of a block of commands.
func (r *reader) wait(ctx context.Context, p *process.Process) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	err := p.Wait(ctx)
	if p.Running() {
		p.Kill()
	}
	return err
}

// compare runs the commands of a transcript and compares what they print with what is
// shown. What kubectl refuses ends with a status that is not 0, and is shown, too.
func (r *reader) compare(ctx context.Context, b pages.Block) {
	GinkgoHelper()
	exchanges := pages.ParseTranscript(b.Text)
	Expect(exchanges).NotTo(BeEmpty(), "a console block has no line that begins with $: %s", describeBlock(b))
	for _, e := range exchanges {
		var ended error
		prints := func() string {
			p := r.start(ctx, e.Command)
			ended = r.wait(ctx, p)
			return ownLog.ReplaceAllString(p.Log().String(), "")
		}
		shown := MatchRegexp(pages.Pattern(e.Output).String())
		described := func() string {
			return fmt.Sprintf("%s\nended with %v, and is shown to print\n%s", e.Command, ended, e.Output)
		}
		if settles.MatchString(e.Command) {
			Eventually(prints).WithContext(ctx).WithTimeout(settleLimit).Should(shown, described)
			continue
		}
		Expect(prints()).To(shown, described)
	}
}

// ownLog are lines of kubectl's own log, which it may print on a busy machine although it succeeds: that a request was
// delayed, or that the watch ended that it has just stopped.
var ownLog = regexp.MustCompile(`(?m)^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+\.go:\d+\] .*\n`)

// interrupt runs a block until it prints the words. The socket that it names is that of
// a Headscale that was started for it.
func (r *reader) interrupt(ctx context.Context, b pages.Block, words string) {
	GinkgoHelper()
	headscale, err := env.StartHeadscale(ctx, env.HeadscaleOptions{
		Binary: world.Servers.Headscale[serverbuild.DefaultHeadscale], Guard: guard, Output: GinkgoWriter,
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(headscale.Kill)
	p := r.start(ctx, strings.ReplaceAll(b.Text, v1beta1.DefaultSocketPath, headscale.SocketPath()))
	DeferCleanup(p.Kill)
	Eventually(func() string { return p.Log().String() }).WithContext(ctx).Should(ContainSubstring(words))
	// As Ctrl-C does, to the whole group.
	Expect(syscall.Kill(-p.PID(), syscall.SIGINT)).To(Succeed())
	Eventually(p.Exited()).WithContext(ctx).Should(BeClosed())
}
