package clerkinvite

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/mail"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// plainAddress is RFC 5322's dot-atom before the @ and host names after it: what every
// mail system takes. It judges addresses that need no IDNA without normalizeEmail's code.
var plainAddress = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@" +
	`(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// thirdAndFourth finds the labels that IDNA keeps for itself, "xn--" among them.
var thirdAndFourth = regexp.MustCompile(`[@.]..--`)

// FuzzEmailForms writes an address in another way, as somebody would who wants a second
// row or another person's: it is the same address then, or none.
func FuzzEmailForms(f *testing.F) {
	// Every bit of how stands for one change of writing.
	for _, forms := range emailForms {
		for _, form := range forms {
			f.Add(form, uint16(0xffff))
		}
	}
	for _, s := range badEmails {
		if len(s) < 300 {
			f.Add(s, uint16(0))
		}
	}
	for bit := range 16 {
		f.Add("Ada.K+i@Kiel-sub.bücher.xn--strae-oqa.Example.org", uint16(1)<<bit)
		f.Add("i@xn--fsqu00a.xn--0zwm56d", uint16(1)<<bit)
	}
	f.Fuzz(func(t *testing.T, s string, how uint16) {
		n, reason := normalizeEmail(s)
		trimmed := strings.TrimSpace(s)
		if isASCII(trimmed) && !thirdAndFourth.MatchString(trimmed) {
			local, _, _ := strings.Cut(trimmed, "@")
			plain := plainAddress.MatchString(trimmed) && len(local) <= 64 && len(trimmed) <= 254
			if plain != (reason == "") {
				t.Fatalf("%q: plain %v, but %q (%s)", s, plain, n, reason)
			}
			if plain && n != asciiCase(trimmed, 'A', 'Z') {
				t.Fatalf("%q became %q", s, n)
			}
		}
		if reason != "" {
			return
		}
		if local, _, _ := strings.Cut(trimmed, "@"); !isASCII(local) {
			t.Fatalf("%q passes for %q", s, n)
		}
		if again, reason := normalizeEmail(n); again != n {
			t.Fatalf("%q is %q, and that is %q (%s)", s, n, again, reason)
		}
		// An independent parser takes it for one address without a name, and a second
		// decoder reads each of its labels.
		a, err := mail.ParseAddress(n)
		if err != nil || a.Name != "" || a.Address != n {
			t.Fatalf("%q: net/mail reads %v, %v", n, a, err)
		}
		_, domain, _ := strings.Cut(n, "@")
		for label := range strings.SplitSeq(domain, ".") {
			u, ok := unicodeLabel(label)
			if !ok || strings.ContainsFunc(u, func(r rune) bool {
				// Cherokee is the one script whose letters fold to the capitals.
				upper := unicode.IsUpper(r) && !unicode.Is(unicode.Cherokee, r)
				return r <= ' ' || r == '@' || r == '.' || r == '。' || upper || unicode.IsControl(r) || unicode.IsSpace(r)
			}) {
				t.Fatalf("%q has the label %q, %q", n, label, u)
			}
		}
		for _, form := range []string{rewritten(trimmed, how), rewritten(n, how), rewritten(unicodeDomain(n), how)} {
			got, reason := normalizeEmail(form)
			if reason == "" && got != n {
				t.Fatalf("%q is %q, but %q is %q", s, n, form, got)
			}
			// Other letters before the @ are another mailbox, even if they have these as lower case.
			if local, _, _ := strings.Cut(strings.TrimSpace(form), "@"); reason == "" && !isASCII(local) {
				t.Fatalf("%q passes for %q", form, got)
			}
		}
	})
}

// rewritten writes an address in another way.
func rewritten(address string, how uint16) string {
	bit := func(n int) bool { return how>>n&1 == 1 }
	local, domain, _ := strings.Cut(address, "@")
	if bit(0) {
		local = asciiCase(local, 'a', 'z')
	}
	if bit(1) {
		domain = asciiCase(domain, 'a', 'z')
	}
	if bit(2) {
		domain = strings.Map(func(r rune) rune {
			// The final sigma, for one, has no capital of its own, and is another letter in a domain.
			if upper := unicode.ToUpper(r); unicode.ToLower(upper) == r {
				return upper
			}
			return r
		}, domain)
	}
	if bit(3) {
		domain = strings.Map(func(r rune) rune { // fullwidth letters
			if r > ' ' && r < 0x7f && r != '-' && r != '.' {
				return r + 0xfee0
			}
			return r
		}, domain)
	}
	if bit(4) {
		domain = strings.ReplaceAll(domain, ".", "。")
	}
	if bit(5) {
		domain = strings.Replace(domain, ".", "．", 1)
	}
	if bit(6) {
		domain = strings.Replace(domain, ".", "｡", 1)
	}
	if bit(7) {
		domain += "."
	}
	if bit(8) && len(domain) > 1 {
		domain = domain[:1] + "\u00ad" + domain[1:]
	}
	if bit(9) {
		domain = strings.ReplaceAll(domain, ".", "\u200b.")
	}
	if bit(10) {
		domain = strings.ReplaceAll(domain, "ü", "u\u0308")
	}
	if bit(11) {
		local = strings.Replace(local, "k", "\u212a", 1) // the Kelvin sign: another person before the @
	}
	if bit(12) {
		domain = strings.Replace(domain, "k", "\u212a", 1)
	}
	address = local + "@" + domain
	if bit(13) {
		address = "\t " + address + "\r\n"
	}
	if bit(14) {
		address = "\u3000" + address + "\u00a0"
	}
	if bit(15) {
		address = "<" + address + ">"
	}
	return address
}

// unicodeDomain returns the address with the labels of its domain decoded.
func unicodeDomain(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	labels := strings.Split(domain, ".")
	for i := range labels {
		labels[i], _ = unicodeLabel(labels[i])
	}
	return local + "@" + strings.Join(labels, ".")
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// unicodeLabel decodes a label: punycode as RFC 3492, section 6.2, has it.
func unicodeLabel(label string) (string, bool) {
	coded, ok := strings.CutPrefix(label, "xn--")
	if !ok {
		return label, true
	}
	var out []rune
	if at := strings.LastIndexByte(coded, '-'); at >= 0 {
		out, coded = []rune(coded[:at]), coded[at+1:]
	}
	n, i, bias := 128, 0, 72
	for len(coded) > 0 {
		old, w := i, 1
		for k := 36; ; k += 36 {
			if coded == "" {
				return "", false
			}
			digit := strings.IndexByte("abcdefghijklmnopqrstuvwxyz0123456789", coded[0])
			coded = coded[1:]
			if digit < 0 {
				return "", false
			}
			i += digit * w
			threshold := min(max(k-bias, 1), 26)
			if digit < threshold {
				break
			}
			w *= 36 - threshold
			if i > 1<<40 || w > 1<<40 {
				return "", false
			}
		}
		length := len(out) + 1
		delta := (i - old) / 2
		if old == 0 {
			delta = (i - old) / 700
		}
		delta += delta / length
		k := 0
		for ; delta > 455; k += 36 {
			delta /= 35
		}
		bias = k + 36*delta/(delta+38)
		n += i / length
		i %= length
		if n > unicode.MaxRune {
			return "", false
		}
		out = append(out[:i], append([]rune{rune(n)}, out[i:]...)...)
		i++
	}
	return string(out), true
}

// FuzzReconcileCursor goes on from any cursor: it is refused, or a position that a store
// takes and that is written in the same way again.
func FuzzReconcileCursor(f *testing.F) {
	for _, p := range []string{
		`{}`, `{"t":"acme"}`, `{"t":"acme","i":"0190163d-8694-739b-aea5-966c26f8ad91"}`, `{"t":"a\u0000b"}`, `{"a":-1,"k":true}`, `{"a":1e9,"o":"2026-01-02T03:04:05Z"}`,
		`{"i":"urn:uuid:0190163d-8694-739b-aea5-966c26f8ad91"}`, `{"i":"{0190163d-8694-739b-aea5-966c26f8ad91}"}`, `{"i":"0190163d8694739baea5966c26f8ad91"}`,
		`{"i":"0190163D-8694-739B-AEA5-966C26F8AD91"}`, `null`, `[]`, `{"t":7}`, `{"T":"acme"}`, "{\"t\":\"\xff\"}", `{"o":"0000-00-00T00:00:00Z"}`, `{} {}`,
	} {
		f.Add(base64.RawURLEncoding.EncodeToString([]byte(p)))
	}
	for _, s := range []string{"", "=", "e30\n", "e30=", "' OR 1=1 --", "\xff"} {
		f.Add(s)
	}
	svc, err := New(Config{API: struct{ ClerkAPI }{}, Store: struct{ Store }{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		p, err := decodePosition(cursor)
		if err != nil {
			var invalid *InvalidParamsError
			if !errors.As(err, &invalid) || invalid.Field != "Cursor" {
				t.Fatalf("%q: %v", cursor, err)
			}
			if _, err := svc.Reconcile(context.Background(), &ReconcileOptions{Cursor: cursor}); !errors.As(err, &invalid) {
				t.Fatalf("%q: Reconcile says %v", cursor, err)
			}
			return
		}
		if len(p.TenantID) > 255 || !utf8.ValidString(p.TenantID) || strings.ContainsFunc(p.TenantID, unicode.IsControl) && checkText(p.TenantID, 255) != "" ||
			p.ID != "" && !storeutil.IsUUID(p.ID) {
			t.Fatalf("%q is %+v", cursor, p)
		}
		again, err := decodePosition(p.encode())
		if a, b := jsonOf(t, p), jsonOf(t, again); err != nil || a != b {
			t.Fatalf("%q is %s, and written again %s, %v", cursor, a, b, err)
		}
	})
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
