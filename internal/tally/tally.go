// Package tally is how the attack suite says what it attacked, how often, and
// what was lost: one row of the table that make attack prints.
package tally

import (
	"encoding/json"
	"os"
	"testing"
	"time"
)

// EnvLong, if set, asks for the long mode of a test: hours instead of
// seconds. EnvFile names the file that rows are appended to.
const (
	EnvLong = "CLERKINVITE_ATTACK"
	EnvFile = "CLERKINVITE_ATTACK_ROWS"
)

// Long tells whether tests shall run as long as make attack wants them to.
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

// Start begins a row; its time runs from here.
func Start(t testing.TB, what string) *Row {
	t.Helper()
	return &Row{What: what, t: t, start: time.Now()}
}

// Done ends the row with what was done how often and what was lost. It counts
// only if the test has not failed, and is logged and, in make attack, kept.
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
