package clerkinvite

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
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
		Secrets:    []Secret{NewSecret("whsec_" + base64.StdEncoding.EncodeToString(hookKey))},
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
		Secrets: []Secret{NewSecret("whsec_" + base64.StdEncoding.EncodeToString(hookKey))}, Now: func() time.Time { return hookNow },
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

// decodedEvent is parseEvent by encoding/json alone: every level is decoded into a map.
func decodedEvent(payload []byte) (*Event, error) {
	var envelope map[string]json.RawMessage
	if err := json.Unmarshal(payload, &envelope); err != nil {
		return nil, errors.New("the payload is no JSON object")
	}
	var err error
	ev := &Event{
		Type:       decoded[string](envelope, "type", &err),
		InstanceID: decoded[string](envelope, "instance_id", &err),
		Timestamp:  decodedTime(envelope, "timestamp", &err),
	}
	switch {
	case err != nil:
		return nil, err
	case !decodedType.MatchString(ev.Type):
		return nil, errors.New("type is missing or no event type")
	case ev.InstanceID != "" && !decodedID.MatchString(ev.InstanceID):
		return nil, errors.New("instance_id is no instance id")
	}

	switch ev.Type {
	case EventUserCreated, EventUserUpdated:
		data := decoded[map[string]json.RawMessage](envelope, "data", &err)
		u := &User{
			ID:             decoded[string](data, "id", &err),
			PrimaryEmailID: decoded[string](data, "primary_email_address_id", &err),
			Banned:         decoded[bool](data, "banned", &err),
			CreatedAt:      decodedTime(data, "created_at", &err),
		}
		for _, e := range decoded[[]map[string]json.RawMessage](data, "email_addresses", &err) {
			status := decoded[string](decoded[map[string]json.RawMessage](e, "verification", &err), "status", &err)
			u.Emails = append(u.Emails, UserEmail{
				ID:       decoded[string](e, "id", &err),
				Address:  decoded[string](e, "email_address", &err),
				Verified: status == "verified" && !decoded[bool](e, "reserved", &err),
			})
		}
		if err == nil && !decodedID.MatchString(u.ID) {
			err = errors.New("data.id is missing or no user id")
		}
		ev.User, ev.UserID = u, u.ID
	case EventUserDeleted:
		ev.UserID = decoded[string](decoded[map[string]json.RawMessage](envelope, "data", &err), "id", &err)
		if err == nil && ev.UserID != "" && !decodedID.MatchString(ev.UserID) {
			err = errors.New("data.id is no user id")
		}
	}
	if err != nil {
		return nil, err
	}
	return ev, nil
}

var (
	decodedType = regexp.MustCompile(`\A[A-Za-z0-9_.-]{1,255}\z`)
	decodedID   = regexp.MustCompile(`\A[A-Za-z0-9_-]{1,255}\z`)
)

func decoded[T any](o map[string]json.RawMessage, key string, err *error) (v T) {
	if raw, ok := o[key]; ok && json.Unmarshal(raw, &v) != nil && *err == nil {
		*err = errors.New(key + " is of the wrong type")
	}
	return v
}

func decodedTime(o map[string]json.RawMessage, key string, err *error) time.Time {
	n := decoded[float64](o, key, err)
	switch {
	case n == 0:
		return time.Time{}
	case n < 0 || n > 1e15:
		if *err == nil {
			*err = errors.New(key + " is no time")
		}
		return time.Time{}
	case n < 1e11:
		n *= 1000
	}
	return time.UnixMilli(int64(math.Round(n))).UTC()
}

// checkAsDecoded reports whether the payload is an event. It must be the same one, or the
// same fault, as encoding/json makes of it.
func checkAsDecoded(t *testing.T, payload []byte) bool {
	t.Helper()
	before := bytes.Clone(payload)
	got, gotErr := parseEvent(payload)
	if !bytes.Equal(before, payload) {
		t.Fatalf("the payload was changed:\n%.1000q", before)
	}
	want, wantErr := decodedEvent(payload)
	if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || !reflect.DeepEqual(got, want) {
		t.Fatalf("read as\n%s, %v, by encoding/json\n%s, %v:\n%.1000q", jsonOf(t, got), gotErr, jsonOf(t, want), wantErr, payload)
	}
	clear(payload) // an event must not hold a part of it, for hosts use buffers again
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the event holds a part of the payload:\n%.1000q", before)
	}
	return gotErr == nil
}

