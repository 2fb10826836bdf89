package clerkinvite_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func ExampleWebhookVerifier_Verify() {
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{
		Secrets: []clerkinvite.Secret{clerkinvite.NewSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")}, // from Clerk's dashboard
		Now:     func() time.Time { return time.Unix(1614265330, 0) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	// In a handler, these are the unchanged body of the request and r.Header.
	payload := []byte(`{"type":"user.deleted","timestamp":1614265330000,"data":{"id":"user_1","deleted":true}}`)
	header := http.Header{}
	header.Set("svix-id", "msg_1")
	header.Set("svix-timestamp", "1614265330")
	header.Set("svix-signature", "v1,OsSzVGwtyGPl4st8+JFB+oI72/3qHbHAhfLuulj8c0s=")

	event, err := verifier.Verify(payload, header)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(event.Type, event.UserID)

	payload[len(payload)-2] = ' '
	_, err = verifier.Verify(payload, header)
	fmt.Println(clerkinvite.HTTPError(err))
	// Output:
	// user.deleted user_1
	// 400 the webhook's signature is not valid
}

func TestVerifyKnownVector(t *testing.T) {
	t.Parallel()
	require.Equal(t, testkit.VectorSignature, testkit.Sign(testkit.VectorSecret, testkit.VectorID, "1614265330", []byte(testkit.VectorBody)))

	// The signature is valid, but the body is not a Clerk event.
	h := testkit.Headers(testkit.VectorID, "1614265330", testkit.VectorSignature)
	_, err := testkit.NewVerifier(t, testkit.VectorSecret).Verify([]byte(testkit.VectorBody), h)
	require.ErrorIs(t, err, clerkinvite.ErrBadEvent)
	require.NotErrorIs(t, err, clerkinvite.ErrBadSignature)

	_, err = testkit.NewVerifier(t, testkit.NewSecret(1)).Verify([]byte(testkit.VectorBody), h)
	require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
}

func TestVerifyReturnsTheEvent(t *testing.T) {
	t.Parallel()
	ev, err := testkit.NewVerifier(t, testkit.VectorSecret).Verify([]byte(testkit.EventBody), testkit.Signed(testkit.VectorSecret, "msg_1", testkit.VectorTime, []byte(testkit.EventBody)))
	require.NoError(t, err)
	assert.Equal(t, "msg_1", ev.ID)
	assert.Equal(t, clerkinvite.EventUserCreated, ev.Type)
	assert.Equal(t, "ins_1", ev.InstanceID)
	assert.Equal(t, "user_1", ev.UserID)
	assert.Equal(t, time.UnixMilli(1654012591835).UTC(), ev.Timestamp)
	require.NotNil(t, ev.User)
	assert.Equal(t, clerkinvite.User{
		ID: "user_1", PrimaryEmailID: "idn_1", CreatedAt: time.UnixMilli(1654012591514).UTC(),
		Emails: []clerkinvite.UserEmail{{ID: "idn_1", Address: "ada@example.org", Verified: true}},
	}, *ev.User)
}

func TestNewWebhookVerifierSecrets(t *testing.T) {
	t.Parallel()
	good := strings.TrimPrefix(testkit.VectorSecret, "whsec_")
	std := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xfb}, n)) }

	for name, secret := range map[string]string{
		"as the dashboard shows it": testkit.VectorSecret,
		"without prefix":            good,
		"24 bytes":                  "whsec_" + std(24),
		"32 bytes":                  "whsec_" + std(32),
		"64 bytes":                  "whsec_" + std(64),
		"padding missing":           "whsec_" + strings.TrimRight(std(32), "="),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := testkit.NewVerifier(t, secret)
			padded := strings.TrimRight(secret, "=")
			padded += strings.Repeat("=", -len(strings.TrimPrefix(padded, "whsec_"))&3)
			_, err := v.Verify([]byte(testkit.EventBody), testkit.Signed(padded, "msg_1", testkit.VectorTime, []byte(testkit.EventBody)))
			require.NoError(t, err)
		})
	}

	for name, tc := range map[string]struct{ secret, want string }{
		"empty":                 {"", "is empty"},
		"only the prefix":       {"whsec_", "0 bytes"},
		"only padding":          {"whsec_====", "0 bytes"},
		"space before":          {" " + testkit.VectorSecret, "white space"},
		"space after":           {testkit.VectorSecret + " ", "white space"},
		"line break after":      {testkit.VectorSecret + "\n", "white space"},
		"CRLF after":            {testkit.VectorSecret + "\r\n", "white space"},
		"tab before":            {"\t" + testkit.VectorSecret, "white space"},
		"no-break space":        {testkit.VectorSecret + "\u00a0", "white space"},
		"line break inside":     {"whsec_MfKQ9r8GKYqrTwjU\nPD8ILPZIo2LaLaSw", "white space"},
		"only white space":      {"  \n", "white space"},
		"23 bytes":              {"whsec_" + std(23), "23 bytes"},
		"3 bytes":               {"whsec_YWJj", "3 bytes"},
		"quoted":                {`"` + testkit.VectorSecret + `"`, "base64"},
		"prefix twice":          {"whsec_" + testkit.VectorSecret, "base64"},
		"prefix in capitals":    {"WHSEC_" + good, "base64"},
		"URL-safe base64":       {"whsec_" + base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xfb}, 24)), "base64"},
		"an asymmetric key":     {"whpk_" + std(32), "base64"},
		"an API key":            {"sk_test_" + std(32), "base64"},
		"byte order mark":       {"\ufeff" + testkit.VectorSecret, "base64"},
		"padding in the middle": {"whsec_MfKQ9r8GKYqrTwjU=PD8ILPZIo2LaLaSw", "base64"},
		"NUL":                   {testkit.VectorSecret + "\x00", "base64"},
	} {
		t.Run("refused/"+name, func(t *testing.T) {
			t.Parallel()
			v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(tc.secret)}})
			require.Nil(t, v)
			require.ErrorContains(t, err, tc.want)
			for _, part := range []string{good[:8], good[len(good)-8:], std(23)[:8], "YWJj"} {
				require.NotContains(t, err.Error(), part)
			}
		})
	}
}

