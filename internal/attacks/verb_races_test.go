package attacks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// round is two operations on one address that run at the same time.
type round struct {
	sides [2]func()

	// watch, if set, is called before and after each request to Clerk. It returns a fault, or "".
	watch func() string

	// outcome checks the result when both have ended and all due members are
	// delivered. It returns which of the possible outcomes occurred.
	outcome func() string

	// reconciled, if set, checks the result after Reconcile.
	reconciled func()
}

// frequentRaces run a thousand times, and each of their outcomes must occur.
var frequentRaces = []string{
	"TestPromise4_RevokeAgainstAccept", "TestPromise4_ResendAgainstAccept", "TestPromise3_ResendAgainstResend",
	"TestPromise2_InviteAgainstSignUp", "TestPromise1_InviteAgainstAccept", "TestPromise4_PurgeAgainstDeliver",
}

// race starts the sides together, hundreds of times on the memory store and some on
// PostgreSQL, one of them a moment later. want has all possible outcomes.
func race(t *testing.T, want []string, start func(t *testing.T, b *testkit.Rig, email string, r *rand.Rand) round) {
	t.Helper()
	raceIn(t, testkit.Options{}, want, start)
}

func raceIn(t *testing.T, o testkit.Options, want []string, start func(t *testing.T, b *testkit.Rig, email string, r *rand.Rand) round) {
	t.Helper()
	seed := testkit.Seed()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		const rounds = 10
		batches, all := 30, false
		switch name, kind := path.Split(t.Name()); {
		case kind != "memory":
			batches = 3
		case testing.Short():
			batches = 10
		case slices.Contains(frequentRaces, path.Base(name)):
			batches, all = 100, true
		}
		var mu sync.Mutex
		outcomes := make(map[string]int)
		t.Run("batch", func(t *testing.T) {
			for n := range batches {
				t.Run(strconv.Itoa(n), func(t *testing.T) {
					t.Parallel()
					b, r := fresh(t, o), rand.New(rand.NewPCG(seed, uint64(n)))
					took := [2]time.Duration{300 * time.Microsecond, 300 * time.Microsecond}
					var last []func()
					for i := range rounds {
						c := start(t, b, fmt.Sprintf("round%d@example.com", i), r)
						runRound(t, b, c, r, &took)
						deliverDue(t, b)
						outcome := c.outcome()
						mu.Lock()
						outcomes[outcome]++
						mu.Unlock()
						if c.reconciled != nil {
							last = append(last, c.reconciled)
						}
					}
					reconcileAll(t, b)
					for _, check := range last {
						check()
					}
				})
			}
		})
		t.Logf("seed %d (CLERKINVITE_SEED chooses another): %v", seed, outcomes)
		for _, outcome := range want {
			if all && !t.Failed() {
				require.Positive(t, outcomes[outcome], "never %q", outcome)
			}
		}
		for _, outcome := range slices.Sorted(maps.Keys(outcomes)) {
			require.Contains(t, want, outcome)
		}
	})
}

// runRound starts both sides, one of them after a random part of the time that the
// other took the last time, so all orders are equally likely on slow machines, too.
func runRound(t *testing.T, b *testkit.Rig, c round, r *rand.Rand, took *[2]time.Duration) {
	t.Helper()
	b.Clerk.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) {
		if rand.IntN(3) == 0 {
			time.Sleep(rand.N(100 * time.Microsecond)) // give the other side a chance to run between two requests
		}
		if c.watch != nil {
			assert.Empty(t, c.watch())
		}
	})
	defer b.Clerk.OnCall(nil)
	var delay [2]time.Duration
	late := r.IntN(2)
	delay[late] = time.Duration(r.Float64() * 1.5 * float64(took[1-late]))
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i, side := range c.sides {
		wg.Go(func() {
			<-begin
			time.Sleep(delay[i])
			started := time.Now()
			side()
			took[i] = min(time.Since(started), 50*time.Millisecond)
		})
	}
	close(begin)
	wg.Wait()
}

// deliverDue lets leases and cooldowns pass, and delivers until nothing is due.
func deliverDue(t *testing.T, b *testkit.Rig) {
	t.Helper()
	for range 5 {
		b.Clock.Advance(2 * time.Minute)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		if report.Claimed == 0 {
			return
		}
	}
	require.Fail(t, "something is always due")
}

