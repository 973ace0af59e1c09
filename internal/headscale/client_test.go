package headscale_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

var _ = Describe("A client", func() {
	for _, release := range releases {
		Context("of Headscale "+release.String(), func() { describeRelease(release) })
	}

	Context("whose Headscale changes behind the socket", func() {
		for _, from := range releases {
			for _, to := range releases {
				It(fmt.Sprintf("follows it from %s to %s without a failed call", from, to), func(ctx SpecContext) {
					server := startFake(socketPath(), from)
					client := newClient(server.SocketPath())
					first, err := client.CreateAPIKey(ctx, tomorrow())
					Expect(err).NotTo(HaveOccurred())
					Expect(client.Transport()).To(Equal(transportOf(from)))

					server.Stop()
					server.SetRelease(to)
					Expect(server.Start()).To(Succeed())

					Expect(client.CreateAPIKey(ctx, tomorrow())).NotTo(BeZero())
					Expect(client.Transport()).To(Equal(transportOf(to)))
					prefix, _ := first.Prefix()
					Expect(client.ExpireAPIKey(ctx, prefix)).To(Succeed())
					Expect(client.ListAPIKeys(ctx)).To(HaveLen(2))
				})
			}
		}
	})

	DescribeTable("finds a socket at any path",
		func(ctx SpecContext, name string) {
			path := filepath.Join(socketDir(), name)
			startFake(path, headscaletest.V028)
			Expect(newClient(path).ListAPIKeys(ctx)).To(BeEmpty())
			startFake(path+"2", headscaletest.V030)
			Expect(newClient(path + "2").ListAPIKeys(ctx)).To(BeEmpty())
		},
		Entry("with a space", "head scale.sock"),
		Entry("with a per cent sign", "100%25.sock"),
		Entry("with a hash", "a#b.sock"),
		Entry("with a question mark", "a?b=c.sock"),
		Entry("with colons", "unix:a:1"),
		Entry("with letters beyond ASCII", "kopfwaage-ä.sock"),
	)

	It("finds a socket at a relative path, one with an at sign too", func(ctx SpecContext) {
		back, err := os.Getwd()
		Expect(err).NotTo(HaveOccurred())
		Expect(os.Chdir(socketDir())).To(Succeed())
		DeferCleanup(os.Chdir, back)
		for path, release := range map[string]headscaletest.Release{
			"a.sock": headscaletest.V028, "./b.sock": headscaletest.V030, "./@c.sock": headscaletest.V028,
		} {
			startFake(path, release)
		}
		for _, path := range []string{"a.sock", "b.sock", "@c.sock"} {
			Expect(newClient(path).ListAPIKeys(ctx)).To(BeEmpty(), path)
		}
	})

	It("names the transports", func() {
		Expect([]string{
			headscale.TransportGRPC.String(), headscale.TransportHTTP.String(), headscale.TransportUnknown.String(),
		}).To(Equal([]string{"gRPC", "HTTP", "unknown"}))
	})

	It("says so when there is no path, or one too long for a socket", func(ctx SpecContext) {
		_, err := newClient("").ListAPIKeys(ctx)
		Expect(err).To(MatchError(ContainSubstring("path of Headscale's socket is empty")))
		_, err = newClient("/" + strings.Repeat("x", 200)).ListAPIKeys(ctx)
		Expect(err).To(MatchError(headscale.ErrUnavailable))
	})
})

func tomorrow() time.Time { return time.Now().Add(24 * time.Hour) }

// describeRelease is what is expected of the client with one release of Headscale.
func describeRelease(release headscaletest.Release) {
	f := &fixture{release: release}
	BeforeEach(func() {
		f.server = startFake(socketPath(), release)
		f.client = newClient(f.server.SocketPath())
	})
	answerSpecs(f)
	silenceSpecs(f)
	downSpecs(f)
	closingSpecs(f)
}

// fixture is a Headscale and a client of it, new for every spec.
type fixture struct {
	release headscaletest.Release
	server  *headscaletest.Server
	client  *headscale.Client
}

