package peers_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	svix "github.com/svix/svix-webhooks/go"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// times returns the number of random cases.
func times(short int) int {
	if tally.Long() {
		return 100 * short
	}
	return short
}

// someTime moves the clock of a synctest bubble, which starts in the year 2000, by up to forty
// years. Svix's library has no other clock than time.Now.
func someTime(r *rand.Rand) {
	time.Sleep(time.Duration(r.Int64N(int64(40 * 365 * 24 * time.Hour))).Truncate(time.Millisecond))
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

func randomText(r *rand.Rand, alphabet string, n int) string {
	runes := []rune(alphabet)
	out := make([]rune, n)
	for i := range out {
		out[i] = runes[r.IntN(len(runes))]
	}
	return string(out)
}

// randomSecret returns a secret with a key of n bytes, as Clerk's dashboard shows it or without its
// prefix.
func randomSecret(r *rand.Rand, bytes int) string {
	key := make([]byte, bytes)
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	prefix := "whsec_"
	if r.IntN(3) == 0 {
		prefix = ""
	}
	return prefix + base64.StdEncoding.EncodeToString(key)
}

func randomKeyLength(r *rand.Rand) int { return pick(r, 24, 24, 24, 25, 26, 32, 64, 75, 100) }

func randomID(r *rand.Rand) string {
	switch r.IntN(6) {
	case 0:
		return randomText(r, base62+"_-", 1+r.IntN(255))
	case 1:
		return strconv.Itoa(r.IntN(1e6))
	default:
		return "msg_" + randomText(r, base62, 27)
	}
}

// randomValue returns a random JSON value.
func randomValue(r *rand.Rand, depth int) any {
	switch n := r.IntN(9); {
	case n == 0:
		return nil
	case n == 1:
		return r.IntN(2) == 0
	case n == 2:
		return r.Int64N(1 << 53)
	case n == 3:
		return r.NormFloat64()
	case n < 7 || depth == 0:
		return randomText(r, "aZ09 .,:\"'\\/<>&\t\n\r\u0000\u007f\u2028\ufffdäßñ中文字日本語אבגدة😀🧑‍🚀é", r.IntN(30))
	case n == 7:
		list := make([]any, r.IntN(4))
		for i := range list {
			list[i] = randomValue(r, depth-1)
		}
		return list
	default:
		object := map[string]any{}
		for range r.IntN(5) {
			object[randomText(r, "abcdefgh_ü", 1+r.IntN(10))] = randomValue(r, depth-1)
		}
		return object
	}
}

// randomBody returns the body of a webhook: usually an event like Clerk's, sometimes something
// else.
func randomBody(r *rand.Rand) []byte {
	switch r.IntN(40) {
	case 0:
		return []byte(`{}`)
	case 1:
		return []byte(`{"test": 2432232314}`)
	case 2:
		return []byte(` {"type" : "sms.created" ,"data":{ } } ` + "\n")
	case 3:
		return []byte(`{"type":"user.created","type":"user.deleted","data":{"id":"user_1"},"data":{"id":"user_2"}}`)
	case 4:
		return []byte{}
	case 5:
		return []byte(randomText(r, "{}[]\",:0a ü", r.IntN(40)))
	case 6:
		raw := make([]byte, r.IntN(60)) // seldom UTF-8
		for i := range raw {
			raw[i] = byte(r.Uint32())
		}
		return raw
	case 7:
		return append([]byte("\xef\xbb\xbf"), `{"type":"session.created"}`...)
	}
	kind := pick(r, "user.created", "user.updated", "user.deleted", "session.created", "organizationMembership.created", "email.created")
	data, _ := randomValue(r, 3).(map[string]any)
	if data == nil {
		data = map[string]any{}
	}
	data["object"] = strings.Split(kind, ".")[0]
	if strings.HasPrefix(kind, "user.") && r.IntN(10) > 0 {
		data["id"] = "user_" + randomText(r, base62, 27)
		data["created_at"] = 1.6e12 + float64(r.IntN(1e9))
		data["email_addresses"] = []any{map[string]any{
			"id": "idn_" + randomText(r, base62, 27), "email_address": randomText(r, "abcüé+.-", 9) + "@example.com",
			"verification": map[string]any{"status": "verified", "strategy": "ticket"},
		}}
	}
	if r.IntN(50) == 0 {
		data["public_metadata"] = map[string]any{"large": randomText(r, base62+"中ü\n", r.IntN(100_000))}
	}
	event := map[string]any{
		"object": "event", "type": kind, "data": data, "timestamp": 1654012591835 + r.IntN(1e9), "instance_id": "ins_" + randomText(r, base62, 27),
		"event_attributes": map[string]any{"http_request": map[string]any{"client_ip": "192.0.2.1", "user_agent": randomValue(r, 0)}},
	}
	var body strings.Builder
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(r.IntN(2) == 0)
	if r.IntN(5) == 0 {
		e.SetIndent("", "\t")
	}
	if err := e.Encode(event); err != nil {
		panic(err)
	}
	return []byte(strings.TrimSuffix(body.String(), "\n"))
}

// delivery is a webhook as it arrives, from any signer.
type delivery struct {
	secrets []string // of the receiver
	body    []byte
	header  http.Header
	now     time.Time
	what    []string // the mutations
}

func (d *delivery) String() string {
	return fmt.Sprintf("%q at %v with %d secrets, %q, body %.300q", d.what, d.now.UnixMilli(), len(d.secrets), d.header, d.body)
}

// hidden returns the receiver's secrets as the library's type.
func (d *delivery) hidden() []clerkinvite.Secret {
	var list []clerkinvite.Secret
	for _, s := range d.secrets {
		list = append(list, clerkinvite.NewSecret(s))
	}
	return list
}

func svixWebhook(t *testing.T, secret string) *svix.Webhook {
	t.Helper()
	wh, err := svix.NewWebhook(secret)
	require.NoError(t, err)
	return wh
}

func headersOf(id string, at time.Time, signature string) http.Header {
	return http.Header{"Svix-Id": {id}, "Svix-Timestamp": {strconv.FormatInt(at.Unix(), 10)}, "Svix-Signature": {signature}}
}

// ours returns whether the library accepts the signature, and the event if it can be read.
func ours(t *testing.T, d *delivery) (accepted bool, event *clerkinvite.Event) {
	t.Helper()
	v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: d.hidden()})
	require.NoError(t, err)
	event, err = v.Verify(d.body, d.header)
	if err == nil {
		require.NotNil(t, event)
		return true, event
	}
	require.Nil(t, event)
	require.NotEqual(t, errors.Is(err, clerkinvite.ErrBadSignature), errors.Is(err, clerkinvite.ErrBadEvent), "%v", err)
	return errors.Is(err, clerkinvite.ErrBadEvent), nil
}

