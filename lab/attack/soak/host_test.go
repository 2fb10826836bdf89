package soak_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

const (
	tenants  = 20
	lease    = 8 * time.Second
	maxConns = 8
	callers  = 6 // goroutines of a host that call verbs
)

func address(i int) string { return fmt.Sprintf("person%d@example.com", i) }
func tenant(i int) string  { return fmt.Sprintf("tenant%d", i) }

// report is a line that a host prints.
type report struct {
	Sample  *measured        `json:"sample,omitempty"`
	Pass    *pass            `json:"pass,omitempty"`
	Acked   *clerkinvite.Ref `json:"acked,omitempty"`   // an Invite of this member succeeded
	Problem string           `json:"problem,omitempty"` // an error that no caller should ever get
	Calls   map[string]int64 `json:"calls,omitempty"`   // at its end: by verb and outcome
}

// pass is one pass of Deliver that ended without an error.
type pass struct{ Begin, End time.Time }

// measured is what a host process uses.
type measured struct {
	At                time.Time
	Goroutines, Files int
	Conns             int32
	Heap, Resident    int64 // bytes; the heap after garbage collection
	Leftover          int   `json:",omitempty"` // at its end: leaked goroutines
	LeftoverStacks    string
}

type host struct {
	*clerkinvite.Service
	pool    *pgxpool.Pool
	clerk   string // URL
	hook    string // URL of its webhook endpoint
	people  int
	print   *json.Encoder
	mu      sync.Mutex
	calls   map[string]int64
	callsMu sync.Mutex
}

func (h *host) say(r report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.print.Encode(r)
}

// runHost is one process of the application: Run in the background, callers, and a webhook
// endpoint. It shuts down on SIGTERM.
func runHost() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	h := &host{clerk: os.Getenv("SOAK_CLERK"), people: atoi(os.Getenv("SOAK_PEOPLE")), print: json.NewEncoder(os.Stdout), calls: make(map[string]int64)}
	seed, err := strconv.ParseUint(os.Getenv("SOAK_SEED"), 10, 64)
	if err != nil {
		return err
	}
	cfg, err := pgxpool.ParseConfig(os.Getenv("SOAK_DSN"))
	if err != nil {
		return err
	}
	cfg.MaxConns = maxConns
	if h.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: h.clerk + "/v1", HTTPClient: &http.Client{Transport: transport}, Timeout: 2 * time.Second, CreateTimeout: 2 * time.Second})
	if err != nil {
		return err
	}
	h.Service, err = clerkinvite.New(clerkinvite.Config{API: api, Store: clerkinvite.NewPgxStore(h.pool, nil), Lease: lease, ResendCooldown: -1,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}})
	if err != nil {
		return err
	}
	before := runtime.NumGoroutine()
	server := httptest.NewServer(h.WebhookHandler(verifier))
	h.hook = server.URL

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Run(ctx, &clerkinvite.RunOptions{Interval: 500 * time.Millisecond, ReconcileInterval: 20 * time.Second}); !errors.Is(err, context.Canceled) {
			h.say(report{Problem: fmt.Sprint("Run ended: ", err)})
		}
	})
	// A loop beside Run reports when its passes begin and end, so that the test can see whether a
	// member is stuck.
	wg.Go(func() {
		for ctx.Err() == nil {
			p := pass{Begin: time.Now()}
			if _, err := h.Deliver(ctx, nil); err == nil {
				p.End = time.Now()
				h.say(report{Pass: &p})
			}
			sleep(ctx, time.Second)
		}
	})
	for i := range callers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i))) // #nosec G404 -- to be repeated by its seed
			for ctx.Err() == nil {
				h.call(ctx, random)
				sleep(ctx, time.Duration(random.Int64N(int64(400*time.Millisecond))))
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			h.say(report{Sample: h.measure()})
			sleep(ctx, 5*time.Second)
		}
	})
	fmt.Println(`{}`)
	<-ctx.Done()
	wg.Wait()

	// Goroutines that are left after everything has ended are leaks.
	server.Close()
	transport.CloseIdleConnections()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	last := h.measure()
	for range 200 { // connections need a moment to close
		if last.Leftover = runtime.NumGoroutine() - before; last.Leftover <= 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if last.Leftover > 0 {
		var stacks bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		last.LeftoverStacks = stacks.String()
	}
	h.say(report{Sample: last, Calls: h.calls})
	h.pool.Close()
	return nil
}

