package peers_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// message is a message for JavaScript to sign.
type message struct {
	Secret string `json:"secret"`
	ID     string `json:"id"`
	At     int64  `json:"at"` // in milliseconds
	Body   []byte `json:"body"`
}

// wireDelivery is a delivery for JavaScript to verify.
type wireDelivery struct {
	Secret  string      `json:"secret"`
	Headers [][2]string `json:"headers"`
	Body    []byte      `json:"body"`
}

// verdict is a library's result for a delivery. It has an error even if the signature is accepted
// but the body is not.
type verdict struct {
	Accepted bool
	Error    string
	Event    json.RawMessage
}

// verdicts are those of Svix's library, of Standard Webhooks' library, which uses other header
// names, and of Clerk's.
type verdicts struct {
	Svix, Standard, Clerk verdict
}

// verify asks the libraries about all deliveries, each at its own time. A delivery has a verdict
// per secret, because the libraries take one secret.
func (p *peer) verify(t *testing.T, ds []*delivery) [][]verdicts {
	t.Helper()
	var question struct {
		Now        []int64        `json:"now"`
		Deliveries []wireDelivery `json:"deliveries"`
	}
	for _, d := range ds {
		headers := [][2]string{}
		for name, vs := range d.header {
			for _, v := range vs {
				headers = append(headers, [2]string{name, v})
			}
		}
		for _, secret := range d.secrets {
			question.Now = append(question.Now, d.now.UnixMilli())
			question.Deliveries = append(question.Deliveries, wireDelivery{secret, headers, d.body})
		}
	}
	var all []verdicts
	p.ask(t, "verify", question, &all)
	require.Len(t, all, len(question.Deliveries))
	out := make([][]verdicts, 0, len(ds))
	for _, d := range ds {
		out, all = append(out, all[:len(d.secrets)]), all[len(d.secrets):]
	}
	return out
}

// each is a JavaScript library that verifies.
var each = []struct {
	name string
	of   func(verdicts) verdict
}{
	{"svix", func(v verdicts) verdict { return v.Svix }},
	{"standardwebhooks", func(v verdicts) verdict { return v.Standard }},
	{"@clerk/backend", func(v verdicts) verdict { return v.Clerk }},
}

// chunk is the number of deliveries per line for JavaScript.
const chunk = 100

// The library accepts what Svix's and Standard Webhooks' JavaScript libraries sign, which is also
// what Svix's Go library and the fake sign.
func TestJavaScriptSignsForTheVerifier(t *testing.T) {
	t.Parallel()
	p := startPeer(t, "webhooks.mjs")
	row := tally.Start(t, "webhooks signed by Svix's and Standard Webhooks' JavaScript libraries, for our verifier")
	seed, n := testkit.Random(t).Uint64(), times(300)
	for from := 0; from < n; from += chunk {
		r := rand.New(rand.NewPCG(seed, uint64(from)))
		now := time.UnixMilli(946684800000 + r.Int64N(40*365*86400e3))
		var messages []message
		for len(messages) < min(chunk, n-from) {
			if body := randomBody(r); decodable(body) {
				at := now.Add(time.Duration(r.IntN(598_000)-299_000) * time.Millisecond)
				messages = append(messages, message{randomSecret(r, randomKeyLength(r)), randomID(r), at.UnixMilli(), body})
			}
		}
		var signatures [][2]string
		p.ask(t, "sign", messages, &signatures)
		require.Len(t, signatures, len(messages))
		for i, m := range messages {
			at := time.UnixMilli(m.At)
			want := clerkinvitetest.SignWebhook(m.Secret, m.ID, at, m.Body)
			v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(m.Secret)}, Now: func() time.Time { return now }})
			require.NoError(t, err)
			for _, signature := range signatures[i] {
				h := headersOf(m.ID, at, signature)
				require.Equal(t, want, h, "the fake signs as JavaScript does: %+v", m)
				_, err = v.Verify(m.Body, h)
				require.NotErrorIs(t, err, clerkinvite.ErrBadSignature, "%+v", m)
				_, err = v.Verify(append([]byte(" "), m.Body...), h)
				require.ErrorIs(t, err, clerkinvite.ErrBadSignature, "%+v", m)
			}
			svixSigned, err := svixWebhook(t, m.Secret).Sign(m.ID, at, m.Body)
			require.NoError(t, err)
			require.Equal(t, svixSigned, signatures[i][0])
		}
	}
	row.Done(fmt.Sprintf("%d messages by 2 libraries", n), "0 refused that were good, 0 accepted that were not")
}

