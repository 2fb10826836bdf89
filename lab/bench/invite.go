package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

const (
	secretKey = "sk_test_bench" // of the fake, which takes any
	tenant    = "acme"
	role      = "editor"

	// poolSize is how many connections to PostgreSQL everybody shares who is compared.
	poolSize = 16
)

// person returns the n-th address.
func person(n int) string { return fmt.Sprintf("person-%08d@example.com", n) }

// newService returns the library on PostgreSQL and on the fake, through the real SDK.
func newService(pool *pgxpool.Pool, f *fake, transport http.RoundTripper) (*clerkinvite.Service, error) {
	api, err := clerkapi.New(secretKey, &clerkapi.Options{BaseURL: f.url + "/v1", HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return nil, err
	}
	return clerkinvite.New(clerkinvite.Config{API: api, Store: clerkinvite.NewPgxStore(pool, nil)})
}

// partInvite compares Invite with the flow that people write by hand, and with the least that its own statements and
// requests can cost.
func partInvite(ctx context.Context, b *bench, r *report) (err error) {
	f, err := startFake(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	db, err := b.server.database(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	pool, err := db.pool(ctx, poolSize, nil)
	if err != nil {
		return err
	}
	if err := clerkinvite.NewPgxStore(pool, nil).Migrate(ctx); err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, baselineTable); err != nil {
		return err
	}
	svc, err := newService(pool, f, f.transport)
	if err != nil {
		return err
	}
	byHand := newBaseline(pool, f)
	limit, err := captureInvite(ctx, db, f)
	if err != nil {
		return err
	}

	r.part("1. Invite: one person",
		"By hand: the official SDK's user.List and invitation.Create, then one INSERT. user.List makes two requests, since it also counts; so "+
			"these are three requests and one statement, and nothing that a crash, a race or a lost answer could be mended from.",
		"Limit: the two statements and the two requests that Invite makes, caught on their way and sent again by pgx and net/http with other "+
			"values; answers are read, but of all of them only the invitation's id is decoded.",
		fmt.Sprintf("The same fake of Clerk for all, in its own process, without latency or with one that is said; the same %d connections to PostgreSQL, the same "+
			"http.Transport. Each run begins with empty tables and some calls that do not count, and is compared only if each person has one row and exactly one email, of the invitation "+
			"that the row names.", poolSize))
	steps := ""
	for _, load := range b.loads {
		limit.forget()
		run := func(table string, invite func(ctx context.Context, email string) error) func(context.Context) (sample, error) {
			return func(ctx context.Context) (sample, error) {
				if _, err := pool.Exec(ctx, "TRUNCATE clerkinvite_history, clerkinvite_member, team_member"); err != nil {
					return sample{}, err
				}
				if err := f.reset(ctx, load.latency); err != nil {
					return sample{}, err
				}
				// An emptied table makes each connection plan anew. That is no one's daily work.
				_, err := timed(ctx, load.callers, 4*load.callers, func(ctx context.Context, i int) error {
					return invite(ctx, fmt.Sprintf("warm-%d@example.com", i))
				})
				if err != nil {
					return sample{}, err
				}
				s, err := timed(ctx, load.callers, load.calls, func(ctx context.Context, i int) error { return invite(ctx, person(i)) })
				if err != nil {
					return s, err
				}
				return s, checkInvited(ctx, pool, f, table, load.calls)
			}
		}
		all, err := interleave(ctx, b.rounds,
			variant{"Invite", run("clerkinvite_member", func(ctx context.Context, email string) error {
				_, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: tenant, Email: email, Role: role})
				return err
			})},
			variant{"by hand", run("team_member", func(ctx context.Context, email string) error {
				return byHand.invite(ctx, tenant, email, role)
			})},
			variant{"limit", run("clerkinvite_member", func(ctx context.Context, email string) error {
				return limit.invite(ctx, pool, f, email)
			})})
		name := fmt.Sprintf("Invite, callers: %d", load.callers)
		if load.latency > 0 {
			name += fmt.Sprintf(", a request takes %v", load.latency)
		}
		if err != nil {
			if err := r.failed(name, err); err != nil {
				return err
			}
			continue
		}
		figure := func(s series) string {
			text := fmt.Sprintf("%s, p50 %s", perSecond(s.rate()), short(s.percentile(0.5)))
			if load.calls >= 100 { // of fewer the last is no percentile
				text += ", p99 " + short(s.percentile(0.99))
			}
			return text
		}
		r.compare(name, figure(all[0]), "by hand", figure(all[1]), "throughput", ratio(all[0], all[1], throughput), atLeast(1.3))
		r.compare(name, figure(all[0]), "limit", figure(all[2]), "throughput", ratio(all[0], all[2], throughput), atLeast(0.9))
		if steps == "" { // of the first load: one caller, no latency
			steps = limit.means()
		}
	}
	fmt.Fprintf(r.out, "\nWhat the limit's time is, on average, for one caller and without latency: %s.\n", steps)
	return nil
}