func (h *host) measure() *measured {
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	m := &measured{At: time.Now(), Goroutines: runtime.NumGoroutine(), Conns: h.pool.Stat().TotalConns(), Heap: int64(mem.HeapAlloc)}
	files, _ := os.ReadDir("/proc/self/fd")
	m.Files = len(files)
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		pages, _ := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
		m.Resident = pages * int64(os.Getpagesize())
	}
	return m
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// call does one thing that an application does.
func (h *host) call(ctx context.Context, random *rand.Rand) {
	ref := clerkinvite.Ref{TenantID: tenant(random.IntN(tenants)), Email: address(random.IntN(h.people))}
	// One caller in ten goes away in the middle.
	if random.IntN(10) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(random.Int64N(int64(50*time.Millisecond))))
		defer cancel()
	}
	switch k := random.IntN(100); {
	case k < 34:
		_, err := h.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email, SkipEmail: k == 0})
		h.done("Invite", err)
		if err == nil {
			h.say(report{Acked: &ref})
		}
	case k < 38:
		var params []clerkinvite.InviteParams
		for range 1 + random.IntN(30) {
			params = append(params, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: address(random.IntN(h.people))})
		}
		results, err := h.InviteMany(ctx, params, nil)
		h.done("InviteMany", err)
		for i, r := range results {
			h.done("InviteMany, one", r.Err)
			if r.Err == nil {
				h.say(report{Acked: &clerkinvite.Ref{TenantID: ref.TenantID, Email: params[i].Email}})
			}
		}
	case k < 42:
		_, err := h.Reserve(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email})
		h.done("Reserve", err)
		if err == nil {
			h.say(report{Acked: &ref})
		}
	case k < 62:
		h.person(ctx, random, "accept", ref.Email)
	case k < 66:
		h.person(ctx, random, "signup", ref.Email)
	case k < 67:
		h.person(ctx, random, "unverified", ref.Email)
	case k < 72:
		h.person(ctx, random, "delete", ref.Email)
	case k < 73:
		h.person(ctx, random, "dashboard", ref.Email)
	case k < 80:
		_, err := h.Resend(ctx, ref)
		h.done("Resend", err)
	case k < 84:
		_, err := h.Revoke(ctx, ref)
		h.done("Revoke", err)
	case k < 90:
		_, err := h.Remove(ctx, ref)
		h.done("Remove", err)
	case k < 95:
		m, err := h.Get(ctx, ref)
		h.done("Get", err)
		if err == nil && m.Status == clerkinvite.StatusActive {
			_, err = h.ResolveUser(ctx, m.ClerkUserID)
			h.done("ResolveUser", err)
		}
	default:
		_, err := h.List(ctx, clerkinvite.ListParams{TenantID: ref.TenantID, Limit: 50})
		h.done("List", err)
	}
}

// person makes a person do something at Clerk and delivers the webhook: usually once, sometimes
// twice, and sometimes never, which Reconcile must detect.
func (h *host) person(ctx context.Context, random *rand.Rand, what, email string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.clerk+"/people/"+what+"?"+url.Values{"email": {email}}.Encode(), nil)
	if err != nil {
		h.done(what, err)
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return // the caller went away
	}
	var hook clerkinvitetest.Webhook
	err = json.NewDecoder(resp.Body).Decode(&hook)
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || err != nil {
		return // nothing to do
	}
	times := 1
	switch random.IntN(10) {
	case 0:
		times = 2
	case 1, 2:
		times = 0
	}
	for range times {
		for range 3 { // Svix repeats what was not accepted
			hook.At = time.Now()
			resp, err := http.DefaultClient.Do(hook.Request(clerkinvitetest.WebhookSecret, h.hook).WithContext(ctx))
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			h.count(fmt.Sprint("webhook, ", resp.StatusCode))
			if resp.StatusCode == http.StatusNoContent {
				break
			}
			if resp.StatusCode != http.StatusInternalServerError {
				h.say(report{Problem: fmt.Sprint("webhook: ", resp.Status)})
			}
		}
	}
}

// done counts an outcome and reports errors that no fault explains.
func (h *host) done(verb string, err error) {
	var (
		duplicate  *clerkinvite.DuplicateEmailError
		trouble    *clerkinvite.ClerkInvitationError
		transition *clerkinvite.TransitionError
		cooldown   *clerkinvite.CooldownError
		postgres   *pgconn.PgError
		connect    *pgconn.ConnectError
		network    net.Error
	)
	outcome := "ok"
	switch {
	case err == nil:
	case errors.As(err, &duplicate):
		outcome = "duplicate"
	case errors.As(err, &trouble):
		outcome = string(trouble.Outcome)
	case errors.As(err, &transition):
		outcome = "no such move"
	case errors.As(err, &cooldown): // another process is resending the same member
		outcome = "resend under way"
	case errors.Is(err, clerkinvite.ErrNotFound):
		outcome = "not found"
	case errors.Is(err, clerkinvite.ErrConflict):
		outcome = "conflict"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		outcome = "caller gone"
	case errors.As(err, &postgres) && postgres.Code == "57P01", errors.As(err, &connect), errors.As(err, &network),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "conn closed"):
		outcome = "database gone"
	default:
		outcome = "unexpected"
		h.say(report{Problem: fmt.Sprintf("%s: %v", verb, err)})
	}
	h.count(verb + ", " + outcome)
}

func (h *host) count(what string) {
	h.callsMu.Lock()
	defer h.callsMu.Unlock()
	h.calls[what]++
}
