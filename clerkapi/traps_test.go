package clerkapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

// clerkapi avoids these traps in clerk-sdk-go v2.7.0. A test's name begins with the number of its trap.
//
//	01-03  An error that is not JSON loses its status and headers. "status" in a body replaces the real one.
//	04,05  A redirect, 204, null or {} becomes an empty object. A 2xx that cannot be decoded loses its status.
//	06,07  The SDK's own timeout of 5 s looks like the caller's. Errors contain URLs with addresses.
//	08-10  Bodies are read without a limit and sent without Content-Length. Redirects of a POST are followed.
//	11,15  IDs are not escaped. An empty one lists all users.
//	12,13,19  nil panics or is posted as null. Objects come with errors. Invalid metadata fails late.
//	14,16  user.List makes two requests. Organizations lack bulk creates and notify.
//	17,18,20  The SDK writes to its config, reads a global key, claims to be v2.0.0, and has no webhooks.
//
// Trap 20 has no test, because the library does not use that part of the SDK. TestCreateIsSentOnceOverHTTP2 is about net/http.

func TestTrap01NonJSONErrorKeepsStatusRetryAfterAndTrace(t *testing.T) {
	t.Parallel()
	bodies := map[string]string{
		"empty": "", "html": "<html><body>" + email + " https://x.example " + key + "</body></html>", "null": "null", "object": "{}",
		"null errors": `{"errors":null}`, "no errors": `{"errors":[]}`, "errors of another type": `{"errors":"` + email + `"}`,
		"array": "[]", "cut": `{"errors":[{"code":`, "text": "upstream connect error",
	}
	for name, body := range bodies {
		for _, status := range []int{400, 403, 422, 429, 500, 502, 503} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				t.Parallel()
				f := answer(t, status, body, "Retry-After", "7", "Clerk-Trace-Id", "trace_1", "Content-Type", "text/html")
				c := newClient(t, f.URL, clerkapi.Options{})
				for _, m := range methods {
					_, err := m.call(t.Context(), c)
					api := apiError(t, err)
					require.Equal(t, status, api.StatusCode, m.name)
					require.Equal(t, 7*time.Second, api.RetryAfter)
					require.Equal(t, "trace_1", api.TraceID)
					require.Empty(t, api.Code)
					require.Error(t, api.Err)
					requireNotCallers(t, err)
				}
				require.Len(t, f.requests(), len(methods))
			})
		}
	}
}

func TestTrap01RetryAfterForms(t *testing.T) {
	t.Parallel()
	const date = "Sun, 06 Nov 1994 08:49:37 GMT"
	for value, want := range map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"-5":                             0,
		"NaN":                            0,
		"soon":                           0,
		"1":                              time.Second,
		"3600":                           time.Hour,
		"1.5":                            1500 * time.Millisecond,
		"86401":                          24 * time.Hour,
		"99999999999999999999999":        24 * time.Hour,
		"1e999":                          24 * time.Hour,
		"-1e999":                         0,
		"Sun, 06 Nov 1994 08:50:07 GMT":  30 * time.Second,
		"Sunday, 06-Nov-94 08:50:07 GMT": 30 * time.Second,
		"Sun, 06 Nov 1994 08:49:00 GMT":  0,
		"Sun, 06 Nov 2094 08:49:37 GMT":  24 * time.Hour,
	} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			f := answer(t, 429, clerkError("too_many_requests", ""), "Retry-After", value, "Date", date)
			_, err := create(t, newClient(t, f.URL, clerkapi.Options{}))
			require.Equal(t, want, apiError(t, err).RetryAfter)
		})
	}
	t.Run("date without Date", func(t *testing.T) {
		t.Parallel()
		f := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header()["Date"] = nil
			reply(w, 429, "", "Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		})
		_, err := create(t, newClient(t, f.URL, clerkapi.Options{}))
		require.InDelta(t, time.Hour, apiError(t, err).RetryAfter, float64(time.Minute))
	})
}