// checkInvited checks that n people are pending, each with exactly one email, of the invitation that the row names.
func checkInvited(ctx context.Context, pool *pgxpool.Pool, f *fake, table string, n int) error {
	mail, err := f.mail(ctx)
	if err != nil {
		return err
	}
	maps.DeleteFunc(mail, func(email string, _ []string) bool { return !strings.HasPrefix(email, "person-") })
	rows, err := pool.Query(ctx, "SELECT tenant_id, email, status, clerk_user_id FROM "+table+" WHERE email LIKE 'person-%'")
	if err != nil {
		return err
	}
	type member struct{ TenantID, Email, Status, ClerkUserID string }
	members, err := pgx.CollectRows(rows, pgx.RowToStructByPos[member])
	if err != nil {
		return err
	}
	if len(members) != n || len(mail) != n {
		return incomparable("%d rows and %d people with an email instead of %d", len(members), len(mail), n)
	}
	for _, m := range members {
		sent := mail[m.Email]
		if len(sent) != 1 || m.TenantID != tenant || m.Status != "pending" || m.ClerkUserID != "pending_"+sent[0] {
			return incomparable("a row that is %s has %d emails, or is not of its invitation", m.Status, len(sent))
		}
	}
	return nil
}

// inviteLimit is what one Invite sends.
type inviteLimit struct {
	insert, update statement
	find, create   exchange
	member         *clerkinvite.Member // in whose place others go

	took  [4]atomic.Int64 // by insert, find, create and update
	calls atomic.Int64
}

// forget begins to measure the steps anew.
func (l *inviteLimit) forget() {
	for i := range l.took {
		l.took[i].Store(0)
	}
	l.calls.Store(0)
}

// means says what each step takes.
func (l *inviteLimit) means() string {
	var list []string
	for i, name := range []string{"insert", "look-up of the user", "create", "update"} {
		list = append(list, name+" "+short(time.Duration(l.took[i].Load()/max(l.calls.Load(), 1))))
	}
	return strings.Join(list, ", ")
}

// captureInvite invites somebody, and keeps what is sent.
func captureInvite(ctx context.Context, db *database, f *fake) (*inviteLimit, error) {
	sent, asked := &statements{}, &exchanges{base: f.transport}
	pool, err := db.pool(ctx, 1, sent)
	if err != nil {
		return nil, err
	}
	svc, err := newService(pool, f, asked)
	if err != nil {
		return nil, err
	}
	m, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: tenant, Email: "captured@example.com", Role: role})
	if err != nil {
		return nil, err
	}
	list := sent.take()
	if len(list) != 2 || len(asked.list) != 2 {
		return nil, fmt.Errorf("an Invite was of %d statements and %d requests, not two and two: the limit has to be written anew", len(list), len(asked.list))
	}
	return &inviteLimit{insert: list[0], update: list[1], find: asked.list[0], create: asked.list[1], member: m}, nil
}

// invite does the same for somebody else.
func (l *inviteLimit) invite(ctx context.Context, pool *pgxpool.Pool, f *fake, email string) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(email, "@") // what stands before the @ is the same in a URL
	values := []string{"captured", name, l.member.ID, id.String()}
	replacer := strings.NewReplacer(values...)
	began := time.Now()
	step := func(i int) {
		now := time.Now()
		l.took[i].Add(int64(now.Sub(began)))
		began = now
	}
	if err := l.insert.replay(ctx, pool, replacer); err != nil {
		return err
	}
	step(0)
	users, err := l.find.replay(ctx, f, replacer)
	if err != nil {
		return err
	}
	if string(users) != "[]" {
		return incomparable("there is a user")
	}
	step(1)
	answer, err := l.create.replay(ctx, f, replacer)
	if err != nil {
		return err
	}
	var invitation struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(answer, &invitation); err != nil {
		return err
	}
	step(2)
	err = l.update.replay(ctx, pool, strings.NewReplacer(append(values, l.member.InvitationID, invitation.ID)...))
	step(3)
	l.calls.Add(1)
	return err
}