// For any mutated delivery, the library and the JavaScript libraries agree, except where the
// library is stricter by design and where JavaScript handles time and text differently.
func TestTheVerifierAgreesWithJavaScript(t *testing.T) {
	t.Parallel()
	p := startPeer(t, "webhooks.mjs")
	row := tally.Start(t, "mutated webhooks, our verifier against Svix's, Standard Webhooks' and Clerk's for JavaScript")
	seed, n := testkit.Random(t).Uint64(), times(1000)
	accepted, refused, differ := 0, 0, map[string]int{}
	for from := 0; from < n; from += chunk {
		var ds []*delivery
		type opinion struct {
			accepted bool
			event    *clerkinvite.Event
		}
		var opinions []opinion
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, uint64(from)))
			someTime(r)
			for len(ds) < min(chunk, n-from) {
				time.Sleep(time.Duration(r.IntN(1e6)) * time.Microsecond)
				d := randomDelivery(t, r)
				we, event := ours(t, d)
				ds, opinions = append(ds, d), append(opinions, opinion{we, event})
			}
		})
		plain := make([]*delivery, 0, len(ds))
		for _, d := range ds {
			plain = append(plain, plainOnly(d))
		}
		all := p.verify(t, slices.Concat(ds, plain))
		for i, d := range ds {
			we := opinions[i]
			if we.accepted {
				accepted++
			} else {
				refused++
			}
			for _, library := range each {
				raw, said := anyOf(all[i], library.of), anyOf(all[i+len(ds)], library.of)
				reason := differs(d, library.name)
				switch {
				case len(stricter(d)) > 0:
					require.False(t, we.accepted, "%q is promised: %v", stricter(d), d)
					if raw.Accepted {
						differ["stricter by design, "+library.name]++
					}
				case reason != "":
					if we.accepted != said.Accepted {
						differ[reason+", "+library.name]++
					}
				default:
					require.Equal(t, said.Accepted, we.accepted, "(expected: the verdict of %s, %q; actual: ours) %v", library.name, said.Error, d)
					require.True(t, raw.Accepted || !we.accepted, "laxer than %s: %v", library.name, d)
				}
				if we.event == nil || !said.Accepted {
					continue
				}
				require.Empty(t, said.Error, "the event can be read: %v", d)
				var event struct {
					Type string `json:"type"`
					Data struct {
						ID any `json:"id"`
					} `json:"data"`
				}
				require.NoError(t, json.Unmarshal(said.Event, &event))
				require.Equal(t, event.Type, we.event.Type, d)
				if strings.HasPrefix(event.Type, "user.") && event.Data.ID != nil {
					require.Equal(t, event.Data.ID, we.event.UserID, d)
				}
			}
		}
	}
	t.Logf("%d accepted, %d refused; where a library differs: %v", accepted, refused, differ)
	require.NotZero(t, accepted)
	row.Done(fmt.Sprintf("%d deliveries, %d good and %d not, 3 libraries", n, accepted, refused), "0 disagreements",
		fmt.Sprintf("%d differences that are by design", total(differ)))
}

// anyOf returns a library's verdict for any of the delivery's secrets.
func anyOf(all []verdicts, of func(verdicts) verdict) (said verdict) {
	for _, v := range all {
		if said = of(v); said.Accepted {
			break
		}
	}
	return said
}

// differs returns why JavaScript may disagree with Go, or "".
func differs(d *delivery, library string) string {
	if !decodable(d.body) {
		return "a body that is no plain UTF-8 is signed as the text that is read from it"
	}
	at := d.first("Svix-Timestamp")
	if seconds := d.now.Unix() - 300; at == fmt.Sprint(seconds) {
		return "in the last second of the five minutes"
	}
	if library == "@clerk/backend" && strings.TrimSpace(string(d.body)) == "null" {
		return "Clerk's wants an event"
	}
	if library == "@clerk/backend" && len(d.body) == 0 {
		return "Clerk's wants a body"
	}
	return ""
}