func TestTrap02StatusInBodyDoesNotOverride(t *testing.T) {
	t.Parallel()
	for _, inBody := range []string{`200`, `"422"`, `null`, `{}`} {
		f := answer(t, 422, `{"status":`+inBody+`,"errors":[{"code":"form_param_missing","message":"m","long_message":"l","meta":{"param_name":"email_address"}}]}`)
		_, err := create(t, newClient(t, f.URL, clerkapi.Options{}))
		api := apiError(t, err)
		require.Equal(t, 422, api.StatusCode)
		require.Equal(t, "form_param_missing", api.Code)
		require.Equal(t, "email_address", api.Meta["param_name"])
		require.NoError(t, api.Err)
	}
}

func TestTrap03TraceIDSources(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		header []string
		body   string
		want   string
	}{
		{[]string{"Clerk-Trace-Id", "trace_header", "Cf-Ray", "ray"}, clerkError("x", ""), "trace_header"},
		{[]string{"Cf-Ray", "ray"}, clerkError("x", ""), "trace_body"},
		{[]string{"Cf-Ray", "ray"}, "<html>", "ray"},
		{nil, clerkError("x", ""), "trace_body"},
		{nil, "", ""},
	} {
		f := answer(t, 400, tc.body, tc.header...)
		_, err := create(t, newClient(t, f.URL, clerkapi.Options{}))
		require.Equal(t, tc.want, apiError(t, err).TraceID)
	}
}

func TestTrap04NoSuccessWithoutContent(t *testing.T) {
	t.Parallel()
	oddElements := []string{"[null]", "[{}]", "[[]]", `{"data":[null]}`, `{"data":[{"id":""}]}`, `[{"id":"a b"}]`}
	for _, tc := range []struct {
		status int
		body   string
	}{
		{200, ""}, {200, "null"}, {200, "{}"}, {200, " \n"}, {200, "[null]"}, {200, "[{}]"}, {200, "[[]]"}, {200, `"x"`}, {200, "0"}, {200, "true"},
		{200, `{"data":null,"total_count":0}`}, {200, `{"data":{}}`}, {200, `{"total_count":0}`}, {200, `{"data":[null]}`}, {200, `{"data":[{"id":""}]}`},
		{200, `{"id":""}`}, {200, `{"id":"inv_1/../x"}`}, {200, `{"id":"-x"}`}, {200, `{"id":7}`}, {200, `[{"id":"a b"}]`}, {200, `{"id":"` + strings.Repeat("x", 256) + `"}`},
		{200, clerkError("internal_clerk_error", "")},
		{201, "null"}, {202, ""}, {204, ""}, {206, ""}, {299, "{}"},
		{300, anInv}, {301, anInv}, {304, ""}, {307, "[]"}, {399, "[" + anInv + "]"},
	} {
		t.Run(fmt.Sprintf("%d %.20s", tc.status, tc.body), func(t *testing.T) {
			t.Parallel()
			f := answer(t, tc.status, tc.body, "Clerk-Trace-Id", "trace_1")
			c := newClient(t, f.URL, clerkapi.Options{})
			for _, m := range methods {
				v, err := m.call(t.Context(), c)
				if m.lists() && slices.Contains(oddElements, tc.body) { // an odd one keeps its place in the page
					require.NoError(t, err)
					require.Len(t, v, 1)
					require.Empty(t, v.([]clerkinvite.Invitation)[0].ID)
					continue
				}
				api := apiError(t, err)
				require.Nil(t, v, m.name)
				require.Equal(t, tc.status, api.StatusCode, m.name)
				require.Equal(t, "trace_1", api.TraceID)
				require.Error(t, api.Err)
			}
			require.Len(t, f.requests(), len(methods), "such a response is not retried")
		})
	}
	t.Run("only the result of a look-up can be empty", func(t *testing.T) {
		t.Parallel()
		for _, body := range []string{"[]", `{"data":[],"total_count":0}`} {
			c := newClient(t, answer(t, 200, body).URL, clerkapi.Options{})
			for _, m := range methods {
				_, err := m.call(t.Context(), c)
				require.Equal(t, m.lookUp, err == nil, m.name)
			}
		}
	})
}

