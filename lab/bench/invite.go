package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

const (
	secretKey = "sk_test_bench" // the fake takes any
	tenant    = "acme"
	role      = "editor"
	poolSize  = 16 // connections to PostgreSQL, shared by all callers of a variant
)

// person returns the n-th address.
func person(n int) string { return fmt.Sprintf("person-%08d@example.com", n) }

// fake is a fake Clerk behind HTTP. All variants use the same connections to it.
type fake struct {
	*httptest.Server

	clerk     atomic.Pointer[clerkinvitetest.Clerk]
	handler   atomic.Pointer[http.Handler]
	latency   atomic.Int64
	transport *http.Transport
}

func newFake() *fake {
	f := &fake{transport: &http.Transport{MaxIdleConnsPerHost: 1000}} // with the default of two, most calls would open a connection
	f.reset(0)
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Duration(f.latency.Load()))
		(*f.handler.Load()).ServeHTTP(w, r)
	}))
	return f
}

// reset replaces it with an empty Clerk.
func (f *fake) reset(latency time.Duration) {
	clerk := clerkinvitetest.NewClerk()
	handler := clerk.Handler()
	f.clerk.Store(clerk)
	f.handler.Store(&handler)
	f.latency.Store(int64(latency))
}

// service returns the library on PostgreSQL and, by Clerk's SDK, on the fake.
func (f *fake) service(pool *pgxpool.Pool, transport http.RoundTripper) (*clerkinvite.Service, error) {
	api, err := clerkapi.New(secretKey, &clerkapi.Options{BaseURL: f.URL + "/v1", HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return nil, err
	}
	return clerkinvite.New(clerkinvite.Config{API: api, Store: clerkinvite.NewPgxStore(pool, nil)})
}

// benchInvite compares Invite with the flow written by hand and with its limit: the
// statements and requests of an Invite, sent again without the library.
func benchInvite(ctx context.Context, s size, pool *pgxpool.Pool, out io.Writer) error {
	f := newFake()
	defer f.Close()
	if _, err := pool.Exec(ctx, byHandTable); err != nil {
		return err
	}
	svc, err := f.service(pool, f.transport)
	if err != nil {
		return err
	}
	byHand := newByHand(pool, f)
	limit, err := record(ctx, pool.Config(), f)
	if err != nil {
		return err
	}
	for _, load := range s.loads {
		variant := func(name, table string, invite func(ctx context.Context, email string) error) variant {
			return variant{name, func(ctx context.Context) (float64, error) {
				if _, err := pool.Exec(ctx, "TRUNCATE clerkinvite_history, clerkinvite_member, team_member"); err != nil {
					return 0, err
				}
				f.reset(load.latency)
				// Connections plan again for an emptied table, which a host does not see every day.
				if _, err := timed(ctx, load.callers, 4*load.callers, func(ctx context.Context, i int) error {
					return invite(ctx, fmt.Sprintf("warm-%d@example.com", i))
				}); err != nil {
					return 0, err
				}
				rate, err := timed(ctx, load.callers, load.calls, func(ctx context.Context, i int) error { return invite(ctx, person(i)) })
				if err != nil {
					return 0, err
				}
				return rate, checkInvited(ctx, pool, f, table, load.calls)
			}}
		}
		what := fmt.Sprintf("Invite, callers: %d, Clerk responds after %v", load.callers, load.latency)
		if err := compare(ctx, out, what, s.rounds,
			variant("Invite", "clerkinvite_member", func(ctx context.Context, email string) error {
				_, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: tenant, Email: email, Role: role})
				return err
			}),
			variant("by hand", "team_member", byHand.invite),
			variant("its limit", "clerkinvite_member", func(ctx context.Context, email string) error { return limit.invite(ctx, pool, f, email) }),
		); err != nil {
			return err
		}
	}
	return nil
}

