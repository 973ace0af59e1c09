package apikey

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"

	"infrado.cloud/headscale-operator/internal/rotation"
)

var _ = Describe("The command line", func() {
	none := func() string { return "" }
	some := func() string { return "found" }

	It("has the documented defaults", func() {
		options, err := ParseOptions(nil, some, io.Discard)
		Expect(err).NotTo(HaveOccurred())
		Expect(options).To(Equal(Options{
			SocketPath: "/var/run/headscale/headscale.sock", Namespace: "found", SecretName: "headscale-api-key",
			Settings:       rotation.Settings{Expiration: 2160 * time.Hour, RotationBuffer: 1920 * time.Hour},
			MetricsAddress: ":9101", AdminAddress: ":9102",
		}))
	})

	It("takes every flag", func() {
		options, err := ParseOptions([]string{"--socket-path=/s", "--namespace=n", "--secret-name=k", "--expiration=1h",
			"--rotation-buffer=30m", "--revocation-delay=5m", "--owner=hs/0-1", "--metrics-bind-address=127.0.0.1:0", "--admin-bind-address=[::1]:1", "--headscale-version=v0.29.3"}, none, io.Discard)
		Expect(err).NotTo(HaveOccurred())
		Expect(options).To(Equal(Options{SocketPath: "/s", Namespace: "n", SecretName: "k", Owner: &Owner{Name: "hs", UID: "0-1"},
			MetricsAddress: "127.0.0.1:0", AdminAddress: "[::1]:1", HeadscaleVersion: "v0.29.3",
			Settings: rotation.Settings{Expiration: time.Hour, RotationBuffer: 30 * time.Minute, RevocationDelay: 5 * time.Minute}}))
	})

	It("has the buffer follow the expiration", func() {
		options, err := ParseOptions([]string{"--expiration=720h"}, some, io.Discard)
		Expect(err).NotTo(HaveOccurred())
		Expect(options.RotationBuffer).To(Equal(640 * time.Hour))
	})

	It("prints its usage when asked", func() {
		var output bytes.Buffer
		_, err := ParseOptions([]string{"--help"}, none, &output)
		Expect(err).To(MatchError(flag.ErrHelp))
		Expect(output.String()).To(And(ContainSubstring("-rotation-buffer"), ContainSubstring("1920h of 2160h"), ContainSubstring("POD_NAMESPACE")))
	})

	It("asks for the version only, whatever else is missing", func() {
		options, err := ParseOptions([]string{"--version"}, none, io.Discard)
		Expect(err).NotTo(HaveOccurred())
		Expect(options.Version).To(BeTrue())
	})

	DescribeTable("refuses what cannot be used with a sentence that names it",
		func(sentence string, arguments ...string) {
			_, err := ParseOptions(arguments, none, io.Discard)
			Expect(err).To(MatchError(sentence))
		},
		Entry("unknown flag", `there is no flag --frob; see --help for those there are`, "--frob=1"),
		Entry("argument", `unexpected argument "run": all options are flags, such as --namespace=NAME (see --help)`, "run"),
		Entry("flag without a value", `flag needs an argument: -expiration; see --help`, "--expiration"),
		Entry("days", `--expiration is "90d"; write a duration in hours, minutes and seconds, such as 2160h or 1h30m (90 days are 2160h)`, "--expiration=90d"),
		Entry("empty duration", `--rotation-buffer is ""; write a duration in hours, minutes and seconds, such as 2160h or 1h30m (90 days are 2160h)`, "--rotation-buffer="),
		Entry("version with a value", `--version is "maybe"; it takes no value`, "--version=maybe"),
		Entry("zero", `--expiration is 0s; it must be a positive duration, such as 2160h`, "--namespace=n", "--expiration=0s"),
		Entry("negative", `--rotation-buffer is -1h0m0s; it must be a positive duration, such as 240h`, "--namespace=n", "--rotation-buffer=-1h"),
		Entry("buffer not below expiration", `--rotation-buffer (1h0m0s) must be less than --expiration (1h0m0s): a key is replaced that long before it expires`,
			"--namespace=n", "--expiration=1h", "--rotation-buffer=1h"),
		Entry("negative delay", `--revocation-delay is -1s; it must not be negative`, "--namespace=n", "--revocation-delay=-1s"),
		Entry("delay not below buffer", `--revocation-delay (30m0s) must be less than --rotation-buffer (30m0s): the old key expires by itself that long after it was replaced`,
			"--namespace=n", "--expiration=1h", "--rotation-buffer=30m", "--revocation-delay=30m"),
		Entry("no namespace", `there is no namespace: outside a pod, give --namespace=NAME or set POD_NAMESPACE`),
		Entry("no socket", `--socket-path is empty; it must be the path of Headscale's Unix socket, such as /var/run/headscale/headscale.sock`, "--socket-path="),
		Entry("a Secret for keys that are nowhere", `--identity-secret and --identity-dir are given together, or neither is`, "--namespace=n", "--identity-secret=s"),
		Entry("a Secret for the keys of nobody", `--identity-secret is given without --owner, which names the Headscale whose private keys are kept`,
			"--namespace=n", "--identity-secret=s", "--identity-dir=d"),
		Entry("no secret", `--secret-name is empty; it must be the name of a Secret, such as headscale-api-key`, "--secret-name="),
	)

	It("turns the metrics and the admin endpoint off", func() {
		options, err := ParseOptions([]string{"--metrics-bind-address=0", "--admin-bind-address=0"}, some, io.Discard)
		Expect(err).NotTo(HaveOccurred())
		Expect(options.MetricsAddress).To(BeEmpty())
		Expect(options.AdminAddress).To(BeEmpty())
	})

	DescribeTable("refuses an address that is none",
		func(address string) {
			_, err := ParseOptions([]string{"--namespace=n", "--metrics-bind-address=" + address}, none, io.Discard)
			Expect(err).To(MatchError(fmt.Sprintf("--metrics-bind-address is %q; it must be host:port with a port up to 65535, such as :9101 or 127.0.0.1:9101, or 0 for no metrics", address)))
			_, err = ParseOptions([]string{"--namespace=n", "--admin-bind-address=" + address}, none, io.Discard)
			Expect(err).To(MatchError(fmt.Sprintf("--admin-bind-address is %q; it must be host:port with a port up to 65535, such as :9102 or 127.0.0.1:9102, or 0 for no admin endpoint", address)))
		},
		Entry("nothing", ""),
		Entry("a port alone", "9101"),
		Entry("a host alone", "localhost"),
		Entry("a name of a port", ":http"),
		Entry("a port that is too high", ":65536"),
		Entry("two colons", "::9101"),
	)

	DescribeTable("refuses an owner that is none",
		func(owner string) {
			_, err := ParseOptions([]string{"--namespace=n", "--owner=" + owner}, none, io.Discard)
			Expect(err).To(MatchError(fmt.Sprintf("--owner is %q; it must be NAME/UID: a Headscale's metadata.name and metadata.uid, such as headscale/6f9619ff-8b86-4d01-b42d-00cf4fc964ff", owner)))
		},
		Entry("nothing", ""),
		Entry("no UID", "headscale"),
		Entry("an empty UID", "headscale/"),
		Entry("no name", "/6f9619ff-8b86-4d01-b42d-00cf4fc964ff"),
		Entry("a namespace too", "default/headscale/6f9619ff-8b86-4d01-b42d-00cf4fc964ff"),
		Entry("a name that is none", "Headscale/6f9619ff-8b86-4d01-b42d-00cf4fc964ff"),
		Entry("a space", "headscale/6f9619ff-8b86-4d01-b42d-00cf4fc964ff "),
	)

	It("refuses names that Kubernetes would refuse", func() {
		_, err := ParseOptions([]string{"--namespace=n", "--secret-name=Not_Valid"}, none, io.Discard)
		Expect(err).To(MatchError(ContainSubstring(`--secret-name is "Not_Valid", which no Secret can be named`)))
		_, err = ParseOptions([]string{"--namespace=a.b"}, none, io.Discard)
		Expect(err).To(MatchError(ContainSubstring(`--namespace is "a.b", which no namespace can be named`)))
	})
})