// svixAccepts asks Svix's Go library, which takes one secret.
func svixAccepts(t *testing.T, d *delivery) bool {
	t.Helper()
	return slices.ContainsFunc(d.secrets, func(secret string) bool { return svixWebhook(t, secret).Verify(d.body, d.header) == nil })
}

// The library accepts what Svix's library signs, and the fake signs the same.
func TestSvixSignsForTheVerifier(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "webhooks signed by Svix's Go library, for our verifier")
	seed, n := testkit.Random(t).Uint64(), times(1500)
	events := 0
	for from := 0; from < n; from += 1000 {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, uint64(from)))
			someTime(r)
			for range min(1000, n-from) {
				time.Sleep(time.Duration(r.IntN(1e6)) * time.Microsecond)
				secret, other := randomSecret(r, randomKeyLength(r)), randomSecret(r, 24)
				d := &delivery{secrets: []string{secret}, body: randomBody(r), now: time.Now()}
				id, at := randomID(r), d.now.Add(time.Duration(r.IntN(599)-299)*time.Second)
				signature, err := svixWebhook(t, secret).Sign(id, at, d.body)
				require.NoError(t, err)
				d.header = headersOf(id, at, signature)
				require.Equal(t, d.header, clerkinvitetest.SignWebhook(secret, id, at, d.body), "the fake signs as Svix does: %v", d)

				accepted, event := ours(t, d)
				require.True(t, accepted, d)
				require.True(t, svixAccepts(t, d), d)
				if event != nil {
					events++
					require.Equal(t, id, event.ID)
				}

				// During a rotation, the sender signs with both secrets, or the receiver has both,
				// in either order.
				more, err := svixWebhook(t, other).Sign(id, at, d.body)
				require.NoError(t, err)
				rotated := *d
				rotated.secrets = []string{other, secret}
				requireAccepted(t, &rotated)
				rotated.secrets = []string{secret, other}
				requireAccepted(t, &rotated)
				v1a := "v1a," + randomText(r, base62, 86) + "=="
				for _, both := range []string{signature + " " + more, more + " " + signature, v1a + " " + signature, signature + " " + v1a} {
					rotated.header, rotated.secrets = headersOf(id, at, both), []string{secret}
					requireAccepted(t, &rotated)
				}
				rotated.header = headersOf(id, at, more)
				accepted, _ = ours(t, &rotated)
				require.False(t, accepted, "signed with another secret: %v", &rotated)
			}
		})
	}
	row.Done(fmt.Sprintf("%d messages, 8 deliveries each", n), "0 refused that were good, 0 accepted that were not",
		fmt.Sprintf("%d readable events", events))
}

