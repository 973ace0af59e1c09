package serverbuild

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestServerbuild(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "The build of the test servers")
}

// newToySet writes a module with one program, so that a test need not compile a
// kube-apiserver to see how the cache behaves.
func newToySet(name, source string) set {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	writeFile(dir, "go.mod", "module example.test/toy\n\ngo 1.26.0\n")
	writeFile(dir, "go.sum", "")
	writeFile(dir, "main.go", source)
	return set{name: name, dir: dir, programs: []program{{"renamed", "example.test/toy", "toy"}}}
}