func TestNewWebhookVerifierJoinsAllErrors(t *testing.T) {
	t.Parallel()
	_, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{
		Secrets: testkit.Secrets("", testkit.VectorSecret, "whsec_YWJj", "not base64!"), InstanceID: " ins_1",
	})
	for _, want := range []string{"Secrets[0] is empty", "Secrets[2] has a key of 3 bytes", "Secrets[3] contains white space", "InstanceID"} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "Secrets[1]")

	_, err = clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{})
	require.ErrorContains(t, err, "Secrets is empty")
}

func TestNewWebhookVerifierCopiesItsConfig(t *testing.T) {
	t.Parallel()
	cfg := clerkinvite.WebhookConfig{Secrets: testkit.Secrets(testkit.VectorSecret), Now: testkit.VectorNow}
	v, err := clerkinvite.NewWebhookVerifier(cfg)
	require.NoError(t, err)
	cfg.Secrets[0] = clerkinvite.NewSecret(testkit.NewSecret(9))
	_, err = v.Verify([]byte(testkit.EventBody), testkit.Signed(testkit.VectorSecret, "msg_1", testkit.VectorTime, []byte(testkit.EventBody)))
	require.NoError(t, err)
}

func TestVerifierZeroValueRefuses(t *testing.T) {
	t.Parallel()
	h := testkit.Headers("msg_1", "1614265330", testkit.Sign("whsec_", "msg_1", "1614265330", []byte(testkit.EventBody))) // by the empty key
	for _, v := range []*clerkinvite.WebhookVerifier{nil, new(clerkinvite.WebhookVerifier)} {
		_, err := v.Verify([]byte(testkit.EventBody), h)
		require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
	}
}

func TestVerifierPrintsNoKeys(t *testing.T) {
	t.Parallel()
	v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: testkit.Secrets(testkit.VectorSecret), InstanceID: "ins_1"})
	require.NoError(t, err)
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(testkit.VectorSecret, "whsec_"))
	require.NoError(t, err)
	decimal := strings.Trim(fmt.Sprintf("%d", key), "[]")
	type host struct {
		Exported *clerkinvite.WebhookVerifier
		hidden   *clerkinvite.WebhookVerifier
		value    clerkinvite.WebhookVerifier
	}
	for _, x := range []any{v, *v, host{v, v, *v}, &host{v, v, *v}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			out := fmt.Sprintf(verb, x)
			assert.NotContains(t, out, decimal[:20], verb)
			assert.NotContains(t, out, fmt.Sprintf("%x", key[:6]), verb)
			assert.NotContains(t, out, "0x31, 0xf2", verb)
			assert.NotContains(t, out, "MfKQ", verb)
		}
	}
}

func TestVerifyTolerance(t *testing.T) {
	t.Parallel()
	v := testkit.NewVerifier(t, testkit.VectorSecret)
	for _, tc := range []struct {
		offset int64
		ok     bool
	}{
		{0, true}, {-299, true}, {299, true}, {-300, true}, {300, true}, {-301, false}, {301, false},
		{-86400, false}, {86400, false}, {-testkit.VectorTime + 1, false}, {999999999999 - testkit.VectorTime, false},
	} {
		_, err := v.Verify([]byte(testkit.EventBody), testkit.Signed(testkit.VectorSecret, "msg_1", testkit.VectorTime+tc.offset, []byte(testkit.EventBody)))
		if tc.ok {
			require.NoError(t, err, tc.offset)
		} else {
			require.ErrorIs(t, err, clerkinvite.ErrBadSignature, tc.offset)
		}
	}

	// Verify reads the configured clock each time.
	now := testkit.VectorNow()
	v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: testkit.Secrets(testkit.VectorSecret), Now: func() time.Time { return now }})
	require.NoError(t, err)
	h := testkit.Signed(testkit.VectorSecret, "msg_1", testkit.VectorTime, []byte(testkit.EventBody))
	_, err = v.Verify([]byte(testkit.EventBody), h)
	require.NoError(t, err)
	now = now.Add(5*time.Minute + time.Nanosecond)
	_, err = v.Verify([]byte(testkit.EventBody), h)
	require.ErrorContains(t, err, "5m0s in the past")

	// The default is the machine's clock.
	v, err = clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: testkit.Secrets(testkit.VectorSecret)})
	require.NoError(t, err)
	_, err = v.Verify([]byte(testkit.EventBody), h)
	require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
	_, err = v.Verify([]byte(testkit.EventBody), testkit.Signed(testkit.VectorSecret, "msg_1", time.Now().Unix(), []byte(testkit.EventBody)))
	require.NoError(t, err)
}

