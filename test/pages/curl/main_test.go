package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
)

func TestOptionsAfterTheURL(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "answer")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Method+" "+r.Header.Get("Authorization")+" "+string(sent))
	}))
	t.Cleanup(server.Close)
	o, err := parse([]string{"-fsS", "-H", "Authorization: Bearer x", server.URL, "-d", "data", "-o", path})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(o.get(t.Context())).To(Succeed())
	g.Expect(os.ReadFile(path)).To(BeEquivalentTo("POST Bearer x data"))
}

func TestARefusalIsAnErrorWhereThatIsAskedFor(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	for option, want := range map[string]types.GomegaMatcher{"-sS": Succeed(), "-fsS": MatchError(ContainSubstring("404"))} {
		o, err := parse([]string{option, "-o", os.DevNull, server.URL})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(o.get(t.Context())).To(want, option)
	}
}

func TestWhatIsNotKnownIsRefused(t *testing.T) {
	for _, args := range [][]string{{"-L", "http://x"}, {"-H", "no colon", "http://x"}, {}, {"http://x", "http://y"}} {
		_, err := parse(args)
		NewWithT(t).Expect(err).To(HaveOccurred(), "%v", args)
	}
}
