package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

func (w *world) file(text string) string {
	name := filepath.Join(w.t.TempDir(), "people.csv")
	require.NoError(w.t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// counts returns the counts that are not zero. All counts must add up to the lines.
func counts(t *testing.T, r *importReport) map[outcome]int {
	t.Helper()
	sum, nonzero := 0, make(map[outcome]int)
	for o, n := range r.Counts {
		if sum += n; n > 0 {
			nonzero[o] = n
		}
	}
	require.Equal(t, r.Lines, sum, "the counts add up")
	return nonzero
}

// refuse makes Clerk refuse a person.
func (w *world) refuse(email string) {
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
		w.clerk.Fail(clerkinvitetest.Fault{
			Call: call, Email: email, Times: -1, Status: 403, Code: "not_allowed_access", Message: "Access not allowed.",
			Meta: map[string]any{"email_addresses": []string{email}},
		})
	}
}

func TestImportReportsEachLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.AddVerifiedUser("user@example.com")
	w.clerk.AddVerifiedUser("active@example.com")
	w.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "banned@example.com", Verified: true}}, Banned: true})
	w.refuse("unwanted@example.com")
	w.invite("pending@example.com")
	w.invite("active@example.com")
	w.invite("revoked@example.com")
	_, err := w.service().Revoke(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "revoked@example.com"})
	require.NoError(t, err)

	name := w.file("\ufeffEmail,\" TENANT\",role,data,expires_in_days,public_metadata\r\n" +
		"new@example.com,acme,admin,\"{\"\"seat\"\":\n1}\",7,\r\n" + // lines 2 and 3
		" Other@EXAMPLE.com ,other,,,,\"{\"\"plan\"\":12345678901234567890}\"\r\n" + // 4
		"user@example.com,acme,,,,\n" + // 5
		"pending@example.com,acme,,,,\n" + // 6
		"active@example.com,acme,,,,\n" + // 7
		"revoked@example.com,acme,,,,\n" + // 8
		"banned@example.com,acme,,,,\n" + // 9
		"unwanted@example.com,acme,,,,\n" + // 10
		"NEW@example.com,acme,,,,\n" + // 11
		"not-an-address,acme,,,,\n" + // 12
		"short@example.com,acme\n" + // 13
		"days@example.com,acme,,,400,\n" + // 14
		"days2@example.com,acme,,,soon,\n" + // 15
		"data@example.com,acme,,{,,\n" + // 16
		"meta@example.com,acme,,,,[1]\n" + // 17
		"bare@example.com,,,,,\n") // 18, in the default tenant
	failedLines := filepath.Join(t.TempDir(), "failed.csv")
	r := w.run("import", name, "--tenant", "acme", "--errors", failedLines, "--json")
	require.Equal(t, exitSome, r.code, r.stderr)
	report := decode[*importReport](t, r)
	require.Equal(t, 16, report.Lines)
	require.Equal(t, map[outcome]int{sent: 3, linked: 1, alreadyInvited: 1, alreadyActive: 1, withdrawn: 1, duplicate: 1, invalid: 6, refused: 2}, counts(t, report))
	reasons := make(map[int]string)
	for _, p := range report.Problems {
		reasons[p.Line] = string(p.Outcome) + ": " + p.Reason
	}
	for number, reason := range map[int]string{
		8: "withdrawn: the member is revoked", 9: "refused: .*banned", 10: "refused: .*not_allowed_access", 11: "duplicate: same address as line 2", 12: "invalid: email ",
		13: "invalid: has 2 fields, the header has 6", 14: "invalid: expires_in_days must be 1 to 365", 15: "invalid: expires_in_days must be 1 to 365",
		16: "invalid: data ", 17: "invalid: public_metadata must be a JSON object",
	} {
		require.Regexp(t, "^"+reason, reasons[number], "line %d", number)
	}
	require.Len(t, reasons, 10)

	m := w.member("new@example.com")
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	require.Equal(t, "admin", m.Role)
	require.JSONEq(t, `{"seat":1}`, string(m.Data))
	require.WithinDuration(t, m.InvitedAt.AddDate(0, 0, 7), *m.ExpiresAt, time.Minute)
	require.Equal(t, clerkinvite.StatusPending, w.member("bare@example.com").Status)
	require.Contains(t, string(w.clerk.Invitations("other@example.com")[0].PublicMetadata), "12345678901234567890")
	require.Equal(t, clerkinvite.StatusRevoked, w.member("revoked@example.com").Status)
	require.Equal(t, 3+2, w.clerk.Emails())

	// Failed lines are written to a file. Without a fix, they fail for the same reasons; fixed, they are imported.
	text, err := os.ReadFile(failedLines)
	require.NoError(t, err)
	require.Equal(t, 9, strings.Count(string(text), "\n"))
	require.True(t, strings.HasPrefix(string(text), "\ufeffEmail,\" TENANT\",role,data,expires_in_days,public_metadata,reason\r\n"), "as the imported file")
	require.Contains(t, string(text), "not-an-address,acme,,,,,line 12: email ")
	rest := decode[*importReport](t, w.run("import", failedLines, "--tenant", "acme", "--errors", failedLines+"2", "--json"))
	require.Equal(t, map[outcome]int{invalid: 6, refused: 2}, counts(t, rest))
	text, err = os.ReadFile(failedLines + "2")
	require.NoError(t, err)
	require.Equal(t, 9, strings.Count(string(text), "\n"))
	require.Contains(t, string(text), "not-an-address,acme,,,,,line 4: email ", "only the latest reason")
	require.NoError(t, os.WriteFile(failedLines, []byte("email,tenant,reason\nfixed@example.com,acme,line 12: email has no @\n"), 0o600))
	r = w.run("import", failedLines)
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, "1 invited\n")

	// A second import sends nothing.
	r = w.run("import", name, "--tenant", "acme")
	require.Equal(t, exitSome, r.code)
	require.Regexp(t, `(?m)^ *16 lines\n *4 already invited\n *2 already members\n *1 skipped: previously revoked or removed`, r.stdout)
	require.Contains(t, r.stdout, "line 12: not-an-address invalid: email ")
	require.Equal(t, 3+2+1, w.clerk.Emails())
	for _, mode := range []string{"--dry-run", "--dry-run=false"} {
		r = w.run("import", w.file("tenant,email,role\nacme,new@example.com,owner\nacme,active@example.com,owner\nacme,user@example.com,\n"), mode)
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, r.stdout, "line 2: new@example.com already_invited: keeps the role admin: an import does not change members\n"+
			"line 3: active@example.com already_active: keeps no role: an import does not change members\n")
	}
	require.Equal(t, "admin", w.member("new@example.com").Role)

	r = w.run("import", "-", "--json") // from standard input
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, decode[errorDocument](t, r).Error, "the file is empty")
	r = w.runWith(t.Context(), "tenant,email\nacme,standard@example.com\n", &strings.Builder{}, "import", "-", "--json")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, map[outcome]int{sent: 1}, counts(t, decode[*importReport](t, r)))
}