func TestVerifyRotation(t *testing.T) {
	t.Parallel()
	body := []byte(testkit.EventBody)
	older, newer, other := testkit.NewSecret(1), testkit.NewSecret(2), testkit.NewSecret(3)
	both := testkit.NewVerifier(t, older, newer)
	for _, secret := range []string{older, newer} {
		_, err := both.Verify(body, testkit.Signed(secret, "msg_1", testkit.VectorTime, body))
		require.NoError(t, err)
	}
	_, err := both.Verify(body, testkit.Signed(other, "msg_1", testkit.VectorTime, body))
	require.ErrorIs(t, err, clerkinvite.ErrBadSignature)

	// During a rotation Svix signs with both keys. A verifier that has one of them accepts.
	ts := strconv.Itoa(testkit.VectorTime)
	v1a := "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
	rotating := strings.Join([]string{testkit.Sign(newer, "msg_1", ts, body), testkit.Sign(older, "msg_1", ts, body), v1a}, " ")
	for _, v := range []*clerkinvite.WebhookVerifier{both, testkit.NewVerifier(t, older), testkit.NewVerifier(t, newer)} {
		_, err := v.Verify(body, testkit.Headers("msg_1", ts, rotating))
		require.NoError(t, err)
	}
	_, err = testkit.NewVerifier(t, other).Verify(body, testkit.Headers("msg_1", ts, rotating))
	require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
}

func TestVerifyInstance(t *testing.T) {
	t.Parallel()
	v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: testkit.Secrets(testkit.VectorSecret), InstanceID: "ins_1", Now: testkit.VectorNow})
	require.NoError(t, err)
	for payload, want := range map[string]error{
		testkit.EventBody: nil,
		strings.Replace(testkit.EventBody, "ins_1", "ins_2", 1):                                      clerkinvite.ErrBadSignature,
		strings.Replace(testkit.EventBody, "ins_1", "INS_1", 1):                                      clerkinvite.ErrBadSignature,
		strings.Replace(testkit.EventBody, `"ins_1"`, "null", 1):                                     clerkinvite.ErrBadEvent,
		strings.Replace(testkit.EventBody, `"ins_1"`, `""`, 1):                                       clerkinvite.ErrBadEvent,
		strings.Replace(testkit.EventBody, `"ins_1"`, "1", 1):                                        clerkinvite.ErrBadEvent,
		strings.Replace(testkit.EventBody, `"object":"event"`, `"instance_id":"ins_2"`, 1):           clerkinvite.ErrBadSignature, // the last one counts
		strings.Replace(testkit.EventBody, `"data":`, `"instance_id":"ins_2","data":`, 1):            nil,
		strings.Replace(testkit.EventBody, `"unsafe_metadata":{}`, `"instance_id":"ins_2"`, 1):       nil,
		strings.Replace(testkit.EventBody, `"instance_id":"ins_1",`, "", 1) + strings.Repeat(" ", 3): clerkinvite.ErrBadEvent, // may be the dashboard's example event
	} {
		ev, err := v.Verify([]byte(payload), testkit.Signed(testkit.VectorSecret, "msg_1", testkit.VectorTime, []byte(payload)))
		if want == nil {
			require.NoError(t, err, payload)
			continue
		}
		require.ErrorIs(t, err, want, payload)
		require.Nil(t, ev)
	}
}

func TestVerifyAcceptsUnusualHeaders(t *testing.T) {
	t.Parallel()
	body := []byte(testkit.EventBody)
	ts := strconv.Itoa(testkit.VectorTime)
	sig := testkit.Sign(testkit.VectorSecret, "msg_1", ts, body)
	other := testkit.Sign(testkit.NewSecret(7), "msg_1", ts, body)
	for name, h := range map[string]http.Header{
		"names in lower case":   {"svix-id": {"msg_1"}, "svix-timestamp": {ts}, "svix-signature": {sig}},
		"names in capitals":     {"SVIX-ID": {"msg_1"}, "SVIX-TIMESTAMP": {ts}, "SVIX-SIGNATURE": {sig}},
		"other first":           testkit.Headers("msg_1", ts, other+" "+sig),
		"other last":            testkit.Headers("msg_1", ts, sig+" "+other),
		"unknown versions":      testkit.Headers("msg_1", ts, "v9,abc;x=1 v1a,zzz "+sig),
		"two spaces":            testkit.Headers("msg_1", ts, other+"  "+sig),
		"space around":          testkit.Headers("msg_1", ts, " "+sig+" "),
		"the same twice":        testkit.Headers("msg_1", ts, sig+" "+sig),
		"twelve keys":           testkit.Headers("msg_1", ts, strings.Repeat(other+" ", 11)+sig),
		"split at its comma":    {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": strings.Split(sig, ",")},
		"split, two signatures": {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": strings.Split(other+" "+sig, ",")},
		"split, twelve keys":    {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": strings.Split(strings.Repeat(other+" ", 11)+sig, ",")},
		"webhook-* names added": {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}, "Webhook-Id": {"x"}, "Webhook-Signature": {"v1,y"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev, err := testkit.NewVerifier(t, testkit.VectorSecret).Verify(body, h)
			require.NoError(t, err)
			require.Equal(t, "msg_1", ev.ID)
		})
	}
}

// What is joined was one value. Two headers are still refused, also where one is split.
func TestVerifyRefusesTwoHeaders(t *testing.T) {
	t.Parallel()
	body := []byte(testkit.EventBody)
	ts := strconv.Itoa(testkit.VectorTime)
	sig := testkit.Sign(testkit.VectorSecret, "msg_1", ts, body)
	other := testkit.Sign(testkit.NewSecret(7), "msg_1", ts, body)
	for name, signatures := range map[string][]string{
		"none":                   nil,
		"the same twice":         {sig, sig},
		"another first":          {other, sig},
		"another last":           {sig, other},
		"two signatures first":   {sig + " " + sig, other},
		"an empty one first":     {"", sig},
		"an empty one last":      {sig, ""},
		"split, and another":     append(strings.Split(sig, ","), other),
		"another, and split":     append([]string{other}, strings.Split(sig, ",")...),
		"split, other way round": {strings.Split(sig, ",")[1], "v1"},
		"joined by a space":      {"v1", " " + strings.Split(sig, ",")[1]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 20 { // names in two cases have no order
				h := http.Header{"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": signatures}
				_, err := testkit.NewVerifier(t, testkit.VectorSecret).Verify(body, h)
				require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
				if len(signatures) == 2 {
					h["Svix-Signature"], h["svix-signature"] = signatures[:1], signatures[1:]
					_, err = testkit.NewVerifier(t, testkit.VectorSecret).Verify(body, h)
					require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
				}
			}
		})
	}
	for name, h := range map[string]http.Header{
		"two ids":          {"Svix-Id": {"msg_1", "msg_2"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}},
		"the same id":      {"Svix-Id": {"msg_1", "msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}},
		"a split id":       {"Svix-Id": {"msg", "1"}, "Svix-Timestamp": {ts}, "Svix-Signature": {testkit.Sign(testkit.VectorSecret, "msg,1", ts, body)}},
		"two times":        {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts, ts}, "Svix-Signature": {sig}},
		"ids of two cases": {"Svix-Id": {"msg_1"}, "svix-id": {"msg_2"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 20 {
				_, err := testkit.NewVerifier(t, testkit.VectorSecret).Verify(body, h)
				require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
			}
		})
	}
}

func TestVerifyConcurrently(t *testing.T) {
	t.Parallel()
	v := testkit.NewVerifier(t, testkit.NewSecret(1), testkit.VectorSecret)
	h := testkit.Signed(testkit.VectorSecret, "msg_1", testkit.VectorTime, []byte(testkit.EventBody))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				if ev, err := v.Verify([]byte(testkit.EventBody), h); err != nil || ev.UserID != "user_1" {
					t.Errorf("%v, %v", ev, err)
				}
				_ = fmt.Sprintf("%+v", v)
			}
		})
	}
	wg.Wait()
}

