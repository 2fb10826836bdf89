package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

func memberCommands() []command {
	return []command{
		inviteCommand(),
		listCommand(),
		{
			name: "show", args: "TENANT EMAIL", min: 2, max: 2, summary: "show a member and its history",
			details: `  clerkinvite show acme ada@example.com

As JSON: {"member": {…}, "organization": {"id", "role", …}, "history": [{…}, …]}, oldest entry first. "organization" is absent if the
member was invited into the application.`,
			prepare: func(t *tool, _ *flag.FlagSet) func(context.Context, []string) error { return t.show },
		},
		{
			name: "resend", args: "TENANT EMAIL", min: 2, max: 2, summary: "send a pending member a new invitation",
			details: `Revokes the older invitation after the new one is sent. In an organization, it revokes the older one first, because Clerk allows only
one. Fails if the last email was sent less than a minute ago.

  clerkinvite resend acme ada@example.com

As JSON: {"member": {…}}`,
			prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
				t.changesMembers(flags)
				return t.change((*clerkinvite.Service).Resend)
			},
		},
		{
			name: "link", args: "TENANT EMAIL", min: 2, max: 2, summary: "print the link of a pending member's invitation",
			details: `Reads the link from Clerk, for a person who did not get the email. The link is a secret: anyone who has it can accept the invitation.

  clerkinvite link acme ada@example.com

As JSON: {"link": "…"}`,
			prepare: func(t *tool, _ *flag.FlagSet) func(context.Context, []string) error { return t.link },
		},
		{
			name: "revoke", args: "TENANT EMAIL", min: 2, max: 2, summary: "revoke an invitation and its link",
			details: `Fails with exit code 4 if the person has already accepted.

  clerkinvite revoke acme ada@example.com

As JSON: {"member": {…}}`,
			prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
				t.changesMembers(flags)
				return t.change((*clerkinvite.Service).Revoke)
			},
		},
		{
			name: "remove", args: "TENANT EMAIL", min: 2, max: 2, summary: "remove a member from a tenant",
			details: `Revokes an open invitation, and ends a membership of the Clerk organization that the member was invited into. Does not change the
Clerk user. The row stays as removed, and the person can be invited again.

  clerkinvite remove acme ada@example.com

As JSON: {"member": {…}}`,
			prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
				t.changesMembers(flags)
				return t.change((*clerkinvite.Service).Remove)
			},
		},
		{
			name: "purge", args: "TENANT EMAIL", min: 2, max: 2, summary: "revoke a member's open invitations, then erase the member and its history",
			details: `Use it if a person asks you to erase their data. It cannot be undone. It does not end a membership of a Clerk organization, so run
"clerkinvite remove" first. Clerk keeps the user and the records of invitations: erase them there.

  clerkinvite remove acme ada@example.com
  clerkinvite purge acme ada@example.com

As JSON: {"ok": true}`,
			prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
				t.changesMembers(flags)
				return t.purge
			},
		},
	}
}

func (t *tool) link(ctx context.Context, args []string) error {
	svc, _, closeDB, err := t.service(ctx, true)
	if err != nil {
		return err
	}
	defer closeDB()
	link, err := svc.Link(ctx, clerkinvite.Ref{TenantID: args[0], Email: args[1]})
	if err != nil {
		return err
	}
	return t.print(struct {
		Link string `json:"link"`
	}{link.Reveal()}, func(w io.Writer) { fmt.Fprintln(w, link.Reveal()) })
}

func (t *tool) purge(ctx context.Context, args []string) error {
	svc, _, closeDB, err := t.service(ctx, true)
	if err != nil {
		return err
	}
	defer closeDB()
	if err := svc.Purge(ctx, clerkinvite.Ref{TenantID: args[0], Email: args[1]}); err != nil {
		return err
	}
	return t.done("The member was erased.")
}