func TestDryRunOnlyReports(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.AddVerifiedUser("active@example.com")
	w.invite("pending@example.com")
	w.invite("active@example.com")
	w.invite("revoked@example.com")
	_, err := w.service().Revoke(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "revoked@example.com"})
	require.NoError(t, err)
	old := w.invite("old@example.com")
	w.exec("UPDATE clerkinvite_member SET expires_at = now() - interval '1 day' WHERE email = 'old@example.com'")
	require.Equal(t, clerkinvite.StatusPending, old.Status)
	_, err = w.service().Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "reserved@example.com"})
	require.NoError(t, err)
	w.clerk.ResetCounts()
	w.vars["CLERK_SECRET_KEY"] = ""
	name := w.file("email\nnew@example.com\npending@example.com\nactive@example.com\nrevoked@example.com\nold@example.com\nreserved@example.com\nnew@example.com\nnot-an-address\n")
	before := decode[membersDocument](t, w.run("list", "acme", "--all", "--json"))

	r := w.run("import", name, "--tenant", "acme", "--dry-run", "--json")
	require.Equal(t, exitSome, r.code, "a line is invalid")
	report := decode[*importReport](t, r)
	require.Equal(t, map[outcome]int{newMember: 1, reinvited: 1, waiting: 1, alreadyInvited: 1, alreadyActive: 1, withdrawn: 1, duplicate: 1, invalid: 1}, counts(t, report))
	require.Equal(t, map[clerkinvite.Status]int{"pending": 2, "active": 1, "revoked": 1, "reserved": 1}, report.Members)
	r = w.run("import", name, "--tenant", "acme", "--dry-run")
	require.Contains(t, r.stdout, "Nothing was written or sent.")
	require.Regexp(t, `1 would be invited again`, r.stdout)
	require.Contains(t, r.stdout, "Existing members by state: 1 reserved 2 pending 1 active 1 revoked\n")
	require.Contains(t, r.stdout, "line 9: not-an-address invalid: ")

	require.Zero(t, w.run("import", w.file(people(3)), "--dry-run").code)

	require.Zero(t, w.clerk.RequestCount())
	require.Equal(t, before, decode[membersDocument](t, w.run("list", "acme", "--all", "--json")))
}

func TestInvalidFileSendsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, test := range []struct{ text, message string }{
		{"", "the file is empty"},
		{"tenant,email,colour,\"Shoe size\"\n", `unknown columns: "colour", "Shoe size"; must be tenant, `},
		{"tenant,role\n", "no column is named email; add it"},
		{"email\nada@example.com\n", "--tenant"},
		{"tenant,email,Email\n", `the column "email" occurs twice`},
		{"tenant,email\nacme,ada@example.com\nacme,\"grace@example.com\nacme,joan@example.com\n", "line 3"},
		{"tenant,email\nacme,ada\"@example.com\n", "line 2"},
	} {
		r := w.run("import", w.file(test.text))
		require.Equal(t, exitUsage, r.code, test.text)
		require.Contains(t, r.stderr, test.message)
		require.Contains(t, r.stderr, "nothing was sent")
	}
	r := w.run("import", w.file("tenant,email\nacme,ada@example.com\n"), "--errors", filepath.Join(t.TempDir(), "no", "such", "folder.csv"))
	require.Equal(t, exitUsage, r.code)
	require.Empty(t, decode[membersDocument](t, w.run("list", "acme", "--json")).Members)
	require.Zero(t, w.clerk.RequestCount())
}

// The file of --errors is replaced, so it must not be the imported file, and must be a regular file.
func TestErrorsFileLosesNoLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text := "tenant,email\nacme,ada@example.com\nacme,not-an-address\n"
	name := w.file(text)
	dir := filepath.Dir(name)
	hard, soft, dangling, other := filepath.Join(dir, "hard.csv"), filepath.Join(dir, "soft.csv"), filepath.Join(dir, "dangling.csv"), filepath.Join(dir, "other.csv")
	require.NoError(t, os.Link(name, hard))
	require.NoError(t, os.Symlink(name, soft))
	require.NoError(t, os.Symlink(filepath.Join(dir, "none"), dangling))
	require.NoError(t, os.WriteFile(other, []byte("unrelated"), 0o600))
	stdin, err := os.Open(name)
	require.NoError(t, err)
	defer stdin.Close()
	entries := func() (names []string) {
		list, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range list {
			names = append(names, e.Name())
		}
		return names
	}
	before := entries()
	for _, dry := range []string{"--dry-run", "--dry-run=false"} {
		for _, test := range [][3]string{
			{name, name, "is the imported file"}, {name, dir + "/./people.csv", "is the imported file"},
			{name, hard, "is the imported file"}, {name, soft, "is the imported file"}, {soft, name, "is the imported file"},
			{"-", name, "is the imported file"}, {name, dangling, "must be a regular file"}, {name, dir, "must be a regular file"}, {name, os.DevNull, "must be a regular file"},
		} {
			var out, errs bytes.Buffer
			code := run(t.Context(), []string{"import", test[0], "--errors", test[1], dry}, stdin, &out, &errs, environment{getenv: func(v string) string { return w.vars[v] }, now: w.now, databaseNow: w.now})
			require.Equal(t, exitUsage, code, test)
			require.Contains(t, errs.String(), test[2])
			require.Contains(t, errs.String(), "nothing was sent")
		}
	}
	require.Equal(t, exitSome, w.run("import", name, "--errors", other, "--dry-run").code)
	require.Equal(t, before, entries(), "no temporary files remain")
	for file, want := range map[string]string{name: text, other: "unrelated"} {
		got, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	require.Zero(t, w.clerk.RequestCount())

	// It also gets lines that were not reached.
	w.exec("ALTER TABLE clerkinvite_member RENAME TO hidden")
	require.Equal(t, exitFailed, w.run("import", name, "--errors", other).code)
	w.exec("ALTER TABLE hidden RENAME TO clerkinvite_member")
	got, err := os.ReadFile(other)
	require.NoError(t, err)
	require.Regexp(t, "^\ufefftenant,email,reason\nacme,ada@example.com,line 2: was not reached\nacme,not-an-address,line 3: ", string(got))
	report := decode[*importReport](t, w.run("import", other, "--errors", name, "--json"))
	require.Equal(t, map[outcome]int{sent: 1, invalid: 1}, counts(t, report))
	require.Equal(t, before, entries())

	// If the file cannot be written at the end, the report says so.
	w.clerk.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) {
		_ = os.Mkdir(filepath.Join(dir, "late.csv"), 0o700)
	})
	r := w.run("import", w.file("tenant,email\nacme,grace@example.com\nacme,not-an-address\n"), "--errors", filepath.Join(dir, "late.csv"), "--json")
	require.Equal(t, exitFailed, r.code)
	report = decode[*importReport](t, r)
	require.Equal(t, map[outcome]int{sent: 1, invalid: 1}, counts(t, report))
	require.Regexp(t, "late.csv.*; the lines are in .*clerkinvite-", report.Error)
}

