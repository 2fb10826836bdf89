package attacks_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// The ways in which FuzzWebhookVerdict spoils a valid webhook.
const (
	flipSignature = 1 << iota // one bit of the signature, chosen by the high byte
	flipBody
	cutSignature
	doubleHeader
	lowerHeader
	shiftDot // a byte moves from the time to the body
	otherSecret
)

// FuzzWebhookVerdict gives the verifier and a second implementation of Standard Webhooks
// the same valid, spoilt and arbitrary webhooks. They never disagree.
func FuzzWebhookVerdict(f *testing.F) {
	const now = testkit.VectorTime
	ts := strconv.Itoa(now)
	body := []byte(testkit.EventBody)
	for spoil := range uint16(1 << 7) {
		f.Add(testkit.VectorSecret, "msg_1", ts, "", body, int64(now), true, spoil|uint16(29)<<8)
	}
	for bit := range uint16(256) { // especially bits near the end, which a truncated comparison would miss
		f.Add(testkit.VectorSecret, "msg_1", ts, "", body, int64(now), true, uint16(flipSignature)|bit<<8)
	}
	for _, late := range []int64{-1 << 62, -301, -300, 300, 301, 1 << 40} {
		f.Add(testkit.VectorSecret, "msg_1", ts, "v1a,x v2,y", body, now+late, true, uint16(0))
	}
	for _, secret := range []string{"", "whsec_", testkit.NewSecret(1), strings.TrimRight(testkit.NewSecret(2), "="), "whsec_" + testkit.VectorSecret, " " + testkit.VectorSecret, "whsec_QUJD"} {
		f.Add(secret, "msg_1", ts, "", body, int64(now), true, uint16(0))
	}
	for _, s := range []string{"", "0", "-1", "+" + ts, "0" + ts, ts + ".0", "1e9", " " + ts, "9223372036854775808", "٣"} {
		f.Add(testkit.VectorSecret, "msg_1", s, "", body, int64(now), true, uint16(0))
	}
	for _, id := range []string{"", ".", "msg.1", "msg 1", "msg_1\r\nX: y", "mſg", strings.Repeat("a", 255), strings.Repeat("a", 256)} {
		f.Add(testkit.VectorSecret, id, ts, "", body, int64(now), true, uint16(0))
	}
	for _, sig := range []string{testkit.VectorSignature, "v1", "v1,", ",", "v1,,", strings.Repeat("v1,x ", 1000)} {
		f.Add(testkit.VectorSecret, testkit.VectorID, ts, sig, []byte(testkit.VectorBody), int64(now), false, uint16(0))
		f.Add(testkit.VectorSecret, testkit.VectorID, ts, sig, []byte(testkit.VectorBody), int64(now), true, uint16(0))
	}
	f.Fuzz(func(t *testing.T, secret, id, ts, sig string, body []byte, now int64, sign bool, how uint16) {
		key := specKey(secret)
		v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{
			Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(secret)}, Now: func() time.Time { return time.Unix(now, 0) }})
		if (err == nil) != (key != nil) {
			t.Fatalf("secret of %d bytes: %v, by the specification %v", len(secret), err, key != nil)
		}
		if err != nil {
			if part := strings.TrimPrefix(secret, "whsec_"); len(part) > 8 && strings.Contains(err.Error(), part[:8]) {
				t.Fatalf("the error contains the secret: %v", err)
			}
			return
		}
		signWith := key
		if how&otherSecret != 0 {
			signWith = append([]byte{^key[0]}, key[1:]...)
		}
		if sign {
			good := specSign(signWith, id, ts, body)
			at := int(how >> 8)
			if how&flipSignature != 0 {
				b := []byte(good)
				b[len(b)-1-at%32] ^= 1 << (at / 32)
				good = string(b)
			}
			if how&cutSignature != 0 {
				good = good[:len(good)-1-at%len(good)]
			}
			sig = strings.TrimSpace(sig + " v1," + good)
		}
		if how&flipBody != 0 && len(body) > 0 {
			body = bytes.Clone(body)
			body[int(how>>8)%len(body)] ^= 4
		}
		if how&shiftDot != 0 && ts != "" {
			body, ts = append([]byte(ts[len(ts)-1:]), body...), ts[:len(ts)-1]
		}
		h := http.Header{"Svix-Id": {id}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}}
		if how&doubleHeader != 0 {
			h["Svix-Signature"] = []string{sig, sig}
		}
		if how&lowerHeader != 0 {
			h = http.Header{"svix-id": {id}, "SVIX-TIMESTAMP": {ts}, "Svix-signature": h["Svix-Signature"]}
		}
		ev, err := v.Verify(body, h)
		got := err == nil || errors.Is(err, clerkinvite.ErrBadEvent)
		if want := specVerdict(key, h, body, now); got != want {
			t.Fatalf("accepted %v, by the specification %v: %v", got, want, err)
		}
		if got == errors.Is(err, clerkinvite.ErrBadSignature) || (ev == nil) == (err == nil) {
			t.Fatalf("%v and %v", ev, err)
		}
	})
}