// checkInvited checks that n people are pending, each with one email, which is the one
// of the invitation in the row.
func checkInvited(ctx context.Context, pool *pgxpool.Pool, f *fake, table string, n int) error {
	sent, emails := make(map[string]string), 0
	for _, mail := range f.clerk.Load().SentMail() {
		if strings.HasPrefix(mail.To, "person-") {
			sent[mail.To] = "pending_" + mail.InvitationID
			emails++
		}
	}
	rows, err := pool.Query(ctx, "SELECT email, clerk_user_id FROM "+table+" WHERE tenant_id = $1 AND status = 'pending' AND email LIKE 'person-%'", tenant)
	if err != nil {
		return err
	}
	members, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Email, UserID string }])
	if err != nil {
		return err
	}
	if len(members) != n || len(sent) != n || emails != n {
		return fmt.Errorf("%d rows and %d emails to %d people instead of %d", len(members), emails, len(sent), n)
	}
	for _, m := range members {
		if sent[m.Email] != m.UserID {
			return errors.New("a row does not have the invitation that was sent")
		}
	}
	return nil
}

// recording is what one Invite sends. Each statement has one parameter, a text.
type recording struct {
	base       http.RoundTripper
	statements [][2]string // SQL and parameter
	requests   []*http.Request
	bodies     []string
	member     *clerkinvite.Member // the one invited, to be replaced by others
}

// TraceQueryStart implements pgx.QueryTracer.
func (r *recording) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if len(data.Args) == 1 {
		r.statements = append(r.statements, [2]string{data.SQL, fmt.Sprint(data.Args[0])})
	}
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*recording) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// RoundTrip implements http.RoundTripper.
func (r *recording) RoundTrip(req *http.Request) (*http.Response, error) {
	body := []byte(nil)
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	r.requests, r.bodies = append(r.requests, req), append(r.bodies, string(body))
	return r.base.RoundTrip(req)
}

// record invites one person and keeps what is sent.
func record(ctx context.Context, config *pgxpool.Config, f *fake) (*recording, error) {
	r := &recording{base: f.transport}
	config.ConnConfig.Tracer = r
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	svc, err := f.service(pool, r)
	if err != nil {
		return nil, err
	}
	r.member, err = svc.Invite(ctx, clerkinvite.InviteParams{TenantID: tenant, Email: "recorded@example.com", Role: role})
	if err == nil && (len(r.statements) != 2 || len(r.requests) != 2) {
		err = fmt.Errorf("%d statements and %d requests were recorded instead of two and two: rewrite recording.invite", len(r.statements), len(r.requests))
	}
	return r, err
}

// invite sends the same for another person. It reads all responses and decodes the
// invitation's ID only.
func (r *recording) invite(ctx context.Context, pool *pgxpool.Pool, f *fake, email string) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(email, "@") // which looks the same in a URL
	values := []string{"recorded", name, r.member.ID, id.String()}
	if err := r.query(ctx, pool, 0, values); err != nil {
		return err
	}
	if users, err := r.request(ctx, f, 0, values); err != nil || string(users) != "[]" {
		return fmt.Errorf("find users: %q, %w", users, err)
	}
	response, err := r.request(ctx, f, 1, values)
	if err != nil {
		return err
	}
	var invitation struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(response, &invitation); err != nil {
		return err
	}
	return r.query(ctx, pool, 1, append(values, r.member.InvitationID, invitation.ID))
}

// query sends a statement again with other values.
func (r *recording) query(ctx context.Context, pool *pgxpool.Pool, i int, values []string) error {
	_, err := pool.Exec(ctx, r.statements[i][0], strings.NewReplacer(values...).Replace(r.statements[i][1]))
	return err
}

// request sends a request again with other values.
func (r *recording) request(ctx context.Context, f *fake, i int, values []string) ([]byte, error) {
	replace := strings.NewReplacer(values...).Replace
	req, err := http.NewRequestWithContext(ctx, r.requests[i].Method, f.URL+replace(r.requests[i].URL.RequestURI()), strings.NewReader(replace(r.bodies[i])))
	if err != nil {
		return nil, err
	}
	req.Header = r.requests[i].Header // no transport changes it
	resp, err := f.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return body, err
}