// blocked is a standard input without data.
type blocked struct{ reading, end chan struct{} }

func (b blocked) Read([]byte) (int, error) {
	close(b.reading)
	<-b.end
	return 0, io.EOF
}

func TestSignalInterruptsReadingStandardInput(t *testing.T) {
	t.Parallel()
	in := blocked{make(chan struct{}), make(chan struct{})}
	defer close(in.end)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-in.reading
		cancel()
	}()
	var out, errs bytes.Buffer
	require.Equal(t, exitFailed, run(ctx, []string{"import", "-", "--tenant", "acme"}, in, &out, &errs, environment{getenv: os.Getenv, now: time.Now}))
	require.Equal(t, "clerkinvite import: interrupted\n", errs.String())
}

func TestControlCharactersAreNotPrinted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const odd = "\x1b\r\u0085\u009b\u00ad\u200b\u200f\u202e\u2028\u2066\ufeff\U000e0041"
	name := w.file("tenant,email,role\nacme,\"a\x1b[2Jb\",\nacme,c\u202e\u200bd,\nac\u200bme,ada@example.com,\nacme,ada@example.com,\"admin\u009b2J\"\nacme,bob@example.com,admin\n")
	r := w.run("import", name)
	require.Equal(t, exitSome, r.code)
	require.Contains(t, r.stdout, "line 2: a [2Jb invalid: ")
	require.Contains(t, r.stdout, "line 3: c  d invalid: ")
	require.Contains(t, r.stdout, "line 4: ada@example.com invalid: tenant must not contain invisible or format characters")
	require.Contains(t, r.stdout, "line 5: ada@example.com invalid: role must not contain control characters")
	// Other programs can write into the tables.
	_, err := w.db.Pool(t).Exec(t.Context(), "UPDATE clerkinvite_member SET role = 'x\u202e\u009by', reason = 'a\u2066b', data = '{\"a\": \"x\u202e\u200by\U000e0041\"}' WHERE email = 'bob@example.com'")
	require.NoError(t, err)
	for _, args := range [][]string{
		{"list", "acme"}, {"show", "acme", "bob@example.com"}, {"list", "acme", "--json"}, {"show", "acme", "bob@example.com", "--json"}, {"import", name, "--json"},
		{"show", "acme\u202e", "\u2066"}, {"\u202e"}, {"list", "--x\u202e"}, {"import", "no\u202e\u009bfile"}, {"import", "no\u202efile", "--json"},
	} {
		r := w.run(args...)
		require.False(t, strings.ContainsAny(strings.ReplaceAll(r.stdout+r.stderr, "\r\n", ""), odd), "%q: %q %q", args, r.stdout, r.stderr)
	}
	shown := decode[memberDocument](t, w.run("show", "acme", "bob@example.com", "--json"))
	require.Equal(t, "x\u202e\u009by", shown.Member.Role, "JSON has them as escapes")
	require.JSONEq(t, "{\"a\": \"x\u202e\u200by\U000e0041\"}", string(shown.Member.Data))
}

func TestImportLosesNothingInAFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tc := range map[string]struct{ file, reason string }{
		"JSON and more":                  {"tenant,email,public_metadata\nacme,ada@example.com,\"{\"\"a\"\":1}},\"\"role\"\":2}\"\n", "public_metadata must be a JSON object"},
		"JSON and a bracket":             {"tenant,email,public_metadata\nacme,ada@example.com,{}]\n", "public_metadata must be a JSON object"},
		"two objects":                    {"tenant,email,public_metadata\nacme,ada@example.com,{} {}\n", "public_metadata must be a JSON object"},
		"null":                           {"tenant,email,public_metadata\nacme,ada@example.com,null\n", "public_metadata must be a JSON object"},
		"half a surrogate in metadata":   {"tenant,email,public_metadata\nacme,ada@example.com,\"{\"\"a\"\":[\"\"\\ud800\"\"]}\"\n", "public_metadata must be a JSON object of valid Unicode"},
		"half a surrogate in data":       {"tenant,email,data\nacme,ada@example.com,\"{\"\"a\"\":\"\"\\ud800\"\"}\"\n", "data must not contain"},
		"Latin-1 in metadata":            {"tenant,email,public_metadata\nacme,ada@example.com,\"{\"\"a\"\":\"\"\xfc\"\"}\"\n", "public_metadata is not valid Unicode"},
		"Latin-1 in a tenant":            {"tenant,email\nm\xfcller,ada@example.com\n", "tenant is not valid Unicode"},
		"Latin-1 in a role":              {"tenant,email,role\nacme,ada@example.com,\xfc\n", "role is not valid Unicode"},
		"tenant with a zero-width space": {"tenant,email\nacme\u200b,ada@example.com\n", "tenant must not contain invisible"},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.run("import", w.file(tc.file), "--json")
			require.Equal(t, exitSome, r.code, r.stderr)
			report := decode[*importReport](t, r)
			require.Equal(t, map[outcome]int{invalid: 1}, counts(t, report))
			require.Contains(t, report.Problems[0].Reason, tc.reason)
		})
	}
	for name, tc := range map[string]struct{ file, text string }{
		"stray quotes in reason":   {"tenant,email,reason\nacme,ada@example.com,\"line 3: x\nacme,bob@example.com,\nacme,eve@example.com,y\"\n", "line 2: reason contains line breaks"},
		"stray quotes in role":     {"tenant,email,role\nacme,ada@example.com,\"admin\nacme,bob@example.com,admin\"\n", "line 2: role contains line breaks"},
		"stray quotes in data":     {"tenant,email,data\nacme,ada@example.com,\"{}\nacme,bob@example.com,{}\"\n", "line 2: data contains line breaks"},
		"stray quotes at the end":  {"tenant,email\nacme,ada@example.com,\"\nacme,bob@example.com,\n\"\n", "line 2: a field contains line breaks"},
		"one stray quote":          {"tenant,email,role\nacme,ada@example.com,\"admin\nacme,bob@example.com,admin\n", "parse error"},
		"a header of everything":   {"\"tenant,email\n" + strings.Repeat("acme,ada@example.com\n", 100_000) + "\"\n", "the first row does not name the columns"},
		"no header":                {"acme,ada@example.com\nacme,bob@example.com\n", "the first row does not name the columns"},
		"no header, no address":    {"Acme,Ada Lovelace,+44 20 7946 0000\nAcme,Bob,1\n", "the first row does not name the columns"},
		"UTF-16 without a mark":    {"t\x00e\x00n\x00a\x00n\x00t\x00,\x00e\x00m\x00a\x00i\x00l\x00\n\x00", "perhaps UTF-16 without a byte order mark"},
		"old line ends":            {"tenant,email\racme,ada@example.com\r", "the first row does not name the columns"},
		"many columns":             {strings.Repeat(strings.Repeat("x", 1000)+",", 10_000) + "email\n", "10001 columns; must be at most 1000"},
		"an invisible column name": {"tenant,email,colo\u202eur\n", "unknown columns: \"colo\\u202eur\""},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.run("import", w.file(tc.file))
			require.Equal(t, exitUsage, r.code)
			require.Contains(t, r.stderr, tc.text)
			require.Contains(t, r.stderr, "nothing was sent")
			require.Less(t, len(r.stderr), 500)
			require.NotContains(t, r.stderr, "@")
		})
	}
	require.Zero(t, w.clerk.RequestCount())
	require.Zero(t, w.run("import", w.file("tenant,email,data\nacme,ada@example.com,\"\n{\"\"a\"\":\n1}\"\n")).code, "JSON can have line breaks")
}

