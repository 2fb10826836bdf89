package attacks_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// checkRefused also checks the error's text and the response.
func checkRefused(t *testing.T, v *clerkinvite.WebhookVerifier, payload []byte, h http.Header) {
	t.Helper()
	ev, err := v.Verify(payload, h)
	require.Nil(t, ev)
	require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
	require.NotErrorIs(t, err, clerkinvite.ErrBadEvent)
	require.NotContains(t, err.Error(), "ada@")
	status, text := clerkinvite.HTTPError(err)
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, "the webhook's signature is not valid", text)
}

func TestPromise9_EveryFlippedBitIsRefused(t *testing.T) {
	t.Parallel()
	v := testkit.NewVerifier(t, testkit.VectorSecret)
	good := testkit.Signed(testkit.VectorSecret, testkit.VectorID, testkit.VectorTime, []byte(testkit.EventBody))
	flipped := func(s string, bit int) string {
		b := []byte(s)
		b[bit/8] ^= 1 << (bit % 8)
		return string(b)
	}
	for name := range good {
		for bit := range 8 * len(good.Get(name)) {
			h := good.Clone()
			h[name] = []string{flipped(h.Get(name), bit)}
			checkRefused(t, v, []byte(testkit.EventBody), h)
		}
	}
	for bit := range 8 * len(testkit.EventBody) {
		checkRefused(t, v, []byte(flipped(testkit.EventBody, bit)), good)
	}
}

