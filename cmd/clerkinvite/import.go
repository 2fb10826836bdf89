package main

import (
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

func importCommand() command {
	return command{
		name: "import", args: "FILE.csv", min: 1, max: 1, summary: "invite the people of a CSV file (- is standard input)",
		details: `The first row names the columns, in any order:

  tenant, email                the member; --tenant stands in for a missing tenant
  role, invited_by, data       the application's own; data is JSON
  redirect_url, expires_in_days (1 to 365), template, public_metadata (a JSON object)
                               what Clerk is asked for; empty is the default
  reason                       what --errors has written; not looked at

White space around a value is cut off. A column with another name is an error.

Killed or interrupted at any moment, run it again with the same file: it goes on, and sends nobody a second email. Who was
revoked or removed is left so, unless --again says otherwise. Clerk lets 350 people an hour be invited; the import waits for
that, or with --no-wait leaves the rest reserved, and the application's Run goes on with it. Lines with public_metadata
can go one by one only: 100 an hour.

  clerkinvite import people.csv --dry-run                     # what would happen; writes nothing, asks Clerk nothing
  clerkinvite import people.csv --errors failed.csv           # mend failed.csv, then
  clerkinvite import failed.csv --errors failed-again.csv
  clerkinvite import - --tenant acme --no-wait < people.csv

As JSON: {"file", "dry_run", "lines", "counts": {outcome: n}, "members": {state: n} in a dry run, "due", "problems":
[{"line", "tenant", "email", "outcome", "reason"}, …], "error"}. The counts add up to lines.`,
		prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
			var o importOptions
			flags.StringVar(&o.tenant, "tenant", "", "the `tenant` of lines that name none")
			flags.BoolVar(&o.dryRun, "dry-run", false, "say what would happen; write nothing and ask Clerk nothing")
			flags.BoolVar(&o.wait, "wait", true, "wait for Clerk's rate limits until everybody is invited")
			flags.BoolFunc("no-wait", "leave to the application's Run whom a rate limit keeps from being invited now", func(s string) error {
				no, err := strconv.ParseBool(s)
				o.wait = !no
				return err
			})
			flags.BoolVar(&o.again, "again", false, "also invite those who were revoked or removed")
			flags.StringVar(&o.errors, "errors", "", "write the lines that failed or were not reached to this CSV `file`, with the reason; not in a dry run")
			return func(ctx context.Context, args []string) error { return t.runImport(ctx, o, args[0]) }
		},
	}
}

type importOptions struct {
	tenant string
	dryRun bool
	wait   bool
	again  bool
	errors string
}

// lookAtOnce is how many members are read by one statement.
const lookAtOnce = 1000

// maxRounds is how often those are tried again whom another process held or whose answer was lost.
const maxRounds = 5

// importer is one import.
type importer struct {
	t     *tool
	o     importOptions
	svc   *clerkinvite.Service
	store *clerkinvite.PgxStore
	lines []*line
	bar   *progress
}

func (t *tool) runImport(ctx context.Context, o importOptions, name string) error {
	if err := t.checkErrorsFile(o, name); err != nil {
		return usagef("--errors: %w; nothing was sent", err)
	}
	raw, err := t.readFile(ctx, name)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var header []string
	var lines []*line
	if err == nil {
		header, lines, err = readSheet(raw, o.tenant)
	}
	if err != nil {
		return usagef("%s: %w; nothing was sent", name, err)
	}
	im := &importer{t: t, o: o, lines: lines, bar: newProgress(t, lines)}
	svc, store, closeDB, err := t.service(ctx, !o.dryRun, clerkinvite.Config{Observer: im.bar})
	if err != nil {
		return err
	}
	defer closeDB()
	im.svc, im.store = svc, store

	err = im.check(ctx)
	if err == nil {
		err = im.look(ctx)
	}
	if err == nil && !o.dryRun {
		err = im.invite(ctx)
		im.bar.clear()
	}
	if o.errors != "" && !o.dryRun {
		if fault := writeErrors(o.errors, header, lines); fault != nil {
			text := "--errors: " + fault.Error()
			if err != nil {
				text = explain(err) + "; " + text
			}
			err = errors.New(text)
		}
	}
	r := im.report(name, err)
	if err == nil && r.incomplete() {
		err = errSomeFailed
	}
	if err != nil {
		err = reportedError{err}
	}
	if printErr := t.print(r, r.text); printErr != nil {
		return printErr
	}
	return err
}

