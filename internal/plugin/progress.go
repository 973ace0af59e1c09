package plugin

import (
	"fmt"
	"io"
	"time"
)

// progress reports the progress of a rotation: a line for each stage, and on a terminal a last line
// that is overwritten while waiting.
type progress struct {
	out    io.Writer
	screen screen
	now    func() time.Time
	since  time.Time
}

// clearLine goes to the beginning of the line and clears it (ECMA-48).
const clearLine = "\r\x1b[K"

// begin writes the first line, and starts the timer.
func (p *progress) begin(text string) {
	p.since = p.now()
	p.say(text)
}

// say writes a line that stays.
func (p *progress) say(text string) {
	p.end()
	_, _ = fmt.Fprintln(p.out, p.screen.text(text))
}

// reached says that a stage was reached.
func (p *progress) reached(at stage, r *rotation, seen observation) {
	secret := seen.headscale.Spec.APIKey.EffectiveSecretName()
	switch at {
	case stageForwarded:
		p.say(fmt.Sprintf("The operator forwarded the request to Secret %s.", secret))
	case stageStored:
		p.say(fmt.Sprintf("The API Key Manager stored the new key %s.", prefixOf(seen.headscale, seen.secret)))
	case stageAsked, stageDone:
		if r.oldPrefix != "" && !seen.secret.forbidden && r.retiring(seen.secret) == nil {
			p.say(fmt.Sprintf("The old key %s is revoked.", r.oldPrefix))
		}
	}
}

// waiting shows on a terminal what is waited for, and for how long.
func (p *progress) waiting(at stage) {
	if !p.screen.live {
		return
	}
	what := map[stage]string{
		stageAsked:     "Waiting for the operator to forward the request",
		stageForwarded: "Waiting for the API Key Manager to store a new key",
		stageStored:    "Waiting for the old key to be revoked",
	}[at]
	line := fmt.Sprintf("%s (%s)", p.screen.text(what+"…"), span(p.now().Sub(p.since)))
	_, _ = fmt.Fprint(p.out, clearLine+p.screen.paint(faint, p.screen.cut(line, max(p.screen.width-1, minWidth-1))))
}

// end clears the line that is overwritten.
func (p *progress) end() {
	if p.screen.live {
		_, _ = fmt.Fprint(p.out, clearLine)
	}
}