// A line with a wrong number of fields never fits the header because of the reasons that were added, and loses no field.
func TestErrorsFileKeepsWrongLinesWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tc := range map[string]struct{ file, line string }{
		"too few":                {"tenant,email,role\nacme,ada@example.com\n", "acme,ada@example.com,"},
		"much too few":           {"tenant,email,role,data\nacme\n", "acme,"},
		"too many":               {"tenant,email,role\nacme,ada@example.com,admin, owner\n", "acme,ada@example.com,admin,\" owner\","},
		"too many, has a reason": {"tenant,email,role,reason\nacme,ada@example.com,admin, owner,line 9: x\n", "acme,ada@example.com,admin,\" owner\","},
	} {
		t.Run(name, func(t *testing.T) {
			file := w.file(tc.file)
			for range 4 {
				failed := filepath.Join(t.TempDir(), "failed.csv")
				r := w.run("import", file, "--errors", failed, "--json")
				require.Equal(t, exitSome, r.code, r.stderr)
				require.Equal(t, map[outcome]int{invalid: 1}, counts(t, decode[*importReport](t, r)))
				text, err := os.ReadFile(failed)
				require.NoError(t, err)
				require.Regexp(t, "\n"+regexp.QuoteMeta(tc.line)+"\"line 2: has [0-9] fields, the header has [0-9]\"\n$", string(text))
				file = failed
			}
		})
	}
	require.Zero(t, w.clerk.RequestCount())
}

func TestDryRunCountsByTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.invite("ada@example.com")
	name := w.file("tenant,email\nacme,bob@example.com\n acme ,eve@example.com\nacmee,bob@example.com\n,eve@example.com\nacme,not-an-address\nacme\u200b,x@example.com\n")
	r := w.run("import", name, "--dry-run", "--tenant", " zeta ")
	require.Equal(t, exitSome, r.code)
	require.Contains(t, r.stdout, "Valid lines by tenant:\n  acmee  1  unknown: has no members yet\n  zeta  1  unknown: has no members yet\n  acme  2\n")
	report := decode[*importReport](t, w.run("import", name, "--dry-run", "--tenant", "zeta", "--json"))
	require.Equal(t, []tenantCount{{"acme", 2, true}, {"acmee", 1, false}, {"zeta", 1, false}}, report.Tenants)
	var many strings.Builder
	many.WriteString("tenant,email\n")
	for i := range 60 {
		fmt.Fprintf(&many, "t%d,ada@example.com\n", i)
	}
	require.Contains(t, w.run("import", w.file(many.String()), "--dry-run").stdout, "\n  … and 10 more: see --json\n")
	require.Zero(t, w.clerk.EmailsTo("bob@example.com"))
}

