package clerkinvitetest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// WebhookSecret is a signing secret for tests. Everybody knows it.
	WebhookSecret = "whsec_Y2xlcmtpbnZpdGV0ZXN0OiBub3QgYSBzZWNyZXQgYXQgYWxs"

	// InstanceID is the instance that the fake's webhooks come from.
	InstanceID = "ins_clerkinvitetest"
)

// Webhook is an event on its way. To deliver it again, sign it again: its ID stays.
// It prints without its payload.
type Webhook struct {
	ID      string // svix-id
	Payload []byte
	At      time.Time // when it is sent, by Clerk's clock
}

// Sign returns the headers of the delivery.
func (w Webhook) Sign(secret string) http.Header { return SignWebhook(secret, w.ID, w.At, w.Payload) }

// Request returns the signed delivery, for a handler or for a client. It panics if
// url is none.
func (w Webhook) Request(secret, url string) *http.Request {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(w.Payload))
	if err != nil {
		panic("clerkinvitetest: Webhook.Request: the URL is none")
	}
	r.Header = w.Sign(secret)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "Svix-Webhooks/1.0 (clerkinvitetest)")
	return r
}

// SignWebhook returns the headers svix-id, svix-timestamp and svix-signature with
// which Clerk delivers a payload. The secret is "whsec_" and base64, the prefix may
// be missing; SignWebhook panics if it is anything else.
func SignWebhook(secret, id string, at time.Time, payload []byte) http.Header {
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimPrefix(secret, "whsec_"), "="))
	if err != nil || len(key) == 0 {
		panic(`clerkinvitetest: SignWebhook: the secret is not "whsec_" followed by base64`)
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, payload)
	h := http.Header{}
	h.Set("Svix-Id", id)
	h.Set("Svix-Timestamp", timestamp)
	h.Set("Svix-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return h
}

// event returns a new event in Clerk's envelope.
func (c *Clerk) event(kind string, data any, now time.Time) Webhook {
	timestamp := now.UnixMilli()
	if c.behavior.WebhookSeconds {
		timestamp = now.Unix()
	}
	payload := encode(map[string]any{
		"object":           "event",
		"type":             kind,
		"timestamp":        timestamp,
		"instance_id":      InstanceID,
		"data":             data,
		"event_attributes": map[string]any{"http_request": map[string]any{"client_ip": "192.0.2.1", "user_agent": "Mozilla/5.0"}},
	})
	return Webhook{ID: c.newID("msg"), Payload: payload, At: now}
}

// encode writes v as Clerk does: without the escapes that Go adds for HTML pages,
// and without a line break.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
