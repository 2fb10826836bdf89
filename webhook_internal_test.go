package clerkinvite

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hook is a handler with its log, its clock and the events that reached it.
type hook struct {
	http.Handler
	err error // what handle returns

	mu     sync.Mutex
	events []*Event
	log    bytes.Buffer
}

var (
	hookKey = bytes.Repeat([]byte{5}, 32)
	hookNow = time.Unix(1_700_000_000, 0)
)

func (h *hook) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(b)
}

func (h *hook) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

func (h *hook) handled() []*Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events
}

func newHook(t *testing.T, err error) *hook {
	t.Helper()
	v, verr := NewWebhookVerifier(WebhookConfig{
		Secrets:    []string{"whsec_" + base64.StdEncoding.EncodeToString(hookKey)},
		InstanceID: "ins_1", Now: func() time.Time { return hookNow },
	})
	require.NoError(t, verr)
	h := &hook{err: err}
	handle := func(ctx context.Context, ev *Event) ([]*Member, error) {
		if ctx == nil {
			return nil, errors.New("no context")
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events = append(h.events, ev)
		return nil, h.err
	}
	h.Handler = webhookHandler(v, handle, slog.New(slog.NewTextHandler(h, nil)))
	return h
}

func signHook(r *http.Request, payload []byte) {
	ts := strconv.FormatInt(hookNow.Unix(), 10)
	mac := hmac.New(sha256.New, hookKey)
	fmt.Fprintf(mac, "msg_1.%s.%s", ts, payload)
	r.Header.Set("svix-id", "msg_1")
	r.Header.Set("svix-timestamp", ts)
	r.Header.Set("svix-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

func hookRequest(payload string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/webhooks/clerk", strings.NewReader(payload))
	r.Header.Set("Content-Type", "application/json")
	signHook(r, []byte(payload))
	return r
}

// What Svix sends for "Send Example" in the dashboard.
const sendExample = `{"data":{"birthday":"","created_at":1654012591514,"email_addresses":[{"email_address":"example@example.org",` +
	`"id":"idn_29w83yL7CwVlJXylYLxcslromF1","linked_to":[],"object":"email_address","verification":{"status":"verified","strategy":"ticket"}}],` +
	`"external_accounts":[],"external_id":"567772","first_name":"Example","gender":"","id":"user_29w83sxmDNGwOuEthce5gg56FcC",` +
	`"image_url":"https://img.clerk.com/xxxxxx","last_name":"Example","last_sign_in_at":1654012591514,"object":"user",` +
	`"password_enabled":true,"phone_numbers":[],"primary_email_address_id":"idn_29w83yL7CwVlJXylYLxcslromF1",` +
	`"primary_phone_number_id":null,"primary_web3_wallet_id":null,"private_metadata":{},"profile_image_url":"https://www.gravatar.com/avatar?d=mp",` +
	`"public_metadata":{},"two_factor_enabled":false,"unsafe_metadata":{},"updated_at":1654012591835,"username":null,"web3_wallets":[]},` +
	`"event_attributes":{"http_request":{"client_ip":"0.0.0.0","user_agent":"Mozilla/5.0"}},"instance_id":"ins_1","object":"event",` +
	`"timestamp":1654012591835,"type":"user.created"}`

func TestWebhookHandler(t *testing.T) {
	t.Parallel()
	limited := &ClerkInvitationError{Op: "find users", Outcome: Fault, Err: &APIError{
		StatusCode: 429, Code: "too_many_requests", Message: "ada@example.org is too much", RetryAfter: 90*time.Second + time.Millisecond}}
	unsigned := hookRequest(sendExample)
	unsigned.Header.Del("svix-signature")
	tampered := hookRequest(sendExample)
	tampered.Body = io.NopCloser(strings.NewReader(strings.Replace(sendExample, "example@", "mallory@", 1)))
	garbage := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(strings.Repeat("[", 100_000)))
	exact := sendExample + strings.Repeat(" ", 262144-len(sendExample))

	for name, tc := range map[string]struct {
		r          *http.Request
		err        error
		status     int
		body       string
		handled    int
		log        string
		retryAfter string
	}{
		"done":             {r: hookRequest(sendExample), status: 204, handled: 1},
		"not ours":         {r: hookRequest(`{"type":"session.created","instance_id":"ins_1","data":{}}`), status: 204, handled: 1},
		"unsigned":         {r: unsigned, status: 400, body: "the webhook's signature is not valid\n", log: "0 headers svix-signature"},
		"tampered":         {r: tampered, status: 400, body: "the webhook's signature is not valid\n", log: "no signature matches"},
		"unsigned garbage": {r: garbage, status: 400, body: "the webhook's signature is not valid\n", log: "0 headers svix-id"},
		"other instance": {r: hookRequest(strings.Replace(sendExample, "ins_1", "ins_123", 1)), status: 400,
			body: "the webhook's signature is not valid\n", log: "another Clerk instance"},
		"signed garbage": {r: hookRequest(strings.Repeat("[", 100_000)), status: 204, log: "no JSON object"},
		"signed, not understood": {r: hookRequest(`{"type":"user.created","instance_id":"ins_1","data":{"id":"../x"}}`), status: 204,
			log: "id=msg_1"},
		"empty body":      {r: hookRequest(""), status: 204, log: "level=ERROR"},
		"exactly 256 KiB": {r: hookRequest(exact), status: 204, handled: 1},
		"one byte more":   {r: hookRequest(exact + " "), status: 413, body: "the body is too large\n", log: "too large"},
		"database":        {r: hookRequest(sendExample), err: errors.New("dial db.internal: no ada@example.org"), status: 500, body: "internal server error\n", handled: 1, log: "level=ERROR"},
		"Clerk": {r: hookRequest(sendExample), err: limited, status: 500, body: "internal server error\n", handled: 1,
			log: "too_many_requests", retryAfter: "91"},
		"Clerk, wrapped": {r: hookRequest(sendExample), err: fmt.Errorf("ada@example.org: %w", limited), status: 500, body: "internal server error\n", handled: 1,
			log: "too_many_requests", retryAfter: "91"},
		"not found":  {r: hookRequest(sendExample), err: ErrNotFound, status: 500, body: "internal server error\n", handled: 1, log: "no such member"},
		"duplicate":  {r: hookRequest(sendExample), err: &DuplicateEmailError{Ref: Ref{"t1", "ada@example.org"}}, status: 500, body: "internal server error\n", handled: 1, log: "tenant=t1"},
		"given up":   {r: hookRequest(sendExample), err: context.Canceled, status: 500, body: "internal server error\n", handled: 1, log: "context canceled"},
		"no ErrBad*": {r: hookRequest(sendExample), err: ErrBadEvent, status: 500, body: "internal server error\n", handled: 1, log: "user=user_29w83sxmDNGwOuEthce5gg56FcC"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHook(t, tc.err)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, tc.r)
			assert.Equal(t, tc.status, w.Code)
			assert.Equal(t, tc.body, w.Body.String())
			assert.Equal(t, tc.retryAfter, w.Header().Get("Retry-After"))
			assert.Len(t, h.handled(), tc.handled)
			if tc.log == "" {
				assert.Empty(t, h.logged())
			}
			assert.Contains(t, h.logged(), tc.log)
			for _, address := range []string{"ada@", "example@", "mallory@"} {
				assert.NotContains(t, h.logged(), address)
			}
		})
	}
}