// The five minutes end in the same second: in the middle of it for the library and Svix's for Go,
// at its end for JavaScript.
func TestTheVerifierAgreesWithJavaScriptOnTime(t *testing.T) {
	t.Parallel()
	p := startPeer(t, "webhooks.mjs")
	secret, body := clerkinvitetest.WebhookSecret, []byte(`{"type":"x"}`)
	now := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	for _, fraction := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond} {
		now := now.Add(fraction)
		var ds []*delivery
		var seconds []int
		for s := -303; s <= 303; s++ {
			if s < -297 || s > 297 || s == 0 {
				at := now.Truncate(time.Second).Add(time.Duration(s) * time.Second)
				h := clerkinvitetest.SignWebhook(secret, "msg_1", at, body)
				ds, seconds = append(ds, &delivery{secrets: []string{secret}, body: body, now: now, header: h}), append(seconds, s)
			}
		}
		v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(secret)}, Now: func() time.Time { return now }})
		require.NoError(t, err)
		for i, theirs := range p.verify(t, ds) {
			_, err := v.Verify(ds[i].body, ds[i].header)
			for _, library := range each {
				said := library.of(theirs[0]).Accepted
				require.Equal(t, seconds[i] >= -300 && seconds[i] <= 300, said, "%s, %d s", library.name, seconds[i])
				if seconds[i] == -300 && fraction > 0 {
					require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
					continue
				}
				require.Equal(t, said, err == nil, "%s, %d s and %v: %v", library.name, seconds[i], fraction, err)
			}
		}
	}
}

// every returns a webhook of every kind that the fake can produce, by its cause.
func every(t *testing.T, c *clerkinvitetest.Clerk) map[string]clerkinvitetest.Webhook {
	t.Helper()
	accept := func(w clerkinvitetest.Webhook, err error) clerkinvitetest.Webhook {
		require.NoError(t, err)
		return w
	}
	with := func(emails ...clerkinvitetest.EmailSpec) string {
		return c.AddUser(clerkinvitetest.UserSpec{Emails: emails}).ID
	}
	many := slices.Repeat([]clerkinvitetest.EmailSpec{{Address: "m@example.com"}}, 50)
	out := map[string]clerkinvitetest.Webhook{
		"signs up":              c.SignUp("new@example.com", true),
		"signs up unverified":   c.SignUp("other@example.com", false),
		"signs in":              c.SignUp("new@example.com", true),
		"address that is text":  c.SignUp("ünï.中文+<&>'\"@bücher.example.com", true),
		"a user without any":    c.UserCreated(c.AddUser(clerkinvitetest.UserSpec{Primary: -1}).ID),
		"a user with many":      c.UserCreated(with(many...)),
		"a null verification":   c.UserUpdated(with(clerkinvitetest.EmailSpec{Address: "n@example.com", NullVerification: true})),
		"a reserved address":    c.UserUpdated(with(clerkinvitetest.EmailSpec{Address: "r@example.com", Reserved: true})),
		"an ID of the caller's": c.UserUpdated(c.AddUser(clerkinvitetest.UserSpec{ID: "user_29w83sxmDNGwOuEthce5gg56FcC", Banned: true}).ID),
	}
	user := c.AddVerifiedUser("ada@example.com").ID
	out["user.created"], out["user.updated"] = c.UserCreated(user), c.UserUpdated(user)
	out["adds an address"] = c.AddEmail(user, clerkinvitetest.EmailSpec{Address: "ada2@example.com"})
	out["verifies an address"] = c.VerifyEmail(user, "ada2@example.com")
	out["is banned"] = c.BanUser(user)
	out["is deleted"] = c.DeleteUser(user)
	c.CreateForeign("grace@example.com", map[string]any{"text": "\u2028<b>\u0000é中😀", "n": 12345678901234567})
	out["accepts and signs up"] = accept(c.Accept("grace@example.com"))
	c.CreateForeign("grace@example.com", nil)
	out["accepts and signs in"] = accept(c.Accept("grace@example.com"))
	c.CreateForeign("joan@example.com", nil)
	out["accepts as another"] = accept(c.AcceptAs("joan@example.com", "private@example.com"))
	out["accepts this one"] = accept(c.AcceptInvitation(c.CreateForeign("jean@example.com", nil).ID))
	maps.Copy(out, everyOrganizationEvent(t, c))
	return out
}

