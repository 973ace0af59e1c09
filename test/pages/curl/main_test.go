package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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
	args := []string{"-fsS", "-H", "@-", server.URL, "-d", "data", "-o", path, "-w", `%{http_code}\n`}
	var printed strings.Builder
	g.Expect(run(args, strings.NewReader("Authorization: Bearer x\n"), &printed)).To(Succeed())
	g.Expect(printed.String()).To(Equal("200\n"))
	g.Expect(os.ReadFile(path)).To(BeEquivalentTo("POST Bearer x data"))
}

func TestARefusalIsAnErrorWhereThatIsAskedFor(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	for option, want := range map[string]types.GomegaMatcher{"-sS": Succeed(), "-fsS": MatchError(ContainSubstring("404"))} {
		g.Expect(run([]string{option, server.URL}, nil, io.Discard)).To(want, option)
	}
}

func TestACertificateIsVerifiedUnlessToldOtherwise(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	g.Expect(run([]string{"-s", server.URL}, nil, io.Discard)).To(MatchError(ContainSubstring("certificate")))
	g.Expect(run([]string{"-s", "-k", server.URL}, nil, io.Discard)).To(Succeed())
}

func TestWhatIsNotKnownIsRefused(t *testing.T) {
	for _, args := range [][]string{{"-L", "http://x"}, {"-H", "no colon", "http://x"}, {}, {"http://x", "http://y"}} {
		NewWithT(t).Expect(run(args, nil, io.Discard)).NotTo(Succeed(), "%v", args)
	}
}