func TestTrap05Undecodable2xxIsNotASuccess(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"<html>welcome</html>", anInv[:len(anInv)/2], anInv + anInv, "[" + anInv, `{"data":[` + anInv, strings.Replace(anInv, `"inv_1"`, "1", 1)} {
		f := answer(t, 200, body, "Clerk-Trace-Id", "trace_1")
		c := newClient(t, f.URL, clerkapi.Options{})
		for _, m := range methods {
			v, err := m.call(t.Context(), c)
			api := apiError(t, err)
			require.Nil(t, v)
			require.Equal(t, 200, api.StatusCode)
			require.Equal(t, "trace_1", api.TraceID)
			require.ErrorContains(t, api.Err, "cannot be read")
		}
	}
	t.Run("a fraction in a time is ignored", func(t *testing.T) {
		t.Parallel()
		f := answer(t, 200, strings.Replace(anInv, "1790000000000", "1790000000000.5", 1))
		inv, err := create(t, newClient(t, f.URL, clerkapi.Options{}))
		require.NoError(t, err)
		require.Equal(t, time.UnixMilli(1790000000000).UTC(), *inv.ExpiresAt)
	})
}

func TestTrap06TimeoutsAreDistinguished(t *testing.T) {
	t.Parallel()
	for _, m := range methods {
		for _, tc := range []struct {
			name                string
			o                   clerkapi.Options
			lookUp, create      time.Duration
			saysLookUp, saysAll string
		}{
			{"default", clerkapi.Options{}, 5 * time.Second, 20 * time.Second, "5s, the limit set by Options.Timeout", "20s, the limit set by Options.CreateTimeout"},
			{"option", clerkapi.Options{Timeout: time.Minute, CreateTimeout: time.Second}, time.Minute, time.Second, "Options.Timeout", "Options.CreateTimeout"},
			{"http.Client's", clerkapi.Options{HTTPClient: &http.Client{Timeout: 7 * time.Second}}, 5 * time.Second, 7 * time.Second, "Options.Timeout", "Options.HTTPClient.Timeout"},
			{"transport's", clerkapi.Options{HTTPClient: &http.Client{Transport: &http.Transport{ResponseHeaderTimeout: time.Second}}}, time.Second, time.Second, "timeout awaiting response headers", "timeout awaiting response headers"},
		} {
			t.Run(m.name+": "+tc.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					n := 0
					c := pipeClient(t, tc.o, func(conn net.Conn) { n++; _ = readRequest(conn); hang(conn) })
					start := time.Now()
					_, err := m.call(t.Context(), c)
					api := apiError(t, err)
					require.Zero(t, api.StatusCode)
					require.False(t, api.NotSent)
					require.True(t, timedOut(err))
					requireNotCallers(t, err)
					if !m.lookUp {
						require.ErrorContains(t, err, tc.saysAll)
						require.Equal(t, 1, n)
						require.Equal(t, tc.create, time.Since(start))
						return
					}
					require.ErrorContains(t, err, tc.saysLookUp)
					require.Equal(t, 3, n)
					pauses := time.Since(start) - 3*tc.lookUp // 200 ms and 600 ms, ±50 %
					require.GreaterOrEqual(t, pauses, 400*time.Millisecond)
					require.LessOrEqual(t, pauses, 1200*time.Millisecond)
				})
			})
		}
		t.Run(m.name+": caller's deadline", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := 0
				c := pipeClient(t, clerkapi.Options{}, func(conn net.Conn) { n++; _ = readRequest(conn); hang(conn) })
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := m.call(ctx, c)
				require.False(t, apiError(t, err).NotSent)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, context.Canceled)
				require.Equal(t, 1, n)
			})
		})
		t.Run(m.name+": caller's cancel", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				why, n := errors.New("shutting down"), 0
				c := pipeClient(t, clerkapi.Options{}, func(conn net.Conn) { n++; _ = readRequest(conn); cancel(why); hang(conn) })
				_, err := m.call(ctx, c)
				require.False(t, apiError(t, err).NotSent)
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorIs(t, err, why)
				require.NotErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, 1, n)
			})
		})
		t.Run(m.name+": caller's deadline in a pause", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if !m.lookUp {
					return
				}
				c := pipeClient(t, clerkapi.Options{Timeout: time.Second}, func(conn net.Conn) { _ = readRequest(conn); hang(conn) })
				ctx, cancel := context.WithTimeout(t.Context(), time.Second+50*time.Millisecond)
				defer cancel()
				start := time.Now()
				_, err := m.call(ctx, c)
				require.True(t, timedOut(err))
				requireNotCallers(t, apiError(t, err)) // the context has not ended yet
				require.Equal(t, time.Second, time.Since(start))
			})
		})
		t.Run(m.name+": ended before", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := pipeClient(t, clerkapi.Options{}, func(net.Conn) { t.Error("sent") })
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_, err := m.call(ctx, c)
				require.True(t, apiError(t, err).NotSent)
				require.ErrorIs(t, err, context.Canceled)
			})
		})
	}
}

