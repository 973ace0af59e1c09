package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// findings are what testpod inspect has found in a container.
type findings struct {
	Writable, Programs, Keys, Tokens, Unread []string
	Read                                     int
}

// insideSpecs look at the pod from within.
func insideSpecs(get func() *server) {
	It("shows the container headscale no key and no token, and no shell", func(ctx SpecContext) {
		hs := get()
		found := inspect(ctx, hs, "headscale")
		Expect(found.Read).To(BeNumerically(">", 0))
		Expect(found.Keys).To(BeEmpty())
		Expect(found.Tokens).To(BeEmpty())
		Expect(found.Programs).To(ConsistOf("/headscale"))
		Expect(found.Writable).To(ConsistOf("/tmp", "/var/lib/headscale", "/var/run/headscale"))
	})

	It("gives the container headscale no way to the Secret", func(ctx SpecContext) {
		hs := get()
		printed := fromWithin(ctx, hs, "headscale", "get", "/api/v1/namespaces/"+hs.namespace+"/secrets/"+hs.secret)
		var result answer
		Expect(json.Unmarshal([]byte(printed), &result)).To(Succeed())
		Expect(result.Status).To(BeElementOf(401, 403))
	})

	It("shows the sidecar its own token and nothing to write to", func(ctx SpecContext) {
		found := inspect(ctx, get(), "apikey-manager")
		Expect(found.Keys).To(BeEmpty())
		Expect(found.Tokens).To(HaveEach(HavePrefix("/var/run/secrets/kubernetes.io/serviceaccount/")), "the sidecar's token is where clients look for it")
		Expect(found.Programs).To(ConsistOf("/apikey-manager"))
		Expect(found.Writable).To(BeEmpty())
	})

	It("lets the pod's ServiceAccount do what the golden list has, and nothing else", func(ctx SpecContext) {
		hs := get()
		printed := mustKube(ctx, "auth", "can-i", "--list", "-n", hs.namespace, "--as=system:serviceaccount:"+hs.namespace+":headscale",
			"--as-group=system:serviceaccounts", "--as-group=system:serviceaccounts:"+hs.namespace, "--as-group=system:authenticated")
		var lines []string
		for line := range strings.Lines(printed) {
			// What has no resource is the version, the health and the like, for everyone.
			if line = strings.Join(strings.Fields(line), " "); !strings.HasPrefix(line, "[") {
				lines = append(lines, line)
			}
		}
		sort.Strings(lines)
		golden, err := os.ReadFile(filepath.Join(root, "test", "e2e", "testdata", "can-i.txt"))
		Expect(err).NotTo(HaveOccurred())
		Expect(strings.Join(lines, "\n") + "\n").To(Equal(string(golden)))
	})
}

// inspections counts the containers that were put into pods, whose names must differ.
var inspections int

// fromWithin runs testpod in the process namespace of a container, and returns what it
// printed.
func fromWithin(ctx context.Context, s *server, container string, args ...string) string {
	GinkgoHelper()
	inspections++
	name := fmt.Sprintf("inspect-%d", inspections)
	mustKube(ctx, append([]string{"debug", "-n", s.namespace, "pod/" + s.name + "-0", "--image=" + testpodImage, "--image-pull-policy=IfNotPresent",
		"--target=" + container, "--profile=restricted", "-c", name, "--quiet", "--", "/testpod"}, args...)...)
	var printed string
	Eventually(func(g Gomega) {
		state := mustKube(ctx, "get", "pod", "-n", s.namespace, s.name+"-0", "-o",
			`jsonpath={.status.ephemeralContainerStatuses[?(@.name=="`+name+`")].state.terminated.exitCode}`)
		g.Expect(state).NotTo(BeEmpty())
		printed = mustKube(ctx, "logs", "-n", s.namespace, s.name+"-0", "-c", name)
		g.Expect(state).To(Equal("0"), printed)
	}).Should(Succeed())
	return printed
}

// inspect looks through the file system of a container.
func inspect(ctx context.Context, s *server, container string) findings {
	GinkgoHelper()
	var found findings
	printed := fromWithin(ctx, s, container, "inspect", "/proc/1/root")
	Expect(json.Unmarshal([]byte(printed), &found)).To(Succeed(), printed)
	return found
}