// strangeEvents are payloads that decoders read in different ways.
func strangeEvents() []string {
	// Where @ stands comes each of the values that follow.
	const (
		envelope = `{"type":"user.created","instance_id":"ins_1","timestamp":1654012591835,"data":{"id":"user_1"},@}`
		created  = `{"type":"user.created","data":{"id":"user_1",@}}`
		address  = `{"data":{"email_addresses":[{"id":"idn_1","email_address":"a@b.co",@},{"email_address":"c@b.co"}],"id":"user_1"},"type":"user.updated"}`
	)
	values := []string{
		"null", "true", "false", "0", "-0", "-0.0", "1", "-1", "1e400", "-1e400", "1e-400", "1E+3", "1e15", "1e15.5", "1000000000000001", "99999999999.4",
		"100000000000", "1654012591.8355", "01", "+1", ".5", "1.", "0x1p4", "Infinity", "NaN", "inf", "nan", "nul", "nulll", "tru", "1_000", strings.Repeat("9", 400),
		`""`, `"x"`, `"1"`, `"null"`, `"true"`, `"verified"`, `"\u0076erified"`, `"verified "`, `"user_2"`, `"user_\u0032"`, `"a\"b"`, `"a\\"`, `"\\\""`, `"\\\\"`,
		`"\ud800"`, `"\udc00\ud800"`, `"\ud83d\ude00"`, `"\ud83dx"`, `"\u0000"`, `"\x"`, `"\u12"`, `"\/\b\f\n\r\t"`, "\"\xff\"", "\"\xed\xa0\x80\"", "\"\xc3\"",
		"\"a\nb\"", "\"\x00\"", "\"\u2028\ufffd\"", "\"\u00e4\"", `"{"`, `"}"`, `"]["`, `",\",:"`, `"`, `"\"`, `'x'`, "x",
		"{}", "[]", "{ }", "[ ]", "[null]", "[[]]", "[{}]", "[{},null]", "[null,7]", "[{},[]]", `["x"]`, "[{}{}]", "[{},]", "{,}", `{"id":"x",}`, `{"id"}`, `{"id":}`,
		`{"status":"verified"}`, `{"Status":"verified"}`, `{"\u0073tatus":"verified"}`, `{"status":"x","status":"verified"}`, `{"status":"verified","status":null}`,
		`{"status":1,"status":"verified"}`, `{"status":{"status":"verified"}}`, `{"x":{"status":"verified"}}`, `{"x":[{"status":"verified"},"}"],"y":"{\"status\":1"}`,
		`{"id":"user_2"}`, `{"id":"user_2","id":7}`, `{"id":7,"id":"user_2"}`, `{"id":"user_2","ID":7}`, `{"i\u0064":"user_2"}`, `{"id\u0000":7}`, `{"id\"":7,"\"id":7}`,
		"{\"id\xff\":7}", "{\"\ufeffid\":7}", "\ufeff{}", "{\t\"id\"\n:\r\"user_3\" , \"x\" : 1 }", "\v{}", "\u00a0{}", "/**/{}", "{}}", "[]]", "{]", "[}",
		`[{"id":"idn_2","email_address":"x@b.co","verification":{"status":"verified"}}]`, `[{"id":7},8]`,
		strings.Repeat("[", 9998) + strings.Repeat("]", 9998), strings.Repeat("[", 9999) + strings.Repeat("]", 9999), strings.Repeat("[", 10001) + strings.Repeat("]", 10001),
		strings.Repeat(`{"a":`, 9998) + "1" + strings.Repeat("}", 9998), strings.Repeat(`{"a":`, 10001) + "1" + strings.Repeat("}", 10001), strings.Repeat("[", 20_000),
	}
	keys := map[string][]string{
		envelope: {"data", "type", "instance_id", "timestamp", "Type", "DATA", `\u0074ype`, `typ\u0065`, `d\u0061ta`, `\u0044ata`, "x", "", `type\u0000`, `type\"`, `\"type`, "type ", "\xff"},
		created:  {"id", "primary_email_address_id", "banned", "created_at", "email_addresses", "Id", `\u0069d`, `emai\u006c_addresses`, "EMAIL_ADDRESSES", `\"id`, "unsafe_metadata"},
		address:  {"verification", "reserved", "id", "email_address", "Verification", "RESERVED", `\u0072eserved`, `verificatio\u006E`, `reserved\\`},
	}
	var all []string
	for form, keys := range keys {
		all = append(all, form)
		for i, key := range keys {
			for _, value := range values {
				if i > 0 && len(value) > 1000 {
					continue // what is deep takes its time
				}
				all = append(all, strings.Replace(form, ",@", `,"`+key+`":`+value, 1), strings.Replace(form, ",@", ` , "`+key+"\" \n:\t "+value+"\r\n", 1))
			}
		}
	}
	for _, value := range values {
		all = append(all, value, " "+value+"\n", value+"{}", sendExample+value, value+sendExample)
	}
	between := []string{" ", `"`, `\`, "}", ",", "\xff", "\t", "{}", ":", "]", "0"}
	for i := range sendExample {
		all = append(all, sendExample[:i], sendExample[:i]+between[i%len(between)]+sendExample[i:])
	}
	return all
}

func TestStrangeEventsAreReadAsByEncodingJSON(t *testing.T) {
	t.Parallel()
	events := 0
	for _, payload := range strangeEvents() {
		if checkAsDecoded(t, []byte(payload)) {
			events++
		}
	}
	require.Greater(t, events, 1000)
}

// Objects of the keys that are looked at, in any order and writing, more than once and
// of any type, and then some of them spoilt.
func TestRandomEventsAreReadAsByEncodingJSON(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed) // shown if it fails
	events := 0
	for range 4000 {
		payload := []byte(randomJSON(r, "event", 0))
		for range max(0, r.IntN(6)-3) {
			at := r.IntN(len(payload))
			switch part := payload[at:min(len(payload), at+1+r.IntN(20))]; r.IntN(3) {
			case 0:
				payload = slices.Insert(payload, r.IntN(len(payload)), bytes.Clone(part)...)
			case 1:
				payload[at] ^= 1 << r.IntN(8)
			default:
				payload[at] = `{}[]",:\ ut0n`[r.IntN(13)]
			}
		}
		if checkAsDecoded(t, payload) {
			events++
		}
	}
	require.Greater(t, events, 500)
}