func requireAccepted(t *testing.T, d *delivery) {
	t.Helper()
	accepted, _ := ours(t, d)
	require.True(t, accepted, d)
}

// Cases in which the library is stricter than others. Each is a promise, and none can reject a
// webhook of Clerk.
var (
	plainID        = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	plainTime      = regexp.MustCompile(`^[1-9][0-9]{0,11}$`)
	plainSignature = regexp.MustCompile(`^v1,[A-Za-z0-9+/]{43}=$`)
)

// stricter returns why the library refuses a delivery regardless of its signature.
func stricter(d *delivery) (reasons []string) {
	values := map[string][]string{}
	for key, vs := range d.header {
		values[strings.ToLower(key)] = append(values[strings.ToLower(key)], vs...)
	}
	for _, name := range []string{"svix-id", "svix-timestamp", "svix-signature"} {
		if len(values[name]) != 1 || values[name][0] == "" {
			return []string{"one header " + name + ", and no webhook-… instead of it"}
		}
	}
	if !plainID.MatchString(values["svix-id"][0]) {
		reasons = append(reasons, "an id that cannot be read in two ways")
	}
	if !plainTime.MatchString(values["svix-timestamp"][0]) {
		reasons = append(reasons, "a time as it was signed")
	}
	signatures := values["svix-signature"][0]
	if len(signatures) > 4096 {
		reasons = append(reasons, "a header of at most 4096 bytes")
	}
	return reasons
}

// plainOnly returns the delivery without signatures that the library ignores: others also accept
// "v1,<signature>,<anything>". It returns d if there are none.
func plainOnly(d *delivery) *delivery {
	signatures := d.first("Svix-Signature")
	plain := slices.DeleteFunc(strings.Split(signatures, " "), func(s string) bool {
		return strings.HasPrefix(s, "v1,") && !plainSignature.MatchString(s)
	})
	if strings.Join(plain, " ") == signatures {
		return d
	}
	c := *d
	c.header = d.header.Clone()
	// Not an empty header: Svix treats it as missing and reads another set of headers.
	c.set("Svix-Signature", strings.Join(append(plain, "none"), " "))
	return &c
}

// randomDelivery returns a signed delivery with random mutations, harmless or not.
func randomDelivery(t *testing.T, r *rand.Rand) *delivery {
	t.Helper()
	d := &delivery{now: time.Now(), body: randomBody(r), secrets: []string{randomSecret(r, randomKeyLength(r))}}
	if r.IntN(5) == 0 {
		d.secrets = append(d.secrets, randomSecret(r, randomKeyLength(r)))
	}
	id, at := randomID(r), d.now
	switch r.IntN(4) {
	case 0:
		at = d.now.Add(time.Duration(pick(r, -3600, -302, -301, -300, -299, 299, 300, 301, 302, 3600)) * time.Second)
	case 1:
		at = d.now.Add(time.Duration(r.IntN(1000)-500) * time.Second)
	}
	signer := pick(r, d.secrets...)
	if r.IntN(12) == 0 {
		signer = randomSecret(r, 24)
		d.what = append(d.what, "another secret")
	}
	signature, err := svixWebhook(t, signer).Sign(id, at, d.body)
	require.NoError(t, err)
	d.header = headersOf(id, at, signature)
	if r.IntN(3) > 0 {
		for range 1 + r.IntN(2) {
			pick(r, mutations...)(d, r)
		}
	}
	return d
}

// first returns the first value of a header, which a mutation changes.
func (d *delivery) first(name string) string {
	if vs := d.header[name]; len(vs) > 0 {
		return vs[0]
	}
	return ""
}

func (d *delivery) set(name, value string) {
	d.header[name] = append([]string{value}, d.header[name][min(1, len(d.header[name])):]...)
}

// change replaces one character of a header.
func (d *delivery) change(r *rand.Rand, name, alphabet string) {
	if v := []rune(d.first(name)); len(v) > 0 {
		v[r.IntN(len(v))] = []rune(alphabet)[r.IntN(len([]rune(alphabet)))]
		d.set(name, string(v))
	}
}

