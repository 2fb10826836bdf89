package clerkinvite_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// Bad input is named before anything is asked or written.
func TestBadInput(t *testing.T) {
	t.Parallel()
	ok := clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}
	with := func(change func(*clerkinvite.InviteParams)) clerkinvite.InviteParams {
		p := ok
		change(&p)
		return p
	}
	email := func(s string) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.Email = s })
	}
	tenant := func(s string) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.TenantID = s })
	}
	role := func(s string) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.Role = s })
	}
	redirect := func(s string) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.RedirectURL = s })
	}
	data := func(s string) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.Data = json.RawMessage(s) })
	}
	metadata := func(k string, v any) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.PublicMetadata = map[string]any{k: v} })
	}
	cases := map[string]struct {
		field  string
		params clerkinvite.InviteParams
	}{
		"empty address":           {"Email", email("")},
		"blank address":           {"Email", email(" \t\n")},
		"no at":                   {"Email", email("ada.example.com")},
		"two addresses":           {"Email", email("ada@example.com,bob@example.com")},
		"two ats":                 {"Email", email("ada@bob@example.com")},
		"display name":            {"Email", email("Ada <ada@example.com>")},
		"header injection":        {"Email", email("ada@example.com\r\nBcc: eve@example.com")},
		"injection before at":     {"Email", email("ada\r\nBcc: eve@example.com")},
		"NUL in address":          {"Email", email("ada\x00@example.com")},
		"NUL in domain":           {"Email", email("ada@exa\x00mple.com")},
		"invalid UTF-8":           {"Email", email("ada\xff@example.com")},
		"invalid UTF-8 domain":    {"Email", email("ada@ex\xffample.com")},
		"over-long address":       {"Email", email("ada@" + strings.Repeat("a.", 200) + "com")},
		"over-long local":         {"Email", email(strings.Repeat("a", 65) + "@example.com")},
		"no local":                {"Email", email("@example.com")},
		"no domain":               {"Email", email("ada@")},
		"one label":               {"Email", email("ada@localhost")},
		"trailing dot":            {"Email", email("ada@example.com.")},
		"address literal":         {"Email", email("ada@[127.0.0.1]")},
		"space inside":            {"Email", email("ada lovelace@example.com")},
		"no tenant":               {"TenantID", tenant("")},
		"NUL in tenant":           {"TenantID", tenant("ac\x00me")},
		"invalid tenant":          {"TenantID", tenant("ac\xc3me")},
		"long tenant":             {"TenantID", tenant(strings.Repeat("t", 256))},
		"tenant with an edge":     {"TenantID", tenant(" acme ")},
		"invisible in tenant":     {"TenantID", tenant("acme\u200b")},
		"direction in role":       {"Role", role("admin\u202e")},
		"edge in inviter":         {"InvitedBy", with(func(p *clerkinvite.InviteParams) { p.InvitedBy = "user_1 " })},
		"IP address":              {"Email", email("ada@127.0.0.1")},
		"encoded word":            {"Email", email("=?utf-8?q?ada?=@example.com")},
		"newline in tenant":       {"TenantID", tenant("acme\nX: y")},
		"NUL in role":             {"Role", role("ad\x00min")},
		"long role":               {"Role", role(strings.Repeat("r", 256))},
		"NUL in inviter":          {"InvitedBy", with(func(p *clerkinvite.InviteParams) { p.InvitedBy = "\x00" })},
		"script URL":              {"RedirectURL", redirect("javascript:alert(1)")},
		"relative URL":            {"RedirectURL", redirect("welcome")},
		"scheme-less URL":         {"RedirectURL", redirect("//app.example.com")},
		"hostless URL":            {"RedirectURL", redirect("https://")},
		"ftp URL":                 {"RedirectURL", redirect("ftp://example.com")},
		"URL with newline":        {"RedirectURL", redirect("https://example.com/\r\nX: y")},
		"negative days":           {"ExpiresInDays", with(func(p *clerkinvite.InviteParams) { p.ExpiresInDays = -1 })},
		"too many days":           {"ExpiresInDays", with(func(p *clerkinvite.InviteParams) { p.ExpiresInDays = 366 })},
		"odd template":            {"Template", with(func(p *clerkinvite.InviteParams) { p.Template = "In Vitation" })},
		"empty data":              {"Data", data("")},
		"broken data":             {"Data", data(`{"a":`)},
		"two values":              {"Data", data(`{} {}`)},
		"NUL in data":             {"Data", data(`{"a":"\u0000"}`)},
		"NUL in a key":            {"Data", data(`{"\u0000":1}`)},
		"half a surrogate":        {"Data", data(`{"a":"\ud800"}`)},
		"low surrogate":           {"Data", data(`{"a":"\udc00"}`)},
		"surrogate and text":      {"Data", data(`{"a":"\ud83dA"}`)},
		"surrogate, text, escape": {"Data", data(`{"a":"\ud800x\u0041"}`)},
		"huge number":             {"Data", data(`{"a":1e400}`)},
		"very tiny number":        {"Data", data(`{"a":1e-20000}`)},
		"invalid data":            {"Data", data("{\"a\":\"\xff\"}")},
		"deep data":               {"Data", data(strings.Repeat("[", 200) + strings.Repeat("]", 200))},
		"tiny number":             {"Data", data(`{"a":1e-999}`)},
		"long number":             {"Data", data(strings.Repeat("9", 300) + "." + strings.Repeat("9", 700))},
		"data that grows":         {"Data", data("[" + strings.Repeat("1,", 30_000) + "1]")},
		"numbers that grow":       {"Data", data("[" + strings.Repeat("1e300,", 300) + "1]")},
		"long data":               {"Data", data(`"` + strings.Repeat("a", 64<<10) + `"`)},
		"long metadata":           {"PublicMetadata", metadata("a", strings.Repeat("a", 8<<10))},
		"our own key":             {"PublicMetadata", metadata("clerkinvite", "mine")},
		"NUL in metadata":         {"PublicMetadata", metadata("a", "\x00")},
		"invalid metadata":        {"PublicMetadata", metadata("a", []any{map[string]any{"b": "\xff"}})},
		"invalid metadata key":    {"PublicMetadata", metadata("\xff", 1)},
		"no JSON":                 {"PublicMetadata", metadata("a", math.NaN())},
		"a function":              {"PublicMetadata", metadata("a", func() {})},
	}
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := fresh(t, testkit.Options{})
				_, inviteErr := b.Invite(t.Context(), c.params)
				_, reserveErr := b.Reserve(t.Context(), c.params)
				for _, err := range []error{inviteErr, reserveErr} {
					var invalid *clerkinvite.InvalidParamsError
					require.ErrorAs(t, err, &invalid)
					require.Equal(t, c.field, invalid.Field)
					status, message := clerkinvite.HTTPError(err)
					require.Equal(t, 422, status)
					require.Equal(t, "invalid "+c.field+": "+invalid.Reason, message)
				}
				require.Zero(t, b.Clerk.RequestCount())
				due, err := b.Store.Due(t.Context(), clerkinvite.DueQuery{At: b.Clock.Now().AddDate(1, 0, 0)})
				require.NoError(t, err)
				require.Empty(t, due, "nothing was written")
			})
		}
	})
}

