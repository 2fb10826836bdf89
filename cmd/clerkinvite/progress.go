package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// progress shows on standard error how far an import is: a bar on a terminal, else a line now and then. The library calls it in the
// goroutine of InviteMany only.
type progress struct {
	t        *tool
	lines    []*line
	terminal bool
	drawn    bool      // there is a bar on the screen's last line
	last     time.Time // when a line was written, if there is no terminal

	before   map[outcome]int // what was decided before this round
	decided  bool            // all rows of this round are reserved, or known to be duplicates
	already  int             // duplicates of this round
	refusals int             // of this round
}

// every is the time between two lines, if there is no terminal.
const every = 10 * time.Second

func newProgress(t *tool, lines []*line) *progress {
	p := &progress{t: t, lines: lines, last: t.env.now()}
	if f, ok := t.stderr.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

var _ clerkinvite.Observer = (*progress)(nil)

// Start implements clerkinvite.Observer.
func (p *progress) Start(ctx context.Context, _ string) (context.Context, func(error)) {
	return ctx, func(error) {}
}

// StateChanged implements clerkinvite.Observer: it counts those whom Clerk refuses, which ManyProgress does not tell from other failures.
func (p *progress) StateChanged(_ context.Context, _, to clerkinvite.Status) {
	if to == clerkinvite.StatusFailed {
		p.refusals++
	}
}

// begin begins a round with the lines that are not decided yet.
func (p *progress) begin(todo []*line) {
	p.before, p.decided, p.already, p.refusals = make(map[outcome]int), false, 0, 0
	open := make(map[*line]bool, len(todo))
	for _, l := range todo {
		open[l] = true
	}
	for _, l := range p.lines {
		if !open[l] {
			p.before[l.outcome]++
		}
	}
}

// show is ManyOptions.Progress.
func (p *progress) show(m clerkinvite.ManyProgress) {
	// Nothing is delivered before all rows are written, and to write one fails only for duplicates.
	if !p.decided {
		p.already, p.decided = m.Failed, m.Failed+m.Reserved == m.Total
	}
	b := p.before
	nSent, nLinked, nRefused := b[sent]+m.Invited, b[linked]+m.Linked, b[refused]+p.refusals
	nAlready := b[alreadyInvited] + b[alreadyActive] + b[withdrawn] + p.already
	done := nSent + nLinked + nRefused + nAlready + b[double] + b[invalid] + b[failed]
	text := fmt.Sprintf("%d of %d: sent %d, linked %d, refused %d, duplicate %d, invalid %d",
		done, len(p.lines), nSent, nLinked, nRefused, nAlready+b[double], b[invalid])
	switch {
	case !m.WaitUntil.IsZero():
		p.say(fmt.Sprintf("%s; waiting for Clerk's rate limit, going on at %s", text, stamp(&m.WaitUntil)))
	case p.terminal:
		const width = 20
		full := width * done / max(len(p.lines), 1)
		fmt.Fprintf(p.t.stderr, "\r[%s%s] %s\x1b[K", strings.Repeat("=", full), strings.Repeat(" ", width-full), text)
		p.drawn = true
	case p.t.env.now().Sub(p.last) >= every:
		p.say(text)
	}
}

// say writes a line.
func (p *progress) say(text string) {
	p.clear()
	fmt.Fprintln(p.t.stderr, text)
	p.last = p.t.env.now()
}

// clear takes the bar off the screen.
func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.t.stderr, "\r\x1b[K")
		p.drawn = false
	}
}