// reconcileAll reconciles, and asserts that a second time changes nothing.
func reconcileAll(t *testing.T, b *testkit.Rig) {
	t.Helper()
	report, err := b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Cursor)
	require.Empty(t, report.AcceptedElsewhere)
	require.Zero(t, report.Unknown)
	require.Zero(t, report.Newer)
	again, err := b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.ReconcileReport{Members: again.Members, Invitations: again.Invitations}, *again)
}

// handle delivers a webhook.
func handleWebhook(ctx context.Context, b *testkit.Rig, w clerkinvitetest.Webhook) ([]*clerkinvite.Member, error) {
	w.At = b.Clock.Now() // of this delivery
	e, err := b.Verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
	if err != nil {
		return nil, err
	}
	return b.HandleEvent(ctx, e)
}

// acceptance is the result of a person following a link, with the webhook.
type acceptance struct {
	dead    error // the link does not work
	webhook clerkinvitetest.Webhook
	changed []*clerkinvite.Member
	err     error
}

// accept is a side: the person accepts, and the webhook is delivered.
func acceptLink(t *testing.T, b *testkit.Rig, a *acceptance, link func() (clerkinvitetest.Webhook, error)) func() {
	t.Helper()
	return func() {
		if a.webhook, a.dead = link(); a.dead == nil {
			a.changed, a.err = handleWebhook(t.Context(), b, a.webhook)
		}
	}
}

// newestLink returns the link in the last email to the address.
func newestLink(b *testkit.Rig, email string) func() (clerkinvitetest.Webhook, error) {
	return func() (clerkinvitetest.Webhook, error) { return b.Clerk.Accept(email) }
}

// firstLink returns the link in the first email to the address, once it was sent.
func firstLink(b *testkit.Rig, email string) func() (clerkinvitetest.Webhook, error) {
	return func() (w clerkinvitetest.Webhook, err error) {
		for deadline := time.Now().Add(testkit.Patience); time.Now().Before(deadline); time.Sleep(10 * time.Microsecond) {
			if w, err = b.Clerk.Accept(email); err == nil {
				break
			}
		}
		return w, err
	}
}

// states returns the states that a member has had.
func statesOf(t *testing.T, b *testkit.Rig, email string) string {
	t.Helper()
	moves, err := b.History(t.Context(), testkit.Acme(email))
	require.NoError(t, err)
	var states []string
	for _, move := range moves {
		states = append(states, string(move.To))
	}
	return strings.Join(states, " > ")
}

// sends returns the number of sends for each member that an invitation of the address names,
// and asserts that no send was made twice.
func sendsOf(t *testing.T, b *testkit.Rig, email string) map[string]int {
	t.Helper()
	seen, sends := make(map[string]bool), make(map[string]int)
	for _, inv := range b.Clerk.Invitations(email) {
		id, send := markOf(t, inv)
		key := fmt.Sprint(id, " ", send)
		require.False(t, seen[key], "one send, two emails")
		seen[key] = true
		sends[id]++
	}
	return sends
}

func markOf(t *testing.T, inv clerkinvite.Invitation) (id string, send int) {
	t.Helper()
	var meta struct {
		Mark struct {
			ID   string `json:"id"`
			Send int    `json:"send"`
		} `json:"clerkinvite"`
	}
	require.NoError(t, json.Unmarshal(inv.PublicMetadata, &meta))
	return meta.Mark.ID, meta.Mark.Send
}

// requirePurged asserts that no trace of a member is left.
func requirePurged(t *testing.T, b *testkit.Rig, m *clerkinvite.Member) {
	t.Helper()
	moves, err := b.Store.History(t.Context(), m.TenantID, m.ID)
	require.NoError(t, err)
	require.Empty(t, moves)
	rows, err := b.Store.Find(t.Context(), clerkinvite.Query{IDs: []string{m.ID}})
	require.NoError(t, err)
	require.Empty(t, rows)
	for _, inv := range b.Clerk.OpenInvitations(m.Email) {
		id, _ := markOf(t, inv)
		require.NotEqual(t, m.ID, id, "an open invitation with the ID of a purged member")
	}
}

