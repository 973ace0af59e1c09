package apikey

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// TestRefusalsDoNotFillTheLog has a Headscale that refuses with other words every second, and
// is well in between.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	g := NewWithT(t)
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	r, log := newReporter(&now)
	quoted := func() int { return strings.Count(log.String(), "Headscale refused with code Unknown") }
	for second := range 180 {
		r.Failed(fmt.Errorf("listing API keys: %w with code Unknown: words %d", headscale.ErrRefused, second))
		g.Expect(quoted()).To(Equal(1 + second/60))
		r.rested(rotation.Decision{}, View{Record: &rotation.Record{}})
		now = now.Add(time.Second)
	}

	r.Failed(fmt.Errorf("%w: the call ended", headscale.ErrUnavailable))
	g.Expect(log.String()).To(ContainSubstring("the call ended"), "other failures are logged at once")
}

// TestOneRefusalIsLoggedOnce has one that lasts.
func TestOneRefusalIsLoggedOnce(t *testing.T) {
	g := NewWithT(t)
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	r, log := newReporter(&now)
	for range 100 {
		r.Failed(headscale.ErrRefused)
		now = now.Add(10 * time.Second)
	}
	g.Expect(strings.Count(log.String(), "\n")).To(Equal(1))
}

// newReporter returns a reporter with a clock, and its log.
func newReporter(now *time.Time) (*reporter, *bytes.Buffer) {
	log := &bytes.Buffer{}
	return &reporter{
		log: slog.New(slog.NewTextHandler(log, nil)), observer: noObserver{},
		secrets: func() []string { return nil }, now: func() time.Time { return *now },
	}, log
}
