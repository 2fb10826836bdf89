package clerkinvite

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"golang.org/x/net/idna"
)

// emailForms are addresses in several writings, and the one form of each.
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
	// Both of these have an ASCII letter as their lower case: whoever owns the one
	// mailbox must not pass for the owner of the other.
	"Kelvin sign": "\u212ate@example.org", "dotted capital I": "\u0130da@example.org", "long s": "\u017fam@example.org",
	"domain dot first": "ada@.example.org", "domain dot last": "ada@example.org.", "domain two dots": "ada@example..org",
	"domain ideographic dot last": "ada@example.org。", "domain only dots": "ada@..", "domain only a dot": "ada@.",
	"domain an empty label": "ada@example.\u00ad.org", "domain soft hyphen last": "ada@example.\u00ad", "domain soft hyphen first": "ada@\u00ad.org",
	"domain hyphen first": "ada@-example.org", "domain hyphen last": "ada@example-.org", "domain hyphens in place 3 and 4": "ada@ab--cd.org",
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
	// The right side is normalised already; anything else matches nothing.
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
		if (n == "") == (reason == "") {
			t.Fatalf("%q: %q and %q", s, n, reason)
		}
		if reason != "" {
			if len(reason) > 100 || !utf8.ValidString(reason) {
				t.Fatalf("reason %q", reason)
			}
			return
		}

		// One form, which is its own form.
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
		// Letters before the @ are the ones that were typed, and nothing else became one.
		typed, _, _ := strings.Cut(strings.TrimSpace(s), "@")
		if asciiCase(typed, 'A', 'Z') != local {
			t.Fatalf("%q became %q", typed, local)
		}

		// A mail server and PostgreSQL could take it.
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