// neverWithout is a watch: the person always has a working link, or has used it.
func neverWithout(b *testkit.Rig, email string) func() string {
	return func() string {
		for _, inv := range b.Clerk.Invitations(email) {
			if inv.Status == clerkinvite.InvitationPending || inv.Status == clerkinvite.InvitationAccepted {
				return ""
			}
		}
		return "no invitation that works"
	}
}

// inviteBefore invites long enough ago that Resend sends again.
func inviteBefore(t *testing.T, b *testkit.Rig, email string) *clerkinvite.Member {
	t.Helper()
	m := b.MustInvite(t, email)
	b.Clock.Advance(2 * time.Minute)
	return m
}

func reserveOne(t *testing.T, b *testkit.Rig, email string) *clerkinvite.Member {
	t.Helper()
	m, err := b.Reserve(t.Context(), testkit.Params("acme", email))
	require.NoError(t, err)
	return m
}

// Either the link stops working or the person has joined, and Revoke reports which.
func TestPromise4_RevokeAgainstAccept(t *testing.T) {
	t.Parallel()
	race(t, []string{"revoked", "active by the webhook", "active by Revoke"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		b.MustInvite(t, email)
		var m *clerkinvite.Member
		var err error
		var joined acceptance
		return round{
			sides: [2]func(){
				func() { m, err = b.Revoke(t.Context(), testkit.Acme(email)) },
				acceptLink(t, b, &joined, newestLink(b, email)),
			},
			outcome: func() string {
				require.NoError(t, joined.err)
				require.Empty(t, b.Clerk.OpenInvitations(email))
				require.Equal(t, 1, b.Clerk.EmailsTo(email))
				now := b.Member(t, email)
				if joined.dead != nil {
					require.NoError(t, err)
					require.Equal(t, clerkinvite.StatusRevoked, m.Status)
					require.Equal(t, clerkinvite.StatusRevoked, now.Status)
					require.Equal(t, "reserved > pending > revoked", statesOf(t, b, email), "never active")
					return "revoked"
				}
				testkit.RequireTransition(t, err, clerkinvite.StatusActive, clerkinvite.StatusRevoked)
				require.Equal(t, clerkinvite.StatusActive, now.Status)
				require.Regexp(t, "^user_", now.ClerkUserID)
				require.Equal(t, "reserved > pending > active", statesOf(t, b, email))
				if len(joined.changed) == 0 {
					return "active by Revoke"
				}
				return "active by the webhook"
			},
		}
	})
}

// In the end the member is revoked and has no working link, whatever the order.
func TestPromise4_RevokeAgainstDeliver(t *testing.T) {
	t.Parallel()
	race(t, []string{"before the email", "while it was sent", "after it"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		reserveOne(t, b, email)
		var err, deliverErr error
		return round{
			sides: [2]func(){
				func() { _, err = b.Revoke(t.Context(), testkit.Acme(email)) },
				func() { _, deliverErr = b.Deliver(t.Context(), nil) },
			},
			outcome: func() string {
				require.NoError(t, err)
				require.NoError(t, deliverErr)
				require.Equal(t, clerkinvite.StatusRevoked, b.Member(t, email).Status)
				require.Empty(t, b.Clerk.OpenInvitations(email))
				sendsOf(t, b, email)
				if states := statesOf(t, b, email); states != "reserved > revoked" {
					require.Equal(t, "reserved > pending > revoked", states)
					require.Equal(t, 1, b.Clerk.EmailsTo(email))
					return "after it"
				}
				if b.Clerk.EmailsTo(email) > 0 {
					return "while it was sent"
				}
				return "before the email"
			},
		}
	})
}

// The same while another email is being sent.
func TestPromise4_RevokeAgainstResend(t *testing.T) {
	t.Parallel()
	race(t, []string{"before it", "while it was sent", "after it"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		inviteBefore(t, b, email)
		var err, resendErr error
		return round{
			sides: [2]func(){
				func() { _, err = b.Revoke(t.Context(), testkit.Acme(email)) },
				func() { _, resendErr = b.Resend(t.Context(), testkit.Acme(email)) },
			},
			outcome: func() string {
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusRevoked, b.Member(t, email).Status)
				require.Empty(t, b.Clerk.OpenInvitations(email))
				sendsOf(t, b, email)
				if resendErr != nil {
					testkit.RequireTransition(t, resendErr, clerkinvite.StatusRevoked, clerkinvite.StatusPending)
				}
				switch states := statesOf(t, b, email); states {
				case "reserved > pending > revoked":
					require.Error(t, resendErr)
					require.Equal(t, 1, b.Clerk.EmailsTo(email))
					return "before it"
				case "reserved > pending > pending > revoked":
					require.Error(t, resendErr)
					return "while it was sent"
				default:
					require.NoError(t, resendErr)
					require.Equal(t, "reserved > pending > pending > pending > revoked", states)
					return "after it"
				}
			},
		}
	})
}

