package headscaletest_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

func TestKeysSurviveARestartAndGoWithTheDatabase(t *testing.T) {
	g := NewWithT(t)
	server := start(t, headscaletest.V028)
	first := server.CreateKey(nil)
	backup := server.Database().Clone()
	second := server.CreateKey(nil)
	g.Expect([]uint64{first.ID, second.ID}).To(Equal([]uint64{1, 2}))

	server.Stop()
	g.Expect(server.Start()).To(Succeed())
	g.Expect(server.Start()).To(MatchError(ContainSubstring("is running")))
	g.Expect(server.Validate(first.Text) && server.Validate(second.Text)).To(BeTrue())

	server.SetDatabase(backup)
	g.Expect(server.Validate(first.Text)).To(BeTrue())
	g.Expect(server.Validate(second.Text)).To(BeFalse())
	g.Expect(backup.Delete(first.Prefix)).To(BeTrue())
	g.Expect(backup.Delete(first.Prefix)).To(BeFalse())
	g.Expect(server.Validate(first.Text)).To(BeFalse())
	g.Expect(server.Texts()).To(Equal([]string{first.Text, second.Text}))
	g.Expect(server.CreatedKeys()).To(BeZero(), "nobody asked the admin API")
}

func TestKeysExpireByTheServersClock(t *testing.T) {
	g := NewWithT(t)
	now := noon
	server := headscaletest.New("", headscaletest.V030, headscaletest.WithClock(func() time.Time { return now }))
	expiration := noon.Add(time.Hour)
	key := server.CreateKey(&expiration)
	now = expiration.Add(-1)
	g.Expect(server.Validate(key.Text)).To(BeTrue())
	now = expiration
	g.Expect(server.Validate(key.Text)).To(BeFalse())
	g.Expect(server.ValidKeys()).To(BeEmpty())
}

func TestReleasesAcceptTheFormatsThatTheyKnow(t *testing.T) {
	secret := strings.Repeat("a", 32)
	texts := []string{"abcdefg." + secret, "abcdefghij." + secret, "hskey-api-abcdefghijkl-" + secret + secret}
	for release, want := range map[headscaletest.Release][]bool{
		headscaletest.V027: {true, true, false},
		headscaletest.V028: {true, false, true},
		headscaletest.V030: {true, false, true},
	} {
		g := NewWithT(t)
		server := headscaletest.New("", release)
		for i, text := range texts {
			server.Database().Insert(headscaletest.Record{Text: text})
			g.Expect(server.Validate(text)).To(Equal(want[i]), "%s of %s", text, release)
		}
		g.Expect(server.Validate("hskey-api-abcdefghijkl-" + secret + "x")).To(BeFalse())
	}
}

func TestFaultsStrikeInTheirOrderAsOftenAsTheySay(t *testing.T) {
	g := NewWithT(t)
	server := start(t, headscaletest.V028)
	client := headscale.NewClient(headscale.UnixSocket(server.SocketPath()))
	defer func() { _ = client.Close() }()
	server.Inject(headscaletest.Fault{On: headscaletest.Create, Do: headscaletest.Drop, Times: 2})
	server.Inject(headscaletest.Fault{Do: headscaletest.Refuse})
	create := func() error {
		_, err := client.CreateAPIKey(t.Context(), time.Now().Add(time.Hour))
		return err
	}
	g.Expect(client.ExpireAPIKey(t.Context(), "nope")).To(MatchError(ContainSubstring("locked")))
	g.Expect(create()).To(MatchError(headscale.ErrUnavailable))
	g.Expect(create()).To(MatchError(headscale.ErrUnavailable))
	g.Expect(create()).To(MatchError(ContainSubstring("locked")))
	server.ClearFaults()
	g.Expect(create()).To(Succeed())
	g.Expect(server.Calls(headscaletest.Create)).To(Equal(4))
	g.Expect(server.CreatedKeys()).To(Equal(1))
}

func TestFreezeHoldsUntilThaw(t *testing.T) {
	g := NewWithT(t)
	server := start(t, headscaletest.V030)
	client := headscale.NewClient(headscale.UnixSocket(server.SocketPath()))
	server.Thaw() // nothing to thaw
	server.Freeze()
	server.Freeze()
	listed := make(chan error, 1)
	go func() {
		_, err := client.ListAPIKeys(t.Context())
		listed <- err
	}()
	g.Consistently(listed).WithTimeout(50 * time.Millisecond).ShouldNot(Receive())
	server.Thaw()
	g.Eventually(listed).WithTimeout(30 * time.Second).Should(Receive(BeNil()))

	server.Freeze()
	go func() {
		_, err := client.ListAPIKeys(t.Context())
		listed <- err
	}()
	g.Consistently(listed).WithTimeout(50 * time.Millisecond).ShouldNot(Receive())
	server.Stop()
	g.Eventually(listed).WithTimeout(30*time.Second).Should(Receive(MatchError(headscale.ErrUnavailable)), "frozen, and then stopped")
}

func TestStartSaysWhyItCannotListen(t *testing.T) {
	g := NewWithT(t)
	missing := filepath.Join(t.TempDir(), "missing", "s")
	g.Expect(headscaletest.New(missing, headscaletest.V030).Start()).To(MatchError(ContainSubstring("listening")))
	occupied := filepath.Join(start(t, headscaletest.V030).SocketPath(), "s")
	g.Expect(headscaletest.New(occupied, headscaletest.V030).Start()).To(MatchError(ContainSubstring("removing the old socket")))
}