// late is a context whose deadline has passed but whose timer has not fired yet. A dialer
// checks the deadline itself and can fail before the timer.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

func TestTrap06DeadlineBeforeItsTimerFires(t *testing.T) {
	t.Parallel()
	for _, m := range methods {
		_, err := m.call(late{t.Context()}, newClient(t, "http://clerk.test", clerkapi.Options{}))
		require.True(t, apiError(t, err).NotSent)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
}

func TestTrap07NoAddressInAnyErrorText(t *testing.T) {
	t.Parallel()
	// apiError checks the texts. These bodies and errors contain personal data.
	dirty := fmt.Errorf("GET https://user:pw@proxy.example/v1/users?email_address=secret.person%%2Btag%%40example.com for %s with %s failed", email, key)
	for name, tr := range map[string]http.RoundTripper{
		"transport's text": roundTripper(func(*http.Request) (*http.Response, error) { return nil, dirty }),
		"nested url.Error": roundTripper(func(r *http.Request) (*http.Response, error) {
			_, err := (&http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })}).Get(r.URL.String())
			return nil, fmt.Errorf("middleware: %w", err)
		}),
		"nil response": roundTripper(func(*http.Request) (*http.Response, error) { return nil, nil }), //nolint:nilnil // breaks the contract of RoundTripper
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, "http://clerk.test", clerkapi.Options{HTTPClient: &http.Client{Transport: tr}})
			for _, m := range methods {
				_, err := m.call(t.Context(), c)
				api := apiError(t, err)
				require.False(t, api.NotSent, "a transport that reports no connections may have sent it")
				if name == "nested url.Error" {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				}
			}
		})
	}
	t.Run("Clerk's text", func(t *testing.T) {
		t.Parallel()
		f := answer(t, 400, clerkError("duplicate_record", `{"email_addresses":["`+email+`"]}`))
		_, err := create(t, newClient(t, f.URL, clerkapi.Options{}))
		api := apiError(t, err)
		require.Equal(t, []any{email}, api.Meta["email_addresses"])
		require.Contains(t, api.LongMessage, email)
	})
	t.Run("refused connection", func(t *testing.T) {
		t.Parallel()
		f := answer(t, 200, "[]")
		f.Close()
		for _, m := range methods {
			_, err := m.call(t.Context(), newClient(t, f.URL, clerkapi.Options{}))
			apiError(t, err)
		}
	})
}

