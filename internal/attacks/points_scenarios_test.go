package attacks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// scenario is something that a host does. The promises must be kept no matter which fault happens. Together the scenarios
// reach every point.
type scenario struct {
	name     string
	postgres bool // about PgxStore itself
	hook     bool // with PgxOptions.OnChange
	fresh    bool // without the tables
	once     bool // with Config.WithdrawOnFailure

	organization *clerkinvite.Organization // everybody is invited into it

	withdraws bool // another caller revokes, so that Clerk does not reject a create carried out after its lease

	arrange func(w *world)       // runs before act, without faults
	act     func(a *actor) error // the code under attack; nil means that it has finished
	meddle  []meddle

	people []person
	purges bool   // a member may be erased
	sure   string // prefix of the sites that it always reaches; the others depend on the order of two goroutines
	slow   bool   // took a second without faults
}

// meddle makes something happen at a point that the scenario needs to reach its goal.
type meddle struct {
	site string
	done bool
	do   func(a *actor) error
}

// person is a member of acme and its allowed states at the end; "gone" means no row.
type person struct {
	email string
	acked string // if act has reported success
	other string // in addition, if it has not
}

// actor is the host's process in which a scenario runs.
type actor struct {
	ctx   context.Context
	svc   *clerkinvite.Service // whose steps are points
	other *clerkinvite.Service // another process's
	store clerkinvite.Store    // svc's

	pgx  *clerkinvite.PgxStore // the same, on PostgreSQL
	db   clerkinvite.PgxDB     // pgx's, with points
	pool *pgxpool.Pool         // without points

	clock *clerkinvitetest.Clock
	input []byte // set by arrange for act
	ack   func(email string)
}

const (
	ann, bob, cyd = "ann@example.com", "bob@example.com", "cyd@example.com"
)

func acme(email string) clerkinvite.Ref { return clerkinvite.Ref{TenantID: "acme", Email: email} }

func toAcme(email string) clerkinvite.InviteParams {
	return clerkinvite.InviteParams{TenantID: "acme", Email: email}
}

// acked reports success for a person if err is nil.
func (a *actor) acked(email string, err error) error {
	if err == nil {
		a.ack(email)
	}
	return err
}

// expected is acked for an act that must end with an error of type E.
func expected[E error](a *actor, email string, err error) error {
	var want E
	if errors.As(err, &want) {
		a.ack(email)
		return nil
	}
	if err == nil {
		return errors.New("there was no error")
	}
	return err
}

func (a *actor) invite(email string) error {
	_, err := a.svc.Invite(a.ctx, toAcme(email))
	return a.acked(email, err)
}

func (a *actor) results(results []clerkinvite.Result, err error) error {
	for _, r := range results {
		if r.Err == nil {
			a.ack(r.Member.Email)
		}
		err = errors.Join(err, r.Err)
	}
	return err
}

func (a *actor) deliver() error {
	_, err := a.svc.Deliver(a.ctx, nil)
	return err
}

func (a *actor) event() error {
	e, err := clerkinvite.ParseEvent(a.input)
	if err != nil {
		return err
	}
	_, err = a.svc.HandleEvent(a.ctx, e)
	return a.acked(ann, err)
}

// webhook is event through the handler.
func (a *actor) webhook() error {
	v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, Now: a.clock.Now})
	if err != nil {
		return err
	}
	r := clerkinvitetest.Webhook{ID: "msg_1", Payload: a.input, At: a.clock.Now()}.Request(clerkinvitetest.WebhookSecret, "/")
	w := httptest.NewRecorder()
	a.svc.WebhookHandler(v).ServeHTTP(w, r.WithContext(a.ctx))
	if w.Code != http.StatusNoContent {
		err = fmt.Errorf("status %d", w.Code)
	}
	return a.acked(ann, err)
}

func (a *actor) get(email string) (*clerkinvite.Member, error) {
	rows, err := a.pgx.Find(a.ctx, clerkinvite.Query{Refs: []clerkinvite.Ref{acme(email)}})
	if err != nil || len(rows) == 0 {
		return nil, errors.Join(err, errors.New("not found"))
	}
	return rows[0], nil
}

// joinedRow returns the row as an active member of the user.
func joinedRow(m *clerkinvite.Member, userID string, now time.Time) *clerkinvite.Member {
	n := *m
	n.Status, n.ClerkUserID, n.Sent, n.SettledAt, n.ClaimedUntil, n.NextAttemptAt, n.UpdatedAt = clerkinvite.StatusActive, userID, n.Send, &now, nil, nil, now
	return &n
}

// update makes one change in a store.
func update(ctx context.Context, st clerkinvite.TxStore, c clerkinvite.Change) error {
	results, err := st.Update(ctx, []clerkinvite.Change{c})
	if err != nil {
		return err
	}
	return results[0].Err
}

// must fails the test if the arrangement fails.
func (w *world) must(err error) { require.NoError(w.t, err) }

func (w *world) invited(emails ...string) {
	for _, email := range emails {
		_, err := w.calm.Invite(w.ctx, toAcme(email))
		w.must(err)
	}
}

func (w *world) reserved(emails ...string) {
	for _, email := range emails {
		_, err := w.calm.Reserve(w.ctx, toAcme(email))
		w.must(err)
	}
}

// lost invites a person; the response is lost, and the lease has ended.
func (w *world) lost(email string) {
	w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err := w.calm.Invite(w.ctx, toAcme(email))
	require.Error(w.t, err)
	w.clock.Advance(time.Hour)
}

