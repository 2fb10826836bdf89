package clerkinvite

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/mail"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/idna"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// emailForms are addresses in several spellings, with the stored form of each.
var emailForms = map[string][]string{
	"ada@example.org": {
		"ada@example.org", "ADA@EXAMPLE.ORG", "Ada@Example.Org", " ada@example.org", "ada@example.org\r\n", "\tada@example.org ",
		"\u00a0ada@example.org\u2003", "ada@ｅｘａｍｐｌｅ.org", "ada@EXAMPLE。org", "ada@example．org", "ada@exam\u00adple.org",
		"ada@example\u200b.org", "ada@ⓔxample.org", "ada@example.ℴrg",
	},
	"ada@xn--bcher-kva.example":     {"ada@bücher.example", "ada@BÜCHER.example", "ada@bu\u0308cher.example", "ada@xn--bcher-kva.example", "ADA@XN--BCHER-KVA.EXAMPLE", "ada@Xn--Bcher-Kva.Example"},
	"ada@xn--strae-oqa.de":          {"ada@straße.de", "ada@xn--strae-oqa.de"},
	"ada@xn--fsqu00a.xn--0zwm56d":   {"ada@\u4f8b\u5b50.\u6d4b\u8bd5", "ada@\u4f8b\u5b50。\u6d4b\u8bd5", "ada@xn--fsqu00a.xn--0zwm56d"},
	"a+tag@example.org":             {"a+tag@example.org", "A+TAG@example.org"},
	"a.b@example.org":               {"a.b@example.org"}, // not folded into ab@: only Gmail does that
	"x@a.b":                         {"x@a.b"},
	"o'hara@example.org":            {"O'Hara@example.org"},
	"!#$%&'*+-/=?^_`{|}~@a.example": {"!#$%&'*+-/=?^_`{|}~@a.example"},
	"pending_inv_1@example.org":     {"pending_inv_1@example.org"},
}

