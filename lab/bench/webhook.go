package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	svix "github.com/svix/svix-webhooks/go"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// plainEvent is what Verify reads of an event, for encoding/json.
type plainEvent struct {
	Type       string `json:"type"`
	InstanceID string `json:"instance_id"`
	Timestamp  int64  `json:"timestamp"`
	Data       struct {
		ID             string `json:"id"`
		PrimaryEmailID string `json:"primary_email_address_id"`
		Banned         bool   `json:"banned"`
		CreatedAt      int64  `json:"created_at"`
		Emails         []struct {
			ID           string `json:"id"`
			Address      string `json:"email_address"`
			Reserved     bool   `json:"reserved"`
			Verification *struct {
				Status string `json:"status"`
			} `json:"verification"`
		} `json:"email_addresses"`
	} `json:"data"`
}

// verifiers are the ways to verify a webhook.
type verifiers struct {
	ours     *clerkinvite.WebhookVerifier
	standard *standardwebhooks.Webhook
	svix     *svix.Webhook
}

func newVerifiers() (v verifiers, err error) {
	v.ours, err = clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}})
	if err != nil {
		return v, err
	}
	if v.standard, err = standardwebhooks.NewWebhook(clerkinvitetest.WebhookSecret); err != nil {
		return v, err
	}
	v.svix, err = svix.NewWebhook(clerkinvitetest.WebhookSecret)
	return v, err
}

// renamed returns the headers under the names that Standard Webhooks has for them.
func renamed(h http.Header) http.Header {
	out := http.Header{}
	out.Set(standardwebhooks.HeaderWebhookID, h.Get("Svix-Id"))
	out.Set(standardwebhooks.HeaderWebhookTimestamp, h.Get("Svix-Timestamp"))
	out.Set(standardwebhooks.HeaderWebhookSignature, h.Get("Svix-Signature"))
	return out
}

// partWebhook compares verifying with the libraries for that, and handling with its own statements and request.
func partWebhook(ctx context.Context, b *bench, r *report) error {
	r.part("3. Webhooks",
		"Verify is of a user.created, by one key. It checks the signature with the library of Standard Webhooks and reads the event. "+
			"Beside it: that library and that of Svix, each followed by one json.Unmarshal of the same fields, and each alone, which is less work: no event is read.",
		"Verify and HandleEvent make a pending member active. Beside it: that library, json.Unmarshal, and the two statements and the request that HandleEvent "+
			"makes, caught and sent again with other values. Each member must have become active as the right user, and no email gone out.")
	v, err := newVerifiers()
	if err != nil {
		return err
	}
	if err := compareVerify(ctx, b, r, v); err != nil {
		return err
	}
	return compareHandle(ctx, b, r, v)
}