// crashed invites a person; the process dies after Clerk has created the invitation, and the lease has ended.
func (w *world) crashed(email string) {
	w.reserved(email)
	m, err := w.calm.Get(w.ctx, acme(email))
	w.must(err)
	claimed, until := *m, w.clock.Now().Add(pointLease)
	claimed.Attempts, claimed.ClaimedUntil, claimed.NextAttemptAt = 1, &until, &until
	w.must(update(w.ctx, w.store, clerkinvite.Change{Old: m, New: &claimed}))
	w.clerk.CreateForeign(email, map[string]any{"clerkinvite": map[string]any{"id": m.ID, "send": 1}})
	w.clock.Advance(time.Hour)
}

func (w *world) accepted(email string) {
	hook, err := w.clerk.Accept(email)
	w.must(err)
	w.input = hook.Payload
}

// adopted brings an address that waits for an invitation without a marker into tenants.
func (w *world) adopted(email, invitationID string, tenants ...string) {
	for _, tenant := range tenants {
		results, err := w.calm.Adopt(w.ctx, []clerkinvite.AdoptParams{{
			InviteParams: clerkinvite.InviteParams{TenantID: tenant, Email: email}, ClerkUserID: clerkinvite.PendingID(invitationID),
		}})
		w.must(err)
		w.must(results[0].Err)
	}
}

// onCall calls f once, at the first such request.
func (w *world) onCall(call clerkinvitetest.Call, when clerkinvitetest.When, do func()) {
	var once atomic.Bool
	w.clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, at clerkinvitetest.When) {
		if c == call && at == when && once.CompareAndSwap(false, true) {
			do()
		}
	})
}

// touch changes the row.
func (w *world) touch(email string) {
	role := "editor"
	if _, err := w.calm.Update(w.ctx, acme(email), clerkinvite.MemberUpdate{Role: &role}); err != nil {
		w.t.Errorf("touch: %v", err)
	}
}

func verified(emails ...string) clerkinvitetest.UserSpec {
	var u clerkinvitetest.UserSpec
	for _, email := range emails {
		u.Emails = append(u.Emails, clerkinvitetest.EmailSpec{Address: email, Verified: true})
	}
	return u
}

func scenarios() []scenario {
	list := slices.Concat(invitations(), batches(), withdrawals(), resolutions(), readings(), storings(), organizations())
	for i := range list {
		for k, p := range list[i].people {
			if p.acked == "" {
				list[i].people[k].acked = "pending"
			}
			list[i].people[k].other = list[i].people[k].acked + " " + p.other
		}
	}
	return list
}

