package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// progress shows the progress of an import on standard error: as a bar on a terminal, otherwise as a line from time to time. The
// library calls it only in the goroutine of InviteMany.
type progress struct {
	t        *tool
	lines    []*line
	terminal bool
	drawn    bool      // a bar is on the last line of the screen
	last     time.Time // when the last line was written

	before     map[outcome]int // outcomes of the lines that are not in this round
	allWritten bool            // all rows of this round are reserved or duplicates
	duplicates int             // of this round
}

// lineInterval is the time between two lines without a terminal.
const lineInterval = 10 * time.Second

func newProgress(t *tool, lines []*line) *progress {
	p := &progress{t: t, lines: lines, last: t.env.now()}
	if f, ok := t.stderr.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// begin starts a round with the undecided lines.
func (p *progress) begin(todo []*line) {
	p.before, p.allWritten, p.duplicates = make(map[outcome]int), false, 0
	inRound := make(map[*line]bool, len(todo))
	for _, l := range todo {
		inRound[l] = true
	}
	for _, l := range p.lines {
		if !inRound[l] {
			p.before[l.outcome]++
		}
	}
}

// show is ManyOptions.Progress.
func (p *progress) show(m clerkinvite.ManyProgress) {
	// Deliveries start when all rows are written, and until then only duplicates fail.
	if !p.allWritten {
		p.duplicates, p.allWritten = m.Failed, m.Failed+m.Reserved == m.Total
	}
	b := p.before
	nSent, nLinked, nRefused := b[sent]+m.Invited, b[linked]+m.Linked, b[refused]+m.Refused
	nDuplicate := b[alreadyInvited] + b[alreadyActive] + b[withdrawn] + b[duplicate] + p.duplicates
	done := nSent + nLinked + nRefused + nDuplicate + b[invalid] + b[failed]
	text := fmt.Sprintf("%d of %d: sent %d, linked %d, refused %d, duplicate %d, invalid %d",
		done, len(p.lines), nSent, nLinked, nRefused, nDuplicate, b[invalid])
	switch {
	case !m.WaitUntil.IsZero():
		p.say(fmt.Sprintf("%s; waiting for Clerk's rate limit until %s", text, stamp(&m.WaitUntil)))
	case p.terminal:
		const width = 20
		full := width * done / max(len(p.lines), 1)
		fmt.Fprintf(p.t.stderr, "\r[%s%s] %s\x1b[K", strings.Repeat("=", full), strings.Repeat(" ", width-full), text)
		p.drawn = true
	case p.t.env.now().Sub(p.last) >= lineInterval:
		p.say(text)
	}
}

func (p *progress) say(text string) {
	p.clear()
	fmt.Fprintln(p.t.stderr, text)
	p.last = p.t.env.now()
}

func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.t.stderr, "\r\x1b[K")
		p.drawn = false
	}
}