// hook is a WebhookHandler whose store fails with err. It records the queries and the log.
type hook struct {
	clerkinvite.Store
	http.Handler
	err  error
	find func(context.Context) error // called first, if set

	log testkit.LockedBuffer

	mu      sync.Mutex
	queries []clerkinvite.Query
}

func (h *hook) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	if h.find != nil {
		if err := h.find(ctx); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queries = append(h.queries, q)
	return nil, h.err
}

func (*hook) Clock(context.Context) (time.Time, error) { return time.Time{}, nil }

// handled returns the queries of the events that HandleEvent got.
func (h *hook) handled() []clerkinvite.Query {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.queries
}

func newHook(t *testing.T, err error) *hook {
	t.Helper()
	v, verifierErr := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: testkit.Secrets(testkit.VectorSecret), InstanceID: "ins_1", Now: testkit.VectorNow})
	require.NoError(t, verifierErr)
	h := &hook{err: err}
	svc, svcErr := clerkinvite.New(clerkinvite.Config{
		API: struct{ clerkinvite.ClerkAPI }{}, Store: h, Logger: slog.New(slog.NewTextHandler(&h.log, nil)),
	})
	require.NoError(t, svcErr)
	h.Handler = svc.WebhookHandler(v)
	return h
}

func hookRequest(payload string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/webhooks/clerk", strings.NewReader(payload))
	r.Header = testkit.Signed(testkit.VectorSecret, "msg_1", testkit.VectorTime, []byte(payload))
	r.Header.Set("Content-Type", "application/json")
	return r
}