// invitations are scenarios of Invite and Resend.
func invitations() []scenario {
	inviteAnn := func(a *actor) error { return a.invite(ann) }
	inviteOrDuplicate := func(a *actor) error {
		_, err := a.svc.Invite(a.ctx, toAcme(ann))
		var dup *clerkinvite.DuplicateEmailError
		if errors.As(err, &dup) {
			err = nil
		}
		return a.acked(ann, err)
	}
	return []scenario{{
		name: "invite a new person", act: inviteAnn, people: []person{{ann, "pending", "gone"}},
	}, {
		name: "invite a user", act: inviteAnn, people: []person{{ann, "active", "gone"}},
		arrange: func(w *world) { w.clerk.AddVerifiedUser(ann) },
	}, {
		name: "invite a duplicate", people: []person{{ann, "pending", ""}},
		arrange: func(w *world) { w.invited(ann) },
		act: func(a *actor) error {
			_, err := a.svc.Invite(a.ctx, toAcme(ann))
			return expected[*clerkinvite.DuplicateEmailError](a, ann, err)
		},
	}, {
		// Invite looks at Clerk once a day. If that fails, Reconcile finds out.
		name: "invite a duplicate that was revoked in the dashboard", people: []person{{ann, "pending revoked", ""}},
		arrange: func(w *world) {
			w.invited(ann)
			w.clerk.RevokeInDashboard(w.clerk.OpenInvitations(ann)[0].ID)
			w.clock.Advance(48 * time.Hour)
		},
		act: inviteOrDuplicate,
	}, {
		name: "invite a duplicate whose user was replaced", people: []person{{ann, "active removed", ""}, {bob, "active", ""}},
		arrange: func(w *world) {
			w.clerk.AddVerifiedUser(bob)
			u := w.clerk.AddVerifiedUser(ann)
			w.invited(ann, bob)
			w.clerk.DeleteUser(u.ID)
			w.clerk.AddVerifiedUser(ann)
			w.clock.Advance(48 * time.Hour)
		},
		act: inviteOrDuplicate,
	}, {
		name: "take over a reserved member", act: inviteAnn, people: []person{{ann, "pending", ""}},
		arrange: func(w *world) { w.reserved(ann) },
	}, {
		name: "take over after a lost response", act: inviteAnn, people: []person{{ann, "pending", ""}},
		arrange: func(w *world) { w.lost(ann) },
	}, {
		name: "invite a person whom another tenant has invited", act: inviteAnn, people: []person{{ann, "pending", "gone"}},
		arrange: func(w *world) {
			_, err := w.calm.Invite(w.ctx, clerkinvite.InviteParams{TenantID: "globex", Email: ann})
			w.must(err)
		},
	}, {
		name: "take over while the person accepts", act: inviteAnn, people: []person{{ann, "active", "pending"}},
		arrange: func(w *world) {
			w.lost(ann)
			w.onCall(clerkinvitetest.CallList, clerkinvitetest.Before, func() { _, _ = w.clerk.Accept(ann) })
		},
	}, {
		name: "invite a user with two addresses", act: inviteAnn, people: []person{{ann, "active", "gone"}},
		arrange: func(w *world) { w.clerk.AddUser(verified(bob, ann)) },
	}, {
		name: "deliver to a user who is a member under another address", people: []person{{ann, "removed pending", ""}, {bob, "active", ""}},
		arrange: func(w *world) {
			w.lost(ann)
			u := w.clerk.AddVerifiedUser(bob)
			w.invited(bob)
			w.clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: ann})
			w.onCall(clerkinvitetest.CallList, clerkinvitetest.Before, func() { _, _ = w.clerk.Accept(ann) })
		},
		act: func(a *actor) error { return a.acked(ann, a.deliver()) },
	}, {
		name: "deliver when a firewall rejects the look-up of two", people: []person{{ann, "pending", ""}, {bob, "pending", ""}},
		arrange: func(w *world) {
			w.reserved(ann)
			w.reserved(bob)
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 403})
		},
		act: func(a *actor) error { return a.acked(ann, a.deliver()) },
	}, {
		name: "invite when the insert had to wait", act: inviteAnn, people: []person{{ann, "pending", "gone"}},
		meddle: []meddle{{"reserveOnce>insert/Insert", true, func(a *actor) error { a.clock.Advance(45 * time.Second); return nil }}},
	}, {
		name: "invite while the clock is set", act: inviteAnn, people: []person{{ann, "pending", "gone"}},
		meddle: []meddle{{"lookup.find>findUsers/FindUsers", true, func(a *actor) error { a.clock.Advance(5 * time.Second); return nil }}},
	}, {
		name: "update", people: []person{{ann, "pending", ""}}, arrange: func(w *world) { w.invited(ann) },
		act: func(a *actor) error {
			role := "admin"
			_, err := a.svc.Update(a.ctx, acme(ann), clerkinvite.MemberUpdate{Role: &role})
			return a.acked(ann, err)
		},
	}, {
		name: "invite while another process changes the row", act: inviteAnn, people: []person{{ann, "pending", "gone"}},
		arrange: func(w *world) {
			w.onCall(clerkinvitetest.CallCreate, clerkinvitetest.After, func() { w.touch(ann) })
		},
	}, {
		// Pending: the revocation hit another process's create, and this Invite came after both.
		name: "invite while another process revokes", people: []person{{ann, "revoked pending", "gone"}}, withdraws: true,
		arrange: func(w *world) {
			w.onCall(clerkinvitetest.CallCreate, clerkinvitetest.After, func() {
				if _, err := w.calm.Revoke(w.ctx, acme(ann)); err != nil {
					w.t.Errorf("the revocation: %v", err)
				}
			})
		},
		act: func(a *actor) error {
			_, err := a.svc.Invite(a.ctx, toAcme(ann))
			if errors.Is(err, clerkinvite.ErrConflict) {
				err = nil
			}
			return a.acked(ann, err)
		},
	}, {
		name: "invite many and wait for a rate limit, while another process delivers", people: []person{{ann, "pending", "gone"}},
		arrange: func(w *world) {
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 429, Code: "too_many_requests", RetryAfter: time.Minute})
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreateBulk, Status: 429, Code: "too_many_requests", RetryAfter: time.Minute})
		},
		act: func(a *actor) error {
			results, err := a.svc.InviteMany(a.ctx, []clerkinvite.InviteParams{toAcme(ann)}, &clerkinvite.InviteManyOptions{
				Wait: true, Progress: func(p clerkinvite.InviteManyProgress) {
					if !p.WaitUntil.IsZero() {
						a.clock.Advance(max(p.WaitUntil.Sub(a.clock.Now()), 2*time.Minute)) // the other process waits longer
						_, _ = a.other.Deliver(a.ctx, nil)
					}
				},
			})
			if err == nil {
				err = results[0].Err
			}
			return a.acked(ann, err)
		},
	}, {
		name: "invite two into a rate limit", people: []person{{ann, "pending", "gone"}, {bob, "pending", "gone"}},
		arrange: func(w *world) {
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 429, Code: "too_many_requests", RetryAfter: time.Minute})
		},
		act: func(a *actor) error { return errors.Join(a.invite(ann), a.invite(bob)) },
	}, {
		name: "invite into a rate limit", people: []person{{ann, "pending", "gone"}},
		arrange: func(w *world) {
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 429, Code: "too_many_requests", RetryAfter: time.Minute})
		},
		act: func(a *actor) error {
			_, err := a.svc.Invite(a.ctx, toAcme(ann))
			var limited *clerkinvite.ClerkInvitationError
			if _, ok := clerkinvite.RetryAfter(err); ok && errors.As(err, &limited) && limited.Member != nil {
				a.ack(ann)
				return nil
			}
			return err
		},
	}, {
		name: "invite once", once: true, act: inviteAnn, people: []person{{ann, "pending", "failed gone"}},
	}, {
		name: "invite once into a lost response", once: true, people: []person{{ann, "failed", "gone pending"}},
		arrange: func(w *world) {
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		},
		act: func(a *actor) error {
			_, err := a.svc.Invite(a.ctx, toAcme(ann))
			return expected[*clerkinvite.ClerkInvitationError](a, ann, err)
		},
	}, {
		name: "invite once after a crash", once: true, act: inviteAnn, people: []person{{ann, "pending", "failed"}},
		arrange: func(w *world) { w.crashed(ann) },
	}, {
		name: "deliver once after a crash", once: true, people: []person{{ann, "failed", ""}},
		arrange: func(w *world) { w.crashed(ann) },
		act:     func(a *actor) error { return a.acked(ann, a.deliver()) },
	}, {
		name: "resend once", once: true, people: []person{{ann, "pending", ""}},
		arrange: func(w *world) {
			w.invited(ann)
			w.clock.Advance(2 * time.Minute)
		},
		act: func(a *actor) error {
			_, err := a.svc.Resend(a.ctx, acme(ann))
			return a.acked(ann, err)
		},
	}, {
		name: "resend", people: []person{{ann, "pending", ""}},
		arrange: func(w *world) {
			w.invited(ann)
			w.clock.Advance(2 * time.Minute)
		},
		act: func(a *actor) error {
			_, err := a.svc.Resend(a.ctx, acme(ann))
			return a.acked(ann, err)
		},
	}}
}

