package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// locked is a buffer for several goroutines.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// get returns the status and the text of a page.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	require.NoError(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return r.StatusCode, string(text)
}

// sdkClock is a clock for Clerk's SDK.
type sdkClock func() time.Time

func (c sdkClock) Now() time.Time { return c() }

func TestFakeDeliversWebhooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, Now: w.now})
	require.NoError(t, err)
	var app http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { app.ServeHTTP(rw, r) }))
	defer server.Close()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs locked
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"fake", "--listen", "127.0.0.1:0", "--webhooks", server.URL, "--organization", "org_acme", "--organization", "org_small=1", "--json"}, strings.NewReader(""), &out, &errs, environment{os.Getenv, w.now, w.now})
	}()
	testkit.Await(t, "the fake is ready", func() bool { return strings.Contains(errs.String(), "for tests only") })
	env := decode[map[string]string](t, result{stdout: out.String()})
	for _, name := range []string{"CLERK_API_URL", "CLERK_SECRET_KEY", "CLERK_WEBHOOK_SIGNING_SECRET"} {
		require.NotEmpty(t, env[name])
		w.vars[name] = env[name]
	}
	api, err := (&tool{env: environment{getenv: func(name string) string { return w.vars[name] }}}).api(nil)
	require.NoError(t, err)
	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Organizations: api, Store: w.store, Now: w.now})
	require.NoError(t, err)
	app = svc.WebhookHandler(verifier)

	require.Zero(t, w.run("import", w.file("tenant,email\nacme,ada@example.com\nacme,bob@example.com\n")).code)
	link := regexp.MustCompile(`email to ada@example\.com: (http\S+)\n`).FindStringSubmatch(errs.String())
	require.NotNil(t, link, errs.String())
	secret, err := svc.Link(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"})
	require.NoError(t, err)
	require.Equal(t, link[1], secret.Reveal())
	status, text := get(t, link[1])
	require.Equal(t, 200, status)
	require.Contains(t, text, "is accepted")
	testkit.Await(t, "the webhook", func() bool { return w.member("ada@example.com").Status == clerkinvite.StatusActive })
	status, _ = get(t, link[1])
	require.Equal(t, 409, status, "a second time")

	// Clerk's SDK accepts the user's session token.
	user, base := w.member("ada@example.com").ClerkUserID, strings.TrimSuffix(env["CLERK_API_URL"], "/v1")
	status, token := get(t, base+"/token/"+user)
	require.Equal(t, 200, status, token)
	backend := clerk.BackendConfig{Key: clerk.String(env["CLERK_SECRET_KEY"]), URL: clerk.String(env["CLERK_API_URL"])}
	signedIn := clerkhttp.WithHeaderAuthorization(clerkhttp.JWKSClient(jwks.NewClient(&clerk.ClientConfig{BackendConfig: backend})), clerkhttp.Clock(sdkClock(w.now)))(
		http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if claims, ok := clerk.SessionClaimsFromContext(r.Context()); ok {
				_, _ = io.WriteString(rw, claims.Subject)
			}
		}))
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(t, err)
	require.Contains(t, string(payload), `"azp":"http://localhost:3000"`)
	for bearer, want := range map[string]int{token: 200, token[:len(token)-8] + "AAAAAAAA": 401} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+bearer)
		rw := httptest.NewRecorder()
		signedIn.ServeHTTP(rw, r)
		require.Equal(t, want, rw.Code)
		if want == 200 {
			require.Equal(t, user, rw.Body.String())
		}
	}
	status, _ = get(t, base+"/token/user_unknown")
	require.Equal(t, 404, status)
	status, _ = get(t, base+"/v1/jwks")
	require.Equal(t, 401, status, "without the key")

	// An organization's invitation becomes active by the webhooks, and a member who leaves is removed.
	require.Equal(t, exitSome, w.run("import", w.file("tenant,email,organization\nacme,joan@example.com,org_acme\nacme,lin@example.com,org_small\nacme,mary@example.com,org_small\n")).code)
	require.Equal(t, clerkinvite.ReasonOrganizationFull, w.member("mary@example.com").Reason, "one seat")
	link = regexp.MustCompile(`email to joan@example\.com: (http\S+)\n`).FindStringSubmatch(errs.String())
	require.NotNil(t, link, errs.String())
	status, text = get(t, link[1])
	require.Equal(t, 200, status, text)
	testkit.Await(t, "the webhook", func() bool { return w.member("joan@example.com").Status == clerkinvite.StatusActive })
	joan := w.member("joan@example.com")
	w.pass(10 * time.Minute) // at first, an event may be older than the membership
	require.NoError(t, api.RemoveMember(t.Context(), clerkinvite.Membership{OrganizationID: "org_acme", UserID: joan.ClerkUserID}))
	testkit.Await(t, "the webhook", func() bool { return w.member("joan@example.com").Reason == clerkinvite.ReasonLeftOrganization })

	// Real keys are refused.
	w.vars["CLERK_SECRET_KEY"] = testKey
	r := w.run("resend", "acme", "bob@example.com")
	require.NotZero(t, r.code)
	require.NotContains(t, errs.String(), testKey)

	stop()
	require.Zero(t, <-ended)
	require.Contains(t, errs.String(), "webhook msg_000001: 204 No Content\n")
}

func TestFakeRefusesOtherMachines(t *testing.T) {
	t.Parallel()
	w := &world{t: t}
	for _, address := range []string{":4010", "0.0.0.0:4010", "[::]:0", "192.0.2.1:4010", "example.com:80", "localhost"} {
		r := w.run("fake", "--listen", address)
		require.Equal(t, exitUsage, r.code)
		require.Contains(t, r.stderr, "loopback")
	}
	r := w.run("fake", "--listen", "localhost:0", "--webhooks", "localhost:8080")
	require.Equal(t, exitUsage, r.code)
	for _, wrong := range []string{"acme", "org_acme=0", "org_acme=many", "org_acme=", "org_a/b"} {
		r = w.run("fake", "--organization", wrong)
		require.Equal(t, exitUsage, r.code)
		require.Contains(t, r.stderr, "must be like org_acme")
	}
	require.Contains(t, w.run("fake", "--organization", "org_a", "--organization", "org_a=2").stderr, "is set twice")
	require.Contains(t, w.run("fake", "--help").stdout, "not for production")
}