// sendExample is the event that "Send Example" in the dashboard sends.
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
	limited := &clerkinvite.ClerkInvitationError{Op: "find users", Outcome: clerkinvite.OutcomeFault, Err: &clerkinvite.APIError{
		StatusCode: 429, Code: "too_many_requests", Message: "ada@example.org is too much", RetryAfter: 90*time.Second + time.Millisecond}}
	unsigned := hookRequest(sendExample)
	unsigned.Header.Del("svix-signature")
	tampered := hookRequest(sendExample)
	tampered.Body = io.NopCloser(strings.NewReader(strings.Replace(sendExample, "example@", "mallory@", 1)))
	garbage := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(strings.Repeat("[", 100_000)))
	exact := sendExample + strings.Repeat(" ", 262144-len(sendExample))
	largest := exact + strings.Repeat(" ", 4<<20-len(exact))
	forged := hookRequest(exact + "  ")
	forged.Header.Set("svix-signature", testkit.Sign(testkit.VectorSecret, "msg_1", strconv.Itoa(testkit.VectorTime), []byte(exact)))

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
		"another type":     {r: hookRequest(`{"type":"session.created","instance_id":"ins_1","data":{}}`), status: 204},
		"unsigned":         {r: unsigned, status: 400, body: "the webhook's signature is not valid\n", log: "want exactly one svix-signature header, got 0"},
		"tampered":         {r: tampered, status: 400, body: "the webhook's signature is not valid\n", log: "no signature matches"},
		"unsigned garbage": {r: garbage, status: 400, body: "the webhook's signature is not valid\n", log: "want exactly one svix-id header, got 0"},
		"other instance": {r: hookRequest(strings.Replace(sendExample, "ins_1", "ins_123", 1)), status: 400,
			body: "the webhook's signature is not valid\n", log: "another Clerk instance"},
		"signed garbage": {r: hookRequest(strings.Repeat("[", 100_000)), status: 204, log: "not a JSON object"},
		"not an event": {r: hookRequest(`{"type":"user.created","instance_id":"ins_1","data":{"id":"../x"}}`), status: 204,
			log: "id=msg_1"},
		"empty body":      {r: hookRequest(""), status: 204, log: "level=ERROR"},
		"exactly 256 KiB": {r: hookRequest(exact), status: 204, handled: 1},
		"one byte more":   {r: hookRequest(exact + " "), status: 204, log: "larger than 262144 bytes"},
		"exactly 4 MiB":   {r: hookRequest(largest), status: 204, log: "larger than 262144 bytes"},
		"more":            {r: hookRequest(largest + " "), status: 413, body: "the body is too large\n", log: "too large"},
		"large, forged":   {r: forged, status: 400, body: "the webhook's signature is not valid\n", log: "no signature matches"},
		"no instance":     {r: hookRequest(strings.Replace(sendExample, `"instance_id":"ins_1",`, "", 1)), status: 204, log: "no instance_id"},
		"database":        {r: hookRequest(sendExample), err: errors.New("dial db.internal: no ada@example.org"), status: 500, body: "internal server error\n", handled: 1, log: "level=ERROR"},
		"Clerk": {r: hookRequest(sendExample), err: limited, status: 500, body: "internal server error\n", handled: 1,
			log: "too_many_requests", retryAfter: "91"},
		"Clerk, wrapped": {r: hookRequest(sendExample), err: fmt.Errorf("ada@example.org: %w", limited), status: 500, body: "internal server error\n", handled: 1,
			log: "too_many_requests", retryAfter: "91"},
		"not found":                {r: hookRequest(sendExample), err: clerkinvite.ErrNotFound, status: 500, body: "internal server error\n", handled: 1, log: "no such member"},
		"duplicate":                {r: hookRequest(sendExample), err: &clerkinvite.DuplicateEmailError{Ref: clerkinvite.Ref{TenantID: "t1", Email: "ada@example.org"}}, status: 500, body: "internal server error\n", handled: 1, log: "already has this person"},
		"canceled":                 {r: hookRequest(sendExample), err: context.Canceled, status: 500, body: "internal server error\n", handled: 1, log: "context canceled"},
		"bad event from the store": {r: hookRequest(sendExample), err: clerkinvite.ErrBadEvent, status: 500, body: "internal server error\n", handled: 1, log: "user=user_29w83sxmDNGwOuEthce5gg56FcC"},
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
				assert.Empty(t, h.log.String())
			}
			assert.Contains(t, h.log.String(), tc.log)
			for _, address := range []string{"ada@", "example@", "mallory@"} {
				assert.NotContains(t, h.log.String(), address)
			}
		})
	}
}

func TestWebhookHandlerPassesTheEvent(t *testing.T) {
	t.Parallel()
	h := newHook(t, nil)
	h.ServeHTTP(httptest.NewRecorder(), hookRequest(sendExample))
	require.Len(t, h.handled(), 1)
	assert.Equal(t, clerkinvite.Query{Emails: []string{"example@example.org"}, UserIDs: []string{"user_29w83sxmDNGwOuEthce5gg56FcC"}}, h.handled()[0])
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

func TestWebhookHandlerWithoutVerifierPanics(t *testing.T) {
	t.Parallel()
	assert.PanicsWithValue(t, "clerkinvite: WebhookHandler needs a verifier; see NewWebhookVerifier", func() {
		new(clerkinvite.Service).WebhookHandler(nil)
	})
}

// TestWebhookHandlerBodies sends bodies that end early, are slow, or never end.
func TestWebhookHandlerBodies(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, h *hook) net.Conn {
		t.Helper()
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(testkit.Patience)))
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
	response := func(t *testing.T, conn net.Conn) string {
		t.Helper()
		buf := make([]byte, 64)
		n, err := io.ReadAtLeast(conn, buf, len("HTTP/1.1 204"))
		require.NoError(t, err)
		return string(buf[:n])
	}

	t.Run("ends early", func(t *testing.T) {
		t.Parallel()
		h := newHook(t, nil)
		conn := start(t, h)
		_, err := io.WriteString(conn, head(len(sendExample))+sendExample[:100])
		require.NoError(t, err)
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		assert.Contains(t, response(t, conn), "HTTP/1.1 400")
		assert.Empty(t, h.handled())
		assert.Contains(t, h.log.String(), "unexpected EOF")
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		h := newHook(t, nil)
		conn := start(t, h)
		_, err := io.WriteString(conn, head(len(sendExample)))
		require.NoError(t, err)
		for part := range strings.SplitAfterSeq(sendExample, ":") {
			_, err := io.WriteString(conn, part)
			require.NoError(t, err)
			time.Sleep(time.Millisecond)
		}
		assert.Contains(t, response(t, conn), "HTTP/1.1 204")
		assert.Len(t, h.handled(), 1)
	})
	t.Run("endless", func(t *testing.T) {
		t.Parallel()
		h := newHook(t, nil)
		conn := start(t, h)
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
		assert.Contains(t, response(t, conn), "HTTP/1.1 413")
		assert.Empty(t, h.handled())
	})
}