// batches are scenarios of InviteMany, Deliver and Run.
func batches() []scenario {
	many := []clerkinvite.InviteParams{toAcme(ann), toAcme(bob), toAcme(cyd)}
	reserveAndDeliver := func(a *actor) error {
		return errors.Join(a.results(a.svc.ReserveMany(a.ctx, many)), a.deliver())
	}
	return []scenario{{
		name: "invite many once", once: true, people: []person{{ann, "pending", "failed gone"}, {bob, "pending", "failed gone"}, {cyd, "pending", "failed gone"}},
		act: func(a *actor) error {
			results, err := a.svc.InviteMany(a.ctx, many, nil)
			for _, r := range results {
				if r.Err == nil && r.Member.Status == clerkinvite.StatusPending { // a reserved member may still fail
					a.ack(r.Member.Email)
				}
				err = errors.Join(err, r.Err)
			}
			return err
		},
	}, {
		name: "invite many", people: []person{{ann, "pending", "gone"}, {bob, "pending", "gone"}, {cyd, "pending", "gone"}},
		act: func(a *actor) error { return a.results(a.svc.InviteMany(a.ctx, many, nil)) },
	}, {
		name: "invite many while another process invites one of them", people: []person{{ann, "pending", "gone"}, {bob, "pending", "gone"}, {cyd, "pending", "gone"}},
		act: func(a *actor) error { return a.results(a.svc.InviteMany(a.ctx, many, nil)) },
		meddle: []meddle{{"applyBounded>apply/Update", false, func(a *actor) error {
			_, err := a.other.Invite(a.ctx, toAcme(bob))
			return err
		}}},
	}, {
		name: "deliver when another process has the turn", people: []person{{ann, "pending", ""}},
		arrange: func(w *world) {
			w.reserved(ann)
			_, err := w.store.SwapTime(w.ctx, "turn deliver", time.Time{}, w.clock.Now().Add(10*time.Second))
			w.must(err)
		},
		meddle: []meddle{{"changeTime>swapTime/SwapTime", true, func(a *actor) error { a.clock.Advance(20 * time.Second); return nil }}},
		act:    func(a *actor) error { return a.deliver() },
	}, {
		name: "reserve many with metadata and deliver", people: []person{{ann, "pending", "gone"}},
		act: func(a *actor) error {
			p := toAcme(ann)
			p.PublicMetadata = map[string]any{"plan": "pro"}
			if _, err := a.svc.ReserveMany(a.ctx, []clerkinvite.InviteParams{p}); err != nil {
				return err
			}
			a.ack(ann)
			return a.deliver()
		},
	}, {
		name: "reserve many and deliver", act: reserveAndDeliver,
		people: []person{{ann, "pending", "gone"}, {bob, "pending", "gone"}, {cyd, "pending", "gone"}},
	}, {
		name: "reserve and deliver one", people: []person{{ann, "pending", "gone"}, {bob, "pending", ""}},
		arrange: func(w *world) { w.reserved(bob) },
		act: func(a *actor) error {
			if _, err := a.svc.Reserve(a.ctx, toAcme(ann)); err != nil {
				return err
			}
			a.ack(ann)
			_, err := a.svc.DeliverMembers(a.ctx, []clerkinvite.Ref{acme(ann)})
			return err
		},
	}, {
		name: "deliver with a refused bulk request", people: []person{{ann, "pending", ""}, {bob, "pending", ""}, {cyd, "pending", ""}},
		arrange: func(w *world) {
			w.clerk.CreateForeign(bob, map[string]any{"app": "another"})
			w.reserved(ann, bob, cyd)
		},
		act: func(a *actor) error { return a.acked(ann, a.deliver()) },
	}, {
		// Lists hide only the metadata of bulk invitations.
		name: "deliver a lost bulk request without its metadata", people: []person{{ann, "pending", ""}, {bob, "pending", ""}},
		arrange: func(w *world) {
			w.clerk.SetBehavior(clerkinvitetest.Behavior{ListHidesMetadata: true})
			w.reserved(ann, bob)
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreateBulk, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
			_, _ = w.calm.Deliver(w.ctx, nil)
			w.clock.Advance(time.Hour)
		},
		act: func(a *actor) error { return a.acked(ann, a.deliver()) },
	}, {
		name: "reserve and run", sure: "runDeliver>", people: []person{{ann, "pending", "gone"}},
		act: func(a *actor) error {
			if _, err := a.svc.Reserve(a.ctx, toAcme(ann)); err != nil {
				return err
			}
			a.ack(ann)
			a.runUntil(ann, clerkinvite.StatusPending)
			return nil
		},
	}, {
		name: "run a reconciliation that takes long", sure: "turn.renew>", people: []person{{ann, "removed active", ""}, {bob, "active", ""}},
		arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.clerk.AddVerifiedUser(bob)
			w.invited(ann, bob)
			w.clock.Advance(48 * time.Hour)
			w.clerk.DeleteUser(u.ID)
		},
		meddle: []meddle{{"reconciliation.run>reconciliation.members/Page", true, func(a *actor) error { a.clock.Advance(10 * time.Minute); return nil }}},
		act: func(a *actor) error {
			a.runUntil(ann, clerkinvite.StatusRemoved)
			return nil
		},
	}}
}

