package status

import (
	"errors"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestPanicIsAnError(t *testing.T) {
	g := NewWithT(t)
	failure := errors.New("away")
	g.Expect(Recovered(t.Context(), "Headscale", func() error { return failure })).To(BeIdenticalTo(failure))
	g.Expect(Recovered(t.Context(), "Headscale", func() error { return nil })).To(Succeed())
	err := Recovered(t.Context(), "Headscale", func() error {
		none := []string{}
		return errors.New(none[strings.Count("", "x")])
	})
	g.Expect(err).To(MatchError(ContainSubstring("(runtime error: index out of range [0] with length 0)")))
	err = Recovered(t.Context(), "Headscale", func() error { panic("password=TOPSECRET \x1b[31m" + strings.Repeat("x", 10_000)) })
	g.Expect(err.Error()).To(And(Not(ContainSubstring("TOPSECRET")), Not(ContainSubstring("\x1b"))))
	g.Expect(len(err.Error())).To(BeNumerically("<", 1000))
}
