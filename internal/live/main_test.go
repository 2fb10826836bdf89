package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

const testKey = "sk_test_0123456789abcdefghijklmnop"

// TestLive runs the whole program against every behavior that Clerk may have, and compares the differences from the
// assumptions that the program reports.
func TestLive(t *testing.T) {
	otherwise := map[string][]string{
		"list hides the url":        {"~ fields in the list: expires_at"},
		"query matches parts":       {"~ list by a part of an address: found"},
		"case sensitive":            {"~ list by an address in capitals: not found", "~ look-up of a mixed-case address in lower case: not found"},
		"unverified holders hidden": {"~ unverified holder in the look-up: not found"},
		"unverified holders block":  {"~ create for an unverified holder: HTTP 422 form_identifier_exists, meta: param_name; with ignore_existing: invited"},
		"identifier exists is 400":  {"~ create for a verified user: HTTP 400 form_identifier_exists, meta: param_name"},
		"errors without addresses":  {"~ second create: HTTP 400 duplicate_record, no meta", "~ bulk with an invited address: HTTP 400 duplicate_record, no meta"},
		"ignore_existing revokes":   {"~ older invitation after ignore_existing: not pending any more"},
		"bulk keeps partial":        {"~ other address of that bulk: invited"},
		"bulk refuses users":        {"~ bulk with ignore_existing for a verified user: HTTP 422 form_identifier_exists, meta: email_addresses, param_name"},
		"bulk shuffles":             {"~ order of a bulk response (one sample): another"},
		"lag":                       {"~ new invitation in the list: late, at look 3, 1ms apart"},
		"no expires_at":             {"~ fields of a create's response: url", "~ fields in the list: url"},
		"no url":                    {"~ fields of a create's response: expires_at", "~ fields in the list: expires_at"},
	}
	for _, b := range clerkinvitetest.Behaviors() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.SetBehavior(b.Behavior)
			f.SetLimits(clerkinvitetest.DocumentedLimits())

			code, out := f.run(t.Context(), "-yes")

			require.Zero(t, code, out)
			f.requireClean(t, out)
			require.Zero(t, f.Emails())
			require.NotContains(t, out, testKey)
			require.NotContains(t, out, "://")
			require.NotContains(t, out, "ticket")
			summary := summaryOf(t, out)
			var got []string
			same := 0
			for _, line := range summary {
				require.NotContains(t, line, "@")
				switch sign, _, _ := strings.Cut(line, " "); sign {
				case "=":
					same++
				case "~", "!", "?":
					got = append(got, line)
				}
			}
			require.Equal(t, otherwise[b.Name], got, out)
			require.Equal(t, 20, same+len(got), out)
			require.Equal(t, 5, strings.Count(strings.Join(summary, "\n"), "ok, "), out)
			require.LessOrEqual(t, f.Requests()[clerkinvitetest.CallCreate]+f.Requests()[clerkinvitetest.CallCreateBulk], maxCreates)
			if b.Name == "default" {
				require.Len(t, f.made.addresses, addresses)
				require.Equal(t, users, f.made.users)
				require.InDelta(t, 80, f.requests.Load(), 20, "as the plan says")
				t.Log("\n" + out)
			}
		})
	}
}

func TestSendsNothingWithoutYes(t *testing.T) {
	for _, c := range []struct {
		key, says string
		args      []string
		code      int
	}{
		{"", "CLERK_SECRET_KEY is not set", []string{"-yes"}, 0},
		{testKey, "To do it", nil, 0},
		{"sk_live_0123456789", "not the key of a development instance", []string{"-yes"}, 2},
		{"pk_test_0123456789", "not the key of a development instance", []string{"-yes"}, 2},
		{"whatever", "not the key of a development instance", []string{"-yes"}, 2},
		{testKey + "\n", "line break", []string{"-yes"}, 2},
		{testKey, "flag provided but not defined", []string{"-yess"}, 2},
	} {
		f := newFake(t)
		f.key = c.key
		code, out := f.run(t.Context(), c.args...)
		require.Equal(t, c.code, code, out)
		require.Contains(t, out, c.says)
		require.Zero(t, f.requests.Load())
		if c.key != "" {
			require.NotContains(t, out, strings.TrimSpace(c.key))
		}
	}
}