// runUntil calls Run until a member has the status. After a failure Run pauses for a minute of real time. So the host restarts it after
// a few seconds, when the pause has ended by the test's clock.
func (a *actor) runUntil(email string, status clerkinvite.Status) {
	reached := func() bool {
		m, err := a.other.Get(a.ctx, acme(email))
		return err == nil && m.Status == status
	}
	for end := time.Now().Add(testkit.Patience); !reached() && time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(a.ctx, 5*time.Second)
		var running sync.WaitGroup
		running.Go(func() { _ = a.svc.Run(ctx, &clerkinvite.RunOptions{Interval: 10 * time.Millisecond}) })
		for ctx.Err() == nil && !reached() {
			time.Sleep(2 * time.Millisecond)
		}
		paused := ctx.Err() != nil
		cancel()
		running.Wait()
		if paused {
			a.clock.Advance(10 * time.Minute)
		}
	}
}

// withdrawals are scenarios of Revoke, Remove and Purge.
func withdrawals() []scenario {
	revoke := func(a *actor) error {
		_, err := a.svc.Revoke(a.ctx, acme(ann))
		return a.acked(ann, err)
	}
	remove := func(a *actor) error {
		_, err := a.svc.Remove(a.ctx, acme(ann))
		return a.acked(ann, err)
	}
	invited := func(w *world) { w.invited(ann) }
	return []scenario{{
		name: "revoke", arrange: invited, act: revoke, people: []person{{ann, "revoked", "pending"}},
	}, {
		name: "revoke an accepted invitation", people: []person{{ann, "active", ""}},
		arrange: func(w *world) { w.invited(ann); w.accepted(ann) },
		act: func(a *actor) error {
			_, err := a.svc.Revoke(a.ctx, acme(ann))
			return expected[*clerkinvite.TransitionError](a, ann, err)
		},
	}, {
		name: "revoke an invitation that is revoked at Clerk", act: revoke, people: []person{{ann, "revoked", ""}},
		arrange: func(w *world) {
			w.invited(ann)
			w.clerk.RevokeInDashboard(w.clerk.OpenInvitations(ann)[0].ID)
		},
	}, {
		name: "revoke again", act: revoke, people: []person{{ann, "revoked", ""}},
		arrange: func(w *world) {
			w.invited(ann)
			_, err := w.calm.Revoke(w.ctx, acme(ann))
			w.must(err)
		},
	}, {
		name: "revoke an expired invitation", act: revoke, people: []person{{ann, "revoked", "expired"}},
		arrange: func(w *world) {
			w.clerk.SetBehavior(clerkinvitetest.Behavior{RevokeExpired: clerkinvitetest.ExpiredIsRefused})
			w.invited(ann)
			w.clock.Advance(31 * 24 * time.Hour)
		},
	}, {
		name: "remove a pending member", arrange: invited, act: remove, people: []person{{ann, "removed", "pending revoked"}},
	}, {
		name: "remove an active member", act: remove, people: []person{{ann, "removed", "active"}},
		arrange: func(w *world) { w.clerk.AddVerifiedUser(ann); w.invited(ann) },
	}, {
		name: "purge", arrange: invited, purges: true, people: []person{{ann, "gone", "pending revoked"}},
		act: func(a *actor) error { return a.acked(ann, a.svc.Purge(a.ctx, acme(ann))) },
	}, {
		name: "purge a member whose open invitation is not listed yet", purges: true, people: []person{{ann, "gone", "active"}},
		arrange: func(w *world) {
			w.clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
			w.invited(ann)
			e, err := clerkinvite.ParseEvent(w.clerk.SignUp(ann, true).Payload)
			w.must(err)
			_, err = w.calm.Resolve(w.ctx, *e.User)
			w.must(err)
		},
		act: func(a *actor) error { return a.acked(ann, a.svc.Purge(a.ctx, acme(ann))) },
	}, {
		name: "purge while Clerk fails", purges: true, people: []person{{ann, "pending", "gone revoked"}},
		arrange: func(w *world) {
			w.invited(ann)
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRevoke, Kind: clerkinvitetest.JSON500})
		},
		act: func(a *actor) error {
			return expected[*clerkinvite.ClerkInvitationError](a, ann, a.svc.Purge(a.ctx, acme(ann)))
		},
	}}
}