func TestOddButGoodInput(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for i, email := range []string{"a@b.co", "o'neil+tag@sub.example.com", "用户@example.com", "ada@bücher.example", "ADA@XN--BCHER-KVA.EXAMPLE"} {
			_, err := b.TryInvite(t, email)
			switch i {
			case 2:
				var invalid *clerkinvite.InvalidParamsError
				require.ErrorAs(t, err, &invalid, "not supported, and says so")
			case 4:
				var dup *clerkinvite.DuplicateEmailError
				require.ErrorAs(t, err, &dup, "the same domain in its other form")
				require.Equal(t, "ada@xn--bcher-kva.example", dup.Member.Email)
			default:
				require.NoError(t, err)
			}
		}
		for name, data := range map[string]string{
			"escaped backslash": `{"a":"\\u0000"}`, "emoji": `{"a":"\ud83d\ude00 😀"}`, "null": `null`, "scalar": ` 12.50 `,
			"numbers": `[1e10,-0,0.1,123456789012345678901234567890]`, "text": `"quo\"te ' \\ $1 %s"`,
		} {
			m, err := b.Invite(t.Context(), clerkinvite.InviteParams{
				TenantID: "t " + name + " – ünï", Email: "x@example.com", Data: json.RawMessage(data), Role: "sales / €", InvitedBy: `o'neil "x" \`,
			})
			require.NoError(t, err, name)
			require.JSONEq(t, data, string(m.Data), name)
			require.Equal(t, "sales / €", m.Role)
			require.Equal(t, `o'neil "x" \`, m.InvitedBy)
		}
	})
}

// Every Data that is accepted is accepted again as it comes back from the store.
func TestDataCanBeWrittenAgain(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for i, data := range []string{
			`1e-990`, `-1.5E-980`, `1e308`, `0e-990`, "[" + strings.Repeat("1,", 21_000) + "1]", "[" + strings.Repeat("1e300,", 216) + "1]",
			`{"a":"` + strings.Repeat(`\u0001`, 10_000) + `"}`, `{"a":"` + strings.Repeat(`\/`, 30_000) + `"}`, `{"a":1,"a":[2]}`, "{\n \"b\" : 1 , \"a\" : 1.500}",
		} {
			m, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%d@example.com", i), Data: json.RawMessage(data)})
			require.NoError(t, err, "%.40s", data)
			stored, err := b.Get(t.Context(), m.Ref())
			require.NoError(t, err)
			require.LessOrEqual(t, len(stored.Data), 64<<10)
			again, err := b.Update(t.Context(), m.Ref(), clerkinvite.MemberUpdate{Data: &stored.Data})
			require.NoError(t, err, "%.40s", data)
			require.JSONEq(t, string(stored.Data), string(again.Data))
		}
	})
}

func TestNewNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := clerkinvite.New(clerkinvite.Config{RedirectURL: "app", ExpiresInDays: 400, Lease: time.Nanosecond})
	require.Error(t, err)
	for _, field := range []string{"API", "Store", "RedirectURL", "ExpiresInDays", "Lease"} {
		require.ErrorContains(t, err, "Config."+field)
	}
}