func inviteCommand() command {
	return command{
		name: "invite", args: "TENANT EMAIL", min: 2, max: 2, summary: "invite one person, or invite a person again",
		details: `Sends Clerk's invitation, or links a Clerk user who has verified the address. A reserved member is invited without waiting for its
turn, and a failed, expired, revoked or removed member is invited again. They keep the parameters of their last invitation, except those
that the flags set. Fails with exit code 4 if the member is pending (use "clerkinvite resend") or active, or while another
attempt is under way.

  clerkinvite invite acme ada@example.com --role admin
  clerkinvite invite acme ada@example.com --organization org_2abc

As JSON: {"member": {…}}`,
		prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
			var role, url string
			var org clerkinvite.Organization
			flags.StringVar(&role, "role", "", "the member's `role` in the application")
			flags.StringVar(&url, "redirect-url", "", "the `URL` that opens when the person accepts; by default, as in the last invitation, or Clerk's own page")
			flags.StringVar(&org.ID, "organization", "", "the Clerk `organization` (org_…) to invite into")
			flags.StringVar(&org.Role, "organization-role", "", "the `role` in the organization; org:member if it is not set")
			t.changesMembers(flags)
			return t.change(func(svc *clerkinvite.Service, ctx context.Context, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
				p := clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email}
				switch m, err := svc.Get(ctx, ref); {
				case err == nil:
					p = m.InviteParams()
				case !errors.Is(err, clerkinvite.ErrNotFound):
					return nil, err
				}
				p.Role, p.RedirectURL = cmp.Or(role, p.Role), cmp.Or(url, p.RedirectURL)
				if org != (clerkinvite.Organization{}) {
					if p.Organization == nil {
						p.Organization = new(clerkinvite.Organization)
					}
					p.Organization.ID, p.Organization.Role = cmp.Or(org.ID, p.Organization.ID), cmp.Or(org.Role, p.Organization.Role)
				}
				return svc.Invite(ctx, p)
			})
		},
	}
}

func deliverCommand() command {
	return command{
		name: "deliver", summary: "invite reserved members now",
		details: `Sends the invitations of all due members, as the application's Run does every 15 seconds.

  clerkinvite deliver --limit 10

It prints what has become of the members:

  invited      now pending: Clerk has sent the email, now or earlier
  linked       now active, without an email
  refused      now failed, because Clerk does not accept the person; "clerkinvite show" has the reason
  ended        revoked, removed or expired in the meantime
  postponed    tried again later
  due later    the next attempt is later; "at least 1000" if there may be more

As JSON: {"claimed", "linked", "invited", "refused", "ended", "postponed", "waiting"}, and "error" if it stopped early. "waiting" counts the
members that are due later, at most 1,000, and "next_attempt" is the time of the next one.`,
		prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
			var o clerkinvite.DeliverOptions
			flags.IntVar(&o.Limit, "limit", 0, "maximum number of members; 0 means all that are due")
			t.changesMembers(flags)
			return func(ctx context.Context, _ []string) error { return t.deliver(ctx, o) }
		},
	}
}

// deliverDocument is clerkinvite.DeliverReport as JSON.
type deliverDocument struct {
	Claimed   int `json:"claimed"`
	Linked    int `json:"linked"`
	Invited   int `json:"invited"`
	Refused   int `json:"refused"`
	Ended     int `json:"ended"`
	Postponed int `json:"postponed"`

	Waiting     int        `json:"waiting"`
	NextAttempt *time.Time `json:"next_attempt,omitempty"`
	reason      string     // of the next attempt's member
	mayBeMore   bool       // members than Waiting

	Error string `json:"error,omitempty"`
}

// maxWaiting limits the number of members that addWaiting reads.
const maxWaiting = 1000

// addWaiting adds the members whose next attempt is later.
func (d *deliverDocument) addWaiting(ctx context.Context, store clerkinvite.Store) error {
	now, err := store.Clock(ctx)
	if err != nil {
		return err
	}
	rows, err := store.Due(ctx, clerkinvite.DueQuery{At: now.AddDate(1, 0, 0), Limit: maxWaiting})
	d.mayBeMore = len(rows) == maxWaiting
	rows = slices.DeleteFunc(rows, func(m *clerkinvite.Member) bool { return !m.NextAttemptAt.After(now) }) // left by --limit
	if err != nil || len(rows) == 0 {
		return err
	}
	next := slices.MinFunc(rows, func(a, b *clerkinvite.Member) int { return a.NextAttemptAt.Compare(*b.NextAttemptAt) })
	d.Waiting, d.NextAttempt, d.reason = len(rows), next.NextAttemptAt, next.Reason
	return nil
}

