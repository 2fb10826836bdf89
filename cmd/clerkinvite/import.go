package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

func importCommand() command {
	return command{
		name: "import", args: "FILE.csv", min: 1, max: 1, summary: "invite the people in a CSV file (- reads standard input)",
		details: `The first row names the columns, in any order:

  tenant, email                the member; --tenant sets the tenant of lines without one
  role, invited_by, data       for the application; data is JSON
  redirect_url, expires_in_days (1 to 365), template, public_metadata (a JSON object)
                               for Clerk; empty means the default
  organization, organization_role
                               the Clerk organization (org_…) to invite into, and the role there (org:member if empty); without an
                               organization, the person is invited into the application
  reason                       written by --errors; ignored

Other names are errors. With --map, columns with unknown names are ignored instead. From exports of Google Workspace, Entra ID,
Okta, Slack, HubSpot and GitHub, it reads only the address and the columns in --map. It does not recognise people who have left:
delete their lines first.

Commas, semicolons or tabs separate the values. The file is UTF-8, or UTF-16 with a byte order mark. White space around values
is removed. Only JSON and ignored columns can contain line breaks.

If it is killed or interrupted, run it again with the same file: it continues and sends no second email. Revoked and removed
members are skipped; "clerkinvite invite" invites them. An import can send 336 invitations per hour, but only 86 with public_metadata; into
organizations 715, but only 215 with public_metadata. It waits for Clerk's limits. With --no-wait, it leaves the remaining people
reserved for the application's Run.

  clerkinvite import people.csv --dry-run                     # report only
  clerkinvite import people.csv --errors failed.csv           # fix failed.csv, then
  clerkinvite import failed.csv --errors failed-again.csv
  clerkinvite import - --tenant acme --no-wait < people.csv
  clerkinvite import people.csv --tenant acme --map email="Work email" --map role=Job
  clerkinvite import people.csv --tenant acme --organization org_2abc --organization-role org:member

As JSON: {"file", "dry_run", "lines", "counts": {outcome: n}, "members": {state: n} and "tenants":
[{"tenant", "lines", "known"}] in a dry run, "ignored_columns", "due", "problems":
[{"line", "tenant", "email", "outcome", "reason"}, …], "error"}. The counts add up to lines.`,
		prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
			o := importOptions{sheetOptions: sheetOptions{columns: paramColumns}}
			t.changesMembers(flags)
			o.define(flags)
			flags.BoolVar(&o.noWait, "no-wait", false, "do not wait for rate limits; leave the remaining people to the application's Run")
			return func(ctx context.Context, args []string) error { return t.runImport(ctx, o, args[0]) }
		},
	}
}

type importOptions struct {
	sheetOptions
	noWait bool
}

// findBatch is the number of members read per statement.
const findBatch = 1000

// maxRounds is how many times the import retries members that another process has claimed or whose response was lost.
const maxRounds = 5

// importer is one run of import.
type importer struct {
	t     *tool
	o     importOptions
	svc   *clerkinvite.Service
	store *clerkinvite.PgxStore
	lines []*line
	bar   *progress
	ahead time.Duration // how far the database's clock is ahead of this machine's

	tenants []tenantCount // in a dry run
}

// tenantCount is a tenant of the file.
type tenantCount struct {
	Tenant string `json:"tenant"`
	Lines  int    `json:"lines"`
	Known  bool   `json:"known"` // it has members
}