// The link in the last email always works, the older one until the newer one exists. A person who
// has joined is a member; a person who has not has exactly one link.
func TestPromise4_ResendAgainstAccept(t *testing.T) {
	t.Parallel()
	want := []string{
		"old link: active, one email", "old link: active, two emails", "old link: dead",
		"newest link: active, one email", "newest link: active, two emails",
	}
	race(t, want, func(t *testing.T, b *testkit.Rig, email string, r *rand.Rand) round {
		invited := inviteBefore(t, b, email)
		which, link := "newest link: ", newestLink(b, email)
		if r.IntN(2) == 0 {
			which = "old link: "
			link = func() (clerkinvitetest.Webhook, error) { return b.Clerk.AcceptInvitation(invited.InvitationID) }
		}
		var err error
		var joined acceptance
		return round{
			sides: [2]func(){
				func() { _, err = b.Resend(t.Context(), testkit.Acme(email)) },
				acceptLink(t, b, &joined, link),
			},
			watch: neverWithout(b, email),
			outcome: func() string {
				require.NoError(t, joined.err)
				require.LessOrEqual(t, sendsOf(t, b, email)[invited.ID], 2)
				if joined.dead != nil {
					require.NoError(t, err)
					b.RequireInvited(t, email, 2)
					return which + "dead"
				}
				if err != nil {
					testkit.RequireTransition(t, err, clerkinvite.StatusActive, clerkinvite.StatusPending)
				}
				require.Equal(t, clerkinvite.StatusActive, b.Member(t, email).Status)
				require.Equal(t, 1, strings.Count(statesOf(t, b, email), "active"))
				if b.Clerk.EmailsTo(email) == 1 {
					return which + "active, one email"
				}
				return which + "active, two emails"
			},
			reconciled: func() {
				if joined.dead == nil {
					require.Equal(t, clerkinvite.StatusActive, b.Member(t, email).Status)
					require.Empty(t, b.Clerk.OpenInvitations(email))
				} else {
					b.RequireInvited(t, email, 2)
				}
			},
		}
	})
}

// One of the two sends; the other gets an error that says how long to wait.
func TestPromise3_ResendAgainstResend(t *testing.T) {
	t.Parallel()
	want := []string{"the first sends, the other is late", "the first sends, the other at the same time", "the second sends, the other is late", "the second sends, the other at the same time"}
	race(t, want, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		inviteBefore(t, b, email)
		now := b.Clock.Now()
		var m [2]*clerkinvite.Member
		var err [2]error
		return round{
			sides: [2]func(){
				func() { m[0], err[0] = b.Resend(t.Context(), testkit.Acme(email)) },
				func() { m[1], err[1] = b.Resend(t.Context(), testkit.Acme(email)) },
			},
			watch: neverWithout(b, email),
			outcome: func() string {
				sender, outcome := 0, "the first sends"
				if err[0] != nil {
					sender, outcome = 1, "the second sends"
				}
				require.NoError(t, err[sender])
				require.Equal(t, b.RequireInvited(t, email, 2).InvitationID, m[sender].InvitationID)
				var early *clerkinvite.CooldownError
				require.ErrorAs(t, err[1-sender], &early)
				require.True(t, early.Until.After(now))
				if early.Until.Equal(now.Add(time.Minute)) {
					return outcome + ", the other is late" // until the end of the cooldown
				}
				return outcome + ", the other at the same time" // until the end of the claim
			},
			reconciled: func() { b.RequireInvited(t, email, 2) },
		}
	})
}

