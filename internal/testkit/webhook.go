package testkit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

// Svix's published example.
const (
	VectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	VectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	VectorTime      = 1614265330
	VectorBody      = `{"test": 2432232314}`
	VectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

// EventBody is a user.created event like Clerk's.
const EventBody = `{"data":{"banned":false,"created_at":1654012591514,"email_addresses":[{"email_address":"ada@example.org",` +
	`"id":"idn_1","linked_to":[],"object":"email_address","reserved":false,"verification":{"status":"verified","strategy":"ticket"}}],` +
	`"id":"user_1","object":"user","primary_email_address_id":"idn_1","unsafe_metadata":{}},` +
	`"event_attributes":{"http_request":{"client_ip":"0.0.0.0","user_agent":"x"}},"instance_id":"ins_1","object":"event",` +
	`"timestamp":1654012591835,"type":"user.created"}`

// VectorNow is the time of the example.
func VectorNow() time.Time { return time.Unix(VectorTime, 0) }

// Secrets wraps texts.
func Secrets(texts ...string) []clerkinvite.Secret {
	list := make([]clerkinvite.Secret, len(texts))
	for i, text := range texts {
		list[i] = clerkinvite.NewSecret(text)
	}
	return list
}

// NewVerifier returns a verifier with the clock of the example.
func NewVerifier(t testing.TB, secrets ...string) *clerkinvite.WebhookVerifier {
	t.Helper()
	v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: Secrets(secrets...), Now: VectorNow})
	require.NoError(t, err)
	return v
}

// NewSecret returns a secret of 32 equal bytes.
func NewSecret(fill byte) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, 32))
}

// Sign follows Svix's description, independently of the library.
func Sign(secret, id, timestamp string, payload []byte) string {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		panic(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(payload)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Headers are the headers of a delivery.
func Headers(id, timestamp, signature string) http.Header {
	return http.Header{"Svix-Id": {id}, "Svix-Timestamp": {timestamp}, "Svix-Signature": {signature}}
}

// Signed are the headers of a delivery that is signed.
func Signed(secret, id string, at int64, payload []byte) http.Header {
	ts := strconv.FormatInt(at, 10)
	return Headers(id, ts, Sign(secret, id, ts, payload))
}