func (t *tool) deliver(ctx context.Context, o clerkinvite.DeliverOptions) error {
	svc, store, closeDB, err := t.service(ctx, true)
	if err != nil {
		return err
	}
	defer closeDB()
	r, failure := svc.Deliver(ctx, &o)
	if wrong := new(*clerkinvite.InvalidParamsError); errors.As(failure, wrong) {
		return failure
	}
	d := deliverDocument{Claimed: r.Claimed, Linked: r.Linked, Invited: r.Invited, Refused: r.Refused, Ended: r.Ended, Postponed: r.Postponed}
	failure = cmp.Or(failure, d.addWaiting(ctx, store))
	if failure != nil {
		d.Error, failure = explain(failure), reportedError{failure}
	}
	if err := t.print(d, func(w io.Writer) {
		fmt.Fprintf(w, "%d %s: %d invited, %d linked to a Clerk user, %d refused, %d ended, %d postponed\n",
			d.Claimed, plural(d.Claimed, "member"), d.Invited, d.Linked, d.Refused, d.Ended, d.Postponed)
		if d.Waiting > 0 {
			atLeast, because := "", ""
			if d.mayBeMore {
				atLeast = "at least "
			}
			if d.reason != "" {
				because = " (" + plain(d.reason) + ")"
			}
			fmt.Fprintf(w, "%s%d %s due later: the next attempt is at %s%s; \"clerkinvite doctor\" shows rate limits\n",
				atLeast, d.Waiting, plural(d.Waiting, "member"), stamp(d.NextAttempt), because)
		}
	}); err != nil {
		return err
	}
	return failure
}

func listCommand() command {
	return command{
		name: "list", args: "TENANT", min: 1, max: 1, summary: "list the members of a tenant, oldest invitation first",
		details: `  clerkinvite list acme
  clerkinvite list acme --status pending,expired --limit 20
  clerkinvite list acme --all --json | jq -r '.members[].email'

States: reserved, pending, active, failed, revoked, expired, removed.
As JSON: {"members": [{…}, …], "next": "…"}; next is for --cursor, and empty on the last page.`,
		prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
			var p clerkinvite.ListParams
			statuses := flags.String("status", "", "only members in these `states`, separated by commas")
			flags.StringVar(&p.EmailPrefix, "email", "", "only addresses that begin with this `text`")
			flags.StringVar(&p.InvitedBy, "invited-by", "", "only members invited by this `person`")
			flags.IntVar(&p.Limit, "limit", 0, "members per page, 1 to 1000; 0 means 100")
			flags.StringVar(&p.Cursor, "cursor", "", "continue after a page, with the `cursor` that it printed")
			all := flags.Bool("all", false, "print all pages; cannot be combined with --limit")
			return func(ctx context.Context, args []string) error {
				p.TenantID = args[0]
				p.Statuses = parseStatuses(*statuses)
				if *all && p.Limit != 0 {
					return usagef("--all cannot be combined with --limit")
				}
				return t.list(ctx, p, *all)
			}
		},
	}
}

// list reads and prints page by page, so that memory does not grow with the tenant.
func (t *tool) list(ctx context.Context, p clerkinvite.ListParams, all bool) error {
	svc, _, closeDB, err := t.service(ctx, false)
	if err != nil {
		return err
	}
	defer closeDB()
	if all {
		p.Limit = 1000
	}
	page, err := svc.List(ctx, p)
	if err != nil {
		return err
	}
	out := lister{t: t}
	for all && page.Next != "" && t.stdout.err == nil {
		if err := out.add(page.Members); err != nil {
			return err
		}
		p.Cursor = page.Next
		if page, err = svc.List(ctx, p); err != nil {
			return errors.Join(reportedError{err}, out.end("", explain(err)))
		}
	}
	if err := out.add(page.Members); err != nil {
		return err
	}
	return out.end(page.Next, "")
}

// lister prints pages of members as one document.
type lister struct {
	t     *tool
	count int
}

func (l *lister) add(members []*clerkinvite.Member) error {
	if l.t.asJSON {
		for _, m := range members {
			start := ",\n  "
			if l.count++; l.count == 1 {
				start = "{\"members\": [\n  "
			}
			row, err := json.Marshal(m)
			if err != nil {
				return err
			}
			fmt.Fprintf(l.t.stdout, "%s%s", start, row)
		}
		return nil
	}
	w := tabwriter.NewWriter(l.t.stdout, 0, 0, 2, ' ', 0)
	if l.count == 0 {
		fmt.Fprintln(w, "EMAIL\tSTATUS\tROLE\tCLERK USER\tINVITED\tEXPIRES\tREASON")
	}
	for _, m := range members {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			plain(m.Email), m.Status, dash(plain(m.Role)), dash(m.ClerkUserID), stamp(m.InvitedAt), stamp(m.ExpiresAt), plain(m.Reason))
	}
	l.count += len(members)
	return w.Flush()
}

