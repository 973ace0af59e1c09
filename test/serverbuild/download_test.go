package serverbuild

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// newArchive packs programs the way that setup-envtest's archives are.
func newArchive(names ...string) []byte {
	GinkgoHelper()
	var packed bytes.Buffer
	compressor := gzip.NewWriter(&packed)
	archive := tar.NewWriter(compressor)
	for _, name := range names {
		content := "#!/bin/sh\necho " + name + "\n"
		Expect(archive.WriteHeader(&tar.Header{
			Name: "controller-tools/envtest/" + name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg,
		})).To(Succeed())
		_, err := archive.Write([]byte(content))
		Expect(err).NotTo(HaveOccurred())
	}
	Expect(archive.Close()).To(Succeed())
	Expect(compressor.Close()).To(Succeed())
	return packed.Bytes()
}

// newIndexServer offers one release of the given minor version.
func newIndexServer(minor string, archive []byte) *httptest.Server {
	sum := sha512.Sum512(archive)
	name := fmt.Sprintf("envtest-v%s.0-%s-%s.tar.gz", minor, runtime.GOOS, runtime.GOARCH)
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	mux.HandleFunc("/index.yaml", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "releases:\n  v%s.0:\n    %s:\n      hash: %s\n      selfLink: %s/archive\n",
			minor, name, hex.EncodeToString(sum[:]), server.URL)
	})
	mux.HandleFunc("/archive", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(archive) })
	return server
}

var _ = Describe("The download", func() {
	It("is tried before a build, through setup-envtest", func(ctx SpecContext) {
		root, err := FindRoot()
		Expect(err).NotTo(HaveOccurred())
		kubernetes, err := newKubernetesSet(root, false)
		Expect(err).NotTo(HaveOccurred())
		server := newIndexServer(strings.TrimSuffix(kubernetes.envtest, ".x"), newArchive("etcd", "kube-apiserver", "kubectl"))
		DeferCleanup(server.Close)
		DeferCleanup(func(before time.Duration) { probeTimeout = before }, probeTimeout)
		probeTimeout = time.Minute // This server answers, though late on a busy machine.
		GinkgoT().Setenv(AssetsVariable, "")
		GinkgoT().Setenv(CacheVariable, GinkgoT().TempDir())

		servers, err := Ensure(ctx, Options{
			Root: root, Log: GinkgoWriter, indexURL: server.URL + "/index.yaml",
		})
		Expect(err).NotTo(HaveOccurred())
		content, err := os.ReadFile(servers.Kubectl())
		Expect(err).NotTo(HaveOccurred())
		Expect(string(content)).To(Equal("#!/bin/sh\necho kubectl\n"), "the program of the archive")
		Expect(filepath.Join(servers.Assets, "store")).NotTo(BeADirectory())
	})

	It("gives up in a moment when the network is closed", func() {
		Expect(probe("http://127.0.0.1:1/index.yaml")).To(MatchError(ContainSubstring("cannot be reached")))
	})
})