func TestWebhookHandlerPassesTheEvent(t *testing.T) {
	t.Parallel()
	h := newHook(t, nil)
	h.ServeHTTP(httptest.NewRecorder(), hookRequest(sendExample))
	require.Len(t, h.handled(), 1)
	ev := h.handled()[0]
	assert.Equal(t, "msg_1", ev.ID)
	assert.Equal(t, "user_29w83sxmDNGwOuEthce5gg56FcC", ev.UserID)
	assert.Equal(t, []string{"example@example.org"}, ev.User.verifiedEmails())
	assert.Equal(t, "example@example.org", ev.User.primaryEmail())
}

func TestWebhookHandlerMethods(t *testing.T) {
	t.Parallel()
	h := newHook(t, nil)
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "post"} {
		r := hookRequest(sendExample)
		r.Method = method
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, http.StatusMethodNotAllowed, w.Code, method)
		assert.Equal(t, "POST", w.Header().Get("Allow"), method)
	}
	assert.Empty(t, h.handled())
}

func TestWebhookHandlerNeedsAVerifier(t *testing.T) {
	t.Parallel()
	assert.PanicsWithValue(t, "clerkinvite: WebhookHandler needs a verifier; see NewWebhookVerifier", func() {
		webhookHandler(nil, nil, slog.New(slog.DiscardHandler))
	})
}

