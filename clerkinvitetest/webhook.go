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
	// WebhookSecret is a public signing secret for tests.
	WebhookSecret = "whsec_Y2xlcmtpbnZpdGV0ZXN0OiBub3QgYSBzZWNyZXQgYXQgYWxs"

	// InstanceID is the instance ID in the webhooks of [Clerk].
	InstanceID = "ins_clerkinvitetest"
)

// Webhook is an event to deliver. To deliver it again, sign it again: the ID stays the same.
// It prints without its payload.
type Webhook struct {
	ID      string // svix-id
	Payload []byte
	At      time.Time // when it is sent, by the clock of [Clerk]
}

// Sign returns the headers of a delivery. It panics as SignWebhook does.
func (w Webhook) Sign(secret string) http.Header { return SignWebhook(secret, w.ID, w.At, w.Payload) }

// Request returns a signed delivery, for a handler or a client. It panics if url is not a
// URL.
func (w Webhook) Request(secret, url string) *http.Request {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(w.Payload))
	if err != nil {
		panic("clerkinvitetest: Webhook.Request: url must be a URL")
	}
	r.Header = w.Sign(secret)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "Svix-Webhooks/1.0 (clerkinvitetest)")
	return r
}

// SignWebhook returns the headers svix-id, svix-timestamp and svix-signature of a delivery.
// It panics if the secret is not base64, with or without the prefix "whsec_".
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

// event returns a new event.
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

// encode returns v as JSON without HTML escapes and without a line break, as Clerk does.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
