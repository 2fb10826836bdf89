package contract_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

const key = "sk_test_1"

// wire is the transport between the adapter and the fake. It passes everything on and fails the
// test if the descriptions do not allow it.
type wire struct {
	t    testing.TB
	all  []*description
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if version := r.Header.Get("Clerk-Api-Version"); !slices.Contains(versions, version) {
		w.t.Errorf("the adapter asks for version %q, with which nothing is compared here", version)
	}
	x, resp, err := observe(w.next, r)
	for _, c := range x.check(w.all) {
		w.t.Errorf("%s\nrequest: %s %s %.300s\nanswer: %.2000s", c, r.Method, r.URL, x.sent, x.body)
	}
	return resp, err
}

// bundle is a fake Clerk, the real adapter, and the wire between them.
type bundle struct {
	clerk *clerkinvitetest.Clerk
	clock *clerkinvitetest.Clock
	api   *clerkapi.Client
	all   []*description
	root  string // with /v1
	http  *http.Transport
}

func setup(t *testing.T) *bundle {
	t.Helper()
	c := clerkinvitetest.NewClerk()
	b := serve(t, c.Handler())
	b.clerk = c
	c.SetNow(b.clock.Now)
	return b
}

// serve returns a bundle in which the handler takes Clerk's place.
func serve(t *testing.T, h http.Handler) *bundle {
	t.Helper()
	all := descriptions(t)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	b := &bundle{all: all, root: srv.URL + "/v1", http: tr, clock: clerkinvitetest.NewClock(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC))}
	var err error
	b.api, err = clerkapi.New(key, &clerkapi.Options{
		BaseURL: b.root, HTTPClient: &http.Client{Transport: &wire{t, all, tr}},
	})
	require.NoError(t, err)
	return b
}

// send makes a request as another client might. headers are names and values; an empty value
// removes the default.
func (b *bundle) send(t *testing.T, method, target, body string, headers ...string) *exchange {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, b.root+target, content)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+key)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Del(headers[i]); headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	x, resp, err := observe(b.http, r)
	require.NoError(t, err)
	_ = resp.Body.Close()
	return x
}

// requireValid asserts that neither side of the exchange is wrong.
func (b *bundle) requireValid(t *testing.T, x *exchange) {
	t.Helper()
	require.Empty(t, x.check(b.all), "%s %s %.300s\nanswer: %.300s", x.request.Method, x.request.URL, x.sent, x.body)
}