// fakeStore is a Store that fails.
type fakeStore struct {
	Store
	err error
}

func (s fakeStore) Find(context.Context, Query) ([]*Member, error) { return nil, s.err }

func TestServiceWebhookHandler(t *testing.T) {
	t.Parallel()
	v, err := NewWebhookVerifier(WebhookConfig{
		Secrets: []string{"whsec_" + base64.StdEncoding.EncodeToString(hookKey)}, Now: func() time.Time { return hookNow },
	})
	require.NoError(t, err)
	var log bytes.Buffer
	svc, err := New(Config{
		API: struct{ ClerkAPI }{}, Store: fakeStore{err: errors.New("no database")}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	require.NoError(t, err)
	h := svc.WebhookHandler(v)
	for payload, want := range map[string]int{sendExample: 500, `{"type":"session.created"}`: 204, "[": 204} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, hookRequest(payload))
		assert.Equal(t, want, w.Code, payload)
	}
	assert.Contains(t, log.String(), "no database")
	assert.Panics(t, func() { svc.WebhookHandler(nil) })
}

// Over a real connection: bodies that stop, dawdle or never end.
func TestWebhookHandlerBodies(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, h *hook, readTimeout time.Duration) net.Conn {
		t.Helper()
		srv := httptest.NewUnstartedServer(h)
		srv.Config.ReadTimeout = readTimeout
		srv.Start()
		t.Cleanup(srv.Close)
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		return conn
	}
	head := func(length int) string {
		r := hookRequest(sendExample)
		var b strings.Builder
		b.WriteString("POST / HTTP/1.1\r\nHost: x\r\n")
		_ = r.Header.Write(&b)
		if length < 0 {
			b.WriteString("Transfer-Encoding: chunked\r\n")
		} else {
			fmt.Fprintf(&b, "Content-Length: %d\r\n", length)
		}
		return b.String() + "\r\n"
	}
	answer := func(t *testing.T, conn net.Conn) string {
		t.Helper()
		buf := make([]byte, 64)
		n, err := io.ReadAtLeast(conn, buf, len("HTTP/1.1 204"))
		require.NoError(t, err)
		return string(buf[:n])
	}

	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		h := newHook(t, nil)
		conn := start(t, h, 0)
		_, err := io.WriteString(conn, head(len(sendExample))+sendExample[:100])
		require.NoError(t, err)
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		assert.Contains(t, answer(t, conn), "HTTP/1.1 400")
		assert.Empty(t, h.handled())
		assert.Contains(t, h.logged(), "unexpected EOF")
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		h := newHook(t, nil)
		conn := start(t, h, 0)
		_, err := io.WriteString(conn, head(len(sendExample)))
		require.NoError(t, err)
		for part := range strings.SplitAfterSeq(sendExample, ":") {
			_, err := io.WriteString(conn, part)
			require.NoError(t, err)
			time.Sleep(time.Millisecond)
		}
		assert.Contains(t, answer(t, conn), "HTTP/1.1 204")
		assert.Len(t, h.handled(), 1)
	})
	t.Run("too slow for the server", func(t *testing.T) {
		t.Parallel()
		h := newHook(t, nil)
		conn := start(t, h, 2*time.Second) // the headers must get through even on a busy machine
		_, err := io.WriteString(conn, head(len(sendExample))+sendExample[:100])
		require.NoError(t, err)
		assert.Contains(t, answer(t, conn), "HTTP/1.1 400")
		assert.Empty(t, h.handled())
	})
	t.Run("endless", func(t *testing.T) {
		t.Parallel()
		h := newHook(t, nil)
		conn := start(t, h, 0)
		_, err := io.WriteString(conn, head(-1))
		require.NoError(t, err)
		go func() { // ends when the server or the test closes the connection
			chunk := "10000\r\n" + strings.Repeat(" ", 0x10000) + "\r\n"
			for {
				if _, err := io.WriteString(conn, chunk); err != nil {
					return
				}
			}
		}()
		assert.Contains(t, answer(t, conn), "HTTP/1.1 413")
		assert.Empty(t, h.handled())
	})
}