// resolutions are scenarios of webhooks, sign-ins and Reconcile.
func resolutions() []scenario {
	event := func(a *actor) error { return a.event() }
	overdue := func(w *world) { // accepted in time by an existing user
		w.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: ann}}})
		w.clock.Advance(time.Minute)
		p := toAcme(ann)
		p.ExpiresInDays = 1
		_, err := w.calm.Invite(w.ctx, p)
		w.must(err)
		w.clock.Advance(time.Hour)
		w.accepted(ann)
		w.clock.Advance(48 * time.Hour)
	}
	const moved = "ann@example.org"
	editAnn := func(a *actor) error {
		role := "editor"
		_, err := a.other.Update(a.ctx, acme(ann), clerkinvite.MemberUpdate{Role: &role})
		return err
	}
	signIn := func(a *actor) error {
		_, err := a.svc.ResolveUser(a.ctx, "user_000001")
		return a.acked(ann, err)
	}
	return []scenario{{
		name: "webhook", act: func(a *actor) error { return a.webhook() }, people: []person{{ann, "active", ""}},
		arrange: func(w *world) { w.invited(ann); w.accepted(ann) },
	}, {
		name: "webhook that is older than the user", act: event, people: []person{{ann, "active", ""}},
		arrange: func(w *world) {
			w.invited(ann)
			w.accepted(ann)
			w.clerk.AddEmail("user_000001", clerkinvitetest.EmailSpec{Address: bob, Verified: true})
		},
	}, {
		name: "webhook while another process changes the row", act: event, people: []person{{ann, "active", ""}},
		arrange: func(w *world) {
			w.invited(ann)
			w.accepted(ann)
			w.onCall(clerkinvitetest.CallFindUsers, clerkinvitetest.After, func() { w.touch(ann) })
		},
	}, {
		name: "webhook that Clerk contradicts", people: []person{{ann, "pending", ""}},
		arrange: func(w *world) {
			w.invited(ann)
			w.input = w.clerk.SignUp(ann, true).Payload
			w.clerk.ChangeEmail("user_000001", bob)
		},
		meddle: []meddle{{"HandleEvent#2>rowsOf/Find", true, func(a *actor) error { a.clock.Advance(5 * time.Second); return nil }}},
		act: func(a *actor) error {
			err := a.event()
			if errors.Is(err, clerkinvite.ErrUnconfirmed) {
				return nil
			}
			return err
		},
	}, {
		name: "webhook of a deleted user", act: event, people: []person{{ann, "removed", ""}},
		arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.invited(ann)
			w.clerk.AddVerifiedUser(bob)
			w.invited(bob)
			w.input = w.clerk.DeleteUser(u.ID).Payload
		},
	}, {
		name: "sign-in after the invitation has expired", arrange: overdue, act: signIn, people: []person{{ann, "active", ""}},
	}, {
		name: "sign-in while another process changes the row", act: signIn, people: []person{{ann, "active", ""}},
		arrange: func(w *world) {
			overdue(w)
			w.onCall(clerkinvitetest.CallList, clerkinvitetest.After, func() { w.touch(ann) })
		},
	}, {
		name: "resolve", people: []person{{ann, "active", ""}},
		arrange: func(w *world) { w.invited(ann); w.accepted(ann) },
		act: func(a *actor) error {
			_, err := a.svc.Resolve(a.ctx, clerkinvite.User{ID: "user_000001", Emails: []clerkinvite.UserEmail{{Address: ann, Verified: true}}})
			return a.acked(ann, err)
		},
	}, {
		name: "reconcile", people: []person{
			{"in@example.com", "active", ""}, {"out@example.com", "revoked", ""}, {"late@example.com", "expired", ""}, {"left@example.com", "pending", ""},
			{"gone@example.com", "removed", ""}, {"here@example.com", "active", ""}, {"home@example.com", "removed", ""}, {"work@example.com", "active", ""},
		},
		arrange: func(w *world) {
			late := toAcme("late@example.com")
			late.ExpiresInDays = 1
			_, err := w.calm.Invite(w.ctx, late)
			w.must(err)
			w.invited("in@example.com", "out@example.com", "left@example.com", "home@example.com", "work@example.com")
			w.clerk.AddVerifiedUser("here@example.com")
			gone := w.clerk.AddVerifiedUser("gone@example.com")
			w.invited("here@example.com", "gone@example.com")
			left, err := w.calm.Get(w.ctx, acme("left@example.com"))
			w.must(err)
			w.clock.Advance(48 * time.Hour)
			w.clerk.CreateForeign(left.Email, map[string]any{"clerkinvite": map[string]any{"id": left.ID, "send": 1}})
			w.accepted("in@example.com")
			w.clerk.RevokeInDashboard(w.clerk.OpenInvitations("out@example.com")[0].ID)
			w.clerk.DeleteUser(gone.ID)
			w.accepted("work@example.com")
			u, err := w.clerk.FindUsers(w.ctx, clerkinvite.UserQuery{Emails: []string{"work@example.com"}})
			w.must(err)
			w.clerk.AddEmail(u[0].ID, clerkinvitetest.EmailSpec{Address: "home@example.com", Verified: true})
		},
		act: func(a *actor) error {
			_, err := a.svc.Reconcile(a.ctx, nil)
			return a.acked("in@example.com", err)
		},
	}, {
		name: "webhook of another address, while another process changes the row", act: event, people: []person{{ann, "gone", ""}, {moved, "active", ""}},
		arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.invited(ann)
			w.input = w.clerk.ChangeEmail(u.ID, moved).Payload
		},
		meddle: []meddle{{"changeOne>apply/Update", false, editAnn}},
	}, {
		name: "reconcile after a change of address, while another process changes the row", people: []person{{ann, "gone", ""}, {moved, "active", ""}},
		arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.invited(ann)
			w.clerk.ChangeEmail(u.ID, moved)
		},
		meddle: []meddle{{"applyBounded>apply/Update", false, editAnn}},
		act: func(a *actor) error {
			_, err := a.svc.Reconcile(a.ctx, nil)
			return a.acked(moved, err)
		},
	}, {
		name: "sign-in after a second address has become the only one", people: []person{{ann, "gone", ""}, {moved, "active", ""}}, purges: true,
		arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.invited(ann)
			w.clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: moved, Verified: true})
			_, err := w.calm.Invite(w.ctx, toAcme(moved)) // a second address
			require.Error(w.t, err)
			w.clerk.SetPrimaryEmail(u.ID, moved)
			w.clerk.RemoveEmail(u.ID, ann)
		},
		act: func(a *actor) error {
			_, err := a.svc.ResolveUser(a.ctx, "user_000001")
			return a.acked(moved, err)
		},
	}, {
		name: "resend a second address whose adopted invitation another tenant shares", people: []person{{ann, "gone", "active"}, {moved, "active", "pending"}}, purges: true,
		arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.invited(ann)
			w.adopted(moved, w.clerk.CreateForeign(moved, nil).ID, "acme", "globex")
			_, err := w.calm.Reconcile(w.ctx, nil) // reads the invitation's times
			w.must(err)
			w.clerk.ChangeEmail(u.ID, moved)
			w.clock.Advance(time.Hour)
		},
		act: func(a *actor) error {
			_, err := a.svc.Resend(a.ctx, acme(moved))
			return expected[*clerkinvite.DuplicateEmailError](a, moved, err)
		},
	}, {
		name: "dry run after a change of address", people: []person{{ann, "gone", ""}, {moved, "active", ""}},
		arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.invited(ann)
			w.clerk.ChangeEmail(u.ID, moved)
		},
		act: func(a *actor) error {
			_, err := a.svc.Reconcile(a.ctx, &clerkinvite.ReconcileOptions{DryRun: true})
			return err
		},
	}, {
		name: "invite a member's new address, while another process changes the row", people: []person{{ann, "gone", ""}, {moved, "active", ""}}, purges: true,
		arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.invited(ann)
			w.clerk.ChangeEmail(u.ID, moved)
		},
		meddle: []meddle{{"settleWritten>decideSecondAddress/Find", true, editAnn}},
		act: func(a *actor) error {
			_, err := a.svc.Invite(a.ctx, toAcme(moved))
			return expected[*clerkinvite.DuplicateEmailError](a, moved, err)
		},
	}, {
		name: "invite the former address of a member, while another process changes the row", people: []person{{ann, "pending", "gone"}, {moved, "active", ""}},
		arrange: func(w *world) {
			u := w.clerk.AddVerifiedUser(ann)
			w.invited(ann)
			w.clerk.ChangeEmail(u.ID, moved)
			w.clock.Advance(48 * time.Hour)
		},
		meddle: []meddle{{"addressGivenUp>readUser/GetUser", true, editAnn}},
		act:    func(a *actor) error { return a.invite(ann) },
	}, {
		name: "adopt", people: []person{{ann, "active", "gone"}},
		arrange: func(w *world) { w.clerk.AddVerifiedUser(ann) },
		act: func(a *actor) error {
			results, err := a.svc.Adopt(a.ctx, []clerkinvite.AdoptParams{{InviteParams: toAcme(ann), ClerkUserID: "user_000001"}})
			if err == nil {
				err = results[0].Err
			}
			return a.acked(ann, err)
		},
	}, {
		name: "reconcile an adopted member whose invitation Clerk does not show", people: []person{{ann, "active", ""}},
		arrange: func(w *world) {
			w.clerk.AddVerifiedUser(ann)
			w.adopted(ann, "inv_unknown", "acme")
			w.clock.Advance(time.Hour)
		},
		act: func(a *actor) error {
			_, err := a.svc.Reconcile(a.ctx, nil)
			return a.acked(ann, err)
		},
	}, {
		name: "reconcile with a doubtful key", people: []person{{ann, "pending", ""}, {"user0@example.com", "removed", ""}, {"user9@example.com", "removed", ""}},
		arrange: func(w *world) {
			w.invited(ann)
			for i := range 10 {
				email := fmt.Sprintf("user%d@example.com", i)
				w.clerk.AddVerifiedUser(email)
				w.invited(email)
			}
			for i := range 10 {
				w.clerk.DeleteUser(fmt.Sprintf("user_%06d", i+1))
			}
			w.clock.Advance(time.Hour)
		},
		act: func(a *actor) error {
			_, err := a.svc.Reconcile(a.ctx, nil)
			return a.acked("user0@example.com", err)
		},
	}}
}