// specKey returns the key of a Standard Webhooks secret: base64 of 24 bytes or
// more, with an optional prefix and optional padding. It returns nil for other texts.
func specKey(secret string) []byte {
	text, padding := strings.CutPrefix(secret, "whsec_")
	_ = padding
	text = strings.TrimRight(text, "=")
	for _, c := range []byte(text) {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", rune(c)) {
			return nil
		}
	}
	if len(text)%4 == 1 {
		return nil
	}
	key, err := base64.StdEncoding.DecodeString(text + strings.Repeat("=", -len(text)&3))
	if err != nil || len(key) < 24 {
		return nil
	}
	return key
}

func specSign(key []byte, id, ts string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%s.", id, ts)
	_, _ = mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

var (
	specID   = regexp.MustCompile(`\A[0-9A-Za-z_-]{1,255}\z`)
	specTime = regexp.MustCompile(`\A[1-9][0-9]{0,11}\z`)
)

// specVerdict implements Standard Webhooks 1.0.0 with crypto/hmac only, in the strict reading
// that the library documents: each header once, an ID without a dot, a canonical number,
// five minutes of tolerance.
func specVerdict(key []byte, h http.Header, body []byte, now int64) bool {
	one := map[string]string{}
	for name, values := range h {
		if len(values) != 1 {
			return false
		}
		one[strings.ToLower(name)] = values[0]
	}
	id, ts, sigs := one["svix-id"], one["svix-timestamp"], one["svix-signature"]
	if !specID.MatchString(id) || !specTime.MatchString(ts) || len(sigs) > 4096 {
		return false
	}
	at, err := strconv.ParseInt(ts, 10, 64)
	if err != nil || math.Abs(float64(now)-float64(at)) > 300 {
		return false
	}
	good := []byte("v1," + specSign(key, id, ts, body))
	for s := range strings.SplitSeq(sigs, " ") {
		if hmac.Equal([]byte(s), good) {
			return true
		}
	}
	return false
}

// FuzzCursor lists with any cursor: it is rejected, or it is a position among the tenant's
// members, no matter where it came from.
func FuzzCursor(f *testing.F) {
	const perTenant = 5
	store := clerkinvitetest.NewMemoryStore()
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
	require.NoError(f, err)
	tenants := []string{"acme", "globex", "a", "acme."}
	own := map[string][]*clerkinvite.Member{}
	for i := range perTenant {
		for _, tenant := range tenants {
			m, err := svc.Reserve(context.Background(), clerkinvite.InviteParams{TenantID: tenant, Email: fmt.Sprintf("m%d@example.com", i)})
			require.NoError(f, err)
			own[tenant] = append(own[tenant], m) // version 7: in the order of their ids
		}
	}
	for _, tenant := range tenants {
		for limit := range 3 {
			page, err := svc.List(context.Background(), clerkinvite.ListParams{TenantID: tenant, Limit: limit + 1})
			require.NoError(f, err)
			for i := range tenants {
				f.Add(page.Next, uint8(i), uint8(limit))
			}
		}
	}
	for _, s := range []string{"", "=", "AAAAAAAAAAAAAAAAAAAAAA", "_____________________w", "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAB", "' OR 1=1 --",
		"AAAAAAAAAAAAAAAAAAAAAA\n", strings.Repeat("A", 1<<12), own["acme"][0].ID, "\x00", "\xff"} {
		f.Add(s, uint8(0), uint8(1))
	}
	f.Fuzz(func(t *testing.T, cursor string, which, limit uint8) {
		tenant := tenants[int(which)%len(tenants)]
		size := 1 + int(limit)%7
		page, err := svc.List(context.Background(), clerkinvite.ListParams{TenantID: tenant, Cursor: cursor, Limit: size})
		position, ok := referenceCursor(cursor)
		if err != nil {
			var invalid *clerkinvite.InvalidParamsError
			if ok || !errors.As(err, &invalid) || invalid.Field != "Cursor" || page != nil {
				t.Fatalf("%q: %v, %v, but it is the position %q", cursor, page, err, position)
			}
			if cursor != "" && len(cursor) > 3 && strings.Contains(err.Error(), cursor) {
				t.Fatalf("the error repeats the cursor: %v", err)
			}
			return
		}
		if !ok {
			t.Fatalf("%q is not a cursor, but was accepted", cursor)
		}
		var want []string
		for _, m := range own[tenant] {
			if strings.ReplaceAll(m.ID, "-", "") > position {
				want = append(want, m.ID)
			}
		}
		more := len(want) > size
		want = want[:min(size, len(want))]
		var got []string
		for _, m := range page.Members {
			if m.TenantID != tenant {
				t.Fatalf("%q lists a member of %q in %q", cursor, m.TenantID, tenant)
			}
			got = append(got, m.ID)
		}
		if !reflect.DeepEqual(got, want) || more != (page.Next != "") {
			t.Fatalf("%q: %v and %q, want %v", cursor, got, page.Next, want)
		}
		if more {
			next, ok := referenceCursor(page.Next)
			if last := strings.ReplaceAll(want[size-1], "-", ""); !ok || next != last {
				t.Fatalf("the cursor after %s is %q, %q", last, page.Next, next)
			}
		}
	})
}

// referenceCursor returns a cursor's position in hexadecimal; "" is
// the beginning. A position has only one cursor.
func referenceCursor(cursor string) (position string, ok bool) {
	if cursor == "" {
		return "", true
	}
	if strings.ContainsAny(cursor, "\r\n") { // encoding/base64 skips these
		return "", false
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) != 16 || base64.RawURLEncoding.EncodeToString(b) != cursor {
		return "", false
	}
	return hex.EncodeToString(b), true
}

// FuzzVerify compares the verifier with an independent implementation that uses no
// regular expressions.
func FuzzVerify(f *testing.F) {
	ts := strconv.Itoa(testkit.VectorTime)
	body := []byte(testkit.EventBody)
	for _, id := range []string{"msg_1", testkit.VectorID, "", "msg.1", "msg_1\n", "mſg"} {
		f.Add(id, ts, "", body, uint8(1))
	}
	for _, s := range []string{ts, "0" + ts, "+" + ts, ts + "000", "1614265630", "1614265631", "1614265030", "1614265029", " " + ts, "١", ""} {
		f.Add("msg_1", s, "v1a,abc", body, uint8(2))
		f.Add("msg_1", s, "", body, uint8(4))
	}
	for _, sig := range []string{testkit.VectorSignature, "v1,", "v1,x v1,y", "v1,x,", strings.Repeat("v1,x ", 900)} {
		f.Add(testkit.VectorID, ts, sig, []byte(testkit.VectorBody), uint8(0))
		f.Add(testkit.VectorID, ts, sig, []byte(testkit.VectorBody), uint8(1))
	}
	f.Add("msg_1", ts, "", []byte("{"), uint8(3))

	keys := []string{testkit.VectorSecret, testkit.NewSecret(2)}
	v := testkit.NewVerifier(f, keys...)
	f.Fuzz(func(t *testing.T, id, ts, sig string, payload []byte, signWith uint8) {
		switch signWith {
		case 1, 2: // a key of the verifier
			sig += " " + testkit.Sign(keys[signWith-1], id, ts, payload)
		case 4: // a key of the verifier, for the number instead of its text
			n, _ := strconv.ParseInt(ts, 10, 64)
			sig += " " + testkit.Sign(keys[0], id, strconv.FormatInt(n, 10), payload)
		case 3: // another key
			sig += " " + testkit.Sign(testkit.NewSecret(3), id, ts, payload)
		}
		_, err := v.Verify(payload, testkit.Headers(id, ts, sig))
		got := err == nil || errors.Is(err, clerkinvite.ErrBadEvent)
		if want := oracle(keys, id, ts, sig, payload); got != want {
			t.Fatalf("accepted %v, the oracle says %v: %v", got, want, err)
		}
		if !got && !errors.Is(err, clerkinvite.ErrBadSignature) {
			t.Fatalf("unknown error %v", err)
		}
	})
}

func oracle(keys []string, id, ts, sig string, payload []byte) bool {
	if id == "" || len(id) > 255 || !onlyIDBytes(id) {
		return false
	}
	n, err := strconv.ParseUint(ts, 10, 40)
	if err != nil || strconv.FormatUint(n, 10) != ts || n < testkit.VectorTime-300 || n > testkit.VectorTime+300 {
		return false
	}
	if len(sig) > 4096 {
		return false
	}
	for _, key := range keys {
		want := testkit.Sign(key, id, ts, payload)
		for rest := sig; ; {
			first, tail, more := strings.Cut(rest, " ")
			if first == want {
				return true
			}
			if !more {
				break
			}
			rest = tail
		}
	}
	return false
}

func onlyIDBytes(s string) bool {
	for _, b := range []byte(s) {
		letter := b|0x20 >= 'a' && b|0x20 <= 'z'
		if digit := b >= '0' && b <= '9'; !letter && !digit && b != '_' && b != '-' {
			return false
		}
	}
	return true
}

func FuzzParseEvent(f *testing.F) {
	for _, s := range []string{
		testkit.EventBody, testkit.VectorBody, "", "null", "{}", `{"type":"x"}`,
		`{"type":"user.deleted","data":{"id":"user_1"}}`,
		`{"type":"user.updated","data":{"id":"user_1","email_addresses":[{"email_address":"a@b.co","reserved":true,"verification":null}]}}`,
		`{"type":"user.created","data":{"id":"user_1","email_addresses":[null]},"timestamp":1e12}`,
		`{"type":"user.created","data":{"id":"../x","created_at":-1}}`,
		`{"type":"user.created","type":1,"data":{"id":"user_1","email_addresses":[{}],"email_addresses":[{"verification":{"status":"verified"}}]}}`,
		`{"type":"\u0000","instance_id":"a@b"}`, "{\"type\":\"\xff\"}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		ev, err := clerkinvite.ParseEvent(payload)
		if err != nil {
			if ev != nil || !errors.Is(err, clerkinvite.ErrBadEvent) || len(err.Error()) > 100 {
				t.Fatalf("%v, %v", ev, err)
			}
			return
		}
		if out := fmt.Sprintf("%v %v %s", ev, *ev, ev); strings.ContainsAny(out, "@\n\x00") {
			t.Fatalf("printed: %q", out)
		}
		if u := ev.User; u != nil {
			if ev.Type != clerkinvite.EventUserCreated && ev.Type != clerkinvite.EventUserUpdated || u.ID == "" || ev.UserID != u.ID {
				t.Fatalf("%v has user %q", ev, u.ID)
			}
			for _, e := range u.Emails {
				if e.Verified && !bytes.Contains(payload, []byte("verified")) && !bytes.Contains(payload, []byte(`\u`)) {
					t.Fatal("verified without a status")
				}
			}
			if y := u.CreatedAt.Year(); !u.CreatedAt.IsZero() && (y < 1970 || y > 33660) {
				t.Fatal(u.CreatedAt)
			}
		}
		if !onlyIDBytes(ev.UserID) {
			t.Fatalf("user id %q", ev.UserID)
		}
	})
}