var _ = Describe("The way to the cluster", func() {
	var home string

	BeforeEach(func() {
		home = GinkgoT().TempDir()
		GinkgoT().Setenv("HOME", home)
		GinkgoT().Setenv("KUBECONFIG", "")
		GinkgoT().Setenv("KUBERNETES_SERVICE_HOST", "")
		GinkgoT().Setenv("POD_NAMESPACE", "")
	})

	kubeconfig := func(server string) string {
		path := filepath.Join(GinkgoT().TempDir(), "config")
		content := `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}],
			"clusters":[{"name":"k","cluster":{"server":"` + server + `"}}],"users":[{"name":"u","user":{}}]}`
		Expect(os.WriteFile(path, []byte(content), 0o600)).To(Succeed())
		return path
	}

	It("is the kubeconfig that KUBECONFIG names", func() {
		GinkgoT().Setenv("KUBECONFIG", kubeconfig("https://127.0.0.1:1"))
		config, err := ClusterConfig()
		Expect(err).NotTo(HaveOccurred())
		Expect(config.Host).To(Equal("https://127.0.0.1:1"))
	})

	It("must be there", func() {
		_, err := ClusterConfig()
		Expect(err).To(MatchError("no Kubernetes API server is configured: this is not a pod, and there is no kubeconfig; set KUBECONFIG or create ~/.kube/config"))
	})

	It("must be where KUBECONFIG says", func() {
		GinkgoT().Setenv("KUBECONFIG", filepath.Join(home, "elsewhere"))
		_, err := ClusterConfig()
		Expect(err).To(MatchError(And(HavePrefix("KUBECONFIG is "), ContainSubstring("elsewhere"))))
	})

	It("must be readable", func() {
		path := filepath.Join(home, "config")
		Expect(os.WriteFile(path, []byte("{"), 0o600)).To(Succeed())
		GinkgoT().Setenv("KUBECONFIG", path)
		_, err := ClusterConfig()
		Expect(err).To(MatchError(HavePrefix("reading the kubeconfig: ")))
	})

	It("needs a token in a pod", func() {
		GinkgoT().Setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
		GinkgoT().Setenv("KUBERNETES_SERVICE_PORT", "1")
		_, err := ClusterConfig()
		Expect(err).To(MatchError(HavePrefix("reading the pod's ServiceAccount: ")))
		Expect(errors.Is(err, os.ErrNotExist)).To(BeTrue())
	})

	It("takes the namespace from POD_NAMESPACE, else from the ServiceAccount", func() {
		Expect(DefaultNamespace()).To(BeEmpty())
		GinkgoT().Setenv("POD_NAMESPACE", "here")
		Expect(DefaultNamespace()).To(Equal("here"))
	})
})