// people returns a file with n new addresses.
func people(n int) string {
	var b strings.Builder
	b.WriteString("tenant,email\n")
	for i := range n {
		fmt.Fprintf(&b, "acme,person%d@example.com\n", i)
	}
	return b.String()
}

// onLine calls do when the text is first written.
type onLine struct {
	text string
	do   func(line string)
	all  bytes.Buffer
}

func (o *onLine) Write(b []byte) (int, error) {
	o.all.Write(b)
	if o.do != nil && strings.Contains(o.all.String(), o.text) {
		do := o.do
		o.do = nil
		do(o.all.String())
	}
	return len(b), nil
}

func TestImportWaitsForRateLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.SetLimits(clerkinvitetest.Limits{Create: clerkinvitetest.Limit{Requests: 2, Per: time.Hour}, CreateBulk: clerkinvitetest.Limit{Requests: 1, Per: time.Hour}})
	name := w.file(people(15))

	// Without waiting, the remaining people stay reserved, and the report says when they are due.
	start := w.now()
	r := w.run("import", name, "--no-wait", "--json")
	require.Equal(t, exitSome, r.code, r.stderr)
	report := decode[*importReport](t, r)
	require.Equal(t, map[outcome]int{sent: 12, waiting: 3}, counts(t, report))
	require.WithinRange(t, *report.Due, start.Add(55*time.Minute), start.Add(65*time.Minute))
	requests := w.clerk.RequestCount()
	r = w.run("import", name, "--no-wait")
	require.Equal(t, exitSome, r.code, r.stderr)
	require.Regexp(t, `3 remain; the first is due at 20\d\d-`, r.stdout)
	require.LessOrEqual(t, w.clerk.RequestCount(), requests+1+1, "the limit is remembered: at most the look-up and one rejected request")

	// With waiting, it continues when the limit ends. The clock advances during the wait.
	waits := &onLine{text: "waiting for Clerk's rate limit until ", do: func(string) { w.pass(2 * time.Hour) }}
	r = w.runWith(t.Context(), "", waits, "import", name, "--json")
	require.Zero(t, r.code, r.stderr)
	require.Nil(t, waits.do, "it waited")
	require.Regexp(t, `12 of 15: sent 0, linked 0, refused 0, duplicate 12, invalid 0; waiting for Clerk's rate limit until 20`, r.stderr)
	require.Equal(t, map[outcome]int{sent: 3, alreadyInvited: 12}, counts(t, decode[*importReport](t, r)))
	require.Equal(t, 15, w.clerk.Emails())
}

func TestCtrlCStopsImportWithReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name := w.file(people(300))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	creates := 0
	w.clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == clerkinvitetest.CallCreateBulk && when == clerkinvitetest.After {
			if creates++; creates == 15 {
				cancel()
			}
		}
	})
	r := w.runWith(ctx, "", &strings.Builder{}, "import", name, "--json")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.stderr, "interrupted")
	report := decode[*importReport](t, r)
	require.Equal(t, "interrupted", report.Error)
	got := counts(t, report)
	require.Equal(t, 300, got[sent]+got[waiting])
	require.Positive(t, got[sent])
	require.Positive(t, got[waiting])

	w.clerk.OnCall(nil)
	w.pass(2 * time.Minute) // the lease of the interrupted request ends
	rest := decode[*importReport](t, w.run("import", name, "--json"))
	require.Equal(t, map[outcome]int{sent: got[waiting], alreadyInvited: got[sent]}, counts(t, rest))
	require.Equal(t, 300, w.clerk.Emails())
}

func TestImportWaitsForClaimedRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// A process died after a lost response; its lease of a minute remains.
	w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err := w.service().Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "person0@example.com"})
	require.Error(t, err)

	r := w.run("import", w.file(people(2)), "--no-wait", "--json")
	require.Equal(t, exitSome, r.code)
	report := decode[*importReport](t, r)
	require.Equal(t, map[outcome]int{sent: 1, waiting: 1}, counts(t, report))
	require.Contains(t, report.Problems[0].Reason, "claimed by another process until 20")

	waits := &onLine{text: "1 are claimed by another process or wait after a lost response; continuing at ", do: func(string) { w.pass(2 * time.Minute) }}
	r = w.runWith(t.Context(), "", waits, "import", w.file(people(3)), "--json")
	require.Zero(t, r.code, r.stderr)
	require.Nil(t, waits.do, "it waited")
	require.Equal(t, map[outcome]int{sent: 2, alreadyInvited: 1}, counts(t, decode[*importReport](t, r)))
	require.Equal(t, 1, w.clerk.EmailsTo("person0@example.com"), "it checks Clerk before it sends")
}

func TestImportLooksUpLostResponse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreateBulk, When: clerkinvitetest.After, Kind: clerkinvitetest.HTML502})
	waits := &onLine{text: "10 are claimed by another process or wait after a lost response; continuing at ", do: func(string) { w.pass(2 * time.Minute) }}
	r := w.runWith(t.Context(), "", waits, "import", w.file(people(25)), "--json")
	require.Zero(t, r.code, r.stderr)
	require.Nil(t, waits.do, "it waited")
	require.Equal(t, map[outcome]int{sent: 25}, counts(t, decode[*importReport](t, r)))
	require.Equal(t, 25, w.clerk.Emails())
}

func TestClerkFaultStopsImportAndKeepsRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.SetSecretKey("sk_test_another")
	name := w.file(people(12))
	r := w.run("import", name, "--json")
	require.Equal(t, exitFailed, r.code)
	report := decode[*importReport](t, r)
	require.Contains(t, report.Error, "clerk_key_invalid")
	require.Equal(t, map[outcome]int{waiting: 12}, counts(t, report))
	require.NotNil(t, report.Due)

	w.clerk.SetSecretKey(testKey)
	r = w.run("import", name)
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, "12 invited\n")

	// A redirect URL that the instance does not allow is an error of its line only.
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
		w.clerk.Fail(clerkinvitetest.Fault{
			Email: "far@example.com", Times: -1, Call: call, Status: 422, Code: "form_param_value_invalid", Meta: map[string]any{"param_name": "redirect_url"},
		})
	}
	r = w.run("import", w.file("tenant,email,redirect_url\nacme,far@example.com,https://far.example.com\nacme,near@example.com,\n"), "--json")
	require.Equal(t, exitSome, r.code)
	report = decode[*importReport](t, r)
	require.Equal(t, map[outcome]int{sent: 1, failed: 1}, counts(t, report), report.Problems)
	require.Contains(t, report.Problems[0].Reason, "form_param_value_invalid")
}

func TestBarOnTerminal(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	lines := []*line{{outcome: invalid}, {outcome: duplicate}, {}, {}, {}, {}}
	p := newProgress(&tool{stderr: &b, env: environment{now: time.Now}}, lines)
	require.False(t, p.terminal)
	p.terminal = true
	p.begin(lines[2:])
	p.show(clerkinvite.ManyProgress{Total: 4, Reserved: 3, Failed: 1})
	p.show(clerkinvite.ManyProgress{Total: 4, Reserved: 1, Failed: 2, Refused: 1, Invited: 1})
	require.Equal(t, "\r[==========          ] 3 of 6: sent 0, linked 0, refused 0, duplicate 2, invalid 1\x1b[K"+
		"\r[================    ] 5 of 6: sent 1, linked 0, refused 1, duplicate 2, invalid 1\x1b[K", b.String())
	b.Reset()
	p.show(clerkinvite.ManyProgress{Total: 4, Reserved: 1, Failed: 2, Refused: 1, Invited: 1, WaitUntil: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
	require.Equal(t, "\r\x1b[K5 of 6: sent 1, linked 0, refused 1, duplicate 2, invalid 1; waiting for Clerk's rate limit until 2026-01-02T03:04:05Z\n", b.String())
}