func TestPromise9_ForgeriesAreRefused(t *testing.T) {
	t.Parallel()
	body := []byte(testkit.EventBody)
	ts := strconv.Itoa(testkit.VectorTime)
	sig := testkit.Sign(testkit.VectorSecret, "msg_1", ts, body)
	raw := strings.TrimPrefix(sig, "v1,")
	other := testkit.Sign(testkit.NewSecret(7), "msg_1", ts, body)
	// The signature is valid, so only the rule under test can reject it.
	resigned := func(id, ts string) http.Header {
		return testkit.Headers(id, ts, testkit.Sign(testkit.VectorSecret, id, ts, body))
	}

	for name, h := range map[string]http.Header{
		"nil header":               nil,
		"no headers":               {},
		"no id":                    {"Svix-Timestamp": {ts}, "Svix-Signature": {sig}},
		"no timestamp":             {"Svix-Id": {"msg_1"}, "Svix-Signature": {sig}},
		"no signature":             {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts}},
		"header without value":     {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": {}},
		"empty id":                 resigned("", ts),
		"empty timestamp":          resigned("msg_1", ""),
		"empty signature":          testkit.Headers("msg_1", ts, ""),
		"blank signature":          testkit.Headers("msg_1", ts, " "),
		"another id":               testkit.Headers("msg_2", ts, sig),
		"another timestamp":        testkit.Headers("msg_1", strconv.Itoa(testkit.VectorTime+1), sig),
		"another secret":           testkit.Headers("msg_1", ts, other),
		"id and timestamp swapped": testkit.Headers(ts, "msg_1", sig),
		"by the empty key":         testkit.Headers("msg_1", ts, testkit.Sign("", "msg_1", ts, body)),
		"by the secret's text":     testkit.Headers("msg_1", ts, testkit.Sign(base64.StdEncoding.EncodeToString([]byte(testkit.VectorSecret)), "msg_1", ts, body)),

		"webhook-* names":    {"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {ts}, "Webhook-Signature": {sig}},
		"names mixed":        {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts}, "Webhook-Signature": {sig}},
		"names mixed, 2":     {"Webhook-Id": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}},
		"name with a long s": {"ſvix-id": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}},
		"name with a space":  {"Svix-Id" + " ": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}},

		"two id lines":           {"Svix-Id": {"msg_1", "msg_2"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}},
		"two equal id lines":     {"Svix-Id": {"msg_1", "msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}},
		"two timestamp lines":    {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts, "1"}, "Svix-Signature": {sig}},
		"two signature lines":    {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig, other}},
		"two signature lines, 2": {"Svix-Id": {"msg_1"}, "Svix-Timestamp": {ts}, "Svix-Signature": {other, sig}},
		"two lines by case":      {"Svix-Id": {"msg_1"}, "svix-id": {"msg_2"}, "Svix-Timestamp": {ts}, "Svix-Signature": {sig}},
		"joined ids":             testkit.Headers("msg_1, msg_2", ts, sig),
		"joined timestamps":      testkit.Headers("msg_1", ts+", "+ts, sig),
		"joined signatures":      testkit.Headers("msg_1", ts, sig+","+other),
		"joined signatures, 2":   testkit.Headers("msg_1", ts, other+","+sig),

		"no version":         testkit.Headers("msg_1", ts, raw),
		"version v2":         testkit.Headers("msg_1", ts, "v2,"+raw),
		"version v1a":        testkit.Headers("msg_1", ts, "v1a,"+raw),
		"version V1":         testkit.Headers("msg_1", ts, "V1,"+raw),
		"version v01":        testkit.Headers("msg_1", ts, "v01,"+raw),
		"equals sign":        testkit.Headers("msg_1", ts, "v1="+raw),
		"only the version":   testkit.Headers("msg_1", ts, "v1,"),
		"only commas":        testkit.Headers("msg_1", ts, ",,,"),
		"space after comma":  testkit.Headers("msg_1", ts, "v1, "+raw),
		"suffix after comma": testkit.Headers("msg_1", ts, sig+",x"),
		"tab between":        testkit.Headers("msg_1", ts, other+"\t"+sig),
		"line break between": testkit.Headers("msg_1", ts, other+"\n"+sig),
		"line break after":   testkit.Headers("msg_1", ts, sig+"\n"),
		"no-break space":     testkit.Headers("msg_1", ts, other+"\u00a0"+sig),
		"NUL after":          testkit.Headers("msg_1", ts, sig+"\x00"),
		"without padding":    testkit.Headers("msg_1", ts, strings.TrimRight(sig, "=")),
		"padded twice":       testkit.Headers("msg_1", ts, sig+"="),
		"other unused bits":  testkit.Headers("msg_1", ts, sig[:len(sig)-2]+string(sig[len(sig)-2]+1)+"="),
		"URL-safe base64":    testkit.Headers("msg_1", ts, "v1,"+strings.NewReplacer("+", "-", "/", "_").Replace(raw)+"="),
		"in capitals":        testkit.Headers("msg_1", ts, "v1,"+strings.ToUpper(raw)),
		"cut":                testkit.Headers("msg_1", ts, sig[:20]),
		"hex":                testkit.Headers("msg_1", ts, fmt.Sprintf("v1,%x", raw)),
		"header too long":    testkit.Headers("msg_1", ts, strings.Repeat(other+" ", 100)+sig),

		"timestamp 01":    resigned("msg_1", "0"+ts),
		"timestamp +1":    resigned("msg_1", "+"+ts),
		"timestamp -1":    resigned("msg_1", "-"+ts),
		"timestamp 1.0":   resigned("msg_1", ts+".0"),
		"timestamp 1e9":   resigned("msg_1", "1.61426533e9"),
		"timestamp hex":   resigned("msg_1", "0x60379a72"),
		"timestamp 1_000": resigned("msg_1", "1_614_265_330"),
		// A verifier that signs the parsed number would accept these.
		"timestamp 01 for 1":      testkit.Headers("msg_1", "0"+ts, sig),
		"timestamp +1 for 1":      testkit.Headers("msg_1", "+"+ts, sig),
		"timestamp of many zeros": testkit.Headers("msg_1", strings.Repeat("0", 20)+ts, sig),
		"timestamp  1":            resigned("msg_1", " "+ts),
		"timestamp 1 ":            resigned("msg_1", ts+" "),
		"timestamp 1\\n":          resigned("msg_1", ts+"\n"),
		"timestamp 1\\x00":        resigned("msg_1", ts+"\x00"),
		"timestamp in ms":         resigned("msg_1", ts+"000"),
		"Arabic digits":           resigned("msg_1", "١٦١٤٢٦٥٣٣٠"),
		"fullwidth digits":        resigned("msg_1", "１６１４２６５３３０"),
		"timestamp zero":          resigned("msg_1", "0"),
		"timestamp overflows":     resigned("msg_1", "18446744075323816946"), // 2⁶⁴ + the right one
		"timestamp is long":       resigned("msg_1", strings.Repeat("9", 5000)),
		"timestamp is text":       resigned("msg_1", "now"),

		"id with a dot":        resigned("msg.1", ts),
		"id with a space":      resigned("msg 1", ts),
		"id with a line break": resigned("msg_1\nforged log line", ts),
		"id with NUL":          resigned("msg_1\x00", ts),
		"id not ASCII":         resigned("msg_é", ts),
		"id too long":          resigned(strings.Repeat("m", 256), ts),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, testkit.NewVerifier(t, testkit.VectorSecret), body, h)
		})
	}

	for name, payload := range map[string]string{
		"nil": "", "space before": " " + testkit.EventBody, "line break after": testkit.EventBody + "\n", "byte order mark": "\ufeff" + testkit.EventBody,
		"pretty":                   strings.ReplaceAll(testkit.EventBody, ",", ", "),
		"parsed and encoded again": string(reencoded(t, testkit.EventBody)),
		"not JSON":                 "{", "NUL": testkit.EventBody + "\x00",
	} {
		t.Run("payload/"+name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, testkit.NewVerifier(t, testkit.VectorSecret), []byte(payload), testkit.Headers("msg_1", ts, sig))
		})
	}
}

func reencoded(t *testing.T, s string) []byte {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal([]byte(s), &v))
	b, err := json.MarshalIndent(v, "", " ")
	require.NoError(t, err)
	return b
}

// The same bytes are signed, with other boundaries between ID, time and body.
func TestPromise9_ShiftedBoundariesAreRefused(t *testing.T) {
	t.Parallel()
	v := testkit.NewVerifier(t, testkit.VectorSecret)
	ts := strconv.Itoa(testkit.VectorTime)
	// If a body could begin with "<ts>.", Clerk would sign "msg_1.<ts>.<ts>.{…}".
	body := ts + "." + testkit.EventBody
	sig := testkit.Sign(testkit.VectorSecret, "msg_1", ts, []byte(body))
	require.Equal(t, sig, testkit.Sign(testkit.VectorSecret, "msg_1."+ts, ts, []byte(testkit.EventBody)))
	checkRefused(t, v, []byte(testkit.EventBody), testkit.Headers("msg_1."+ts, ts, sig))
	checkRefused(t, v, []byte(ts+"."+body), testkit.Headers("msg_1", "", sig))
}