func TestTrap08BodiesAreLimited(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 502} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			spaces := []byte(strings.Repeat(" ", 1<<20))
			f := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
				w.WriteHeader(status)
				for sent := 0; sent < 1<<30 && r.Context().Err() == nil; sent += len(spaces) { // a gigabyte, or until the client closes
					if _, err := w.Write(spaces); err != nil {
						return
					}
				}
			})
			c := newClient(t, f.URL, clerkapi.Options{Timeout: time.Minute, CreateTimeout: time.Minute})
			for _, m := range methods {
				if m.lookUp && (m.name != "FindUsers" || status == 502) {
					continue // the same code as FindUsers, which would retry a 502
				}
				_, err := m.call(t.Context(), c)
				api := apiError(t, err)
				require.Equal(t, status, api.StatusCode)
				require.Error(t, api.Err)
			}
		})
	}
	t.Run("a full page fits", func(t *testing.T) {
		t.Parallel()
		meta := strings.Repeat("x", 6<<10) // 3 MB in all, above the limit for a POST
		users := make([]string, 499)
		for i := range users {
			users[i] = fmt.Sprintf(`{"id":"user_%d","public_metadata":{"a":%q}}`, i, meta)
		}
		f := answer(t, 200, "["+strings.Join(users, ",")+"]")
		found, err := newClient(t, f.URL, clerkapi.Options{Timeout: time.Minute}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
		require.NoError(t, err)
		require.Len(t, found, 499)
	})
}

func TestTrap09RequestsHaveALength(t *testing.T) {
	t.Parallel()
	f := answer(t, 200, anInv)
	_, err := create(t, newClient(t, f.URL, clerkapi.Options{}))
	require.NoError(t, err)
	r := f.requests()[0]
	require.Equal(t, int64(len(r.Body)), r.ContentLength)
	require.Empty(t, r.TransferEncoding)
	require.Equal(t, []string{"application/json"}, r.Header["Content-Type"])
}

func TestTrap10RedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := answer(t, 200, anInv)
	for _, status := range []int{301, 302, 303, 307, 308} {
		f := answer(t, status, anInv, "Location", elsewhere.URL+"/v1/invitations?email="+email)
		c := newClient(t, f.URL, clerkapi.Options{HTTPClient: &http.Client{
			Transport:     newTransport(t),
			CheckRedirect: func(*http.Request, []*http.Request) error { return nil },
		}})
		for _, m := range methods {
			_, err := m.call(t.Context(), c)
			require.Equal(t, status, apiError(t, err).StatusCode, m.name)
		}
		require.Len(t, f.requests(), len(methods))
	}
	require.Empty(t, elsewhere.requests())
}

func TestTrap11IDsAreValidated(t *testing.T) {
	t.Parallel()
	f := answer(t, 200, anInv)
	c := newClient(t, f.URL, clerkapi.Options{})
	for _, id := range []string{"", " ", ".", "..", "../users/x", "a/b", "a?b", "a#b", "a%2fb", "a\nb", "inv_1 ", "inv_é", "-user_1", "+user_1", strings.Repeat("x", 256)} {
		var invalid *clerkinvite.InvalidParamsError
		_, err := c.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: id})
		require.ErrorAs(t, err, &invalid, "%q", id)
		require.Equal(t, "ID", invalid.Field)
		_, err = c.FindUsers(t.Context(), clerkinvite.UserQuery{IDs: []string{"user_1", id}})
		require.ErrorAs(t, err, &invalid, "%q", id)
		require.Equal(t, "IDs", invalid.Field)

		_, err = c.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: id, Organization: "org_1"})
		require.ErrorAs(t, err, &invalid, "%q", id)
		require.Equal(t, "ID", invalid.Field)
		_, err = c.FindMemberships(t.Context(), clerkinvite.MembershipQuery{Organization: "org_1", UserIDs: []string{"user_1", id}})
		require.ErrorAs(t, err, &invalid, "%q", id)
		require.Equal(t, "UserIDs", invalid.Field)
		for _, change := range []func(context.Context, clerkinvite.Membership) error{c.AddMember, c.RemoveMember} {
			require.ErrorAs(t, change(t.Context(), clerkinvite.Membership{Organization: "org_1", UserID: id, Role: "r"}), &invalid, "%q", id)
			require.Equal(t, "UserID", invalid.Field)
			require.ErrorAs(t, change(t.Context(), clerkinvite.Membership{Organization: id, UserID: "user_1", Role: "r"}), &invalid, "%q", id)
			require.Equal(t, "Organization", invalid.Field)
		}
		_, err = c.FindMemberships(t.Context(), clerkinvite.MembershipQuery{Organization: id, UserIDs: []string{"user_1"}})
		require.ErrorAs(t, err, &invalid, "%q", id)
		require.Equal(t, "Organization", invalid.Field)
		if id == "" { // the application
			continue
		}
		r := clerkinvite.InvitationRequest{Email: email, Organization: id, Role: "r"}
		byInviter := clerkinvite.InvitationRequest{Email: email, Organization: "org_1", Role: "r", Inviter: id}
		for _, call := range []struct {
			field string
			err   error
		}{
			{"Organization", errorOf(c.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: "orginv_1", Organization: id}))},
			{"Organization", errorOf(c.ListInvitations(t.Context(), clerkinvite.InvitationQuery{Organization: id}))},
			{"Organization", errorOf(c.CreateInvitation(t.Context(), r))},
			{"Organization", errorOf(c.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{r}))},
			{"Inviter", errorOf(c.CreateInvitation(t.Context(), byInviter))},
			{"Inviter", errorOf(c.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{byInviter}))},
		} {
			require.ErrorAs(t, call.err, &invalid, "%q", id)
			require.Equal(t, call.field, invalid.Field)
		}
	}
	require.Empty(t, f.requests())
	_, err := c.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: "inv_2aB-_9"})
	require.NoError(t, err)
	require.Equal(t, "/v1/invitations/inv_2aB-_9/revoke", f.requests()[0].RequestURI)
}