// answerSpecs are about what Headscale answers.
func answerSpecs(f *fixture) {
	It("creates, lists and expires a key", func(ctx SpecContext) {
		Expect(f.client.Transport()).To(Equal(headscale.TransportUnknown))
		Expect(f.client.ListAPIKeys(ctx)).To(BeEmpty())
		Expect(f.client.Transport()).To(Equal(transportOf(f.release)))

		expiration := time.Date(2100, 1, 2, 3, 4, 5, 678_901_234, time.FixedZone("", 3600))
		key, err := f.client.CreateAPIKey(ctx, expiration)
		Expect(err).NotTo(HaveOccurred())
		Expect(f.server.Validate(key.Reveal())).To(BeTrue())
		prefix, ok := key.Prefix()
		Expect(ok).To(BeTrue())

		listed, err := f.client.ListAPIKeys(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(listed).To(HaveLen(1))
		Expect(listed[0].CreatedAt).To(BeTemporally("~", time.Now(), time.Minute))
		listed[0].CreatedAt = time.Time{}
		Expect(listed[0]).To(Equal(headscale.APIKey{
			ID: 1, Prefix: prefix, Masked: f.release >= headscaletest.V028,
			Expiration: time.Date(2100, 1, 2, 2, 4, 5, 678_901_000, time.UTC),
		}))

		Expect(f.client.ExpireAPIKey(ctx, prefix)).To(Succeed())
		Expect(f.server.Validate(key.Reveal())).To(BeFalse())
		Expect(f.client.ExpireAPIKey(ctx, prefix)).To(Succeed(), "a key that is expired already")
		listed, err = f.client.ListAPIKeys(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(listed[0].Expiration).To(BeTemporally("<=", time.Now()))
	})

	It("lists keys of other ages: legacy, without an expiration, never valid", func(ctx SpecContext) {
		never := f.server.CreateKey(nil)
		f.server.Database().Insert(headscaletest.Record{Prefix: "abc-def", Expiration: &time.Time{}})
		f.server.Database().Insert(headscaletest.Record{Prefix: "0123456_-9"})
		listed, err := f.client.ListAPIKeys(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(listed).To(HaveLen(3))
		Expect(listed[0].Prefix).To(Equal(never.Prefix))
		Expect(listed[0].Expiration).To(BeZero())
		Expect(listed[1].Prefix).To(Equal("abc-def"))
		Expect(listed[1].Expiration).To(Equal(time.Unix(0, 0).UTC()), "year 1 must not pass for never")
		Expect(listed[2].Prefix).To(Equal("0123456_-9"))
	})

	It("says that Headscale does not know a prefix", func(ctx SpecContext) {
		err := f.client.ExpireAPIKey(ctx, "nope")
		Expect(err).To(MatchError(headscale.ErrNotFound))
		Expect(err).NotTo(MatchError(headscale.ErrUnavailable))
		Expect(err).To(MatchError("expiring an API key: API key not known to Headscale"))
	})

	It("refuses what cannot be meant before it asks Headscale", func(ctx SpecContext) {
		key := f.server.CreateKey(nil)
		_, err := f.client.CreateAPIKey(ctx, time.Time{})
		Expect(err).To(MatchError(ContainSubstring("expiration is not set")))
		Expect(f.client.ExpireAPIKey(ctx, "")).To(MatchError(ContainSubstring("prefix is empty")))
		err = f.client.ExpireAPIKey(ctx, key.Text)
		Expect(err).To(MatchError(ContainSubstring("not the whole key")))
		Expect(err.Error()).NotTo(ContainSubstring(key.Text))
		Expect(f.server.Calls(headscaletest.Create) + f.server.Calls(headscaletest.Expire)).To(BeZero())
	})

	It("returns what Headscale refused with, which is an answer", func(ctx SpecContext) {
		f.server.Inject(headscaletest.Fault{Do: headscaletest.Refuse})
		_, createErr := f.client.CreateAPIKey(ctx, tomorrow())
		_, listErr := f.client.ListAPIKeys(ctx)
		for _, err := range []error{createErr, listErr, f.client.ExpireAPIKey(ctx, "abcdefg")} {
			Expect(err).To(MatchError(ContainSubstring("database is locked")))
			Expect(err).NotTo(MatchError(headscale.ErrUnavailable))
			Expect(err).NotTo(MatchError(headscale.ErrNotFound))
		}
		Expect(f.server.Database().Keys()).To(BeEmpty())
	})
}

// silenceSpecs are about answers that do not come, or not in time.
func silenceSpecs(f *fixture) {
	DescribeTable("says that there was no answer when the connection is cut, and goes on with the next call",
		func(ctx SpecContext, effect headscaletest.Effect, created int) {
			f.server.Inject(headscaletest.Fault{Do: effect, Times: 3})
			_, err := f.client.CreateAPIKey(ctx, tomorrow())
			Expect(err).To(MatchError(headscale.ErrUnavailable))
			_, err = f.client.ListAPIKeys(ctx)
			Expect(err).To(MatchError(headscale.ErrUnavailable))
			Expect(f.client.ExpireAPIKey(ctx, "abcdefg")).To(MatchError(headscale.ErrUnavailable))

			Expect(f.client.ListAPIKeys(ctx)).To(HaveLen(created))
			Expect(f.server.Calls(headscaletest.Create)).To(Equal(1), "a create is never repeated by itself")
		},
		Entry("before the work was done", headscaletest.Drop, 0),
		Entry("after the work was done", headscaletest.LoseAnswer, 1),
	)

	It("gives up on a slow answer at its own deadline, though the key may appear later", func(ctx SpecContext) {
		held := make(chan struct{})
		release := sync.OnceFunc(func() { close(held) })
		DeferCleanup(release)
		f.server.Inject(headscaletest.Fault{On: headscaletest.Create, Until: held})
		client := newClient(f.server.SocketPath(), soon)
		// On a busy machine a call may not get as far as Headscale in its time.
		Eventually(func() int {
			longer, cancel := context.WithTimeout(ctx, headscale.CallTimeout)
			defer cancel()
			_, err := client.CreateAPIKey(longer, tomorrow())
			Expect(err).To(MatchError(headscale.ErrUnavailable))
			Expect(err).To(MatchError(context.DeadlineExceeded))
			Expect(longer.Err()).NotTo(HaveOccurred(), "the deadline was the caller's")
			return f.server.Calls(headscaletest.Create)
		}).ShouldNot(BeZero())
		Expect(f.server.CreatedKeys()).To(BeZero())
		release()
		Eventually(func() bool { return f.server.CreatedKeys() == f.server.Calls(headscaletest.Create) }).Should(BeTrue())
	})

	It("gives up at the caller's deadline", func(ctx SpecContext) {
		f.server.Freeze()
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, err := f.client.ListAPIKeys(short)
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		Expect(err).To(MatchError(context.DeadlineExceeded))
	})

	It("gives up when the caller does, which is not Headscale's fault", func(ctx SpecContext) {
		f.server.Inject(headscaletest.Fault{Delay: time.Minute})
		cancelled, cancel := context.WithCancel(ctx)
		go func() {
			defer GinkgoRecover()
			defer cancel()
			Eventually(f.server.Calls).WithArguments(headscaletest.List).Should(Equal(1))
		}()
		_, err := f.client.ListAPIKeys(cancelled)
		Expect(err).To(MatchError(context.Canceled))
		Expect(err).NotTo(MatchError(headscale.ErrUnavailable))
	})
}

// downSpecs are about a Headscale that is not there, or goes down.
func downSpecs(f *fixture) {
	It("waits for a Headscale that listens and does not serve yet", func(ctx SpecContext) {
		f.server.Freeze()
		_, err := newClient(f.server.SocketPath(), soon).ListAPIKeys(ctx)
		Expect(err).To(MatchError(headscale.ErrUnavailable))

		listed := make(chan error)
		go func() {
			_, err := f.client.ListAPIKeys(ctx)
			listed <- err
		}()
		Consistently(listed).WithTimeout(50 * time.Millisecond).ShouldNot(Receive())
		f.server.Thaw()
		Eventually(listed).Should(Receive(BeNil()))
	})

	It("tells why it cannot connect: no socket, or nobody behind it", func(ctx SpecContext) {
		f.server.Crash()
		_, err := f.client.ListAPIKeys(ctx)
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		Expect(errors.Is(err, syscall.ECONNREFUSED)).To(BeTrue())

		Expect(f.server.Start()).To(Succeed())
		f.server.Stop()
		_, err = f.client.ListAPIKeys(ctx)
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		Expect(errors.Is(err, fs.ErrNotExist)).To(BeTrue())
		Expect(err).To(MatchError(ContainSubstring(f.server.SocketPath())))

		Expect(f.server.Start()).To(Succeed())
		Expect(f.client.ListAPIKeys(ctx)).To(BeEmpty())
	})

	It("loses no more than the call in progress when Headscale goes down", func(ctx SpecContext) {
		f.server.Inject(headscaletest.Fault{On: headscaletest.Create, Delay: time.Minute, Times: 1})
		failed := make(chan error)
		go func() {
			_, err := f.client.CreateAPIKey(ctx, tomorrow())
			failed <- err
		}()
		Eventually(f.server.Calls).WithArguments(headscaletest.Create).Should(Equal(1))
		f.server.Crash()
		Eventually(failed).Should(Receive(MatchError(headscale.ErrUnavailable)))
		Expect(f.server.Start()).To(Succeed())
		Expect(f.client.CreateAPIKey(ctx, tomorrow())).NotTo(BeZero())
		Expect(f.server.CreatedKeys()).To(Equal(1))
	})

	It("tells answers from silence at whatever moment Headscale dies", func(ctx SpecContext) {
		const deaths = 50
		var answered, lost int
		over := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer GinkgoRecover()
			defer close(ended)
			for {
				select {
				case <-over:
					return
				default:
				}
				switch _, err := f.client.CreateAPIKey(ctx, tomorrow()); {
				case err == nil:
					answered++
				case errors.Is(err, headscale.ErrUnavailable):
					lost++
				default:
					Expect(err).NotTo(HaveOccurred(), "neither an answer nor silence")
				}
			}
		}()
		for range deaths {
			before := f.server.CreatedKeys()
			Eventually(f.server.CreatedKeys).WithPolling(100 * time.Microsecond).Should(BeNumerically(">", before))
			f.server.Crash()
			Expect(f.server.Start()).To(Succeed())
		}
		close(over)
		Eventually(ended).Should(BeClosed())
		Expect(lost).To(BeNumerically(">", 0))
		Expect(f.server.CreatedKeys()).To(BeNumerically("~", answered, deaths), "at most one answer is lost per death")
		Expect(f.server.CreatedKeys()).To(BeNumerically(">=", answered))
	})
}

// closingSpecs are about many callers, and about none.
func closingSpecs(f *fixture) {
	It("serves many callers at once", func(ctx SpecContext) {
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				defer GinkgoRecover()
				key, err := f.client.CreateAPIKey(ctx, tomorrow())
				Expect(err).NotTo(HaveOccurred())
				prefix, _ := key.Prefix()
				Expect(f.client.ExpireAPIKey(ctx, prefix)).To(Succeed())
				Expect(f.client.ListAPIKeys(ctx)).NotTo(BeEmpty())
			})
		}
		callers.Wait()
		Expect(f.server.CreatedKeys()).To(Equal(20))
		Expect(f.server.ValidKeys()).To(BeEmpty())
	})

	It("ends the call in progress when it is closed, and refuses the next", func(ctx SpecContext) {
		f.server.Inject(headscaletest.Fault{Delay: time.Minute})
		ended := make(chan error)
		go func() {
			_, err := f.client.ListAPIKeys(ctx)
			ended <- err
		}()
		Eventually(f.server.Calls).WithArguments(headscaletest.List).Should(Equal(1))
		Expect(f.client.Close()).To(Succeed())
		Eventually(ended).Should(Receive(MatchError(headscale.ErrClosed)))
		_, err := f.client.ListAPIKeys(ctx)
		Expect(err).To(MatchError(headscale.ErrClosed))
		Expect(err).NotTo(MatchError(headscale.ErrUnavailable))
		Expect(f.client.Close()).To(Succeed(), "twice")
	})

	It("leaves Headscale in peace between calls", func(ctx SpecContext) {
		f.server.Inject(headscaletest.Fault{Do: headscaletest.Drop, Times: 1})
		_, err := f.client.ListAPIKeys(ctx)
		Expect(err).To(MatchError(headscale.ErrUnavailable))
		f.server.Stop()
		connected := make(chan struct{}, 1)
		listenRaw(f.server.SocketPath(), func(conn net.Conn) {
			_ = conn.Close()
			connected <- struct{}{}
		})
		Consistently(connected).WithTimeout(1500 * time.Millisecond).ShouldNot(Receive())
	})
}