// The person signs up without the link while the invitation is created.
func TestPromise2_InviteAgainstSignUp(t *testing.T) {
	t.Parallel()
	want := []string{"linked", "active by the webhook", "active by the webhook delivered again", "active by Reconcile"}
	race(t, want, func(t *testing.T, b *testkit.Rig, email string, r *rand.Rand) round {
		lost, again := r.IntN(2) == 0, r.IntN(2) == 0
		var err error
		var joined acceptance
		webhook := acceptLink(t, b, &joined, func() (clerkinvitetest.Webhook, error) { return b.Clerk.SignUp(email, true), nil })
		if lost {
			webhook = func() { joined.webhook = b.Clerk.SignUp(email, true) }
		}
		return round{
			sides: [2]func(){func() { _, err = b.TryInvite(t, email) }, webhook},
			outcome: func() string {
				require.NoError(t, err)
				require.NoError(t, joined.err)
				require.LessOrEqual(t, b.Clerk.EmailsTo(email), 1)
				page, err := b.List(t.Context(), clerkinvite.ListParams{TenantID: "acme", EmailPrefix: email})
				require.NoError(t, err)
				require.Len(t, page.Members, 1)
				now := page.Members[0]
				if b.Clerk.EmailsTo(email) == 0 {
					require.Equal(t, clerkinvite.StatusActive, now.Status)
					return "linked"
				}
				if !lost {
					require.Equal(t, clerkinvite.StatusActive, now.Status)
					return "active by the webhook"
				}
				require.Equal(t, clerkinvite.StatusPending, now.Status, "the webhook is lost")
				if !again {
					return "active by Reconcile"
				}
				joined.changed, joined.err = handleWebhook(t.Context(), b, joined.webhook)
				require.NoError(t, joined.err)
				require.Len(t, joined.changed, 1)
				return "active by the webhook delivered again"
			},
			reconciled: func() {
				require.Equal(t, clerkinvite.StatusActive, b.Member(t, email).Status)
				require.Equal(t, 1, strings.Count(statesOf(t, b, email), "active"))
				require.Empty(t, b.Clerk.OpenInvitations(email))
			},
		}
	})
}

// The person follows the link as soon as it exists.
func TestPromise1_InviteAgainstAccept(t *testing.T) {
	t.Parallel()
	race(t, []string{"before it is settled", "after it is settled"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		var err error
		var joined acceptance
		return round{
			sides: [2]func(){
				func() { _, err = b.TryInvite(t, email) },
				acceptLink(t, b, &joined, firstLink(b, email)),
			},
			outcome: func() string {
				require.NoError(t, err)
				require.NoError(t, joined.dead)
				require.NoError(t, joined.err)
				require.Len(t, joined.changed, 1)
				require.Equal(t, clerkinvite.StatusActive, b.Member(t, email).Status)
				require.Empty(t, b.Clerk.OpenInvitations(email))
				require.Equal(t, 1, b.Clerk.EmailsTo(email))
				if states := statesOf(t, b, email); states != "reserved > active" {
					require.Equal(t, "reserved > pending > active", states)
					return "after it is settled"
				}
				return "before it is settled"
			},
		}
	})
}

// The member is either erased, or delivered and still exists.
func TestPromise4_PurgeAgainstDeliver(t *testing.T) {
	t.Parallel()
	race(t, []string{"purged before", "purged after", "ErrConflict"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		reserved := reserveOne(t, b, email)
		var err, deliverErr error
		return round{
			sides: [2]func(){
				func() { err = b.Purge(t.Context(), testkit.Acme(email)) },
				func() { _, deliverErr = b.Deliver(t.Context(), nil) },
			},
			outcome: func() string {
				require.NoError(t, deliverErr)
				if err != nil {
					require.ErrorIs(t, err, clerkinvite.ErrConflict)
					require.Equal(t, reserved.ID, b.RequireInvited(t, email, 1).ID)
					require.NoError(t, b.Purge(t.Context(), testkit.Acme(email)))
					requirePurged(t, b, reserved)
					return "ErrConflict"
				}
				requirePurged(t, b, reserved)
				require.Empty(t, b.Clerk.OpenInvitations(email))
				if b.Clerk.EmailsTo(email) == 0 {
					return "purged before"
				}
				require.Equal(t, 1, b.Clerk.EmailsTo(email))
				return "purged after"
			},
			reconciled: func() { requirePurged(t, b, reserved) },
		}
	})
}