func errorOf[T any](_ T, err error) error { return err }

func TestTrap12EmptyInput(t *testing.T) {
	t.Parallel()
	f := answer(t, 200, "[]")
	c := newClient(t, f.URL, clerkapi.Options{})
	users, err := c.FindUsers(t.Context(), clerkinvite.UserQuery{})
	require.NoError(t, err)
	require.Empty(t, users)
	var invalid *clerkinvite.InvalidParamsError
	_, err = c.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{})
	require.ErrorAs(t, err, &invalid)
	_, err = c.CreateInvitations(t.Context(), nil)
	require.ErrorAs(t, err, &invalid)
	_, err = c.CreateInvitations(t.Context(), make([]clerkinvite.InvitationRequest, 1))
	require.ErrorAs(t, err, &invalid)
	require.Empty(t, f.requests())
	_, err = c.ListInvitations(t.Context(), clerkinvite.InvitationQuery{})
	require.NoError(t, err)
}

func TestTrap13NoResultWithAnError(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 400} { // 200 with an id, but not readable
		c := newClient(t, answer(t, status, `{"id":["inv_1"],"data":{"id":"inv_1"}}`).URL, clerkapi.Options{})
		for _, m := range methods {
			v, err := m.call(t.Context(), c)
			require.Error(t, err)
			require.Nil(t, v, m.name)
		}
	}
}

func TestTrap14EachLookUpIsOneRequest(t *testing.T) {
	t.Parallel()
	f := answer(t, 200, "[]")
	c := newClient(t, f.URL, clerkapi.Options{})
	var emails, ids []string
	for i := range 100 {
		emails = append(emails, fmt.Sprintf("first.last+%d@company.example.com", i))
		ids = append(ids, fmt.Sprintf("user_2x%025d", i))
	}
	_, err := c.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: emails})
	require.NoError(t, err)
	_, err = c.FindUsers(t.Context(), clerkinvite.UserQuery{IDs: ids})
	require.NoError(t, err)
	_, err = c.FindMemberships(t.Context(), clerkinvite.MembershipQuery{Organization: "org_1", UserIDs: ids})
	require.NoError(t, err)
	got := f.requests()
	require.Len(t, got, 3)
	for i, want := range []struct {
		path  string
		query url.Values
	}{
		{"/v1/users", url.Values{"email_address": emails, "limit": {"500"}, "order_by": {"+created_at"}}},
		{"/v1/users", url.Values{"user_id": ids, "limit": {"500"}, "order_by": {"+created_at"}}},
		{"/v1/organizations/org_1/memberships", url.Values{"user_id": ids, "limit": {"500"}}},
	} {
		require.Equal(t, http.MethodGet, got[i].Method)
		require.Equal(t, want.path, got[i].URL.Path)
		require.Equal(t, want.query, got[i].URL.Query())
		require.Less(t, len(got[i].RequestURI), 8000)
	}
}