// randomJSON returns a value, often of the type that is meant to be under the key.
func randomJSON(r *rand.Rand, key string, depth int) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	switch {
	case depth > 6:
		key = "x"
	case r.IntN(30) == 0:
		key = pick("type", "timestamp", "banned", "verification", "email_addresses", "x")
	}
	space := func() string { return pick("", "", "", "", " ", "\n\t", "\r") }
	object := func(keys ...string) string {
		var b strings.Builder
		b.WriteString("{" + space())
		for i := range r.IntN(2 * len(keys)) {
			if i > 0 {
				b.WriteString("," + space())
			}
			key := keys[i%len(keys)]
			written := key
			switch at := r.IntN(len(key)); r.IntN(12) {
			case 0:
				written = fmt.Sprintf(`%s\u%04x%s`, key[:at], key[at], key[at+1:])
			case 1:
				written = key[:at] + strings.ToUpper(key[at:])
			case 2:
				written = key[:at] + pick(`\"`, `\\`, "\xff", `\ud800`, " ", "") + key[at:]
			}
			b.WriteString(`"` + written + `"` + space() + ":" + space() + randomJSON(r, key, depth+1) + space())
		}
		return b.String() + "}"
	}
	switch key {
	case "event":
		return `{"type":` + randomJSON(r, "type", 1) + `,"data":` + randomJSON(r, "data", 1) + "," + object("timestamp", "instance_id", "x", "data", "type")[1:]
	case "data":
		return `{"id":` + randomJSON(r, "id", 1) + `,"email_addresses":` + randomJSON(r, "email_addresses", 1) + "," +
			object("created_at", "banned", "primary_email_address_id", "x", "email_addresses", "id")[1:]
	case "email_addresses":
		elements := make([]string, r.IntN(4))
		for i := range elements {
			elements[i] = space() + object("email_address", "verification", "id", "reserved", "x")
		}
		return "[" + strings.Join(elements, ",") + space() + "]"
	case "verification":
		return object("status", "x", "status")
	case "type":
		return pick(`"user.created"`, `"user.updated"`, `"user.deleted"`, `"session.ended"`, `"user\u002ecreated"`)
	case "status":
		return pick(`"verified"`, `"unverified"`, `"v\u0065rified"`, "null", `"Verified"`)
	case "banned", "reserved":
		return pick("true", "false", "null")
	case "timestamp", "created_at":
		return pick("1654012591835", "1654012591", "1.5e11", "0", "-0", "null", "99999999999.9")
	case "x":
		return pick(`"x"`, "1", "null", "true", "[]", "{}", `{"id":[{"a":"}"},"]"]}`, `"\\"`, `"{\"id\":1}"`, "1e999", "-1")
	default:
		return pick(`"user_1"`, `"user_1"`, `"idn_\u0031"`, `"ada"`, "null", `"\ud800"`, "\"\xff\"")
	}
}