// A body that never ends gets a response after a time, without a ReadTimeout of the server and with a shorter one, signed or not.
func TestWebhookHandlerLimitsTheTimeOfABody(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		server time.Duration
		method string
		signed bool
		status int
		most   time.Duration
	}{
		"default":                {0, "POST", true, 400, 15 * time.Second},
		"unsigned":               {0, "POST", false, 400, 15 * time.Second},
		"another method":         {0, "PUT", false, 405, 15 * time.Second},
		"the server has a limit": {3 * time.Second, "POST", true, 400, 3 * time.Second},
		"and a longer one":       {time.Minute, "POST", true, 400, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHook(t, nil)
				listener := make(testkit.Pipes)
				server := &http.Server{Handler: h, ReadTimeout: tc.server, ErrorLog: log.New(io.Discard, "", 0)}
				go func() { _ = server.Serve(listener) }()
				client, conn := net.Pipe()
				listener <- conn
				start := time.Now()
				var sender sync.WaitGroup
				sender.Go(func() {
					_, _ = fmt.Fprintf(client, "%s / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n", tc.method)
					if tc.signed {
						_ = hookRequest(sendExample).Header.Write(client)
					}
					_, _ = io.WriteString(client, "\r\n")
					for {
						if _, err := client.Write([]byte{' '}); err != nil {
							return
						}
						time.Sleep(2 * time.Second)
					}
				})
				response, err := http.ReadResponse(bufio.NewReader(client), nil)
				require.NoError(t, err)
				defer response.Body.Close()
				require.Equal(t, tc.status, response.StatusCode)
				_, err = io.Copy(io.Discard, client) // until the server closes the connection
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(start), tc.most+time.Second)
				require.Empty(t, h.handled())
				sender.Wait()
				require.NoError(t, server.Close())
			})
		})
	}
}

// The time limit of the body does not end a slow HandleEvent.
func TestWebhookHandlerLimitsOnlyTheBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHook(t, nil)
		h.find = func(ctx context.Context) error {
			select {
			case <-time.After(time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		listener := make(testkit.Pipes)
		server := &http.Server{Handler: h}
		go func() { _ = server.Serve(listener) }()
		client, conn := net.Pipe()
		listener <- conn
		go func() { _ = hookRequest(sendExample).Write(client) }()
		response, err := http.ReadResponse(bufio.NewReader(client), nil)
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, 204, response.StatusCode)
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
	})
}

func TestParseEvent(t *testing.T) {
	t.Parallel()
	user := func(data string) string {
		return `{"type":"user.created","timestamp":1716883200,"data":{"id":"user_1",` + data + `}}`
	}
	one := func(address string) string {
		return user(`"email_addresses":[{"id":"idn_1","email_address":"a@b.co",` + address + `}]`)
	}
	emails := func(es ...clerkinvite.UserEmail) *clerkinvite.User {
		return &clerkinvite.User{ID: "user_1", Emails: es}
	}
	incomplete := func(es ...clerkinvite.UserEmail) *clerkinvite.User {
		return &clerkinvite.User{ID: "user_1", Emails: es, Incomplete: true}
	}
	verified := clerkinvite.UserEmail{ID: "idn_1", Address: "a@b.co", Verified: true}
	unverified := clerkinvite.UserEmail{ID: "idn_1", Address: "a@b.co"}

	for name, tc := range map[string]struct {
		payload string
		want    *clerkinvite.User
	}{
		"verified":                {one(`"verification":{"status":"verified"}`), emails(verified)},
		"verified by a ticket":    {one(`"verification":{"status":"verified","strategy":"ticket"},"reserved":false`), emails(verified)},
		"unverified":              {one(`"verification":{"status":"unverified"}`), emails(unverified)},
		"expired":                 {one(`"verification":{"status":"expired"}`), emails(unverified)},
		"failed":                  {one(`"verification":{"status":"failed"}`), emails(unverified)},
		"transferable":            {one(`"verification":{"status":"transferable"}`), emails(unverified)},
		"status in capitals":      {one(`"verification":{"status":"Verified"}`), incomplete(unverified)},
		"status with a space":     {one(`"verification":{"status":"verified "}`), incomplete(unverified)},
		"status null":             {one(`"verification":{"status":null}`), incomplete(unverified)},
		"verification null":       {one(`"verification":null`), emails(unverified)},
		"verification empty":      {one(`"verification":{}`), incomplete(unverified)},
		"verification missing":    {one(`"reserved":false`), incomplete(unverified)},
		"reserved":                {one(`"reserved":true,"verification":{"status":"verified"}`), emails(verified)},
		"reserved null":           {one(`"reserved":null,"verification":{"status":"verified"}`), emails(verified)},
		"status in metadata":      {user(`"unsafe_metadata":{"email_addresses":[{"email_address":"a@b.co","verification":{"status":"verified"}}]}`), incomplete()},
		"no addresses":            {user(`"email_addresses":[]`), emails()},
		"addresses null":          {user(`"email_addresses":null`), incomplete()},
		"addresses missing":       {user(`"object":"user"`), incomplete()},
		"an address null":         {user(`"email_addresses":[null]`), incomplete()},
		"an address empty":        {user(`"email_addresses":[{}]`), incomplete()},
		"primary without address": {user(`"primary_email_address_id":"idn_9","email_addresses":[]`), &clerkinvite.User{ID: "user_1", PrimaryEmailID: "idn_9"}},
		"primary null":            {user(`"primary_email_address_id":null`), incomplete()},
		"banned":                  {user(`"banned":true`), &clerkinvite.User{ID: "user_1", Incomplete: true, Banned: true}},
		"created_at in ms":        {user(`"created_at":1716883200123`), &clerkinvite.User{ID: "user_1", Incomplete: true, CreatedAt: time.UnixMilli(1716883200123).UTC()}},
		"created_at in s":         {user(`"created_at":1716883200`), &clerkinvite.User{ID: "user_1", Incomplete: true, CreatedAt: time.Unix(1716883200, 0).UTC()}},
		"created_at null":         {user(`"created_at":null`), incomplete()},
		"huge numbers":            {user(`"updated_at":1e999,"x":` + strings.Repeat("9", 5000)), incomplete()},
		"extra fields":            {user(`"phone_numbers":[{"id":1}],"scim":{},"":{"":[]}`), incomplete()},
		"deep metadata":           {user(`"unsafe_metadata":{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`), incomplete()},
		"not UTF-8":               {user("\"first_name\":\"\xff\""), incomplete()},
		"NUL in a name":           {user(`"first_name":"\u0000"`), incomplete()},
		"half a surrogate":        {user(`"first_name":"\ud800"`), incomplete()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev, err := clerkinvite.ParseEvent([]byte(tc.payload))
			require.NoError(t, err)
			assert.Equal(t, tc.want, ev.User)
			assert.Equal(t, tc.want.ID, ev.UserID)
			assert.Empty(t, ev.ID)
			assert.Equal(t, time.Unix(1716883200, 0).UTC(), ev.Timestamp)
			assert.NotContains(t, fmt.Sprintf("%v %s %v", ev, ev, *ev), "b.co")
		})
	}
}