func TestTrap15EmptyValueNeverListsAllUsers(t *testing.T) {
	t.Parallel()
	f := answer(t, 200, "[]")
	c := newClient(t, f.URL, clerkapi.Options{})
	for _, q := range []clerkinvite.UserQuery{
		{IDs: []string{""}}, {Emails: []string{""}}, {Emails: []string{email, ""}}, {Emails: []string{" "}}, {Emails: []string{"a\n@b.co"}}, {Emails: []string{"not-an-address"}},
		{Emails: make([]string, 101)}, {Emails: make([]string, 60), IDs: make([]string, 60)},
	} {
		var invalid *clerkinvite.InvalidParamsError
		_, err := c.FindUsers(t.Context(), q)
		require.ErrorAs(t, err, &invalid)
	}
	for _, ids := range [][]string{nil, {}, {""}, {"user_1", ""}, make([]string, 101)} {
		var invalid *clerkinvite.InvalidParamsError
		_, err := c.FindMemberships(t.Context(), clerkinvite.MembershipQuery{Organization: "org_1", UserIDs: ids})
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, "UserIDs", invalid.Field)
	}
	require.Empty(t, f.requests())
}

// The SDK has no bulk request for organizations, and no notify.
func TestTrap16InvitationsIntoOrganizations(t *testing.T) {
	t.Parallel()
	full := clerkinvite.InvitationRequest{
		Email: email, RedirectURL: "https://app.example.com/accept?a=1&b=<2>", ExpiresInDays: 7, SkipEmail: true,
		PublicMetadata: []byte(` {"clerkinvite": {"id": "x", "send": 1}, "big": 12345678901234567890} `),
		Organization:   "org_1", Role: "org:admin", Inviter: "user_1",
	}
	least := clerkinvite.InvitationRequest{Email: "b@example.com", Organization: "org_1", Role: "org:member"}
	const fullJSON = `{"email_address":"` + email + `","redirect_url":"https://app.example.com/accept?a=1&b=<2>","expires_in_days":7,"notify":false,
		"public_metadata":{"clerkinvite":{"id":"x","send":1},"big":12345678901234567890},"role":"org:admin","inviter_user_id":"user_1"}`
	const leastJSON = `{"email_address":"b@example.com","role":"org:member"}`
	f := answer(t, 200, orgInv)
	c := newClient(t, f.URL, clerkapi.Options{})
	for _, r := range []clerkinvite.InvitationRequest{full, least} {
		_, err := c.CreateInvitation(t.Context(), r)
		require.NoError(t, err)
	}
	_, err := c.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: "orginv_1", Organization: "org_1"})
	require.NoError(t, err)
	got := f.requests()
	f = answer(t, 200, `{"data":[`+orgInv+`],"total_count":1}`)
	c = newClient(t, f.URL, clerkapi.Options{})
	_, err = c.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{full, least})
	require.NoError(t, err)
	got = append(got, f.requests()...)
	for i, want := range []struct{ uri, body string }{
		{"/v1/organizations/org_1/invitations", fullJSON},
		{"/v1/organizations/org_1/invitations", leastJSON},
		{"/v1/organizations/org_1/invitations/orginv_1/revoke", "{}"},
		{"/v1/organizations/org_1/invitations/bulk", "[" + fullJSON + "," + leastJSON + "]"},
	} {
		require.Equal(t, http.MethodPost, got[i].Method)
		require.Equal(t, want.uri, got[i].RequestURI)
		require.JSONEq(t, want.body, got[i].Body)
	}
	require.Len(t, got, 4)
	require.Contains(t, got[0].Body, "12345678901234567890", "numbers keep their digits")

	n := len(f.requests())
	change := func(change func(r *clerkinvite.InvitationRequest)) clerkinvite.InvitationRequest {
		r := full
		change(&r)
		return r
	}
	for _, tc := range []struct {
		field string
		r     clerkinvite.InvitationRequest
	}{
		{"Role", change(func(r *clerkinvite.InvitationRequest) { r.Role = "" })},
		{"Template", change(func(r *clerkinvite.InvitationRequest) { r.Template = "invitation" })},
		{"IgnoreExisting", change(func(r *clerkinvite.InvitationRequest) { r.IgnoreExisting = true })},
		{"Role", clerkinvite.InvitationRequest{Email: email, Role: "org:member"}},
		{"Inviter", clerkinvite.InvitationRequest{Email: email, Inviter: "user_1"}},
	} {
		var invalid *clerkinvite.InvalidParamsError
		_, err := c.CreateInvitation(t.Context(), tc.r)
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, tc.field, invalid.Field)
		_, err = c.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{tc.r})
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, tc.field, invalid.Field)
	}
	for _, other := range []clerkinvite.InvitationRequest{{Email: "c@example.com"}, {Email: "c@example.com", Organization: "org_2", Role: "org:member"}} {
		for _, rs := range [][]clerkinvite.InvitationRequest{{full, other}, {other, full}} {
			var invalid *clerkinvite.InvalidParamsError
			_, err := c.CreateInvitations(t.Context(), rs)
			require.ErrorAs(t, err, &invalid, "one request has one organization")
			require.Equal(t, "Organization", invalid.Field)
		}
	}
	require.Len(t, f.requests(), n)
}