var svixHeaders = []string{"Svix-Id", "Svix-Timestamp", "Svix-Signature"}

// mutations are changes of a delivery, accidental or malicious.
var mutations = []func(d *delivery, r *rand.Rand){
	func(d *delivery, r *rand.Rand) { // a bit of the body
		d.what = append(d.what, "bit of the body")
		if len(d.body) > 0 {
			d.body = slices.Clone(d.body)
			d.body[r.IntN(len(d.body))] ^= 1 << r.IntN(8)
		}
	},
	func(d *delivery, r *rand.Rand) { // white space of the body
		d.what = append(d.what, "white space of the body")
		body := string(d.body)
		d.body = []byte(pick(r, " "+body, body+"\n", strings.TrimSpace(body), strings.ReplaceAll(body, "\n", "\r\n")))
	},
	func(d *delivery, r *rand.Rand) { // the body's end
		d.what = append(d.what, "end of the body")
		d.body = slices.Clone(d.body[:len(d.body)-min(len(d.body), 1+r.IntN(3))])
	},
	func(d *delivery, r *rand.Rand) {
		d.what = append(d.what, "character of the signature")
		d.change(r, "Svix-Signature", base62+"+/=, v.-_ä")
	},
	func(d *delivery, r *rand.Rand) {
		d.what = append(d.what, "character of the id")
		d.change(r, "Svix-Id", base62+"-_. \t,é中%")
	},
	func(d *delivery, r *rand.Rand) {
		d.what = append(d.what, "character of the time")
		d.change(r, "Svix-Timestamp", "0123456789-+. exé")
	},
	func(d *delivery, r *rand.Rand) { // other notations of the same time
		d.what = append(d.what, "writing of the time")
		s := d.first("Svix-Timestamp")
		n, _ := strconv.ParseInt(s, 10, 64)
		d.set("Svix-Timestamp", pick(r,
			"0"+s, "+"+s, "-"+s, " "+s, s+" ", s+".0", s+"x", s+"000", "0x"+strconv.FormatInt(n, 16), s+"e0", "", s+"\n", "9"+s+s+s))
	},
	func(d *delivery, r *rand.Rand) { // the time
		d.what = append(d.what, "another time")
		n, _ := strconv.ParseInt(d.first("Svix-Timestamp"), 10, 64)
		d.set("Svix-Timestamp", strconv.FormatInt(n+int64(r.IntN(700)-350), 10))
	},
	func(d *delivery, r *rand.Rand) { // versions
		d.what = append(d.what, "version")
		s := strings.TrimPrefix(d.first("Svix-Signature"), "v1,")
		d.set("Svix-Signature", pick(r, "v1a,"+s, "v2,"+s, "V1,"+s, s, "v1"+s, "v1 "+s, "v1,,"+s, ",v1,"+s, "v1;"+s, "v0,"+s+" v1a,"+s))
	},
	func(d *delivery, r *rand.Rand) { // notation of a signature
		d.what = append(d.what, "writing of the signature")
		s := d.first("Svix-Signature")
		url := strings.NewReplacer("+", "-", "/", "_").Replace(s)
		d.set("Svix-Signature", pick(r, strings.TrimSuffix(s, "="), s+"=", s+",", s+",v1", s+"\n", url,
			strings.ToUpper(s), strings.ToLower(s), s[:len(s)/2], "", "v1,", "v1"))
	},
	func(d *delivery, r *rand.Rand) { // several signatures
		d.what = append(d.what, "several signatures")
		s, junk := d.first("Svix-Signature"), "v1,"+randomText(r, base62, 43)+"="
		many := strings.Repeat(junk+" ", r.IntN(120))
		d.set("Svix-Signature", pick(r, junk+" "+s, s+" "+junk, " "+s, s+" ", junk+"  "+s, junk+"\t"+s, junk+","+s, junk+", "+s,
			"v1a,x "+s, many+s, s+" "+many, "v1 "+s))
	},
	func(d *delivery, r *rand.Rand) {
		d.what = append(d.what, "header missing")
		delete(d.header, pick(r, svixHeaders...))
	},
	func(d *delivery, r *rand.Rand) { // twice
		d.what = append(d.what, "header twice")
		name := pick(r, svixHeaders...)
		v := d.first(name)
		twice := []string{v, pick(r, v, "", "x", "v1,x")}
		if r.IntN(2) == 0 {
			slices.Reverse(twice)
		}
		d.header[name] = twice
	},
	func(d *delivery, r *rand.Rand) { // the header names of Standard Webhooks
		d.what = append(d.what, "webhook-… headers")
		for _, name := range svixHeaders {
			if r.IntN(4) > 0 {
				d.header[strings.Replace(name, "Svix-", "Webhook-", 1)] = d.header[name]
				delete(d.header, name)
			}
		}
	},
	func(d *delivery, r *rand.Rand) { // both sets of names, one of them good
		d.what = append(d.what, "both sets of headers")
		for _, name := range svixHeaders {
			d.header[strings.Replace(name, "Svix-", "Webhook-", 1)] = []string{d.first(name)}
		}
		d.change(r, pick(r, "Svix-Id", "Webhook-Id", "Svix-Timestamp", "Webhook-Signature"), base62)
	},
	func(d *delivery, r *rand.Rand) { // an id with a dot could move bytes between id, time and body
		d.what = append(d.what, "bytes moved")
		id, at := d.first("Svix-Id"), d.first("Svix-Timestamp")
		if r.IntN(2) == 0 {
			d.set("Svix-Id", id+"."+at)
		} else if before, after, found := strings.Cut(string(d.body), "."); found {
			d.set("Svix-Timestamp", at+"."+before)
			d.body = []byte(after)
		}
	},
	func(d *delivery, r *rand.Rand) { // validly signed, but not as Clerk does
		d.what = append(d.what, "strange id, well signed")
		id := pick(r, "msg.1", "", "ü", "a b", randomText(r, base62, 256), "msg_1\x00", "msg_é中")
		at, _ := strconv.ParseInt(d.first("Svix-Timestamp"), 10, 64)
		wh, _ := svix.NewWebhook(d.secrets[0])
		signature, _ := wh.Sign(id, time.Unix(at, 0), d.body)
		d.set("Svix-Id", id)
		d.set("Svix-Signature", signature)
	},
}

