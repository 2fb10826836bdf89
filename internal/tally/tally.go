// Package tally records what an attack test attacked, how often, and what was
// lost, as one row of the table that make attack prints.
package tally

import (
	"encoding/json"
	"os"
	"testing"
	"time"
)

// EnvLong, if set, selects the long mode of a test: hours instead of seconds.
// EnvFile names the file to append rows to.
const (
	EnvLong = "CLERKINVITE_ATTACK"
	EnvFile = "CLERKINVITE_ATTACK_ROWS"
)

// Long reports whether tests run in their long mode.
func Long() bool { return os.Getenv(EnvLong) != "" }

// Row is one line of the table.
type Row struct {
	What    string   `json:"what"`              // "kill -9 at every fault point"
	Times   string   `json:"times"`             // "212 points, 3 kills each"
	Lost    string   `json:"lost"`              // "0 of 1,204 members, 0 second emails"
	Seconds float64  `json:"seconds"`           // set by Done
	Figures []string `json:"figures,omitempty"` // further measurements, each with its unit
	t       testing.TB
	start   time.Time
}

// Start begins a row and its time.
func Start(t testing.TB, what string) *Row {
	t.Helper()
	return &Row{What: what, t: t, start: time.Now()}
}

// Done ends the row with the counts. If the test has not failed, it logs the row
// and, in make attack, saves it.
func (r *Row) Done(times, lost string, figures ...string) {
	r.t.Helper()
	if r.t.Failed() {
		return
	}
	r.Times, r.Lost, r.Figures = times, lost, figures
	r.Seconds = time.Since(r.start).Seconds()
	r.t.Logf("%s: %s; lost: %s; %.1f s %q", r.What, times, lost, r.Seconds, figures)
	name := os.Getenv(EnvFile)
	if name == "" {
		return
	}
	line, err := json.Marshal(r)
	if err != nil {
		r.t.Errorf("tally: %v", err)
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Errorf("tally: %v", err)
		return
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		r.t.Errorf("tally: %v", err)
	}
}