var badEmails = map[string]string{
	"nothing": "", "blank": " \t\n", "no at": "ada.example.org", "two ats": "ada@b@example.org", "only an at": "@",
	"no local part": "@example.org", "no domain": "ada@", "no dot": "ada@localhost",
	"fullwidth at": "ada＠example.org", "small at": "ada﹫example.org", "fullwidth at in the domain": "ada@b＠example.org",
	"space inside": "a da@example.org", "space before the at": "ada @example.org", "space after the at": "ada@ example.org",
	"name and address": "Ada <ada@example.org>", "angle brackets": "<ada@example.org>", "mailto": "mailto:ada@example.org",
	"two addresses": "ada@example.org,bob@example.org", "two addresses, 2": "ada@example.org;bob@example.org",
	"two lines": "ada@example.org\nBcc: bob@example.org", "line break in the local part": "ada\n@example.org",
	"NUL": "ada\x00@example.org", "NUL in the domain": "ada@exam\x00ple.org", "NUL at the end": "ada@example.org\x00",
	"DEL": "ada\x7f@example.org", "not UTF-8": "ad\xff@example.org", "domain not UTF-8": "ada@ex\xffample.org",
	"quoted": `"ada"@example.org`, "quoted space": `"a b"@example.org`, "backslash": `a\da@example.org`, "comment": "ada(x)@example.org",
	"dot first": ".ada@example.org", "dot last": "ada.@example.org", "two dots": "a..da@example.org", "only a dot": ".@example.org",
	"local part not ASCII": "ädä@example.org", "local part decomposed": "a\u0308da@example.org", "Cyrillic a": "аda@example.org",
	"fullwidth local part": "ａda@example.org", "soft hyphen": "a\u00adda@example.org", "zero width joiner": "a\u200dda@example.org",
	"right-to-left override": "a\u202eda@example.org", "byte order mark": "\ufeffada@example.org",
	// Both of these have an ASCII letter as their lower case: the owner of one
	// mailbox must not be taken for the owner of the other.
	"Kelvin sign": "\u212ate@example.org", "dotted capital I": "\u0130da@example.org", "long s": "\u017fam@example.org",
	"domain dot first": "ada@.example.org", "domain dot last": "ada@example.org.", "domain two dots": "ada@example..org",
	"domain ideographic dot last": "ada@example.org。", "domain only dots": "ada@..", "domain only a dot": "ada@.",
	"domain an empty label": "ada@example.\u00ad.org", "domain soft hyphen last": "ada@example.\u00ad", "domain soft hyphen first": "ada@\u00ad.org",
	"domain hyphen first": "ada@-example.org", "domain hyphen last": "ada@example-.org", "domain hyphens in place 3 and 4": "ada@ab--cd.org",
	"IPv4 address": "ada@127.0.0.1", "IPv4 address, short": "ada@127.1", "IPv4 address, hex": "ada@0x7f.0x1", "IPv4 address, octal": "ada@0177.0.0.01", "IPv4 address, fullwidth": "ada@１２７.０.０.１",
	"numeric top-level domain": "ada@example.123", "top-level domain begins with a digit": "ada@example.1a", "numeric top-level domain, circled": "ada@example.①", "numeric top-level domain, Arabic": "ada@example.١٢٣",
	"encoded word": "=?utf-8?q?ada?=@example.org", "encoded word inside": "x=?iso-8859-1?B?YWRh?=y@example.org", "encoded word, no end": "=?x?q?ada@example.org", "encoded word, language": "=?utf-8*en?q?=40?=@example.org",
	"domain underscore": "ada@ex_ample.org", "domain with a port": "ada@example.org:25", "domain a URL": "ada@example.org/x",
	"domain literal": "ada@[127.0.0.1]", "domain IPv6 literal": "ada@[IPv6:::1]", "domain percent": "ada@example%2eorg",
	"domain bad punycode": "ada@xn--a\u00e9.org", "domain empty punycode": "ada@xn--.org", "domain punycode of ASCII": "ada@xn--example-.org",
	"domain becomes right-to-left": "ada@0.ℵ0", "domain joiner": "ada@a\u200db.org", "domain mixes directions": "ada@aא.org", "domain right-to-left override": "ada@a\u202eb.org",
	"domain half fullwidth dots": "ada@example．．org",
	"local part of 65":           strings.Repeat("a", 65) + "@example.org",
	"label of 64":                "ada@" + strings.Repeat("a", 64) + ".org",
	"label of 64 as punycode":    "ada@" + strings.Repeat("ü", 60) + ".org",
	"255 bytes":                  strings.Repeat("a", 64) + "@" + strings.Repeat(strings.Repeat("b", 46)+".", 4) + "co",
	"very long":                  strings.Repeat("a", 1<<16) + "@example.org",
	"very long domain":           "ada@" + strings.Repeat("ü.", 1<<15) + "org",
}

func TestNormalizeEmail(t *testing.T) {
	t.Parallel()
	for want, forms := range emailForms {
		for _, form := range forms {
			got, reason := normalizeEmail(form)
			assert.Equal(t, want, got, "%q", form)
			assert.Empty(t, reason, "%q", form)
			assert.True(t, sameEmail(form, want), "%q", form)
		}
	}
	for name, s := range badEmails {
		got, reason := normalizeEmail(s)
		assert.Empty(t, got, name)
		assert.NotEmpty(t, reason, name)
		for _, part := range []string{"ada", "example.org", "bob"} {
			assert.NotContains(t, reason, part, name)
		}
		assert.False(t, sameEmail(s, ""), name)
	}
}