// For any mutated delivery, the library and Svix's Go library agree, except where the library is
// stricter by design.
func TestTheVerifierAgreesWithSvix(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "mutated webhooks, our verifier against Svix's for Go")
	seed, n := testkit.Random(t).Uint64(), times(6000)
	accepted, refused, byDesign := 0, 0, map[string]int{}
	for from := 0; from < n; from += 1000 {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, uint64(from)))
			someTime(r)
			for range min(1000, n-from) {
				time.Sleep(time.Duration(r.IntN(1e6)) * time.Microsecond)
				d := randomDelivery(t, r)
				reasons := stricter(d)
				we, event := ours(t, d)
				they := svixAccepts(t, d)
				switch {
				case len(reasons) > 0:
					require.False(t, we, "%q is promised: %v", reasons, d)
					if they {
						byDesign[reasons[0]]++
					}
				default:
					require.Equal(t, svixAccepts(t, plainOnly(d)), we, "(expected: Svix's verdict, actual: ours) %v", d)
					if they != we {
						require.True(t, they, "laxer: %v", d)
						byDesign["a signature with nothing behind it"]++
					}
				}
				if event != nil {
					require.True(t, json.Valid(d.body), d)
				}
				if we {
					accepted++
				} else {
					refused++
				}
			}
		})
	}
	t.Logf("%d accepted, %d refused, of these by design, where Svix accepts: %v", accepted, refused, byDesign)
	require.NotZero(t, accepted)
	row.Done(fmt.Sprintf("%d deliveries, %d good and %d not", n, accepted, refused), "0 disagreements",
		fmt.Sprintf("%d stricter by design, 0 laxer", total(byDesign)))
}

func total(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// The five minutes end at the same instant.
func TestTheVerifierAgreesWithSvixOnTime(t *testing.T) {
	t.Parallel()
	for _, fraction := range []time.Duration{0, 1, time.Millisecond, 500 * time.Millisecond, time.Second - 1} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(fraction)
			secret := clerkinvitetest.WebhookSecret
			for seconds := -303; seconds <= 303; seconds++ {
				at := time.Now().Truncate(time.Second).Add(time.Duration(seconds) * time.Second)
				d := &delivery{secrets: []string{secret}, body: []byte(`{"type":"x"}`), now: time.Now()}
				d.header = clerkinvitetest.SignWebhook(secret, "msg_1", at, d.body)
				we, _ := ours(t, d)
				require.Equal(t, svixAccepts(t, d), we, "%d s and %v", seconds, fraction)
				require.Equal(t, time.Since(at).Abs() <= 5*time.Minute, we, "%d s and %v", seconds, fraction)
			}
		})
	}
}

