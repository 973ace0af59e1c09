package main

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestFlags(t *testing.T) {
	g := NewWithT(t)
	s, err := parseFlags([]string{"--sizes=20,1,500", "--rest=3m", "--images=/somewhere"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.sizes).To(Equal([]int{1, 20, 500}))
	g.Expect(s.rest).To(Equal(3 * time.Minute))
	g.Expect(s.subjects).To(HaveLen(len(subjects)))
	g.Expect(s.images).To(Equal("/somewhere"))

	s, err = parseFlags([]string{"--only=operator"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.subjects).To(Equal([]string{"operator"}))
	g.Expect(filepath.IsAbs(s.images)).To(BeTrue())
	g.Expect(s.images).To(HaveSuffix("/out/images"))
}

func TestFlagsThatCannotBeUsed(t *testing.T) {
	for argument, sentence := range map[string]string{
		"--sizes=1,0":          "--sizes, --runs, --entries, --rest and --sidecar-rest must be positive",
		"--runs=0":             "--sizes, --runs, --entries, --rest and --sidecar-rest must be positive",
		"--entries=0":          "--sizes, --runs, --entries, --rest and --sidecar-rest must be positive",
		"--rest=0s":            "--sizes, --runs, --entries, --rest and --sidecar-rest must be positive",
		"--only=operator,moon": `--only has "moon"`,
		"again":                `unexpected argument "again"`,
	} {
		_, err := parseFlags([]string{argument})
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(sentence)))
	}
}

func TestAMeasurementEndsWhereItFails(t *testing.T) {
	g := NewWithT(t)
	g.Expect(attempt(func() { check(nil) })).To(Succeed())
	g.Expect(attempt(func() { must(0, errors.New("broken")) })).To(MatchError("broken"))
	g.Expect(func() { _ = attempt(func() { panic("a mistake") }) }).To(PanicWith("a mistake"))
	g.Expect(attempt(func() {
		forEach(t.Context(), 3, 2, func(_ context.Context, i int) {
			if i == 1 {
				check(errors.New("broken"))
			}
		})
	})).To(MatchError("broken"))
}