// The prefix of all addresses that begin with an address is its normalised form, and the prefix of its beginning is a beginning.
func TestNormalizePrefix(t *testing.T) {
	t.Parallel()
	for want, forms := range emailForms {
		for _, form := range forms {
			got, reason := normalizePrefix(form)
			assert.Equal(t, want, got, "%q", form)
			assert.Empty(t, reason, "%q", form)
		}
		for i := range want {
			got, _ := normalizePrefix(strings.ToUpper(want[:i]))
			assert.Equal(t, want[:i], got)
		}
	}
	for name, s := range badEmails {
		got, _ := normalizePrefix(s)
		assert.LessOrEqual(t, len(got), 1<<11, name)
	}
}

func TestNormalizeEmailLongest(t *testing.T) {
	t.Parallel()
	local := strings.Repeat("a", 64)
	domain := strings.Repeat(strings.Repeat("b", 46)+".", 4) + "c"
	longest := local + "@" + domain
	assert.Len(t, longest, 254)
	got, reason := normalizeEmail("  " + longest + "\n")
	assert.Equal(t, longest, got, reason)
	got, reason = normalizeEmail("a@" + strings.Repeat("b", 63) + ".org")
	assert.Len(t, got, 69, reason)
}

func TestSameEmail(t *testing.T) {
	t.Parallel()
	assert.False(t, sameEmail("bob@example.org", "ada@example.org"))
	assert.False(t, sameEmail("ada+x@example.org", "ada@example.org"))
	assert.False(t, sameEmail("a.da@example.org", "ada@example.org"))
	assert.False(t, sameEmail("ada@example.org.evil.example", "ada@example.org"))
	assert.False(t, sameEmail("", ""))
	assert.False(t, sameEmail("nonsense", "nonsense"))
	// The right side is already normalised; anything else matches nothing.
	assert.False(t, sameEmail("ada@example.org", "Ada@example.org"))
}

func FuzzNormalizeEmail(f *testing.F) {
	for _, forms := range emailForms {
		for _, form := range forms {
			f.Add(form)
		}
	}
	for _, s := range badEmails {
		if len(s) < 300 {
			f.Add(s)
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, reason := normalizeEmail(s)
		if prefix, _ := normalizePrefix(s); reason == "" && prefix != n {
			t.Fatalf("%q: %q has the prefix %q", s, n, prefix)
		}
		if (n == "") == (reason == "") {
			t.Fatalf("%q: %q and %q", s, n, reason)
		}
		if reason != "" {
			if len(reason) > 100 || !utf8.ValidString(reason) {
				t.Fatalf("reason %q", reason)
			}
			return
		}

		// The stored form of the stored form is the same.
		same := func(form string) {
			t.Helper()
			if got, reason := normalizeEmail(form); got != n {
				t.Fatalf("%q is %q, but %q is %q (%s)", s, n, form, got, reason)
			}
		}
		same(n)
		same(" \t" + s + "\r\n")
		same(asciiCase(s, 'a', 'z'))
		same(asciiCase(s, 'A', 'Z'))
		local, domain, _ := strings.Cut(n, "@")
		if u, err := idna.Lookup.ToUnicode(domain); err == nil {
			same(local + "@" + u)
			same(local + "@" + strings.ReplaceAll(u, ".", "。"))
		} else {
			t.Fatalf("%q: no Unicode form: %v", n, err)
		}
		// Letters before the @ are the typed letters, and no other character became one.
		typed, _, _ := strings.Cut(strings.TrimSpace(s), "@")
		if asciiCase(typed, 'A', 'Z') != local {
			t.Fatalf("%q became %q", typed, local)
		}

		// Mail servers and PostgreSQL accept it.
		if len(n) > 254 || len(local) > 64 || strings.Count(n, "@") != 1 {
			t.Fatalf("%q", n)
		}
		for _, b := range []byte(n) {
			if b <= ' ' || b >= 0x7f || b >= 'A' && b <= 'Z' {
				t.Fatalf("%q has %q", n, b)
			}
		}
		labels := strings.Split(domain, ".")
		if len(labels) < 2 {
			t.Fatalf("%q has no dot", n)
		}
		for _, label := range labels {
			if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
				t.Fatalf("%q has label %q", n, label)
			}
		}
	})
}