func compareVerify(ctx context.Context, b *bench, r *report, v verifiers) error {
	hook := clerkinvitetest.NewClerk().SignUp("ada@example.com", true)
	run := func(verify func(payload []byte, svixHeader, header http.Header) (userID, email string, err error), reads bool) func(context.Context) (sample, error) {
		return func(context.Context) (sample, error) {
			hook.At = time.Now() // it must not be old
			svixHeader := hook.Sign(clerkinvitetest.WebhookSecret)
			header := renamed(svixHeader)
			began := time.Now()
			for range b.verify {
				userID, email, err := verify(hook.Payload, svixHeader, header)
				if err != nil {
					return sample{}, err
				}
				if reads && (userID != "user_000001" || email != "ada@example.com") {
					return sample{}, incomparable("it reads the event as of user %q", userID)
				}
			}
			return sample{ops: b.verify, elapsed: time.Since(began)}, nil
		}
	}
	read := func(payload []byte) (string, string, error) {
		var ev plainEvent
		if err := json.Unmarshal(payload, &ev); err != nil {
			return "", "", err
		}
		if ev.Type != clerkinvite.EventUserCreated || len(ev.Data.Emails) != 1 || ev.Data.Emails[0].Verification == nil ||
			ev.Data.Emails[0].Verification.Status != "verified" {
			return "", "", nil
		}
		return ev.Data.ID, ev.Data.Emails[0].Address, nil
	}
	others := []variant{
		{"standard-webhooks, and json.Unmarshal", run(func(payload []byte, _, header http.Header) (string, string, error) {
			if err := v.standard.Verify(payload, header); err != nil {
				return "", "", err
			}
			return read(payload)
		}, true)},
		{"svix, and json.Unmarshal", run(func(payload []byte, header, _ http.Header) (string, string, error) {
			if err := v.svix.Verify(payload, header); err != nil {
				return "", "", err
			}
			return read(payload)
		}, true)},
		{"standard-webhooks alone", run(func(payload []byte, _, header http.Header) (string, string, error) {
			return "", "", v.standard.Verify(payload, header)
		}, false)},
		{"svix alone", run(func(payload []byte, header, _ http.Header) (string, string, error) {
			return "", "", v.svix.Verify(payload, header)
		}, false)},
	}
	name := fmt.Sprintf("Verify, %d bytes", len(hook.Payload))
	all, err := interleave(ctx, 3*b.rounds, append([]variant{{"Verify", run(func(payload []byte, header, _ http.Header) (string, string, error) {
		ev, err := v.ours.Verify(payload, header)
		if err != nil {
			return "", "", err
		}
		if ev.Type != clerkinvite.EventUserCreated || len(ev.User.Emails) != 1 || !ev.User.Emails[0].Verified {
			return "", "", nil
		}
		return ev.UserID, ev.User.Emails[0].Address, nil
	}, true)}}, others...)...)
	if err != nil {
		return r.failed(name, err)
	}
	for i, other := range others {
		g := atMost(1.2)
		if strings.HasPrefix(other.name, "svix") {
			g = nil // the goal is about the library that is wrapped
		}
		r.compare(name, short(all[0].each()), other.name, short(all[i+1].each()), "time", ratio(all[0], all[i+1], duration), g)
	}
	return nil
}

// memberID is the id of the n-th member that is written by SQL.
const memberID = `('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid`

// pendingMembers writes so many members that are pending, the first of number 0.
//
//nolint:dupword // one time in four columns
const pendingMembers = `
INSERT INTO clerkinvite_member (tenant_id, id, email, status, clerk_user_id, invitation_id, send, sent, role, params, version, attempts,
	reserved_at, invited_at, settled_at, updated_at, expires_at)
SELECT $2, ` + memberID + `, 'person-' || lpad(i::text, 8, '0') || '@example.com', 'pending', 'pending_inv_' || lpad(i::text, 8, '0'),
	'inv_' || lpad(i::text, 8, '0'), 1, 1, $3, '{"expires_in_days":30}', 2, 1, t.at, t.at, t.at, t.at, until
FROM generate_series(0, $1::integer - 1) i, LATERAL (SELECT now() - interval '1 minute' AS at, now() + interval '30 days' AS until) t`