func (t *tool) runImport(ctx context.Context, o importOptions, name string) error {
	file, err := t.openSheet(ctx, o.sheetOptions, name)
	if err != nil {
		return err
	}
	lines := file.lines()
	im := &importer{t: t, o: o, lines: lines, bar: newProgress(t, lines)}
	svc, store, closeDB, err := t.service(ctx, !o.dryRun)
	if err != nil {
		return err
	}
	defer closeDB()
	im.svc, im.store = svc, store

	err = im.check(ctx)
	if err == nil {
		err = im.look(ctx)
	}
	switch {
	case err == nil && o.dryRun:
		err = im.countTenants(ctx)
	case err == nil:
		err = im.invite(ctx)
		im.bar.clear()
	}
	if o.errors != "" && !o.dryRun {
		if fault := file.writeErrors(o.errors, im.unfinished()); fault != nil {
			text := "--errors: " + fault.Error()
			if err != nil {
				text = explain(err) + "; " + text
			}
			err = errors.New(text)
		}
	}
	r := im.report(name, err)
	r.Ignored = file.ignored
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

// errValid is returned by Authorize, which is called before anything is written, and only for valid parameters.
var errValid = errors.New("valid")

// check finds invalid lines and duplicates. It neither reads nor writes: a failing Config.Authorize makes the library validate
// parameters and do nothing else.
func (im *importer) check(ctx context.Context) error {
	var ref clerkinvite.Ref
	checker, err := clerkinvite.New(clerkinvite.Config{API: noClerk{}, Organizations: noClerk{}, Store: im.store, Authorize: func(_ context.Context, p *clerkinvite.InviteParams) error {
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
		if number, seen := first[ref]; seen {
			l.end(duplicate, fmt.Sprintf("same address as line %d", number))
			continue
		}
		first[ref] = l.number
	}
	return nil
}

// undecided returns the lines without an outcome.
func (im *importer) undecided() (lines []*line) {
	for _, l := range im.lines {
		if l.outcome == notReached {
			lines = append(lines, l)
		}
	}
	return lines
}

// look finds existing members, for a dry run, and to skip members that were revoked or removed since an earlier import.
func (im *importer) look(ctx context.Context) error {
	for chunk := range slices.Chunk(im.undecided(), findBatch) {
		refs, byRef := make([]clerkinvite.Ref, len(chunk)), make(map[clerkinvite.Ref]*line, len(chunk))
		for i, l := range chunk {
			refs[i], byRef[l.ref] = l.ref, l
		}
		members, err := im.store.Find(ctx, clerkinvite.Query{Refs: refs})
		if err != nil {
			return err
		}
		for _, m := range members {
			byRef[m.Ref()].member = m
		}
		for _, l := range chunk {
			if o, reason := im.predict(l); im.o.dryRun || o == withdrawn {
				l.end(o, reason)
			}
		}
	}
	return nil
}

// countTenants counts the valid lines by tenant, and finds out which tenants have members. The others are new, or misspelt.
func (im *importer) countTenants(ctx context.Context) error {
	lines := make(map[string]int)
	im.tenants = []tenantCount{}
	for _, l := range im.lines {
		if l.ref.TenantID != "" {
			lines[l.ref.TenantID]++
		}
	}
	for _, tenant := range slices.Sorted(maps.Keys(lines)) {
		members, err := im.store.Page(ctx, clerkinvite.PageQuery{TenantID: tenant, Limit: 1})
		if err != nil {
			return err
		}
		im.tenants = append(im.tenants, tenantCount{tenant, lines[tenant], len(members) > 0})
	}
	return nil
}

// predict returns the outcome of a line in an import, from the existing member.
func (im *importer) predict(l *line) (outcome, string) {
	m := l.member
	if m == nil {
		return newMember, ""
	}
	switch m.Status {
	case clerkinvite.StatusReserved:
		return waiting, ""
	case clerkinvite.StatusActive:
		return alreadyActive, l.kept(m)
	case clerkinvite.StatusPending:
		if m.ExpiresAt != nil && !m.ExpiresAt.After(im.t.env.now()) {
			return reinvited, ""
		}
		return alreadyInvited, l.kept(m)
	case clerkinvite.StatusRevoked, clerkinvite.StatusRemoved:
		return withdrawn, "the member is " + string(m.Status) + "; \"clerkinvite invite\" invites them again"
	default: // failed, expired
		return reinvited, ""
	}
}

// invite invites the undecided people. It waits for members that another process has claimed, usually a killed import.
func (im *importer) invite(ctx context.Context) error {
	todo := im.undecided()
	for round := 0; ; round++ {
		params := make([]clerkinvite.InviteParams, len(todo))
		for i, l := range todo {
			params[i] = l.params
		}
		im.bar.begin(todo)
		// Rows have the times of the database's clock.
		databaseTime, err := im.store.Clock(ctx)
		if err != nil {
			return err
		}
		im.ahead = databaseTime.Sub(im.t.env.now())
		results, err := im.svc.InviteMany(ctx, params, &clerkinvite.ManyOptions{Wait: !im.o.noWait, Progress: im.bar.show})
		var held []*line
		var until time.Time
		for i, r := range results {
			if at := todo[i].settle(r, err, im.databaseTime()); !at.IsZero() {
				held = append(held, todo[i])
				if at.After(until) {
					until = at
				}
			}
		}
		if err != nil || im.o.noWait || len(held) == 0 || round == maxRounds {
			return err
		}
		im.bar.say(fmt.Sprintf("%d are claimed by another process or wait after a lost response; continuing at %s", len(held), stamp(&until)))
		if err := im.sleep(ctx, until); err != nil {
			return err
		}
		todo = held
	}
}

func (im *importer) databaseTime() time.Time { return im.t.env.now().Add(im.ahead) }

func (im *importer) sleep(ctx context.Context, until time.Time) error {
	for {
		// In short steps, because the clock may be set and the machine may sleep.
		wait := min(until.Sub(im.databaseTime()), time.Second)
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

type importReport struct {
	File     string                     `json:"file"`
	DryRun   bool                       `json:"dry_run"`
	Lines    int                        `json:"lines"`
	Counts   map[outcome]int            `json:"counts"`
	Members  map[clerkinvite.Status]int `json:"members,omitzero"`
	Tenants  []tenantCount              `json:"tenants,omitzero"`
	Ignored  []string                   `json:"ignored_columns,omitempty"`
	Due      *time.Time                 `json:"due,omitempty"`
	Problems []problem                  `json:"problems"`
	Error    string                     `json:"error,omitempty"`
}

// problem is a line with a reason.
type problem struct {
	Line    int     `json:"line"`
	Tenant  string  `json:"tenant"`
	Email   string  `json:"email"`
	Outcome outcome `json:"outcome"`
	Reason  string  `json:"reason"`
}

// possible reports whether a line can have the outcome in a dry run, or in a real one.
func (o outcome) possible(dryRun bool) bool {
	switch o {
	case newMember, reinvited:
		return dryRun
	case sent, linked, refused, failed, notReached:
		return !dryRun
	default:
		return true
	}
}

func (im *importer) report(name string, err error) *importReport {
	r := &importReport{File: name, DryRun: im.o.dryRun, Lines: len(im.lines), Counts: make(map[outcome]int), Tenants: im.tenants, Problems: []problem{}}
	for _, o := range outcomes {
		if o.possible(im.o.dryRun) {
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

// incomplete reports whether lines failed or wait.
func (r *importReport) incomplete() bool {
	if r.DryRun {
		return r.Counts[invalid] > 0
	}
	return r.Counts[invalid]+r.Counts[refused]+r.Counts[failed]+r.Counts[waiting]+r.Counts[notReached] > 0
}

// maxShown is the number of problems in the text report.
const maxShown = 50

var outcomeTexts = map[outcome]string{
	newMember:      "new: would be invited, or linked to a Clerk user",
	reinvited:      "would be invited again: previously failed or expired",
	sent:           "invited",
	linked:         "linked to a Clerk user, without an email",
	alreadyInvited: "already invited",
	alreadyActive:  "already members",
	withdrawn:      "skipped: previously revoked or removed",
	duplicate:      "duplicates of an earlier line",
	invalid:        "invalid",
	refused:        "refused by Clerk",
	failed:         "failed",
	waiting:        "reserved, not sent yet",
	notReached:     "not reached",
}

func (r *importReport) text(out io.Writer) {
	if r.DryRun {
		fmt.Fprintln(out, "Nothing was written or sent.")
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%d\t %s\n", r.Lines, plural(r.Lines, "line"))
	for _, o := range outcomes {
		if n := r.Counts[o]; n > 0 {
			fmt.Fprintf(w, "%d\t %s\n", n, outcomeTexts[o])
		}
	}
	_ = w.Flush()
	if len(r.Members) > 0 {
		fmt.Fprint(out, "Existing members by state:")
		for _, s := range clerkinvite.Statuses() {
			if n := r.Members[s]; n > 0 {
				fmt.Fprintf(out, " %d %s", n, s)
			}
		}
		fmt.Fprintln(out)
	}
	r.textTenants(out)
	if len(r.Ignored) > 0 {
		fmt.Fprintf(out, "Ignored columns: %s\n", shortList(r.Ignored))
	}
	printProblems(out, r.Problems)
	switch n := r.Counts[waiting] + r.Counts[notReached]; {
	case r.DryRun || n == 0:
	case r.Due != nil:
		fmt.Fprintf(out, "%d remain; the first is due at %s. Import the file again to continue, or leave them to the application's Run.\n",
			n, stamp(r.Due))
	default:
		fmt.Fprintf(out, "%d remain. Import the file again to continue.\n", n)
	}
}

// printProblems lists the first problems.
func printProblems(out io.Writer, problems []problem) {
	shown := min(len(problems), maxShown)
	for _, p := range problems[:shown] {
		fmt.Fprintf(out, "line %d: %s %s: %s\n", p.Line, dash(plain(p.Email)), p.Outcome, p.Reason)
	}
	if more := len(problems) - shown; more > 0 {
		fmt.Fprintf(out, "… and %d more: see --json, or --errors FILE\n", more)
	}
}

// textTenants lists the tenants of a dry run, the unknown ones first.
func (r *importReport) textTenants(out io.Writer) {
	if len(r.Tenants) == 0 {
		return
	}
	tenants := slices.Clone(r.Tenants)
	slices.SortStableFunc(tenants, func(a, b tenantCount) int {
		switch {
		case a.Known == b.Known:
			return 0
		case b.Known:
			return -1
		}
		return 1
	})
	fmt.Fprintln(out, "Valid lines by tenant:")
	for i, c := range tenants {
		if i == maxShown {
			fmt.Fprintf(out, "  … and %d more: see --json\n", len(tenants)-i)
			break
		}
		unknown := ""
		if !c.Known {
			unknown = "  unknown: has no members yet"
		}
		fmt.Fprintf(out, "  %s  %d%s\n", plain(c.Tenant), c.Lines, unknown)
	}
}

// unfinished returns the lines for --errors with their reasons.
func (im *importer) unfinished() map[*record]string {
	reasons := make(map[*record]string)
	for _, l := range im.lines {
		switch l.outcome {
		case invalid, refused, failed:
			reasons[l.record] = l.reason
		case notReached:
			reasons[l.record] = "was not reached"
		default: // a member, waiting, or a duplicate of another line
		}
	}
	return reasons
}