// Clerk's verifyWebhook accepts what the fake signs, and nothing else.
func TestClerkVerifiesWhatTheFakeSigns(t *testing.T) {
	t.Parallel()
	p := startPeer(t, "webhooks.mjs")
	row := tally.Start(t, "webhooks of the fake, for Clerk's verifyWebhook")
	good, bad := 0, 0
	for _, b := range clerkinvitetest.Behaviors() {
		c := clerkinvitetest.NewClerk()
		c.SetBehavior(b.Behavior)
		now := time.Date(2026, 3, 1, 9, 0, 0, 500e6, time.UTC)
		c.SetNow(func() time.Time { return now })
		other := "whsec_" + base64.StdEncoding.EncodeToString([]byte("another secret of 24 byte"))
		hooks := every(t, c)
		var ds []*delivery
		add := func(what string, at time.Duration, secret string, w clerkinvitetest.Webhook, change func(d *delivery)) {
			h := w.Request(clerkinvitetest.WebhookSecret, "http://127.0.0.1/").Header
			d := &delivery{secrets: []string{secret}, body: w.Payload, now: w.At.Add(at), header: h, what: []string{what}}
			if change != nil {
				change(d)
			}
			ds = append(ds, d)
		}
		var names []string
		for name := range hooks {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			w := hooks[name]
			add("good", 0, clerkinvitetest.WebhookSecret, w, nil)
			if b.Behavior != (clerkinvitetest.Behavior{}) && !tally.Long() {
				continue // the others add little
			}
			add("good, prefix missing", 0, strings.TrimPrefix(clerkinvitetest.WebhookSecret, "whsec_"), w, nil)
			add("good, almost late", 299*time.Second, clerkinvitetest.WebhookSecret, w, nil)
			add("good, almost early", -299*time.Second, clerkinvitetest.WebhookSecret, w, nil)
			add("good, repeated with a new signature", time.Hour, clerkinvitetest.WebhookSecret, w, func(d *delivery) {
				d.header = clerkinvitetest.SignWebhook(clerkinvitetest.WebhookSecret, w.ID, d.now, w.Payload)
			})
			add("bad, late", 301*time.Second, clerkinvitetest.WebhookSecret, w, nil)
			add("bad, early", -301*time.Second, clerkinvitetest.WebhookSecret, w, nil)
			add("bad, another secret", 0, other, w, nil)
			add("bad, tampered", 0, clerkinvitetest.WebhookSecret, w, func(d *delivery) {
				d.body = []byte(strings.Replace(string(d.body), `"type":"`, `"type": "`, 1))
			})
			for _, h := range svixHeaders {
				add("bad, without "+h, 0, clerkinvitetest.WebhookSecret, w, func(d *delivery) { d.header.Del(h) })
			}
			add("bad, another id", 0, clerkinvitetest.WebhookSecret, w, func(d *delivery) { d.header.Set("Svix-Id", "msg_0") })
			add("bad, another time", 0, clerkinvitetest.WebhookSecret, w, func(d *delivery) { d.header.Set("Svix-Timestamp", fmt.Sprint(w.At.Unix()+1)) })
			add("bad, under other names", 0, clerkinvitetest.WebhookSecret, w, func(d *delivery) {
				for _, h := range svixHeaders {
					d.header.Set(strings.Replace(h, "Svix", "Webhook", 1), d.header.Get(h))
					d.header.Del(h)
				}
			})
		}
		for i, theirs := range p.verify(t, ds) {
			d, said := ds[i], theirs[0].Clerk
			v, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{
				Secrets: d.hidden(), InstanceID: clerkinvitetest.InstanceID, Now: func() time.Time { return d.now },
			})
			require.NoError(t, err)
			event, err := v.Verify(d.body, d.header)
			if strings.HasPrefix(d.what[0], "bad") {
				require.False(t, said.Accepted, "%s: %v", b.Name, d)
				require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
				bad++
				continue
			}
			require.True(t, said.Accepted, "%s: %s: %v", b.Name, said.Error, d)
			require.Empty(t, said.Error)
			require.NoError(t, err)
			require.JSONEq(t, string(d.body), string(said.Event), "Clerk's SDK hands on all of the event")
			require.Contains(t, string(said.Event), `"type":"`+event.Type+`"`)
			if strings.HasPrefix(event.Type, "organization") {
				requireSameEvent(t, d, said.Event)
			}
			good++
		}
	}
	row.Done(fmt.Sprintf("%d good and %d bad ones", good, bad), "0 good refused, 0 bad accepted")
}

// How every JavaScript library treats the header names of Standard Webhooks: the library ignores
// them, like Clerk's.
func TestHeadersOfStandardWebhooksAreNotClerks(t *testing.T) {
	t.Parallel()
	p := startPeer(t, "webhooks.mjs")
	now, body := time.Now(), []byte(`{"type":"x"}`)
	h := http.Header{}
	for name, vs := range clerkinvitetest.SignWebhook(clerkinvitetest.WebhookSecret, "msg_1", now, body) {
		h[strings.Replace(name, "Svix", "Webhook", 1)] = vs
	}
	d := &delivery{secrets: []string{clerkinvitetest.WebhookSecret}, body: body, header: h, now: now}
	said := p.verify(t, []*delivery{d})[0][0]
	require.True(t, said.Svix.Accepted)
	require.True(t, said.Standard.Accepted)
	require.False(t, said.Clerk.Accepted)
	require.True(t, svixAccepts(t, d))
	accepted, _ := ours(t, d)
	require.False(t, accepted)
}