// readFile reads the file to its end. A read from a pipe cannot be interrupted: if ctx ends first it is left alone, and ends with
// the process.
func (t *tool) readFile(ctx context.Context, name string) ([]byte, error) {
	type content struct {
		raw []byte
		err error
	}
	done := make(chan content, 1)
	go func() {
		var c content
		if name == "-" {
			c.raw, c.err = io.ReadAll(t.stdin)
		} else {
			c.raw, c.err = os.ReadFile(name)
		}
		done <- c
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case c := <-done:
		return c.raw, c.err
	}
}

// checkErrorsFile refuses a file for --errors that cannot be written, is no file, or is the one that is imported: it gets some of
// the lines only, and takes the place of what was there.
func (t *tool) checkErrorsFile(o importOptions, input string) error {
	if o.errors == "" {
		return nil
	}
	if there, err := os.Stat(o.errors); err == nil {
		source, err := os.Stat(input)
		if f, ok := t.stdin.(*os.File); ok && input == "-" {
			source, err = f.Stat()
		}
		if err == nil && os.SameFile(there, source) {
			return fmt.Errorf("%s is the file that is imported, and would lose the other lines: name another one", o.errors)
		}
	}
	there, err := os.Lstat(o.errors)
	if err == nil && !there.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file: name one, or one that is not there yet", o.errors)
	}
	if o.dryRun || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(o.errors), ".clerkinvite-*") // what writeErrors will do
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// errValid is the answer of a gate that is asked before anything is written, and only for what is valid.
var errValid = errors.New("valid")

// check finds the lines that are not valid, and those with the address of a line above. It neither reads nor writes: to be asked by
// Config.Authorize is how the library says what it thinks of parameters, without doing anything.
func (im *importer) check(ctx context.Context) error {
	var ref clerkinvite.Ref
	checker, err := clerkinvite.New(clerkinvite.Config{API: noClerk{}, Store: im.store, Authorize: func(_ context.Context, p *clerkinvite.InviteParams) error {
		ref = clerkinvite.Ref{TenantID: p.TenantID, Email: p.Email}
		return errValid
	}})
	if err != nil {
		return err
	}
	first := make(map[clerkinvite.Ref]int, len(im.lines))
	for _, l := range im.lines {
		if l.outcome == invalid {
			continue
		}
		_, err := checker.Reserve(ctx, l.params)
		var wrong *clerkinvite.InvalidParamsError
		switch {
		case errors.As(err, &wrong):
			l.end(invalid, invalidReason(wrong))
			continue
		case !errors.Is(err, errValid):
			return err
		}
		l.ref = ref
		if number, there := first[ref]; there {
			l.end(double, fmt.Sprintf("the address of line %d", number))
			continue
		}
		first[ref] = l.number
	}
	return nil
}

// open returns the lines of whom nothing is decided yet.
func (im *importer) open() (lines []*line) {
	for _, l := range im.lines {
		if l.outcome == notReached {
			lines = append(lines, l)
		}
	}
	return lines
}

// look finds out who is a member already: for a dry run, and because an import that is repeated must not bring back those whom
// somebody has revoked or removed meanwhile.
func (im *importer) look(ctx context.Context) error {
	for chunk := range slices.Chunk(im.open(), lookAtOnce) {
		refs, at := make([]clerkinvite.Ref, len(chunk)), make(map[clerkinvite.Ref]*line, len(chunk))
		for i, l := range chunk {
			refs[i], at[l.ref] = l.ref, l
		}
		members, err := im.store.Find(ctx, clerkinvite.Query{Refs: refs})
		if err != nil {
			return err
		}
		for _, m := range members {
			at[m.Ref()].member = m
		}
		for _, l := range chunk {
			if o, reason := im.foresee(l); im.o.dryRun || o == withdrawn {
				l.end(o, reason)
			}
		}
	}
	return nil
}