var _ = Describe("The tag of the keys", func() {
	tag := func(config rest.Config, namespace, name string) rotation.Tag {
		GinkgoHelper()
		tag, err := NewTag(&config, namespace, name)
		Expect(err).NotTo(HaveOccurred())
		return tag
	}
	cluster := func(ca string) rest.Config {
		return rest.Config{Host: "https://10.96.0.1:443", TLSClientConfig: rest.TLSClientConfig{CAData: []byte(ca)}}
	}

	It("differs between clusters, namespaces and Secrets, and is the same in a pod and by a kubeconfig", func() {
		ours := tag(cluster("a"), "default", "headscale-api-key")
		file := filepath.Join(GinkgoT().TempDir(), "ca.crt")
		Expect(os.WriteFile(file, []byte("a\n"), 0o600)).To(Succeed())
		Expect(tag(rest.Config{Host: "https://example.com", TLSClientConfig: rest.TLSClientConfig{CAFile: file}}, "default", "headscale-api-key")).To(Equal(ours))
		Expect(tag(cluster("b"), "default", "headscale-api-key")).NotTo(Equal(ours))
		Expect(tag(cluster("a"), "other", "headscale-api-key")).NotTo(Equal(ours))
		Expect(tag(cluster("a"), "default", "other")).NotTo(Equal(ours))
		Expect(tag(rest.Config{Host: "http://a"}, "n", "s")).NotTo(Equal(tag(rest.Config{Host: "http://b"}, "n", "s")), "without certificates")
	})

	It("knows the keys of earlier versions", func() {
		expiration := rotation.NewTag("default/headscale-api-key").Expiration(time.Now())
		ours := tag(cluster("a"), "default", "headscale-api-key")
		Expect(ours.Owns(expiration)).To(BeFalse())
		Expect(ours.OwnedBefore(expiration)).To(BeTrue())
		Expect(rotation.NewTag("x").OwnedBefore(expiration)).To(BeFalse())
	})

	It("says so where the certificates cannot be read", func() {
		_, err := NewTag(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: "/absent"}}, "n", "s")
		Expect(err).To(MatchError(ContainSubstring("reading the certificates of the API server")))
	})
})
