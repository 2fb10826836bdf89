package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/clerkinvite/clerkinvite"
)

func reconcileCommand() command {
	return command{
		name: "reconcile", summary: "repair rows whose webhooks were missed",
		details: `Makes one request per 100 members and one per 500 invitations. The application's Run does the same about once an hour.

  clerkinvite reconcile --dry-run    # what it would do
  clerkinvite reconcile

As JSON: {"dry_run", "members", "invitations", "activated", "removed", "expired", "revoked", "moved", "left_over", "unknown",
"newer", "missing", "accepted_elsewhere": [{…}, …], "out_of_date": [{…}, …], "cursor"}, and "error" if it stopped early. Pass cursor to --cursor;
it is empty if everything was checked.`,
		prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
			var o clerkinvite.ReconcileOptions
			flags.BoolVar(&o.DryRun, "dry-run", false, "report only; change nothing in the database or at Clerk")
			flags.IntVar(&o.Limit, "limit", 0, "maximum number of members; 0 means all")
			flags.StringVar(&o.Cursor, "cursor", "", "continue after a call, with the `cursor` that it printed")
			t.changesMembers(flags)
			return func(ctx context.Context, _ []string) error {
				if o.DryRun {
					t.withoutHook = nil
				}
				return t.reconcile(ctx, o)
			}
		},
	}
}

// reconcileDocument is clerkinvite.ReconcileReport as JSON.
type reconcileDocument struct {
	DryRun            bool                  `json:"dry_run"`
	Members           int                   `json:"members"`
	Invitations       int                   `json:"invitations"`
	Activated         int                   `json:"activated"`
	Removed           int                   `json:"removed"`
	Expired           int                   `json:"expired"`
	Revoked           int                   `json:"revoked"`
	Moved             int                   `json:"moved"`
	LeftOver          int                   `json:"left_over"`
	Unknown           int                   `json:"unknown"`
	Newer             int                   `json:"newer"`
	Missing           int                   `json:"missing"`
	AcceptedElsewhere []*clerkinvite.Member `json:"accepted_elsewhere"`
	OutOfDate         []*clerkinvite.Member `json:"out_of_date"`
	Cursor            string                `json:"cursor"`
	Error             string                `json:"error,omitempty"`
}

func (t *tool) reconcile(ctx context.Context, o clerkinvite.ReconcileOptions) error {
	svc, _, closeDB, err := t.service(ctx, true)
	if err != nil {
		return err
	}
	defer closeDB()
	r, failure := svc.Reconcile(ctx, &o)
	if wrong := new(*clerkinvite.InvalidParamsError); errors.As(failure, wrong) {
		return failure // an invalid flag: nothing was checked
	}
	document := reconcileDocument{
		o.DryRun, r.Members, r.Invitations, r.Activated, r.Removed, r.Expired, r.Revoked, r.Moved, r.LeftOver, r.Unknown, r.Newer, r.Missing,
		append([]*clerkinvite.Member{}, r.AcceptedElsewhere...), append([]*clerkinvite.Member{}, r.OutOfDate...), r.Cursor, "",
	}
	if failure != nil {
		document.Error, failure = explain(failure), reportedError{failure}
	}
	if err := t.print(document, func(w io.Writer) { document.text(w) }); err != nil {
		return err
	}
	return failure
}

func (d reconcileDocument) text(out io.Writer) {
	if d.Error != "" {
		fmt.Fprintln(out, "Error:", plain(d.Error)) // the numbers alone would look like a success
	}
	if d.DryRun {
		fmt.Fprintln(out, "Nothing was changed. Without --dry-run:")
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range []struct {
		n    int
		what string
	}{
		{d.Members, "pending and active members checked"},
		{d.Invitations, "Clerk invitations checked"},
		{d.Activated, "activated: the person has joined, and the webhook was lost"},
		{d.Removed, "removed: the user was deleted, has left the organization, or already has another row in the tenant"},
		{d.Expired, "expired"},
		{d.Revoked, "revoked: in Clerk's dashboard"},
		{d.Moved, "moved: active members who got their user's new address"},
		{d.LeftOver, "left over: open invitations that no member refers to; revoked at Clerk"},
		{d.Unknown, "unknown: open invitations with the ID of a member that is not in this database; unchanged"},
		{d.Newer, "newer: open invitations newer than their member's row, as after restoring a backup; unchanged"},
		{d.Missing, "missing: active members whose user Clerk does not show; unchanged, because the key may be another instance's"},
		{len(d.AcceptedElsewhere), "accepted elsewhere: no user has verified the address; the person probably joined under another one"},
		{len(d.OutOfDate), "out of date: active under an address that the user no longer has, because the primary one is not verified or another member has it"},
	} {
		fmt.Fprintf(w, "%d\t%s\n", row.n, row.what)
	}
	_ = w.Flush()
	for _, m := range slices.Concat(d.AcceptedElsewhere, d.OutOfDate) {
		fmt.Fprintf(out, "   %s in %s, %s\n", plain(m.Email), plain(m.TenantID), m.Status)
	}
	if d.Cursor != "" {
		fmt.Fprintf(out, "Not everything was checked; continue with --cursor %s\n", d.Cursor)
	}
}