func compareHandle(ctx context.Context, b *bench, r *report, v verifiers) (err error) {
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
	sent, asked := &statements{}, &exchanges{base: f.transport}
	caught, err := db.pool(ctx, 1, sent)
	if err != nil {
		return err
	}
	pool, err := db.pool(ctx, 1, nil)
	if err != nil {
		return err
	}
	if err := clerkinvite.NewPgxStore(pool, nil).Migrate(ctx); err != nil {
		return err
	}
	svc, err := newService(pool, f, f.transport)
	if err != nil {
		return err
	}

	// prepare makes n members, and the users that they become.
	prepare := func(ctx context.Context, n int) ([]clerkinvitetest.Webhook, error) {
		if _, err := pool.Exec(ctx, "TRUNCATE clerkinvite_history, clerkinvite_member"); err != nil {
			return nil, err
		}
		if _, err := pool.Exec(ctx, pendingMembers, n, tenant, role); err != nil {
			return nil, err
		}
		if err := f.reset(ctx, 0); err != nil {
			return nil, err
		}
		emails := make([]string, n)
		for i := range emails {
			emails[i] = person(i)
		}
		return f.signUp(ctx, emails)
	}

	// One is handled to catch what it takes.
	events, err := prepare(ctx, 1)
	if err != nil {
		return err
	}
	catching, err := newService(caught, f, asked)
	if err != nil {
		return err
	}
	ev, err := v.ours.Verify(events[0].Payload, events[0].Sign(clerkinvitetest.WebhookSecret))
	if err != nil {
		return err
	}
	changed, err := catching.HandleEvent(ctx, ev)
	if err != nil {
		return err
	}
	list := sent.take()
	if len(changed) != 1 || len(list) != 2 || len(asked.list) != 1 {
		return fmt.Errorf("HandleEvent was of %d statements and %d requests, not two and one: the raw way has to be written anew", len(list), len(asked.list))
	}
	first := changed[0]

	run := func(handle func(ctx context.Context, i int, payload []byte, header http.Header) error) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) {
			events, err := prepare(ctx, b.events)
			if err != nil {
				return sample{}, err
			}
			headers := make([]http.Header, len(events))
			for i, e := range events {
				headers[i] = e.Sign(clerkinvitetest.WebhookSecret)
			}
			s, err := timed(ctx, 1, len(events), func(ctx context.Context, i int) error { return handle(ctx, i, events[i].Payload, headers[i]) })
			if err != nil {
				return s, err
			}
			return s, checkActive(ctx, pool, f, events)
		}
	}
	all, err := interleave(ctx, b.rounds,
		variant{"HandleEvent", run(func(ctx context.Context, _ int, payload []byte, header http.Header) error {
			ev, err := v.ours.Verify(payload, header)
			if err != nil {
				return err
			}
			_, err = svc.HandleEvent(ctx, ev)
			return err
		})},
		variant{"raw", run(func(ctx context.Context, i int, payload []byte, header http.Header) error {
			if err := v.standard.Verify(payload, renamed(header)); err != nil {
				return err
			}
			var ev plainEvent
			if err := json.Unmarshal(payload, &ev); err != nil {
				return err
			}
			values := strings.NewReplacer(first.ID, fmt.Sprintf("01900000-0000-7000-8000-%012x", i), person(0), person(i),
				first.InvitationID, fmt.Sprintf("inv_%08d", i), first.ClerkUserID, ev.Data.ID)
			if err := list[0].replay(ctx, pool, values); err != nil {
				return err
			}
			answer, err := asked.list[0].replay(ctx, f, values)
			if err != nil {
				return err
			}
			var users []struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal(answer, &users); err != nil {
				return err
			}
			if len(users) != 1 || users[0].ID != ev.Data.ID {
				return incomparable("the user was not found")
			}
			return list[1].replay(ctx, pool, values)
		})})
	name := "Verify and HandleEvent"
	if err != nil {
		return r.failed(name, err)
	}
	r.compare(name, short(all[0].each()), "raw statements and request", short(all[1].each()), "time", ratio(all[0], all[1], duration), nil)
	return nil
}

// checkActive checks that each person is active as the user of the event, that this is in the history, and that nobody has got an email.
func checkActive(ctx context.Context, pool *pgxpool.Pool, f *fake, events []clerkinvitetest.Webhook) error {
	mail, err := f.mail(ctx)
	if err != nil {
		return err
	}
	want := make(map[string]string, len(events))
	for _, e := range events {
		var ev plainEvent
		if err := json.Unmarshal(e.Payload, &ev); err != nil {
			return err
		}
		want[ev.Data.Emails[0].Address] = ev.Data.ID
	}
	rows, err := pool.Query(ctx, `
SELECT m.email, m.status, m.clerk_user_id, (
	SELECT count(*) FROM clerkinvite_history h
	WHERE h.member_id = m.id AND h.from_status = 'pending' AND h.to_status = 'active' AND h.version = m.version)
FROM clerkinvite_member m`)
	if err != nil {
		return err
	}
	type member struct {
		Email, Status, ClerkUserID string
		Moves                      int
	}
	members, err := pgx.CollectRows(rows, pgx.RowToStructByPos[member])
	if err != nil {
		return err
	}
	if len(members) != len(events) || len(mail) != 0 {
		return incomparable("%d rows instead of %d, and %d people with an email", len(members), len(events), len(mail))
	}
	for _, m := range members {
		if m.Status != "active" || m.ClerkUserID != want[m.Email] || m.Moves != 1 {
			return incomparable("a row is %s, and its moves are %d", m.Status, m.Moves)
		}
	}
	return nil
}