func (l *lister) end(next, failure string) error {
	if l.t.asJSON {
		if l.count == 0 {
			fmt.Fprint(l.t.stdout, "{\"members\": [")
		}
		rest, err := json.Marshal(struct {
			Next  string `json:"next"`
			Error string `json:"error,omitempty"`
		}{next, failure})
		if err != nil {
			return err
		}
		fmt.Fprintf(l.t.stdout, "\n], %s\n", rest[1:])
		return nil
	}
	switch {
	case failure != "": // printed by fail
	case next == "":
		fmt.Fprintf(l.t.stdout, "%d %s\n", l.count, plural(l.count, "member"))
	default:
		fmt.Fprintf(l.t.stdout, "%d %s; more with --cursor %s\n", l.count, plural(l.count, "member"), next)
	}
	return nil
}

func (t *tool) show(ctx context.Context, args []string) error {
	svc, _, closeDB, err := t.service(ctx, false)
	if err != nil {
		return err
	}
	defer closeDB()
	ref := clerkinvite.Ref{TenantID: args[0], Email: args[1]}
	m, err := svc.Get(ctx, ref)
	if err != nil {
		return err
	}
	history, err := svc.History(ctx, ref)
	if err != nil {
		return err
	}
	organization := m.Organization()
	into := ""
	if organization != nil {
		into = organization.ID + " as " + organization.Role
	}
	return t.print(struct {
		Member       *clerkinvite.Member        `json:"member"`
		Organization *clerkinvite.Organization  `json:"organization,omitempty"`
		History      []clerkinvite.HistoryEntry `json:"history"`
	}{m, organization, history}, func(out io.Writer) {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, row := range [][2]string{
			{"email", m.Email}, {"tenant", m.TenantID}, {"status", string(m.Status)}, {"reason", m.Reason}, {"clerk user", m.ClerkUserID},
			{"invitation", m.InvitationID}, {"organization", into}, {"role", m.Role}, {"invited by", m.InvitedBy}, {"changed by", m.ChangedBy}, {"data", string(m.Data)},
			{"sends", fmt.Sprintf("%d requested, %d completed, %d %s for the last", m.Send, m.Sent, m.Attempts, plural(m.Attempts, "attempt"))},
			{"invited", stamp(m.InvitedAt)}, {"expires", stamp(m.ExpiresAt)}, {"next attempt", stamp(m.NextAttemptAt)}, {"id", m.ID},
		} {
			if row[1] != "" && row[1] != "-" {
				fmt.Fprintf(w, "%s\t%s\n", row[0], plain(row[1]))
			}
		}
		fmt.Fprintln(w)
		_ = w.Flush()
		fmt.Fprintln(w, "AT\tFROM\tTO\tSEND\tINVITATION OR USER\tROLE\tBY\tREASON")
		for _, h := range history {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", stamp(&h.At), dash(string(h.From)), h.To, h.Send,
				dash(cmp.Or(h.ClerkUserID, h.InvitationID)), dash(plain(h.Role)), dash(plain(h.Actor)), plain(h.Reason))
		}
		_ = w.Flush()
	})
}

// change returns a command that calls a method for one member.
func (t *tool) change(method func(*clerkinvite.Service, context.Context, clerkinvite.Ref) (*clerkinvite.Member, error)) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		svc, _, closeDB, err := t.service(ctx, true)
		if err != nil {
			return err
		}
		defer closeDB()
		m, err := method(svc, ctx, clerkinvite.Ref{TenantID: args[0], Email: args[1]})
		if err != nil {
			return err
		}
		return t.print(struct {
			Member *clerkinvite.Member `json:"member"`
		}{m}, func(w io.Writer) {
			text := fmt.Sprintf("%s in %s is %s", plain(m.Email), plain(m.TenantID), m.Status)
			if id := cmp.Or(m.ClerkUserID, m.InvitationID); id != "" {
				text += ": " + id
			}
			fmt.Fprintln(w, text)
		})
	}
}

func dash(s string) string { return cmp.Or(s, "-") }

func stamp(at *time.Time) string {
	if at == nil {
		return "-"
	}
	return at.UTC().Format(time.RFC3339)
}