// The same while another email is being sent.
func TestPromise4_PurgeAgainstResend(t *testing.T) {
	t.Parallel()
	race(t, []string{"purged before", "purged after", "ErrConflict"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		invited := inviteBefore(t, b, email)
		var err, resendErr error
		return round{
			sides: [2]func(){
				func() { err = b.Purge(t.Context(), testkit.Acme(email)) },
				func() { _, resendErr = b.Resend(t.Context(), testkit.Acme(email)) },
			},
			outcome: func() string {
				if err != nil {
					require.ErrorIs(t, err, clerkinvite.ErrConflict)
					require.NoError(t, resendErr)
					require.Equal(t, invited.ID, b.RequireInvited(t, email, 2).ID)
					require.NoError(t, b.Purge(t.Context(), testkit.Acme(email)))
					requirePurged(t, b, invited)
					return "ErrConflict"
				}
				requirePurged(t, b, invited)
				require.Empty(t, b.Clerk.OpenInvitations(email))
				if b.Clerk.EmailsTo(email) == 1 {
					var early *clerkinvite.CooldownError
					require.True(t, errors.Is(resendErr, clerkinvite.ErrNotFound) || errors.As(resendErr, &early), "%v", resendErr)
					return "purged before"
				}
				require.NoError(t, resendErr)
				require.Equal(t, 2, b.Clerk.EmailsTo(email))
				return "purged after"
			},
			reconciled: func() { requirePurged(t, b, invited) },
		}
	})
}

// A webhook does not bring a purged member back.
func TestPromise4_PurgeAgainstAccept(t *testing.T) {
	t.Parallel()
	race(t, []string{"the link is dead", "accepted before", "active before"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		invited := b.MustInvite(t, email)
		var err error
		var joined acceptance
		return round{
			sides: [2]func(){
				func() { err = b.Purge(t.Context(), testkit.Acme(email)) },
				acceptLink(t, b, &joined, newestLink(b, email)),
			},
			outcome: func() string {
				require.NoError(t, err)
				require.NoError(t, joined.err)
				requirePurged(t, b, invited)
				require.Empty(t, b.Clerk.OpenInvitations(email))
				switch {
				case joined.dead != nil:
					return "the link is dead"
				case len(joined.changed) == 0:
					return "accepted before"
				}
				return "active before"
			},
			reconciled: func() { requirePurged(t, b, invited) },
		}
	})
}

// An update does not prevent a member from being erased.
func TestPurgeAgainstUpdate(t *testing.T) {
	t.Parallel()
	race(t, []string{"never corrected", "corrected before"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		invited := b.MustInvite(t, email)
		role := "editor"
		var err, updateErr error
		return round{
			sides: [2]func(){
				func() { err = b.Purge(t.Context(), testkit.Acme(email)) },
				func() {
					_, updateErr = b.Update(t.Context(), testkit.Acme(email), clerkinvite.MemberUpdate{Role: &role})
				},
			},
			outcome: func() string {
				require.NoError(t, err)
				requirePurged(t, b, invited)
				require.Empty(t, b.Clerk.OpenInvitations(email))
				if updateErr != nil {
					require.ErrorIs(t, updateErr, clerkinvite.ErrNotFound)
					return "never corrected"
				}
				return "corrected before"
			},
		}
	})
}

