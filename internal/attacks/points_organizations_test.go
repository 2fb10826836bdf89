package attacks_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// checkMemberships checks that exactly the users of active members are members of the scenario's organization.
func (w *world) checkMemberships(rows []*clerkinvite.Member) {
	w.t.Helper()
	if w.sc.organization == nil {
		return
	}
	var want, got []string
	for _, m := range rows {
		if m.Organization() != nil && m.Status == clerkinvite.StatusActive && !slices.Contains(want, m.ClerkUserID) {
			want = append(want, m.ClerkUserID)
		}
	}
	for _, m := range w.clerk.Members(w.sc.organization.ID) {
		got = append(got, m.UserID)
	}
	require.ElementsMatch(w.t, want, got, "memberships")
}

// joined lets a person accept the invitation into the organization. The event becomes the input.
func (w *world) joined(email string) (userID string) {
	userID = w.clerk.AddVerifiedUser(email).ID
	w.clerk.OrganizationEvents()
	w.must(w.clerk.AcceptOrganization(w.clerk.OpenInvitations(email)[0].ID, userID))
	w.lastEvent()
	return userID
}

func (w *world) lastEvent() {
	events := w.clerk.OrganizationEvents()
	w.input = events[len(events)-1].Payload
}

// organizations are scenarios of a tenant that is an organization.
func organizations() []scenario {
	asking, adding := &clerkinvite.Organization{ID: "org_acme"}, &clerkinvite.Organization{ID: "org_acme", AddExisting: true}
	invite := func(a *actor) error { return a.invite(ann) }
	resend := func(a *actor) error {
		_, err := a.svc.Resend(a.ctx, acme(ann))
		return a.acked(ann, err)
	}
	revoke := func(a *actor) error {
		_, err := a.svc.Revoke(a.ctx, acme(ann))
		return a.acked(ann, err)
	}
	remove := func(a *actor) error {
		_, err := a.svc.Remove(a.ctx, acme(ann))
		return a.acked(ann, err)
	}
	isUser := func(w *world) { w.clerk.AddVerifiedUser(ann) }
	pending := func(w *world) {
		w.invited(ann)
		w.clock.Advance(later)
	}
	accepted := func(w *world) {
		pending(w)
		w.joined(ann)
	}
	active := func(w *world) { // with another member: Reconcile trusts only lists that show one
		isUser(w)
		w.clerk.AddVerifiedUser(bob)
		w.invited(ann, bob)
	}
	moved := func(w *world) { // from the application, where the invitation is still open
		application, err := clerkinvite.New(clerkinvite.Config{API: w.clerk, Store: w.store, Now: w.clock.Now})
		w.must(err)
		_, err = application.Invite(w.ctx, toAcme(ann))
		w.must(err)
		w.clock.Advance(later)
		_, err = application.ResolveUser(w.ctx, w.clerk.AddVerifiedUser(ann).ID)
		w.must(err)
		_, err = application.Remove(w.ctx, acme(ann))
		w.must(err)
		pending(w)
	}
	return []scenario{
		{name: "organization: invite", organization: asking, act: invite, people: []person{{ann, "pending", "gone"}}},
		{name: "organization: ask a user", organization: asking, arrange: isUser, act: invite, people: []person{{ann, "pending", "gone"}}},
		{name: "organization: the person joins before the create", organization: asking, act: invite, people: []person{{ann, "active", "pending gone"}}, arrange: func(w *world) {
			var joined atomic.Bool
			w.clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
				if call == clerkinvitetest.CallFindUsers && when == clerkinvitetest.After && !joined.Swap(true) {
					w.clerk.JoinOrganization("org_acme", w.clerk.AddVerifiedUser(ann).ID, "org:member")
				}
			})
		}},
		{name: "organization: add a user", organization: adding, arrange: isUser, act: invite, people: []person{{ann, "active", "gone"}}},
		{name: "organization: add a user once", organization: adding, once: true, act: invite, people: []person{{ann, "active", "failed gone removed"}, {bob, "active", ""}}, arrange: func(w *world) {
			isUser(w)
			w.clerk.AddVerifiedUser(bob)
			w.invited(bob)
		}},
		{name: "organization: add a user once into a lost response", organization: adding, once: true, people: []person{{ann, "failed active removed", "gone"}, {bob, "active", ""}}, arrange: func(w *world) {
			isUser(w)
			w.clerk.AddVerifiedUser(bob) // so that Clerk shows a member, and Reconcile sees a removal that was carried out late
			w.invited(bob)
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		}, act: func(a *actor) error {
			_, err := a.svc.Invite(a.ctx, toAcme(ann))
			return expected[*clerkinvite.ClerkInvitationError](a, ann, err)
		}},
		{name: "organization: invite after a crash", organization: asking, act: invite, people: []person{{ann, "pending", ""}}, arrange: func(w *world) {
			w.reserved(ann)
			w.clock.Advance(later)
		}},
		{name: "organization: invite again while the earlier invitation is open", organization: asking, act: invite, people: []person{{ann, "pending", "removed"}}, arrange: func(w *world) {
			w.invited(ann)
			row, err := w.calm.Get(w.ctx, acme(ann))
			w.must(err)
			removed := *row
			removed.Status, removed.ClerkUserID, removed.Reason = clerkinvite.StatusRemoved, "", clerkinvite.ReasonSecondAddress
			results, err := w.store.Update(w.ctx, []clerkinvite.Change{{Old: row, New: &removed}})
			w.must(errors.Join(err, results[0].Err))
			w.clock.Advance(later)
		}},
		{name: "organization: resend", organization: asking, arrange: pending, act: resend, people: []person{{ann, "pending", ""}}},
		{name: "organization: revoke", organization: asking, arrange: pending, act: revoke, people: []person{{ann, "revoked", "pending"}}},
		{name: "organization: revoke after a user was added", organization: adding, act: revoke, people: []person{{ann, "revoked", "active removed"}, {bob, "active", ""}}, arrange: func(w *world) {
			isUser(w)
			w.clerk.AddVerifiedUser(bob)
			w.invited(bob)
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
			_, err := w.calm.Invite(w.ctx, toAcme(ann))
			require.Error(w.t, err)
			w.clock.Advance(later)
		}},
		{name: "organization: revoke after the organization was deleted", organization: asking, act: revoke, people: []person{{ann, "revoked", "pending"}, {bob, "active", ""}}, arrange: func(w *world) {
			pending(w)
			results, err := w.calm.Adopt(w.ctx, []clerkinvite.AdoptParams{{InviteParams: toAcme(bob), ClerkUserID: w.clerk.AddVerifiedUser(bob).ID}})
			w.must(errors.Join(err, results[0].Err))
			w.clock.Advance(later)
			w.clerk.DeleteOrganization("org_acme")
		}},
		{name: "organization: revoke after acceptance", organization: asking, arrange: accepted, people: []person{{ann, "active", "pending"}}, act: func(a *actor) error {
			_, err := a.svc.Revoke(a.ctx, acme(ann))
			var refused *clerkinvite.TransitionError
			if errors.As(err, &refused) {
				err = nil
			}
			return a.acked(ann, err)
		}},
		{name: "organization: remove a pending member", organization: asking, arrange: pending, act: remove, people: []person{{ann, "removed", "pending revoked"}}},
		{name: "organization: revoke a member who has moved", organization: asking, arrange: moved, act: revoke, people: []person{{ann, "revoked", "pending"}}},
		{name: "organization: purge a member who has moved", organization: asking, purges: true, arrange: moved, people: []person{{ann, "gone", "pending revoked"}}, act: func(a *actor) error {
			return a.acked(ann, a.svc.Purge(a.ctx, acme(ann)))
		}},
		{name: "organization: remove an active member whose invitation is open", organization: asking, act: remove, people: []person{{ann, "removed", "active"}, {bob, "active", ""}}, arrange: func(w *world) {
			w.invited(ann)
			u := w.clerk.AddVerifiedUser(ann)
			for _, id := range []string{u.ID, w.clerk.AddVerifiedUser(bob).ID} {
				w.clerk.JoinOrganization("org_acme", id, "org:member")
			}
			w.invited(bob)
			w.clock.Advance(later)
			_, err := w.calm.ResolveUser(w.ctx, u.ID)
			w.must(err)
		}},
		{name: "organization: remove an active member", organization: adding, arrange: active, act: remove, people: []person{{ann, "removed", "active"}, {bob, "active", ""}}},
		{name: "organization: remove an active member whose invitation another tenant shares", organization: asking, act: remove, people: []person{{ann, "removed", "active"}, {bob, "active", ""}}, arrange: func(w *world) {
			w.clerk.JoinOrganization("org_acme", w.clerk.AddVerifiedUser(bob).ID, "org:member")
			w.invited(bob, ann)
			_, err := w.calm.Invite(w.ctx, clerkinvite.InviteParams{TenantID: "globex", Email: ann})
			w.must(err)
			w.clock.Advance(later)
			row, err := w.calm.Get(w.ctx, acme(ann))
			w.must(err)
			u := w.clerk.AddVerifiedUser(ann)
			w.must(w.clerk.AcceptOrganization(row.InvitationID, u.ID))
			joined := *row
			joined.Status, joined.ClerkUserID = clerkinvite.StatusActive, u.ID
			results, err := w.store.Update(w.ctx, []clerkinvite.Change{{Old: row, New: &joined}})
			w.must(errors.Join(err, results[0].Err))
		}},
		{name: "organization: remove a deleted user", organization: adding, act: remove, people: []person{{ann, "removed", "active"}, {bob, "active", ""}}, arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.clerk.AddVerifiedUser(bob)
			w.invited(ann, bob)
			w.clerk.DeleteUser(u.ID)
		}},
		{name: "organization: remove after acceptance", organization: asking, act: remove, people: []person{{ann, "removed", "pending active"}, {bob, "active", ""}}, arrange: func(w *world) {
			w.clerk.JoinOrganization("org_acme", w.clerk.AddVerifiedUser(bob).ID, "org:member") // so that Clerk shows a member, and Reconcile sees a removal whose response was lost
			w.invited(bob)
			accepted(w)
		}},
		{name: "organization: the person joins", organization: asking, arrange: accepted, act: (*actor).event, people: []person{{ann, "active", ""}}},
		{name: "organization: revoked in the dashboard", organization: asking, act: (*actor).event, people: []person{{ann, "revoked", ""}}, arrange: func(w *world) {
			pending(w)
			w.clerk.OrganizationEvents()
			w.clerk.RevokeInDashboard(w.clerk.OpenInvitations(ann)[0].ID)
			w.lastEvent()
		}},
		{name: "organization: a member leaves", organization: adding, act: (*actor).event, people: []person{{ann, "removed", ""}, {bob, "active", ""}}, arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.clerk.AddVerifiedUser(bob)
			w.invited(ann, bob)
			w.clerk.OrganizationEvents()
			w.clock.Advance(later)
			w.clerk.LeaveOrganization("org_acme", u.ID)
			w.lastEvent()
		}},
		{name: "organization: reconcile", organization: asking, people: []person{{ann, "active", ""}}, arrange: accepted, act: func(a *actor) error {
			_, err := a.svc.Reconcile(a.ctx, nil)
			return a.acked(ann, err)
		}},
		{name: "organization: reconcile finds that a member has left", organization: adding, people: []person{{ann, "removed", ""}, {bob, "active", ""}}, arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.clerk.AddVerifiedUser(bob)
			w.invited(ann, bob)
			w.clock.Advance(later)
			w.clerk.LeaveOrganization("org_acme", u.ID)
		}, act: func(a *actor) error {
			// One member per call: bob, whom Clerk shows, comes after ann.
			for o := (clerkinvite.ReconcileOptions{Limit: 1}); ; {
				report, err := a.svc.Reconcile(a.ctx, &o)
				if o.Cursor = report.Cursor; err != nil || o.Cursor == "" {
					return a.acked(ann, err)
				}
			}
		}},
	}
}