// foresee says what an import makes of a line.
func (im *importer) foresee(l *line) (outcome, string) {
	m := l.member
	if m == nil {
		return fresh, ""
	}
	switch m.Status {
	case clerkinvite.StatusReserved:
		return waiting, ""
	case clerkinvite.StatusActive:
		return alreadyActive, l.otherRole(m)
	case clerkinvite.StatusPending:
		if m.ExpiresAt != nil && !m.ExpiresAt.After(im.t.env.now()) {
			return again, ""
		}
		return alreadyInvited, l.otherRole(m)
	case clerkinvite.StatusRevoked, clerkinvite.StatusRemoved:
		if !im.o.again {
			return withdrawn, "is " + string(m.Status) + "; --again invites it all the same"
		}
		return again, ""
	default: // failed, expired
		return again, ""
	}
}

// invite invites whoever is left, and waits for those whom another process holds: one that was killed, as a rule the import before.
func (im *importer) invite(ctx context.Context) error {
	todo := im.open()
	for round := 0; ; round++ {
		params := make([]clerkinvite.InviteParams, len(todo))
		for i, l := range todo {
			params[i] = l.params
		}
		im.bar.begin(todo)
		results, err := im.svc.InviteMany(ctx, params, &clerkinvite.ManyOptions{Wait: im.o.wait, Progress: im.bar.show})
		var later []*line
		var until time.Time
		for i, r := range results {
			if at := todo[i].settle(r, err, im.t.env.now()); !at.IsZero() {
				later = append(later, todo[i])
				if at.After(until) {
					until = at
				}
			}
		}
		if err != nil || !im.o.wait || len(later) == 0 || round == maxRounds {
			return err
		}
		im.bar.say(fmt.Sprintf("another process, or a lost answer of Clerk's, holds %d; going on at %s", len(later), stamp(&until)))
		if err := im.sleep(ctx, until); err != nil {
			return err
		}
		todo = later
	}
}

// sleep waits until the time has come.
func (im *importer) sleep(ctx context.Context, until time.Time) error {
	for {
		// Not all at once: the clock may be set, and the machine may sleep.
		wait := min(until.Sub(im.t.env.now()), time.Second)
		if wait < 0 {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait + time.Millisecond):
		}
	}
}

// importReport is the report of an import.
type importReport struct {
	File     string                     `json:"file"`
	DryRun   bool                       `json:"dry_run"`
	Lines    int                        `json:"lines"`
	Counts   map[outcome]int            `json:"counts"`
	Members  map[clerkinvite.Status]int `json:"members,omitzero"`
	Due      *time.Time                 `json:"due,omitempty"`
	Problems []problem                  `json:"problems"`
	Error    string                     `json:"error,omitempty"`
}

// problem is a line of which there is something to say.
type problem struct {
	Line    int     `json:"line"`
	Tenant  string  `json:"tenant"`
	Email   string  `json:"email"`
	Outcome outcome `json:"outcome"`
	Reason  string  `json:"reason"`
}

// of reports whether an outcome can be that of a line in a dry run or in another one.
func (o outcome) of(dryRun bool) bool {
	switch o {
	case fresh, again:
		return dryRun
	case sent, linked, refused, failed, notReached:
		return !dryRun
	default:
		return true
	}
}

func (im *importer) report(name string, err error) *importReport {
	r := &importReport{File: name, DryRun: im.o.dryRun, Lines: len(im.lines), Counts: make(map[outcome]int), Problems: []problem{}}
	for _, o := range outcomes {
		if o.of(im.o.dryRun) {
			r.Counts[o] = 0
		}
	}
	if im.o.dryRun {
		r.Members = make(map[clerkinvite.Status]int)
	}
	for _, l := range im.lines {
		r.Counts[l.outcome]++
		if im.o.dryRun && l.member != nil {
			r.Members[l.member.Status]++
		}
		if l.reason != "" {
			r.Problems = append(r.Problems, problem{l.number, l.params.TenantID, l.params.Email, l.outcome, l.reason})
		}
		if l.outcome == waiting && l.member != nil && l.member.NextAttemptAt != nil && (r.Due == nil || l.member.NextAttemptAt.Before(*r.Due)) {
			r.Due = l.member.NextAttemptAt
		}
	}
	if err != nil {
		r.Error = explain(err)
	}
	return r
}