// A person is invited while the existing row is erased.
func TestPromise1_InviteAgainstPurge(t *testing.T) {
	t.Parallel()
	var want []string
	for _, state := range []string{"pending", "reserved", "revoked"} {
		want = append(want, state+": a duplicate, then purged", state+": purged, then invited")
		if state != "pending" {
			want = append(want, state+": invited, then purged", state+": ErrConflict")
		}
	}
	race(t, want, func(t *testing.T, b *testkit.Rig, email string, r *rand.Rand) round {
		var old *clerkinvite.Member
		state := []string{"pending", "reserved", "revoked"}[r.IntN(3)]
		switch state {
		case "pending":
			old = b.MustInvite(t, email)
		case "reserved":
			old = reserveOne(t, b, email)
		case "revoked":
			old = b.MustInvite(t, email)
			_, err := b.Revoke(t.Context(), testkit.Acme(email))
			require.NoError(t, err)
		}
		var err, purgeErr error
		return round{
			sides: [2]func(){
				func() { _, err = b.TryInvite(t, email) },
				func() { purgeErr = b.Purge(t.Context(), testkit.Acme(email)) },
			},
			outcome: func() string {
				sendsOf(t, b, email)
				outcome := "invited"
				var dup *clerkinvite.DuplicateEmailError
				if errors.As(err, &dup) {
					require.Equal(t, old.ID, dup.Member.ID)
					outcome = "a duplicate"
				} else {
					require.NoError(t, err)
				}
				now, getErr := b.Get(t.Context(), testkit.Acme(email))
				if purgeErr != nil {
					require.Equal(t, "invited", outcome)
					require.ErrorIs(t, purgeErr, clerkinvite.ErrConflict)
					require.NoError(t, getErr)
					require.Equal(t, old.ID, now.ID)
					b.RequireInvited(t, email, now.Send)
					return state + ": ErrConflict"
				}
				requirePurged(t, b, old)
				if getErr != nil {
					require.ErrorIs(t, getErr, clerkinvite.ErrNotFound)
					require.Empty(t, b.Clerk.OpenInvitations(email))
					return state + ": " + outcome + ", then purged"
				}
				require.Equal(t, "invited", outcome)
				require.NotEqual(t, old.ID, now.ID)
				require.Equal(t, 1, now.Send)
				b.RequireInvited(t, email, b.Clerk.EmailsTo(email))
				return state + ": purged, then invited"
			},
			reconciled: func() {
				if purgeErr == nil {
					requirePurged(t, b, old)
				}
			},
		}
	})
}

// In the end the member is removed, and no webhook brings them back.
func TestPromise5_RemoveAgainstWebhook(t *testing.T) {
	t.Parallel()
	race(t, []string{"the link is dead", "accepted before", "active before"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		b.MustInvite(t, email)
		var m *clerkinvite.Member
		var err error
		var joined acceptance
		return round{
			sides: [2]func(){
				func() { m, err = b.Remove(t.Context(), testkit.Acme(email)) },
				acceptLink(t, b, &joined, newestLink(b, email)),
			},
			outcome: func() string {
				require.NoError(t, err)
				require.NoError(t, joined.err)
				require.Equal(t, clerkinvite.StatusRemoved, m.Status)
				require.Empty(t, b.Clerk.OpenInvitations(email))
				if joined.dead == nil {
					changed, err := handleWebhook(t.Context(), b, joined.webhook)
					require.NoError(t, err)
					require.Empty(t, changed)
				}
				require.Equal(t, clerkinvite.StatusRemoved, b.Member(t, email).Status)
				if states := statesOf(t, b, email); states != "reserved > pending > removed" {
					require.Equal(t, "reserved > pending > active > removed", states)
					require.Len(t, joined.changed, 1)
					return "active before"
				}
				require.Empty(t, joined.changed)
				if joined.dead != nil {
					return "the link is dead"
				}
				return "accepted before"
			},
			reconciled: func() { require.Equal(t, clerkinvite.StatusRemoved, b.Member(t, email).Status) },
		}
	})
}

// Reconcile takes neither the older nor the newer link for a left-over.
func TestPromise4_ReconcileAgainstResend(t *testing.T) {
	t.Parallel()
	race(t, []string{"Reconcile revokes the older", "Resend revokes the older"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		inviteBefore(t, b, email)
		var report *clerkinvite.ReconcileReport
		var m *clerkinvite.Member
		var err, reconcileErr error
		return round{
			sides: [2]func(){
				func() { report, reconcileErr = b.Reconcile(t.Context(), nil) },
				func() { m, err = b.Resend(t.Context(), testkit.Acme(email)) },
			},
			watch: neverWithout(b, email),
			outcome: func() string {
				require.NoError(t, err)
				require.NoError(t, reconcileErr)
				require.Equal(t, m.InvitationID, b.RequireInvited(t, email, 2).InvitationID)
				leftOver := report.LeftOver
				report.Members, report.Invitations, report.LeftOver = 0, 0, 0
				require.Equal(t, clerkinvite.ReconcileReport{}, *report)
				if leftOver > 0 {
					require.Equal(t, 1, leftOver)
					return "Reconcile revokes the older"
				}
				return "Resend revokes the older"
			},
			reconciled: func() { b.RequireInvited(t, email, 2) },
		}
	})
}

