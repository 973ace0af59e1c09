package serverbuild

import (
	"os"
	"path/filepath"
	"regexp"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("The servers", func() {
	var options Options

	BeforeEach(func() {
		root, err := FindRoot()
		Expect(err).NotTo(HaveOccurred())
		options = Options{Root: root}
		GinkgoT().Setenv(AssetsVariable, "")
		GinkgoT().Setenv(CacheVariable, GinkgoT().TempDir())
	})

	givenPrograms := func(names ...string) string {
		GinkgoHelper()
		dir := GinkgoT().TempDir()
		for _, name := range names {
			Expect(os.WriteFile(filepath.Join(dir, name), nil, 0o700)).To(Succeed())
		}
		return dir
	}

	It("are taken from KUBEBUILDER_ASSETS where it is set", func() {
		dir := givenPrograms("etcd", "kube-apiserver", "kubectl")
		GinkgoT().Setenv(AssetsVariable, dir)
		servers, err := Find(options)
		Expect(err).NotTo(HaveOccurred())
		Expect(servers.Assets).To(Equal(dir))
		Expect(servers.Kubectl()).To(Equal(filepath.Join(dir, "kubectl")))
	})

	It("are refused when KUBEBUILDER_ASSETS lacks one", func() {
		GinkgoT().Setenv(AssetsVariable, givenPrograms("etcd", "kubectl"))
		_, err := Find(options)
		Expect(err).To(MatchError(ContainSubstring("no program kube-apiserver: correct it, or unset it")))
	})

	It("are not built by Find, which says what to run", func() {
		_, err := Find(options)
		Expect(err).To(MatchError(ErrMissing))
		Expect(err).To(MatchError(ContainSubstring("make servers")))
	})

	It("come in the versions that are pinned, and in no others", func() {
		Expect(HeadscaleVersions(options.Root)).To(ContainElement(DefaultHeadscale))
		GinkgoT().Setenv(AssetsVariable, givenPrograms("etcd", "kube-apiserver", "kubectl"))
		options.Headscale = []string{"v0.1.0"}
		_, err := Find(options)
		Expect(err).To(MatchError(And(ContainSubstring(`"v0.1.0"`), ContainSubstring(DefaultHeadscale))))
	})

	It("have the oldest Kubernetes that the chart allows, too", func() {
		s, err := newKubernetesSet(options.Root, true)
		Expect(err).NotTo(HaveOccurred())
		chart, err := os.ReadFile(filepath.Join(options.Root, "charts", "headscale-operator", "Chart.yaml"))
		Expect(err).NotTo(HaveOccurred())
		oldest := regexp.MustCompile(`kubeVersion: ">=(1\.\d+)\.0-0"`).FindSubmatch(chart)
		Expect(oldest).To(HaveLen(2))
		Expect(s.name).To(HavePrefix("kubernetes-v" + string(oldest[1]) + "."))
		Expect(s.envtest).To(Equal(string(oldest[1]) + ".x"))
	})

	It("know their Kubernetes version", func() {
		s, err := newKubernetesSet(options.Root, false)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.name).To(MatchRegexp(`^kubernetes-v1\.\d+\.\d+$`))
		Expect(s.linkFlags()).To(ContainSubstring("component-base/version.gitVersion=" + s.name[len("kubernetes-"):]))
	})
})
