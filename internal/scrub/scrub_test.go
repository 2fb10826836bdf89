package scrub_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

func TestScrub(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                          "",
		"no such row":               "no such row",
		"for ada@example.org":       "for [address]",
		`for "ada@example.org".`:    `for "[address]".`,
		"<ada@example.org>":         "<[address]>",
		"(ada@example.org)":         "([address])",
		"a@b.co;c@d.co, e@f.co":     "[address];[address], [address]",
		"email:ada@example.org":     "email:[address]",
		"ada%40example.org":         "[address]",
		"?email_address=a%40b.co&x": "[address]",
		"Get \"https://api.clerk.com/v1/users?email_address=a%40b.co\": EOF": "Get \"[url] EOF",
		"postgres://u:p@db/app?x=1 refused":                                  "[url] refused",
		"Bearer sk_test_abc.":                                                "Bearer [key]",
		"secret whsec_abc=":                                                  "secret [key]",
	} {
		assert.Equal(t, want, scrub.Text(in), in)
	}
	for _, in := range []string{
		"'alice@victim.example'", "alice'o'hara@victim.example", `"alice b"@victim.example`, "ALICE@VICTIM.EXAMPLE", "alice+tag@victim.example", "alice@victim", "älice.alice@victim.example",
		"alice＠victim.example", "alice@[127.0.0.1]",
		"HTTPS://victim.example/CANARY", "https://victim.example/a?b=c#CANARY", "key=sk_test_CANARY", `{"key":"sk_test_CANARY"}`, "CLERK_KEY_sk_test_CANARY",
	} {
		out := strings.ToLower(scrub.Text(in))
		for _, private := range []string{"alice", "victim", "canary"} {
			assert.NotContains(t, out, private, in)
		}
	}
}

func TestLineHasNothingInvisible(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"a\nb", "a\rb", "a\u0085b", "a\u2028b", "a\u202eb", "a\u2066b", "a\u200bb", "a\ufeffb", "a\u009bb", "a\x1bb", "a\u00a0b", "a\u061cb", "a\U000e0041b", "a\u3164b", "a\u2800b", "a\U0001d159b", "a\U00016fe4b", "a\U00013441b"} {
		assert.Equal(t, "a b", scrub.Line(in), "%q", in)
		assert.Equal(t, "a b", scrub.Plain(in), "%q", in)
	}
	assert.Equal(t, "ada@example.org, 東京, é", scrub.Plain("ada@example.org, 東京, é"))
}
