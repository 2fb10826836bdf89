package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

func adoptCommand() command {
	return command{
		name: "adopt", args: "FILE.csv", min: 1, max: 1, summary: "write rows for existing members (- reads standard input)",
		details: `Use it for a table that is older than the library. It sends no email and does not call Clerk. Afterwards, "clerkinvite reconcile"
checks the members against Clerk. The first row names the columns. They are the columns of import and:

  clerk_user_id      a Clerk user's ID (user_…), or pending_ and an invitation's ID (pending_inv_…)
  invited_at         when the person was invited, such as 2026-11-20 or 2026-11-20T09:30:00Z; optional

If lines repeat an address or a user, the first one counts. Existing members are never changed, so it is safe to run again.

  clerkinvite migrate
  clerkinvite adopt admin_user.csv --dry-run
  clerkinvite adopt admin_user.csv --tenant acme --map invited_at=created_at --errors left.csv
  clerkinvite reconcile --dry-run

As JSON: {"file", "dry_run", "lines", "adopted", "existing", "ignored_columns", "problems": [{"line", "tenant", "email", "outcome",
"reason"}, …], "error"}. adopted counts new members, existing counts members that an earlier run or the application has written,
and the other lines are problems.`,
		prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
			o := sheetOptions{columns: slices.Concat(paramColumns, []string{"clerk_user_id", "invited_at"})}
			t.changesMembers(flags)
			o.define(flags)
			return func(ctx context.Context, args []string) error { return t.runAdopt(ctx, o, args[0]) }
		},
	}
}

// adoptReport is the result of adopt.
type adoptReport struct {
	File     string    `json:"file"`
	DryRun   bool      `json:"dry_run"`
	Lines    int       `json:"lines"`
	Adopted  int       `json:"adopted"`
	Existing int       `json:"existing"`
	Ignored  []string  `json:"ignored_columns,omitempty"`
	Problems []problem `json:"problems"`
	Error    string    `json:"error,omitempty"`
}

func (t *tool) runAdopt(ctx context.Context, o sheetOptions, name string) error {
	file, err := t.openSheet(ctx, o, name)
	if err != nil {
		return err
	}
	if _, ok := file.columns["clerk_user_id"]; !ok {
		return usagef("%s: no column is named clerk_user_id; add --map clerk_user_id=… with a column of the file; nothing was written", name)
	}
	r := &adoptReport{File: name, DryRun: o.dryRun, Lines: len(file.records), Ignored: file.ignored, Problems: []problem{}}
	reasons := make(map[*record]string)
	leave := func(rec *record, a clerkinvite.AdoptParams, what outcome, reason string) {
		reasons[rec] = reason
		r.Problems = append(r.Problems, problem{rec.number, a.TenantID, a.Email, what, reason})
	}
	var people []clerkinvite.AdoptParams
	var records []*record // of people
	for _, rec := range file.records {
		if a, fault := file.adopted(rec); fault != "" {
			leave(rec, a, invalid, fault)
		} else {
			people, records = append(people, a), append(records, rec)
		}
	}
	results, existing, err := t.adopt(ctx, people, o.dryRun)
	if errors.As(err, new(usageError)) {
		return err
	}
	for i, rec := range records {
		if err != nil { // nothing was written
			leave(rec, people[i], notReached, "was not reached")
		} else if what, reason := adoptOutcome(results[i].Err); reason != "" {
			leave(rec, people[i], what, reason)
		} else if existing[results[i].Member.Ref()] {
			r.Existing++
		} else {
			r.Adopted++
		}
	}
	slices.SortFunc(r.Problems, func(a, b problem) int { return a.Line - b.Line })
	if o.errors != "" && !o.dryRun {
		err = errors.Join(err, file.writeErrors(o.errors, reasons))
	}
	switch {
	case err != nil:
		r.Error = explain(err)
	case len(r.Problems) > 0:
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

// adopt adopts people in one transaction, which a dry run rolls back. existing has the members that it did not write.
func (t *tool) adopt(ctx context.Context, people []clerkinvite.AdoptParams, dryRun bool) (results []clerkinvite.Result, existing map[clerkinvite.Ref]bool, err error) {
	store, pool, err := t.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer pool.Close()
	if err := t.requireTables(ctx, pool); err != nil {
		return nil, nil, err
	}
	if !*t.withoutHook && !dryRun {
		if err := t.mayChange(ctx, store, pool); err != nil {
			return nil, nil, err
		}
	}
	svc, err := clerkinvite.New(clerkinvite.Config{API: noClerk{}, Organizations: noClerk{}, Store: store, Now: t.env.now})
	if err != nil {
		return nil, nil, err
	}
	tx, err := pool.Begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if results, err = svc.InTx(store.WithTx(tx)).Adopt(ctx, people); err != nil {
		return nil, nil, err
	}
	// Outside the transaction, which sees the rows that it has written.
	if existing, err = committed(ctx, store, results); err == nil && !dryRun {
		err = tx.Commit(ctx)
	}
	return results, existing, err
}

// committed returns which members of the results can be read outside the transaction.
func committed(ctx context.Context, store *clerkinvite.PgxStore, results []clerkinvite.Result) (map[clerkinvite.Ref]bool, error) {
	found := make(map[clerkinvite.Ref]bool)
	for chunk := range slices.Chunk(results, findBatch) {
		var refs []clerkinvite.Ref
		for _, r := range chunk {
			if r.Err == nil {
				refs = append(refs, r.Member.Ref())
			}
		}
		members, err := store.Find(ctx, clerkinvite.Query{Refs: refs})
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			found[m.Ref()] = true
		}
	}
	return found, nil
}

// adopted returns the member of a line, and a fault that the library cannot find.
func (s *sheet) adopted(r *record) (a clerkinvite.AdoptParams, fault string) {
	if r.fault != "" {
		return a, r.fault
	}
	a.InviteParams, fault = s.params(r)
	a.ClerkUserID = s.get(r, "clerk_user_id")
	value := s.get(r, "invited_at")
	if value == "" || fault != "" {
		return a, fault
	}
	// As in JSON, and as PostgreSQL writes a timestamptz, a timestamp and a date.
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05Z07", "2006-01-02 15:04:05Z07:00", time.DateTime, time.DateOnly} {
		if at, err := time.Parse(layout, value); err == nil {
			a.ReservedAt = at
			return a, ""
		}
	}
	return a, "invited_at must be a time such as 2026-11-20 or 2026-11-20T09:30:00Z"
}

// adoptOutcome returns the outcome of a line that was not adopted, and why.
func adoptOutcome(err error) (outcome, string) {
	var wrong *clerkinvite.InvalidParamsError
	switch {
	case err == nil:
		return "", ""
	case errors.As(err, &wrong):
		return invalid, invalidReason(wrong)
	case errors.As(err, new(*clerkinvite.DuplicateEmailError)), errors.Is(err, clerkinvite.ErrUserTaken):
		return duplicate, err.Error()
	}
	return failed, explain(err)
}

func (r *adoptReport) text(out io.Writer) {
	if r.DryRun {
		fmt.Fprintln(out, "Nothing was written.")
	}
	fmt.Fprintf(out, "%d %s: %d adopted, %d existing, %d not adopted\n", r.Lines, plural(r.Lines, "line"), r.Adopted, r.Existing, len(r.Problems))
	if len(r.Ignored) > 0 {
		fmt.Fprintf(out, "Ignored columns: %s\n", shortList(r.Ignored))
	}
	printProblems(out, r.Problems)
}