func TestParseEventTypes(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]clerkinvite.Event{
		`{"type":"user.deleted","data":{"id":"user_1","deleted":true,"object":"user"}}`: {Type: "user.deleted", UserID: "user_1"},
		`{"type":"user.deleted","data":{"deleted":true}}`:                               {Type: "user.deleted"},
		`{"type":"user.deleted","data":{"id":null}}`:                                    {Type: "user.deleted"},
		`{"type":"user.deleted","data":null}`:                                           {Type: "user.deleted"},
		`{"type":"user.deleted"}`:                                                       {Type: "user.deleted"},
		`{"type":"session.created","instance_id":"ins_1","data":[1]}`:                   {Type: "session.created", InstanceID: "ins_1"},
		`{"type":"organizationInvitation.accepted","data":{"id":1}}`:                    {Type: "organizationInvitation.accepted"},
		`{"type":"User.created","data":{"id":"user_1"}}`:                                {Type: "User.created"},
		`{"type":"x","timestamp":1654012591835}`:                                        {Type: "x", Timestamp: time.UnixMilli(1654012591835).UTC()},
		`{"type":"x","timestamp":1.654012591835e12}`:                                    {Type: "x", Timestamp: time.UnixMilli(1654012591835).UTC()},
		`{"type":"x","timestamp":99999999999}`:                                          {Type: "x", Timestamp: time.Unix(99999999999, 0).UTC()},
		`{"type":"x","timestamp":100000000000}`:                                         {Type: "x", Timestamp: time.UnixMilli(100000000000).UTC()},
		`{"type":"x","timestamp":0}`:                                                    {Type: "x"},
		`{"type":"x","timestamp":null}`:                                                 {Type: "x"},
		"\n {\"type\":\"x\"}\r\n":                                                       {Type: "x"},
	} {
		ev, err := clerkinvite.ParseEvent([]byte(payload))
		require.NoError(t, err, payload)
		assert.Equal(t, want, *ev, payload)
	}
}