func TestTrap17NothingIsSharedOrChanged(t *testing.T) {
	t.Parallel()
	f := answer(t, 200, "[]")
	hc := &http.Client{Transport: newTransport(t), Timeout: time.Hour}
	o := clerkapi.Options{BaseURL: f.URL + "/v1/", HTTPClient: hc}
	wantOptions, wantClient := o, *hc
	keys := []string{"sk_test_one", "sk_test_two", "sk_test_three"}
	var wg sync.WaitGroup
	for _, k := range keys {
		wg.Go(func() {
			c, err := clerkapi.New(k, &o)
			if err != nil {
				t.Error(err)
				return
			}
			for range 5 {
				wg.Go(func() {
					if _, err := c.ListInvitations(context.Background(), clerkinvite.InvitationQuery{Query: k}); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
	wg.Wait()
	require.Equal(t, wantOptions, o)
	require.Equal(t, wantClient, *hc)
	got := f.requests()
	require.Len(t, got, 15)
	for _, r := range got {
		require.Equal(t, []string{"Bearer " + r.URL.Query().Get("query")}, r.Header["Authorization"])
	}
}

func TestTrap18VersionHeader(t *testing.T) {
	t.Parallel()
	for _, m := range methods {
		f := answer(t, 200, m.reply)
		_, err := m.call(t.Context(), newClient(t, f.URL, clerkapi.Options{}))
		require.NoError(t, err, m.name)
		r := f.requests()[0]
		require.Equal(t, []string{"2026-05-12"}, r.Header["Clerk-Api-Version"])
		require.NotContains(t, r.URL.Query(), "__clerk_api_version", "Clerk rejects a request that has both")
		require.Equal(t, []string{"Bearer " + key}, r.Header["Authorization"])
		require.Contains(t, r.UserAgent(), "clerk-sdk-go")
	}
}

func TestTrap19InvalidMetadataIsNotSent(t *testing.T) {
	t.Parallel()
	f := answer(t, 200, anInv)
	c := newClient(t, f.URL, clerkapi.Options{})
	for _, meta := range []string{"", " ", "{", `{"a":}`, "null", "[]", `"x"`, "1", "{}{}"} {
		for _, r := range []clerkinvite.InvitationRequest{
			{Email: email, PublicMetadata: []byte(meta)},
			{Email: email, PublicMetadata: []byte(meta), Organization: "org_1", Role: "org:member"},
		} {
			var invalid *clerkinvite.InvalidParamsError
			_, err := c.CreateInvitation(t.Context(), r)
			require.ErrorAs(t, err, &invalid, meta)
			require.Equal(t, "PublicMetadata", invalid.Field)
			_, err = c.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{r})
			require.ErrorAs(t, err, &invalid, meta)
		}
	}
	require.Empty(t, f.requests())
}