// One of the two makes the member active, and only that one reports it.
func TestPromise4_ReconcileAgainstAccept(t *testing.T) {
	t.Parallel()
	race(t, []string{"active by the webhook", "active by Reconcile"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		b.MustInvite(t, email)
		var report *clerkinvite.ReconcileReport
		var err error
		var joined acceptance
		return round{
			sides: [2]func(){
				func() { report, err = b.Reconcile(t.Context(), nil) },
				acceptLink(t, b, &joined, newestLink(b, email)),
			},
			outcome: func() string {
				require.NoError(t, err)
				require.NoError(t, joined.dead)
				require.NoError(t, joined.err)
				require.Equal(t, 1, report.Activated+len(joined.changed))
				activated := report.Activated
				report.Members, report.Invitations, report.Activated = 0, 0, 0
				require.Equal(t, clerkinvite.ReconcileReport{}, *report)
				require.Equal(t, "reserved > pending > active", statesOf(t, b, email))
				if activated > 0 {
					return "active by Reconcile"
				}
				return "active by the webhook"
			},
		}
	})
}

// If two run at the same time, each change is made by one of them.
func TestPromise4_ReconcileAgainstReconcile(t *testing.T) {
	t.Parallel()
	race(t, []string{"the first alone", "the second alone", "both"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
		joined, ended, deleted, late := "joined-"+email, "ended-"+email, "deleted-"+email, "late-"+email
		p := testkit.Params("acme", late)
		p.ExpiresInDays = 1
		_, err := b.Invite(t.Context(), p)
		require.NoError(t, err)
		b.Clock.Advance(25 * time.Hour)
		for _, address := range []string{joined, ended, deleted} {
			b.MustInvite(t, address)
		}
		_, err = b.Clerk.Accept(joined)
		require.NoError(t, err)
		b.Clerk.RevokeInDashboard(b.Member(t, ended).InvitationID)
		w, err := b.Clerk.Accept(deleted)
		require.NoError(t, err)
		gone := b.Receive(t, w)[0]
		b.Clerk.DeleteUser(gone.ClerkUserID)
		b.Clock.Advance(time.Hour) // Clerk might not show a person who has just joined
		// An invitation of a send that no row waits for any more.
		b.Clerk.CreateForeign(deleted, map[string]any{"clerkinvite": map[string]any{"id": gone.ID, "send": 1}})

		var reports [2]*clerkinvite.ReconcileReport
		var errs [2]error
		return round{
			sides: [2]func(){
				func() { reports[0], errs[0] = b.Reconcile(t.Context(), nil) },
				func() { reports[1], errs[1] = b.Reconcile(t.Context(), nil) },
			},
			outcome: func() string {
				moves := [2]int{}
				sum := clerkinvite.ReconcileReport{}
				for i, report := range reports {
					require.NoError(t, errs[i])
					require.Zero(t, report.Unknown+report.Newer+len(report.AcceptedElsewhere))
					moves[i] = report.Activated + report.Revoked + report.Removed + report.Expired
					sum.Activated += report.Activated
					sum.Revoked += report.Revoked
					sum.Removed += report.Removed
					sum.Expired += report.Expired
					sum.LeftOver += report.LeftOver
				}
				require.Contains(t, []int{1, 2}, sum.LeftOver, "both may report that it was open")
				sum.LeftOver = 0
				require.Equal(t, clerkinvite.ReconcileReport{Activated: 1, Revoked: 1, Removed: 1, Expired: 1}, sum)
				require.Equal(t, "reserved > pending > active", statesOf(t, b, joined))
				require.Equal(t, "reserved > pending > revoked", statesOf(t, b, ended))
				require.Equal(t, "reserved > pending > active > removed", statesOf(t, b, deleted))
				require.Equal(t, "reserved > pending > expired", statesOf(t, b, late))
				require.Empty(t, b.Clerk.OpenInvitations(deleted))
				switch {
				case moves[1] == 0:
					return "the first alone"
				case moves[0] == 0:
					return "the second alone"
				}
				return "both"
			},
		}
	})
}
