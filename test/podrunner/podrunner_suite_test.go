package podrunner

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestPodrunner(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "The pod runner")
}