func TestWrongKey(t *testing.T) {
	f := newFake(t)
	f.SetSecretKey("sk_test_another")
	code, out := f.run(t.Context(), "-yes")
	require.Equal(t, 1, code)
	require.Contains(t, out, "nothing was created: clerk: HTTP 401 clerk_key_invalid")
	require.EqualValues(t, 1, f.requests.Load())
}

func TestCleansUpAfterCtrlC(t *testing.T) {
	for nth := range int32(15) {
		f := newFake(t)
		ctx, cancel := context.WithCancel(t.Context())
		var creates atomic.Int32
		f.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			switch {
			case call != clerkinvitetest.CallCreate:
			case when == clerkinvitetest.Before && creates.Add(1) == nth+1:
				f.SetBehavior(clerkinvitetest.Behavior{Lag: true}) // no list shows this invitation
				f.frozen = true
			case when == clerkinvitetest.After && creates.Load() == nth+1:
				cancel() // the response is under way
			}
		})
		code, out := f.run(ctx, "-yes")
		if ctx.Err() != nil {
			require.Equal(t, 1, code, out)
			require.Contains(t, out, "INTERRUPTED")
		}
		f.requireClean(t, out)
		cancel()
	}
}

func TestCleansUpAfterLostResponses(t *testing.T) {
	f := newFake(t)
	f.loseUsers = true
	f.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.HTML502, Times: -1})
	f.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreateBulk, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset, Times: -1})
	code, out := f.run(t.Context(), "-yes")
	require.Equal(t, 1, code)
	require.Contains(t, out, "FAIL, the flow ends here: a new address is pending")
	require.Contains(t, out, "? the rest of this probe: clerk: HTTP 502")
	require.Contains(t, out, "0 left")
	require.NotZero(t, f.made.users)
	f.requireClean(t, out)
}

func TestLeavesOthersUnchanged(t *testing.T) {
	f := newFake(t)
	f.unfiltered = true
	stranger := f.AddVerifiedUser("user@example.org")
	f.CreateForeign("invited@example.org", nil)
	_, out := f.run(t.Context(), "-yes")
	f.requireClean(t, out)
	require.Len(t, f.OpenInvitations("invited@example.org"), 1)
	users, err := f.FindUsers(t.Context(), clerkinvite.UserQuery{IDs: []string{stranger.ID}})
	require.NoError(t, err)
	require.Len(t, users, 1)
}

func TestReportsWhatIsLeft(t *testing.T) {
	f := newFake(t)
	f.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRevoke, Kind: clerkinvitetest.JSON500, Times: -1})
	code, out := f.run(t.Context(), "-yes")
	require.Equal(t, 1, code)
	require.Contains(t, out, "LEFT AT CLERK: invitation inv_0")
	require.NotContains(t, out, "LEFT AT CLERK: user")
	require.NotContains(t, out, " 0 left")
	require.Equal(t, f.made.users, f.made.deleted)
}

func TestObeysItsLimits(t *testing.T) {
	f := newFake(t)
	for _, w := range []*wire{{creates: maxCreates}, {requests: maxRequests}} {
		s, err := newSession(testKey, f.url, "live-", io.Discard, 0)
		require.NoError(t, err)
		*s.wire = *w
		s.create(t.Context(), s.address(), false)
		require.ErrorContains(t, s.err, "this program's own limit is reached")
	}
	require.Zero(t, f.requests.Load())
}

