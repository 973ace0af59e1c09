package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// TestCheck plants an input in a file of each kind.
func TestCheck(t *testing.T) {
	commit, digest := strings.Repeat("0123456789", 4), "@sha256:"+strings.Repeat("01234567", 8)
	const refused = " is not pinned"
	for name, test := range map[string]struct{ file, content, want string }{
		"an action by commit":         {".github/workflows/b.yaml", "a: {uses: a/b@" + commit + " } # v1.2.3", ""},
		"a listed action":             {".github/workflows/b.yaml", "a: {uses: listed/action@v1}", ""},
		"a local action":              {".github/workflows/b.yaml", "a: {uses: ./.github/actions/a}", ""},
		"an action by tag":            {".github/workflows/b.yaml", "a: {uses: a/b@v1.2.3}", "a/b@v1.2.3" + refused},
		"an action in a .yml":         {".github/workflows/b.yml", "a: {uses: a/b@v1.2.3}", ".github/workflows/b.yml: a/b@v1.2.3" + refused},
		"a quoted action":             {".github/workflows/b.yaml", `a: {"uses": "a/b@main"}`, "a/b@main" + refused},
		"a short commit":              {".github/workflows/b.yaml", "a: {uses: a/b@0123456}", "a/b@0123456" + refused},
		"a newer listed tag":          {".github/workflows/b.yaml", "a: {uses: listed/action@v2}", "listed/action@v2" + refused},
		"a container by tag":          {".github/workflows/b.yaml", "a: {uses: 'docker://a:1'}", "docker://a:1" + refused},
		"a container by digest":       {".github/workflows/b.yaml", "a: {uses: 'docker://a:1" + digest + "'}", ""},
		"a workflow of others":        {".github/workflows/b.yaml", "jobs: {a: {uses: a/b/.github/workflows/c.yml@v1}}", "a/b/.github/workflows/c.yml@v1" + refused},
		"a composite action":          {".github/actions/a/action.yml", "runs: {steps: [{uses: a/b@v1}]}", ".github/actions/a/action.yml: a/b@v1" + refused},
		"a composite action .yaml":    {"elsewhere/action.yaml", "runs: {steps: [{run: docker run a/b:1}]}", "a/b:1" + refused},
		"an action from an image":     {"elsewhere/action.yaml", "runs: {using: docker, image: 'docker://a:1'}", "a:1" + refused},
		"an action from a Dockerfile": {"elsewhere/action.yaml", "runs: {using: docker, image: Dockerfile}", ""},
		"a job's container":           {".github/workflows/b.yaml", "jobs: {a: {container: node}}", "node" + refused},
		"a job's service":             {".github/workflows/b.yaml", "jobs: {a: {services: {b: {image: 'postgres:16'}}}}", "postgres:16" + refused},
		"a node image":                {".github/workflows/b.yaml", "a: {node_image: 'kindest/node:v1.30.13'}", "kindest/node:v1.30.13" + refused},
		"a node image by a variable":  {".github/workflows/b.yaml", "a: {node_image: 'kindest/node:${{ matrix.a }}'}", "kindest/node:${{ matrix.a }}" + refused},
		"an image in a matrix":        {".github/workflows/b.yaml", "matrix: {node: ['kindest/node:v1.30.13']}", "kindest/node:v1.30.13" + refused},
		"an image by an expression":   {".github/workflows/b.yaml", "a: {node_image: '${{ matrix.node }}'}", ""},
		"an image that a step runs":   {".github/workflows/b.yaml", "a: {run: docker run --rm -v a:/b busybox:1.37 sh}", "busybox:1.37" + refused},
		"an image of ours":            {".github/workflows/b.yaml", "a: {run: 'docker run --rm headscale-operator/operator:latest'}", ""},
		"a base by tag":               {"Dockerfile", "FROM --platform=linux/amd64 golang:1.26 AS build", "Dockerfile: golang:1.26" + refused},
		"a base in small letters":     {"Dockerfile.b", "from golang", "golang" + refused},
		"a base by digest":            {"Dockerfile", "FROM golang:1" + digest + "\nFROM scratch", ""},
		"a base by argument":          {"Dockerfile", "ARG GO_IMAGE=golang:1.26\nFROM --platform=${BUILDPLATFORM:-linux} ${GO_IMAGE} AS build", "golang:1.26" + refused},
		"a stage":                     {"Dockerfile", "FROM listed:1 AS Build\nFROM build\nCOPY --from=build /a /b\nCOPY --from=0 /a /b", ""},
		"a copy from an image":        {"Dockerfile", "COPY --from=alpine:3 /a /b", "alpine:3" + refused},
		"a mount of an image":         {"a/Dockerfile", "RUN --mount=type=bind,from=alpine:3,target=/a true", "a/Dockerfile: alpine:3" + refused},
		"a syntax by tag":             {"Dockerfile", "# syntax=docker/dockerfile:1", "docker/dockerfile:1" + refused},
		"an image in a Makefile":      {"Makefile", "GO_IMAGE ?= golang:1.26", "Makefile: golang:1.26" + refused},
		"an image that make runs":     {"a/b.mk", "a:\n\t$(CONTAINER_TOOL) run --rm -p 8080:80 alpine:3 true", "alpine:3" + refused},
		"an image in a script":        {"hack/a", "#!/bin/sh\ndocker pull alpine", "hack/a: alpine" + refused},
		"an image for kind":           {".ci/run", "#!/bin/sh\nkind create cluster --image kindest/node:v1.30.13", "kindest/node:v1.30.13" + refused},
		"an image in a comment":       {"hack/a", "#!/bin/sh\n# docker pull alpine", ""},
		"a file that is no script":    {"docs/a", "docker pull alpine", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := t.TempDir()
			g.Expect(os.MkdirAll(filepath.Dir(filepath.Join(dir, test.file)), 0o700)).To(Succeed())
			g.Expect(os.WriteFile(filepath.Join(dir, test.file), []byte(test.content+"\n"), 0o600)).To(Succeed())
			refused, err := check(dir, []string{"listed/action@v1", "listed:1"})
			g.Expect(err).NotTo(HaveOccurred())
			if test.want == "" {
				g.Expect(refused).To(BeEmpty())
			} else {
				g.Expect(refused).To(ConsistOf(ContainSubstring(test.want)))
			}
		})
	}
}

func TestOnlyWhatIsUsedIsListed(t *testing.T) {
	g := NewWithT(t)
	root := filepath.Join("..", "..")
	refused, err := check(root, nil)
	g.Expect(err).NotTo(HaveOccurred())
	listed, err := readList(root)
	g.Expect(err).NotTo(HaveOccurred())
	for _, input := range listed {
		g.Expect(refused).To(ContainElement(ContainSubstring(": " + input + " is not pinned")))
	}
}
