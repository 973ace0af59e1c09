package reliability_test

import (
	"os/exec"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"github.com/onsi/gomega/gexec"
)

// noCluster is an environment that is no pod and knows no kubeconfig.
var noCluster = []string{"HOME=/nonexistent"}

var _ = DescribeTable("A manager that cannot be used ends with status 2 and one sentence",
	func(environment []string, arguments []string, sentence string) {
		command := exec.Command(managerBinary, arguments...)
		command.Env = environment
		session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
		Expect(err).NotTo(HaveOccurred())
		Eventually(session).Should(gexec.Exit(2))
		Expect(session.Out).To(gbytes.Say("^$"))
		said := string(session.Err.Contents())
		Expect(said).To(And(HavePrefix("apikey-manager: "), HaveSuffix("\n"), ContainSubstring(sentence)))
		Expect(strings.Count(said, "\n")).To(Equal(1), said)
	},
	Entry("an unknown flag", noCluster, []string{"--frequency=1h"}, "there is no flag --frequency"),
	Entry("an argument", noCluster, []string{"--namespace=test", "run"}, `unexpected argument "run"`),
	Entry("no namespace", noCluster, nil, "give --namespace=NAME or set POD_NAMESPACE"),
	Entry("an impossible namespace", noCluster, []string{"--namespace=No_Way"}, `--namespace is "No_Way"`),
	Entry("an impossible name", noCluster, []string{"--namespace=test", "--secret-name=Not_Valid"}, `--secret-name is "Not_Valid"`),
	Entry("days", noCluster, []string{"--namespace=test", "--expiration=90d"}, `--expiration is "90d"; write a duration in hours`),
	Entry("an empty duration", noCluster, []string{"--namespace=test", "--expiration="}, "--expiration is \"\"; write a duration"),
	Entry("no time at all", noCluster, []string{"--namespace=test", "--expiration=0s"}, "--expiration is 0s; it must be a positive duration"),
	Entry("a negative buffer", noCluster, []string{"--namespace=test", "--rotation-buffer=-1h"}, "--rotation-buffer is -1h0m0s"),
	Entry("a buffer as long as the expiration", noCluster, []string{"--namespace=test", "--expiration=1h", "--rotation-buffer=1h"},
		"--rotation-buffer (1h0m0s) must be less than --expiration (1h0m0s)"),
	Entry("a delay as long as the buffer", noCluster, []string{"--namespace=test", "--revocation-delay=1920h"},
		"--revocation-delay (1920h0m0s) must be less than --rotation-buffer"),
	Entry("no kubeconfig and no pod", noCluster, []string{"--namespace=test"}, "set KUBECONFIG"),
	Entry("a kubeconfig that is not there", []string{"KUBECONFIG=/nonexistent/kubeconfig"}, []string{"--namespace=test"}, `KUBECONFIG is "/nonexistent/kubeconfig", where there is no kubeconfig`),
)