func TestReportsUnsupportedBehavior(t *testing.T) {
	s, err := newSession(testKey, "", "", io.Discard, 0)
	require.NoError(t, err)
	s.tell("second create", "invited", "HTTP 400 duplicate_record", "HTTP 4.. duplicate_record", "")
	s.tell("second create", "HTTP 409 duplicate_record", "HTTP 400 duplicate_record", "HTTP 4.. duplicate_record", "")
	require.Equal(t, []string{"! second create: invited", "~ second create: HTTP 409 duplicate_record"}, s.summary)
}

var address = regexp.MustCompile(`clerkinvite-\d+-\d+\+clerk_test@example\.com`)

// fake is the fake Clerk with two more endpoints for this program, to create and delete users.
type fake struct {
	*clerkinvitetest.Clerk

	key      string
	url      string
	requests atomic.Int32
	mu       sync.Mutex
	looks    int // since the last change

	loseUsers  bool // the responses to creating users are lost
	frozen     bool // a lagging change is never shown
	unfiltered bool // lists and look-ups do not filter

	made struct {
		addresses      map[string]bool // in the bodies of all requests
		users, deleted int
	}
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{Clerk: clerkinvitetest.NewClerk(), key: testKey}
	f.SetSecretKey(testKey)
	f.made.addresses = make(map[string]bool)
	mux := http.NewServeMux()
	mux.Handle("/", f.Handler())
	mux.HandleFunc("POST /v1/users", func(w http.ResponseWriter, r *http.Request) {
		var p struct {
			Emails []string `json:"email_address"`
		}
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&p))
		f.made.users++
		u := f.AddVerifiedUser(p.Emails[0])
		if f.loseUsers {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		writeObject(w, "user", u.ID)
	})
	mux.HandleFunc("DELETE /v1/users/{id}", func(w http.ResponseWriter, r *http.Request) {
		f.made.deleted++
		f.DeleteUser(r.PathValue("id"))
		writeObject(w, "user", r.PathValue("id"))
	})
	mux.HandleFunc("POST /v1/email_addresses", func(w http.ResponseWriter, r *http.Request) {
		var p struct {
			UserID   string `json:"user_id"`
			Email    string `json:"email_address"`
			Verified bool   `json:"verified"`
		}
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&p))
		f.AddEmail(p.UserID, clerkinvitetest.EmailSpec{Address: p.Email, Verified: p.Verified})
		writeObject(w, "email_address", "idn_made")
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.requests.Add(1)
		f.looks++
		if r.Method != http.MethodGet {
			f.looks = 0
		} else if f.looks == 3 && !f.frozen {
			f.Settle() // for the behavior that lags
		}
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		r.Body = io.NopCloser(bytes.NewReader(body))
		for _, email := range address.FindAllString(strings.ToLower(string(body)), -1) {
			f.made.addresses[email] = true
		}
		if f.unfiltered {
			r.URL.RawQuery = "limit=500&order_by=-created_at"
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.url = server.URL + "/v1"
	return f
}

func writeObject(w http.ResponseWriter, object, id string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Clerk-Trace-Id", "trace")
	_, _ = fmt.Fprintf(w, `{"object":%q,"id":%q,"deleted":true}`, object, id)
}

func (f *fake) run(ctx context.Context, args ...string) (code int, out string) {
	var b strings.Builder
	code = run(ctx, args, f.key, &b, f.url, time.Millisecond)
	return code, b.String()
}

// requireClean checks that nothing is left at Clerk.
func (f *fake) requireClean(t *testing.T, out string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	require.NotEmpty(t, f.made.addresses)
	for email := range f.made.addresses {
		require.Empty(t, f.OpenInvitations(email), out)
	}
	require.Equal(t, f.made.users, f.made.deleted, out)
}

// summaryOf returns the lines between the marks.
func summaryOf(t *testing.T, out string) []string {
	t.Helper()
	_, block, ok := strings.Cut(out, "--- summary")
	require.True(t, ok, out)
	return strings.Split(strings.TrimSpace(block), "\n")[1:]
}