// incomplete reports whether something has failed or is left.
func (r *importReport) incomplete() bool {
	if r.DryRun {
		return r.Counts[invalid] > 0
	}
	return r.Counts[invalid]+r.Counts[refused]+r.Counts[failed]+r.Counts[waiting]+r.Counts[notReached] > 0
}

// maxShown is how many problems are shown to people; all are in the JSON, and in --errors those that failed.
const maxShown = 50

var outcomeTexts = map[outcome]string{
	fresh:          "would be invited, or linked if Clerk knows them",
	again:          "would be invited again: their invitation failed, ran out or was withdrawn",
	sent:           "invited now",
	linked:         "Clerk knows them: active now, without an email",
	alreadyInvited: "had been invited before",
	alreadyActive:  "were members before",
	withdrawn:      "were revoked or removed before, and are left so",
	double:         "have the address of a line above",
	invalid:        "cannot be invited as they stand",
	refused:        "refused by Clerk",
	failed:         "failed",
	waiting:        "are reserved, and wait to be sent",
	notReached:     "were not reached",
}

func (r *importReport) text(out io.Writer) {
	if r.DryRun {
		fmt.Fprintln(out, "Nothing was written or sent.")
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%d\t lines\n", r.Lines)
	for _, o := range outcomes {
		if n := r.Counts[o]; n > 0 {
			fmt.Fprintf(w, "%d\t %s\n", n, outcomeTexts[o])
		}
	}
	_ = w.Flush()
	if len(r.Members) > 0 {
		fmt.Fprint(out, "Members already, by state:")
		for _, s := range clerkinvite.Statuses() {
			if n := r.Members[s]; n > 0 {
				fmt.Fprintf(out, " %d %s", n, s)
			}
		}
		fmt.Fprintln(out)
	}
	shown := min(len(r.Problems), maxShown)
	for _, p := range r.Problems[:shown] {
		fmt.Fprintf(out, "line %d: %s %s: %s\n", p.Line, dash(plain(p.Email)), p.Outcome, plain(p.Reason))
	}
	if more := len(r.Problems) - shown; more > 0 {
		fmt.Fprintf(out, "… and %d more: --json has them all, --errors FILE those that failed\n", more)
	}
	switch n := r.Counts[waiting] + r.Counts[notReached]; {
	case r.DryRun || n == 0:
	case r.Due != nil:
		fmt.Fprintf(out, "%d are left, the first is due at %s. Import the file again to go on; whoever is reserved is also invited by the application's Run.\n",
			n, stamp(r.Due))
	default:
		fmt.Fprintf(out, "%d are left. Import the file again to go on.\n", n)
	}
}

// writeErrors writes the lines of which the database has nothing good as they were, with the reason as one more column. The file is
// there whole or not at all: it is written under another name first.
func writeErrors(name string, header []string, lines []*line) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".clerkinvite-*") // for the owner only, as it holds addresses
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	at := slices.Index(header, reasonColumn)
	without := func(fields []string) []string {
		if at < 0 || at >= len(fields) {
			return slices.Clone(fields)
		}
		return slices.Delete(slices.Clone(fields), at, at+1)
	}
	_ = w.Write(append(without(header), reasonColumn)) // Error has it
	for _, l := range lines {
		switch l.outcome {
		case invalid, refused, failed:
			_ = w.Write(append(without(l.fields), fmt.Sprintf("line %d: %s", l.number, l.reason)))
		case notReached:
			_ = w.Write(append(without(l.fields), fmt.Sprintf("line %d: was not reached", l.number)))
		default: // is there already, comes by itself, or is the double of a line that has its own outcome
		}
	}
	w.Flush()
	if err := errors.Join(w.Error(), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("%w; the lines are in %s", err, f.Name())
	}
	return nil
}