// Headers that did not pass net/http: the library reads them in any case, like the JavaScript
// libraries, while Svix's Go library finds only net/http's spelling.
func TestTheVerifierReadsHeadersInAnyCase(t *testing.T) {
	t.Parallel()
	now := time.Now()
	body := []byte(`{"type":"x"}`)
	good := clerkinvitetest.SignWebhook(clerkinvitetest.WebhookSecret, "msg_1", now, body)
	lower := http.Header{}
	for key, vs := range good {
		lower[strings.ToLower(key)] = vs
	}
	d := &delivery{secrets: []string{clerkinvitetest.WebhookSecret}, body: body, header: lower, now: now}
	requireAccepted(t, d)
	require.False(t, svixAccepts(t, d))
}

// Secrets: the library refuses more than Svix's, but accepts secrets without padding, which gets
// lost when copied.
func TestSecretsComparedWithSvix(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "webhook secrets, our verifier against Svix's for Go")
	r := testkit.Random(t)
	n, byDesign, padding := times(2000), 0, 0
	for range n {
		length := r.IntN(40)
		secret := randomSecret(r, length)
		switch r.IntN(4) {
		case 0:
			at := r.IntN(len(secret) + 1)
			secret = secret[:at] + pick(r, " ", "\n", "=", "-", "é", "whsec_", "\x00") + secret[at:]
		case 1:
			secret = strings.TrimRight(secret, "=")
		}
		_, theirs := svix.NewWebhook(secret)
		v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(secret)}})
		raw, paddedErr := base64.StdEncoding.DecodeString(padded(strings.TrimPrefix(secret, "whsec_")))
		switch {
		case err == nil && theirs == nil:
			body, at := []byte(`{"type":"x"}`), time.Now()
			signature, err := svixWebhook(t, secret).Sign("msg_1", at, body)
			require.NoError(t, err)
			_, err = v.Verify(body, headersOf("msg_1", at, signature))
			require.NoError(t, err)
		case err == nil: // laxer by design: the padded secret has the same key
			require.NoError(t, paddedErr, "%q", secret)
			padding++
			body, at := []byte(`{"type":"x"}`), time.Now()
			_, err = v.Verify(body, headersOf("msg_1", at, hmacOf(raw, "msg_1", at, body)))
			require.NoError(t, err)
		case theirs == nil: // stricter by design: short keys and line breaks
			require.True(t, len(raw) < 24 || strings.ContainsAny(secret, " \n"), "%q: %v", secret, err)
			byDesign++
		}
		if err == nil {
			require.GreaterOrEqual(t, len(raw), 24, "%q", secret)
		}
	}
	row.Done(fmt.Sprintf("%d secrets", n), "0 disagreements",
		fmt.Sprintf("%d stricter by design", byDesign), fmt.Sprintf("%d with lost padding taken", padding))
}

func padded(secret string) string {
	secret = strings.TrimRight(secret, "=")
	return secret + strings.Repeat("=", -len(secret)&3)
}

func hmacOf(key []byte, id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// The library refuses an event of another instance and a body that is not an event. Svix's library
// checks neither.
func TestTheVerifierAsksForMoreThanASignature(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for body, want := range map[string]error{
		`{"type":"x","instance_id":"ins_1"}`: nil,
		`{"type":"x","instance_id":"ins_2"}`: clerkinvite.ErrBadSignature,
		`{"type":"x"}`:                       clerkinvite.ErrBadEvent,
		`{}`:                                 clerkinvite.ErrBadEvent,
		`{"instance_id":"ins_1"}`:            clerkinvite.ErrBadEvent,
		`[]`:                                 clerkinvite.ErrBadEvent,
		``:                                   clerkinvite.ErrBadEvent,
		`{"type":"user.created","instance_id":"ins_1","data":{}}`: clerkinvite.ErrBadEvent,
	} {
		secret := clerkinvitetest.WebhookSecret
		v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(secret)}, InstanceID: "ins_1"})
		require.NoError(t, err)
		h := clerkinvitetest.SignWebhook(secret, "msg_1", now, []byte(body))
		require.NoError(t, svixWebhook(t, secret).Verify([]byte(body), h))
		_, err = v.Verify([]byte(body), h)
		require.ErrorIs(t, err, want, body)
	}
}

// decodable reports whether the body is valid text: JavaScript's libraries sign the text, Go's the
// bytes.
func decodable(body []byte) bool {
	return utf8.Valid(body) && !strings.HasPrefix(string(body), "\ufeff")
}