// readings are scenarios that change nothing.
func readings() []scenario {
	return []scenario{{
		name: "read", people: []person{{ann, "pending", ""}, {bob, "pending", ""}},
		arrange: func(w *world) { w.invited(ann, bob) },
		act: func(a *actor) error {
			_, err := a.svc.List(a.ctx, clerkinvite.ListParams{TenantID: "acme"})
			for m, e := range a.svc.All(a.ctx, clerkinvite.ListParams{TenantID: "acme", Limit: 1}) {
				if e == nil && m.Status != clerkinvite.StatusPending {
					e = errors.New("not pending")
				}
				err = errors.Join(err, e)
			}
			_, getErr := a.svc.Get(a.ctx, acme(ann))
			_, historyErr := a.svc.History(a.ctx, acme(ann))
			_, userErr := a.svc.ByUser(a.ctx, "user_000001")
			_, countsErr := a.svc.Counts(a.ctx, "acme")
			_, linkErr := a.svc.Link(a.ctx, acme(ann))
			return errors.Join(err, getErr, historyErr, userErr, countsErr, linkErr)
		},
	}}
}

// storings are scenarios of PgxStore's own operations.
func storings() []scenario {
	reserveInTx := func(a *actor) error {
		tx, err := a.db.BeginTx(a.ctx, pgx.TxOptions{})
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(a.ctx)) }()
		reserver := a.svc.InTx(a.inTx(tx))
		for _, email := range []string{ann, bob} {
			if _, err := reserver.Reserve(a.ctx, toAcme(email)); err != nil {
				return err
			}
		}
		if _, err := reserver.Reserve(a.ctx, toAcme(cyd)); !errors.As(err, new(*clerkinvite.DuplicateEmailError)) {
			return errors.Join(errors.New("no duplicate"), err)
		}
		if err := tx.Commit(a.ctx); err != nil {
			return err
		}
		return errors.Join(a.acked(ann, nil), a.acked(bob, nil))
	}
	arrangeTx := func(w *world) {
		w.reserved(bob)
		_, err := w.calm.Revoke(w.ctx, acme(bob))
		w.must(err)
		w.reserved(cyd)
	}
	inTxPeople := []person{{ann, "pending", "gone"}, {bob, "pending", "revoked"}, {cyd, "pending", ""}}
	// joining gives a row the user, tries the same with a second row, which must fail, and changes a third row by an old version.
	join := func(a *actor, st clerkinvite.TxStore) error {
		row, err := a.get(ann)
		if err != nil {
			return err
		}
		second, err := a.get(bob)
		if err != nil {
			return err
		}
		now := a.clock.Now()
		if err := update(a.ctx, st, clerkinvite.Change{Old: row, New: joinedRow(row, "user_000001", now)}); err != nil {
			return err
		}
		if err := update(a.ctx, st, clerkinvite.Change{Old: row, New: joinedRow(row, "user_000001", now)}); !errors.Is(err, clerkinvite.ErrConflict) {
			return errors.Join(errors.New("no conflict"), err)
		}
		if err := update(a.ctx, st, clerkinvite.Change{Old: second, New: joinedRow(second, "user_000001", now)}); !errors.Is(err, clerkinvite.ErrUserTaken) {
			return errors.Join(errors.New("the user is not taken"), err)
		}
		return nil
	}
	joinInTx := func(a *actor) error {
		tx, err := a.db.BeginTx(a.ctx, pgx.TxOptions{})
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(a.ctx)) }()
		if err := join(a, a.pgx.WithTx(tx)); err != nil {
			return err
		}
		return a.acked(ann, tx.Commit(a.ctx))
	}
	arrangeUser := func(w *world) {
		w.clerk.AddVerifiedUser(ann)
		w.reserved(ann, bob)
	}
	partition := func(w *world) {
		arrangeUser(w)
		// As in a partition, where the key has another name.
		_, err := w.pool.Exec(w.ctx, "ALTER INDEX "+w.schema+".clerkinvite_member_user_key RENAME TO another")
		w.must(err)
	}
	userPeople := []person{{ann, "active", ""}, {bob, "pending", ""}}
	return []scenario{{
		name: "reserve in a host's transaction", postgres: true, arrange: arrangeTx, act: reserveInTx, people: inTxPeople,
	}, {
		name: "reserve in a host's transaction, with a hook", postgres: true, hook: true, arrange: arrangeTx, act: reserveInTx, people: inTxPeople,
	}, {
		name: "invite with a hook", postgres: true, hook: true, people: []person{{ann, "pending", "gone"}},
		act: func(a *actor) error {
			if err := a.invite(ann); err != nil {
				return err
			}
			_, err := a.svc.Invite(a.ctx, toAcme(ann))
			return expected[*clerkinvite.DuplicateEmailError](a, ann, err)
		},
	}, {
		name: "join in the store", postgres: true, arrange: partition, people: userPeople,
		act: func(a *actor) error { return a.acked(ann, join(a, a.pgx)) },
	}, {
		name: "join in the store, with a hook", postgres: true, hook: true, arrange: arrangeUser, people: userPeople,
		act: func(a *actor) error { return a.acked(ann, join(a, a.pgx)) },
	}, {
		name: "join in a host's transaction", postgres: true, arrange: partition, act: joinInTx, people: userPeople,
	}, {
		name: "join in a host's transaction, with a hook", postgres: true, hook: true, arrange: arrangeUser, act: joinInTx, people: userPeople,
	}, {
		name: "invite with a lost response of the database", postgres: true, people: []person{{ann, "pending", "gone"}},
		act:    func(a *actor) error { return a.invite(ann) },
		meddle: []meddle{{"pgxWriter.Update>pgxSQL.update/queryChanged", true, func(*actor) error { return errLost }}},
	}, {
		name: "erase an erased member", postgres: true, purges: true, people: []person{{ann, "gone", ""}},
		arrange: func(w *world) {
			w.reserved(ann)
			m, err := w.calm.Get(w.ctx, acme(ann))
			w.must(err)
			w.input, err = json.Marshal(m)
			w.must(err)
			w.must(w.calm.Purge(w.ctx, acme(ann)))
		},
		act: func(a *actor) error {
			var m clerkinvite.Member
			if err := json.Unmarshal(a.input, &m); err != nil {
				return err
			}
			return a.acked(ann, update(a.ctx, a.pgx, clerkinvite.Change{Old: &m}))
		},
	}, {
		name: "insert an address that another transaction is inserting", postgres: true, act: insertBehind, people: []person{{ann, "pending", "gone"}},
	}, {
		name: "count what waits", postgres: true, arrange: arrangeUser, people: userPeople,
		act: func(a *actor) error {
			b, err := a.pgx.Backlog(a.ctx, a.clock.Now())
			if err == nil && b.Reserved != 2 {
				err = errors.New("not two")
			}
			return err
		},
	}, {
		name: "migrate", postgres: true, fresh: true,
		act: func(a *actor) error {
			return errors.Join(a.pgx.Migrate(a.ctx), a.pgx.Migrate(a.ctx), a.pgx.Validate(a.ctx))
		},
	}}
}

// insertBehind reserves an address that another open transaction has just reserved.
func insertBehind(a *actor) error {
	tx, err := a.pool.Begin(a.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(a.ctx)) }()
	if _, err := a.other.InTx(a.inTx(tx)).Reserve(a.ctx, toAcme(ann)); err != nil {
		return err
	}
	behind := make(chan error, 1)
	go func() {
		_, err := a.svc.Reserve(a.ctx, toAcme(ann))
		behind <- err
	}()
	for waiting := false; !waiting; {
		select {
		case err := <-behind:
			return errors.Join(errors.New("the insert did not wait"), err)
		case <-time.After(time.Millisecond):
		}
		err := a.pool.QueryRow(a.ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1::integer = ANY (pg_blocking_pids(pid)))`,
			int32(tx.Conn().PgConn().PID())).Scan(&waiting) // #nosec G115 -- a pid
		if err != nil {
			return err
		}
	}
	if err := tx.Commit(a.ctx); err != nil {
		return err
	}
	a.ack(ann)
	return expected[*clerkinvite.DuplicateEmailError](a, ann, <-behind)
}

// allowedState reports whether a text names the state.
func allowedState(state, among string) bool { return slices.Contains(strings.Fields(among), state) }