// asciiCase turns the letters of one case (from to to) into the other.
func asciiCase(s string, from, to byte) string {
	b := []byte(s)
	for i, c := range b {
		if c >= from && c <= to {
			b[i] ^= 0x20
		}
	}
	return string(b)
}

// plainAddress is RFC 5322's dot-atom before the @ and host names after it: what every
// mail system accepts. It checks addresses without IDNA, independently of normalizeEmail.
var plainAddress = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@" +
	`(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// thirdAndFourth finds the labels that IDNA reserves, such as "xn--".
var thirdAndFourth = regexp.MustCompile(`[@.]..--`)

// FuzzEmailForms spells an address differently, as an attacker would to get a second
// row or another person's row: it must be the same address, or invalid.
func FuzzEmailForms(f *testing.F) {
	// Every bit of how is one change of the spelling.
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
			perhapsEncoded := strings.Count(local, "?") >= 3
			if plain != (reason == "") && !perhapsEncoded {
				t.Fatalf("%q: plain %v, but %q (%s)", s, plain, n, reason)
			}
			if reason == "" && n != asciiCase(trimmed, 'A', 'Z') {
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
		// An independent parser accepts it as one address without a name, and a second
		// decoder reads each of its labels.
		a, err := mail.ParseAddress(n)
		if err != nil || a.Name != "" || a.Address != n {
			t.Fatalf("%q: net/mail reads %v, %v", n, a, err)
		}
		_, domain, _ := strings.Cut(n, "@")
		for label := range strings.SplitSeq(domain, ".") {
			u, ok := unicodeLabel(label)
			if !ok || strings.ContainsFunc(u, func(r rune) bool {
				// Cherokee is the only script whose letters fold to the capitals.
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

// rewritten spells an address differently.
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
			// The final sigma, for example, has no capital, and is another letter in a domain.
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

// unicodeLabel decodes a label, by the punycode of RFC 3492, section 6.2.
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

// A domain that another toolchain maps to another domain is rejected, in letters and in punycode.
func TestUnstableDomains(t *testing.T) {
	t.Parallel()
	for _, domain := range []string{
		"STRA\u1e9eE.de", "stra\u1e9ee.de", "a.\u1e9e.de", "stra\u1e9e\u0301e.de", // the capital of ß
		"\u04c0.com", "\u10a0.com", "\u2132.com", "\u2183.com", // capitals that had no mapping
		"a\u3164b.com", "a\uffa0b.com", "a\u115fb.com", "a\u2061b.com", "a\u180eb.com", // now ignored
		"\u2260.com", "a\u226eb.com", "xn--1ch.com", "\u1c89.com", "\ua7da.com", "\U00010d50.com", "\U0001cc00.com", "\U000323b0.com", "\U0002ebf0.com",
		"\u05d0\U0001171e\u05d0.com", "xn--4dba1101s.com",
		// The tables of Go 1.27 accept all of ASCII.
		"a\u00a0b.com", "a\u2003b.com", "a\u2100b.com", "\u249c.com", "a\uff01b.com", "a\ufe33b.com", "a\uff20b.com", "a\u037eb.com", "a\u00a8b.com", "a\u2474.com",
	} {
		_, reason := normalizeEmail("ada@" + domain)
		assert.Equal(t, "must have a valid domain after the @", reason, "%q", domain)
	}
	for _, table := range [][2]uint32{{0x04c0, 0xffff}, {0x10000, 0x33479}} {
		for r := rune(table[0]); r <= rune(table[1]); r++ {
			if isUnstable(r) {
				_, ok := normalizeDomain("a" + string(r) + ".com")
				assert.False(t, ok, "%U", r)
			}
		}
	}
}

func TestCheckText(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "acme", "acme inc", "ünï – €", "東京", "a.b@c", "o'neil \"x\" \\", "😀", "é"} {
		assert.Empty(t, checkText(s, 255), "%q", s)
	}
	for reason, bad := range map[string][]string{
		"must be valid UTF-8":                    {"ac\xffme", "\xc3"},
		"must not contain control characters":    {"ac\x00me", "acme\n", "\tacme", "ac\x7fme", "ac\u0085me", "acme\u009b2J"},
		"must not begin or end with white space": {" acme", "acme ", " acme ", " "},
		"must not contain invisible or format characters": {
			"acme\u200b", "\u200bacme", "ac\u200cme", "ac\u200dme", "ac\u2060me", "\ufeffacme", "ac\u00adme", "ac\u061cme", "ac\u180eme", // format
			"ac\u200eme", "ac\u200fme", "ac\u202ame", "ac\u202eme", "ac\u2066me", "acme\u2069", // directions
			"ac\u00a0me", "acme\u00a0", "ac\u2003me", "ac\u3000me", "ac\u202fme", "ac\u2028me", "ac\u2029me", // spaces
			"ac\u034fme", "ac\u115fme", "ac\u3164me", "ac\uffa0me", "ac\u2800me", "acme\U0001d159", "ac\U00016fe4me", "acme\ufe0f", "acme\u180b", "acme\U000e0041", "acme\U000e0100", // fillers, selectors, tags
		},
	} {
		for _, s := range bad {
			assert.Equal(t, reason, checkText(s, 255), "%q", s)
		}
	}
}

func TestCheckRedirectURL(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "https://app.example.com", "http://localhost:3000/accept?a=b&c=%20#d", "HTTPS://APP.example.com/x", "https://example.com:/x", "https://example.com:65535/x", "http://[::1]:3000/x", "https://bücher.example/ä",
		"myapp://accept", "MyApp://accept", "my-app://oauth-callback", "myapp://accept?tenant=acme#x", "myapp:///accept", "com.example.app:/accept",
		"com.example.app://accept/", "exp+my-app://expo.dev/--/accept", "myapp://[::1]/x",
		"/", "/accept", "/accept?tenant=acme&b=%20#d", "/a//b", "/a:b", "/javascript:alert(1)",
	} {
		assert.Empty(t, checkRedirectURL(s), s)
	}
	for _, s := range []string{
		"javascript:alert(1)", "JavaScript:alert(1)", "javascript://example.com/%0aalert(1)", "javascript:/x/;alert(1)", "\tjavascript:alert(1)", "java\tscript:alert(1)", " javascript:alert(1)",
		"data:text/html,x", "data://text/html,x", "data:/x", "vbscript:x", "vbscript://x/y", "VBScript:/x", "livescript://x", "blob:https://x.example/1", "blob://x", "file:///etc/passwd", "file://host/x",
		"filesystem:https://x/y", "about:blank", "about://blank", "view-source:https://x", "view-source://x", "intent://x#Intent;end", "jar://x", "chrome://settings", "ms-word://x",
		"android-app://com.example/https/x", "itms-services://?action=download-manifest&url=https://x.example", "googlechrome://x.example", "microsoft-edge://https://x.example",
		"search-ms://query=x", "JScript:/x", "chrome-untrusted://x", "moz-extension://x/y", "safari-web-extension://x/y", "devtools://x", "smsto:/1", "ldaps://x",
		"ftp://example.com", "ws://example.com", "wss://example.com", "mailto:a@b.co", "mailto://a", "tel:1", "tel://1", "sms://1", "urn:x", "ldap://x",
		"//app.example.com", "//app.example.com/x", "/\\app.example.com", "\\\\app.example.com", "/\t/app.example.com", "///x", "/a b", "/a\"b", "/a<b", "/ä", "/\u202e", "/\u200b/x", "/%zz",
		"accept", "./accept", "../accept", "?a=b", "#a", "app.example.com", "app.example.com/x", "localhost:3000/accept", "example.com:443/x",
		"https://", "https:///x", "https:x", "https:/x", "http:", "https://:443/x", "https://:/x", "http://@:80/x", "https://example.com:65536/x", "https://example.com:0/x", "https://example.com:99999999999999999999/x", "https://example.com/\n", "https://exa mple.com/", "https://[::1", "https://user@",
		"myapp:", "myapp:accept", "myapp:?x", "myapp://a b", "myapp://a\\b", "myapp://ä", "myapp://a\x00", "my_app://x", "1app://x", "://x", ":", "c:/windows", "C:/x",
		"\x00", "\xff", "/" + strings.Repeat("x", 2048),
	} {
		assert.NotEmpty(t, checkRedirectURL(s), "%q", s)
	}
}

// PostgreSQL confirms the length of a value.
func TestJSONBSize(t *testing.T) {
	t.Parallel()
	values := []string{
		`null`, `true`, ` false `, `{}`, `[]`, `[ ]`, `[[],{}]`, `[1,2,3]`, `{"a":1,"b":[true,null]}`, "{\n\t\"a\" :\r\n1}", `""`, `"a,b:c"`, `"\"\\\/\b\f\n\r\t"`,
		`"\u0001\u001f\u007f\u00e9\u20ac"`, `"\ud83d\ude00"`, `"é€😀"`, `"\u0022\u005c\u000a"`, `"\\"`, `"\\\\\""`, `["\\",","]`, "\"\u2028\u202e\x7f\"",
	}
	for _, mantissa := range []string{"0", "-0", "1", "-1", "10", "100", "0.0", "0.5", "0.050", "-0.001", "1.50", "12.345", "123456789012345678901234567890", "9.999"} {
		for _, exponent := range []string{"", "e0", "e1", "E2", "e+3", "e-1", "e-2", "e-3", "e10", "e-30", "e300", "e-999"} {
			values = append(values, mantissa+exponent)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		values = append(values, randomJSON(random, 4))
	}
	var sizes []int
	pool := pgtest.New(t).Pool(t)
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT array_agg(octet_length(v::jsonb::text) ORDER BY n) FROM unnest($1::text[]) WITH ORDINALITY AS x(v, n)", values).Scan(&sizes))
	for i, v := range values {
		require.True(t, json.Valid([]byte(v)), v)
		require.Equal(t, sizes[i], jsonbSize([]byte(v)), v)
	}
	require.Equal(t, len(`{"a": 1, "a": 2}`), jsonbSize([]byte(`{"a":1,"a":2}`)), "an upper bound")
}

// randomJSON returns a value without equal keys.
func randomJSON(r *rand.Rand, depth int) string {
	kinds := 8
	if depth == 0 {
		kinds = 5
	}
	switch r.IntN(kinds) {
	case 0:
		return "null"
	case 1:
		return fmt.Sprintf("%d.%03de%d", r.IntN(3)*r.IntN(1e6), r.IntN(1000), r.IntN(100)-50)
	case 2:
		return fmt.Sprint(r.IntN(2e6) - 1e6)
	case 3, 4:
		b, _ := json.Marshal(strings.Repeat(string(rune(1+r.IntN(300)))+`"\`, r.IntN(4)))
		return string(b)
	case 5, 6:
		var list []string
		for range r.IntN(5) {
			list = append(list, randomJSON(r, depth-1))
		}
		return "[" + strings.Join(list, " , ") + "]"
	default:
		var list []string
		for i := range r.IntN(5) {
			list = append(list, fmt.Sprintf("\"k%d\":%s", i, randomJSON(r, depth-1)))
		}
		return "{" + strings.Join(list, ",") + "}"
	}
}

// FuzzReconcileCursor continues from any cursor: it is rejected, or a position that a store
// accepts and that is encoded in the same way again.
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
		p, err := decodeCursor(cursor)
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
		again, err := decodeCursor(p.encode())
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