// A field that is not needed never discards an event. It counts as missing. If the addresses of a user cannot
// be read completely, the user says so.
func TestParseEventIgnoresOddFields(t *testing.T) {
	t.Parallel()
	user := func(emails ...clerkinvite.UserEmail) clerkinvite.Event {
		return clerkinvite.Event{Type: "user.created", UserID: "user_1", User: &clerkinvite.User{ID: "user_1", Emails: emails}}
	}
	incomplete := func(emails ...clerkinvite.UserEmail) clerkinvite.Event {
		ev := user(emails...)
		ev.User.Incomplete = true
		return ev
	}
	for name, tc := range map[string]struct {
		payload string
		want    clerkinvite.Event
	}{
		"instance a number":            {`{"type":"x","instance_id":5550199}`, clerkinvite.Event{Type: "x"}},
		"instance an address":          {`{"type":"x","instance_id":"secret@example.org"}`, clerkinvite.Event{Type: "x"}},
		"timestamp a string":           {`{"type":"x","timestamp":"1654012591835"}`, clerkinvite.Event{Type: "x"}},
		"timestamp too large":          {`{"type":"x","timestamp":1e999}`, clerkinvite.Event{Type: "x"}},
		"timestamp large":              {`{"type":"x","timestamp":9e15}`, clerkinvite.Event{Type: "x"}},
		"timestamp negative":           {`{"type":"x","timestamp":-1}`, clerkinvite.Event{Type: "x"}},
		"timestamp an array":           {`{"type":"x","timestamp":[]}`, clerkinvite.Event{Type: "x"}},
		"addresses an object":          {`{"type":"user.created","data":{"id":"user_1","email_addresses":{}}}`, incomplete()},
		"addresses a string":           {`{"type":"user.created","data":{"id":"user_1","email_addresses":"secret@example.org"}}`, incomplete()},
		"addresses strings":            {`{"type":"user.created","data":{"id":"user_1","email_addresses":["secret@example.org"]}}`, incomplete()},
		"address a number":             {`{"type":"user.created","data":{"id":"user_1","email_addresses":[{"email_address":5550199}]}}`, incomplete()},
		"address, other case":          {`{"type":"user.created","data":{"id":"user_1","email_addresses":[{"secreT":1,"Email_Address":5550199}]}}`, incomplete()},
		"beside a secret key":          {`{"type":"user.created","data":{"id":"user_1","unsafe_metadata":{"secret":5550199},"banned":5550199}}`, incomplete()},
		"verification a bool":          {`{"type":"user.created","data":{"id":"user_1","email_addresses":[{"email_address":"a@b.co","verification":true}]}}`, incomplete(clerkinvite.UserEmail{Address: "a@b.co"})},
		"verification a text":          {`{"type":"user.created","data":{"id":"user_1","email_addresses":[{"email_address":"a@b.co","verification":"verified"}]}}`, incomplete(clerkinvite.UserEmail{Address: "a@b.co"})},
		"status a bool":                {`{"type":"user.created","data":{"id":"user_1","email_addresses":[{"email_address":"a@b.co","verification":{"status":true}}]}}`, incomplete(clerkinvite.UserEmail{Address: "a@b.co"})},
		"reserved a string":            {`{"type":"user.created","data":{"id":"user_1","email_addresses":[{"email_address":"a@b.co","reserved":"false","verification":{"status":"verified"}}]}}`, user(clerkinvite.UserEmail{Address: "a@b.co", Verified: true})},
		"primary a number":             {`{"type":"user.created","data":{"id":"user_1","primary_email_address_id":1}}`, incomplete()},
		"banned a string":              {`{"type":"user.created","data":{"id":"user_1","banned":"secret@example.org"}}`, incomplete()},
		"created_at a string":          {`{"type":"user.created","data":{"id":"user_1","created_at":"secret@example.org"}}`, incomplete()},
		"created_at negative":          {`{"type":"user.created","data":{"id":"user_1","created_at":-1716883200}}`, incomplete()},
		"an address beside an odd one": {`{"type":"user.created","data":{"id":"user_1","email_addresses":[7,{"email_address":"a@b.co"}]}}`, incomplete(clerkinvite.UserEmail{Address: "a@b.co"})},
		"a key twice":                  {`{"type":"x","data":{"id":"user_2"},"type":"user.created","data":{"id":"user_1"}}`, incomplete()},
		"a key in another case":        {`{"type":"user.created","Type":"x","data":{"id":"user_1","ID":"user_2","Banned":true}}`, incomplete()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev, err := clerkinvite.ParseEvent([]byte(tc.payload))
			require.NoError(t, err)
			require.Equal(t, tc.want, *ev)
		})
	}
}

func TestParseEventRefuses(t *testing.T) {
	t.Parallel()
	for name, payload := range map[string]string{
		"nothing": "", "not JSON": "secret@example.org", "cut": testkit.EventBody[:100], "two values": testkit.EventBody + "{}", "null": "null",
		"array": "[]", "string": `"x"`, "NUL": "\x00", "NUL after": testkit.EventBody + "\x00", "byte order mark": "\ufeff" + testkit.EventBody,
		"too deep":             strings.Repeat("[", 20000) + strings.Repeat("]", 20000),
		"too deep in the data": `{"type":"x","data":` + strings.Repeat(`{"a":`, 12000) + `1` + strings.Repeat("}", 12000) + "}",
		"no type":              `{"data":{}}`,
		"type null":            `{"type":null}`,
		"type empty":           `{"type":""}`,
		"type a number":        `{"type":5550199}`,
		"type an address":      `{"type":"secret@example.org"}`,
		"type with NUL":        `{"type":"user.created\u0000","data":{"id":"user_1"}}`,
		"type too long":        `{"type":"` + strings.Repeat("x", 300) + `"}`,
		"data missing":         `{"type":"user.created"}`,
		"data null":            `{"type":"user.created","data":null}`,
		"data a string":        `{"type":"user.created","data":"secret@example.org"}`,
		"data an array":        `{"type":"user.updated","data":[{"id":"user_1"}]}`,
		"no id":                `{"type":"user.created","data":{}}`,
		"id null":              `{"type":"user.created","data":{"id":null}}`,
		"id empty":             `{"type":"user.created","data":{"id":""}}`,
		"id a number":          `{"type":"user.created","data":{"id":5550199}}`,
		"id a path":            `{"type":"user.created","data":{"id":"../invitations"}}`,
		"id a query":           `{"type":"user.created","data":{"id":"user_1?x=1"}}`,
		"id with a line break": `{"type":"user.created","data":{"id":"user_1\n"}}`,
		"id with NUL":          `{"type":"user.created","data":{"id":"user_1\u0000"}}`,
		"id not ASCII":         `{"type":"user.created","data":{"id":"usér_1"}}`,
		"id an address":        `{"type":"user.created","data":{"id":"secret@example.org"}}`,
		"id too long":          `{"type":"user.created","data":{"id":"` + strings.Repeat("u", 300) + `"}}`,
		"deleted id a path":    `{"type":"user.deleted","data":{"id":"../x"}}`,
		"deleted id a number":  `{"type":"user.deleted","data":{"id":1}}`,
		"deleted data a text":  `{"type":"user.deleted","data":"secret@example.org"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev, err := clerkinvite.ParseEvent([]byte(payload))
			require.Nil(t, ev)
			require.ErrorIs(t, err, clerkinvite.ErrBadEvent)
			require.NotErrorIs(t, err, clerkinvite.ErrBadSignature)
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "5550199")
			status, text := clerkinvite.HTTPError(err)
			require.Equal(t, http.StatusBadRequest, status)
			require.Equal(t, "the webhook's event cannot be read", text)
		})
	}
}
