package apikey

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

var _ = Describe("The restore of private keys", func() {
	var (
		data, secret, copies, file string
		printed                    bytes.Buffer
	)
	older, younger := privateKeyPrefix+strings.Repeat("0a", 32), privateKeyPrefix+strings.Repeat("b1", 32)
	BeforeEach(func() {
		dir := GinkgoT().TempDir()
		data, secret, copies = filepath.Join(dir, "data"), filepath.Join(dir, "secret"), filepath.Join(dir, "copies")
		for _, dir := range []string{data, secret, copies} {
			Expect(os.Mkdir(dir, 0o700)).To(Succeed())
		}
		file = filepath.Join(data, "noise_private.key")
		printed.Reset()
	})
	restore := func() error {
		return RestoreIdentity([]string{"--data-dir=" + data, "--secret-dir=" + secret, "--copy-dir=" + copies, "noise_private.key=noise_private.key"}, &printed)
	}
	write := func(dir, text string) {
		Expect(os.WriteFile(filepath.Join(dir, v1beta1.EntryNoiseKey), []byte(text), 0o600)).To(Succeed())
	}
	read := func(dir string) string {
		content, err := os.ReadFile(filepath.Join(dir, v1beta1.EntryNoiseKey))
		Expect(err).NotTo(HaveOccurred())
		return string(content)
	}

	It("gives an empty volume the key of the Secret", func() {
		write(secret, older+"\n")
		Expect(restore()).To(Succeed())
		Expect(read(data)).To(Equal(older))
		Expect(read(copies)).To(Equal(older))
		info, err := os.Stat(file)
		Expect(err).NotTo(HaveOccurred())
		Expect(info.Mode().Perm()).To(Equal(os.FileMode(0o600)))
		Expect(os.ReadDir(data)).To(HaveLen(1))
		Expect(printed.String()).To(And(ContainSubstring("Restored noise_private.key"), Not(ContainSubstring(older))))
	})

	It("leaves the key on a volume as it is, whatever the Secret has", func() {
		for _, kept := range []string{"", older, younger, "no key"} {
			write(data, older)
			write(secret, kept)
			Expect(restore()).To(Succeed())
			Expect(read(data)).To(Equal(older))
			Expect(read(copies)).To(Equal(older))
		}
		Expect(printed.String()).To(ContainSubstring("is another key than the Secret's"))
		Expect(printed.String()).To(And(ContainSubstring("The Secret's entry noise_private.key cannot be used: "), Not(ContainSubstring("no key"))))
	})

	It("makes a key as Headscale does where there is none, and keeps it", func() {
		Expect(restore()).To(Succeed())
		made := read(data)
		Expect(made).To(MatchRegexp("^privkey:[0-9a-f]{64}$"))
		bits, err := hex.DecodeString(strings.TrimPrefix(made, privateKeyPrefix))
		Expect(err).NotTo(HaveOccurred())
		Expect(bits[0]&7).To(BeZero(), "it is clamped")
		Expect(bits[31] >> 6).To(Equal(byte(1)))
		Expect(read(copies)).To(Equal(made))
		Expect(restore()).To(Succeed())
		Expect(read(data)).To(Equal(made))
	})

	It("replaces what a crash left half written, and makes directories", func() {
		write(secret, older)
		Expect(os.WriteFile(file+".new", []byte("privkey:"), 0o600)).To(Succeed())
		Expect(restore()).To(Succeed())
		Expect(read(data)).To(Equal(older))
		Expect(RestoreIdentity([]string{"--data-dir=" + data, "--secret-dir=" + secret, "--copy-dir=" + copies, "noise_private.key=a/b/noise"}, &printed)).To(Succeed())
		Expect(filepath.Join(data, "a", "b", "noise")).To(BeARegularFile())
	})

	It("does not start Headscale as another server for an entry that is no key", func() {
		write(secret, "no key")
		Expect(restore()).To(MatchError(And(ContainSubstring("the Secret's entry noise_private.key cannot be used"), Not(ContainSubstring("no key\n")))))
		Expect(file).NotTo(BeAnExistingFile())
	})

	DescribeTable("copies nothing but a key, wherever a Headscale that was taken over points it", func(point func()) {
		point()
		Expect(restore()).To(Succeed())
		Expect(os.ReadDir(copies)).To(BeEmpty())
		Expect(printed.String()).To(ContainSubstring("is not kept in the Secret"))
	},
		Entry("to something else", func() { write(data, "a token of somebody") }),
		Entry("to an empty file", func() { write(data, "") }),
		Entry("to a directory", func() { Expect(os.Mkdir(file, 0o700)).To(Succeed()) }),
		Entry("to a file that is not there", func() { Expect(os.Symlink("absent", file)).To(Succeed()) }),
		Entry("out of the volume", func() {
			write(secret, older)
			Expect(os.Symlink(filepath.Join(secret, v1beta1.EntryNoiseKey), file)).To(Succeed())
		}),
		Entry("to a pipe", func() { Expect(syscall.Mkfifo(file, 0o600)).To(Succeed()) }),
	)

	DescribeTable("refuses a command line that is wrong", func(words string, arguments ...string) {
		Expect(RestoreIdentity(arguments, &printed)).To(MatchError(ContainSubstring(words)))
	},
		Entry("no key", "takes --data-dir", "--data-dir=a", "--secret-dir=b", "--copy-dir=c"),
		Entry("no directory", "takes --data-dir", "a=b"),
		Entry("a flag that is not there", "there is no flag --data", "--data=a"),
		Entry("no path", "must be ENTRY=PATH", "--data-dir=a", "--secret-dir=b", "--copy-dir=c", "noise"),
		Entry("a path out of the volume", "must be ENTRY=PATH", "--data-dir=a", "--secret-dir=b", "--copy-dir=c", "noise=../x"),
		Entry("an entry with a path", "must be ENTRY=PATH", "--data-dir=a", "--secret-dir=b", "--copy-dir=c", "../noise=x"),
		Entry("a volume that is not there", "opening the data volume", "--data-dir=/absent", "--secret-dir=b", "--copy-dir=c", "noise=x"),
	)
})
