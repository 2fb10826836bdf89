package main

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

// inUTF16 returns text in UTF-16, with a byte order mark.
func inUTF16(text string, order binary.AppendByteOrder) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(byteOrderMark + text)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

func TestImportReadsOtherFormats(t *testing.T) {
	t.Parallel()
	want := clerkinvite.InviteParams{TenantID: "m\u00fcller\U0001f600", Email: "ada@example.com", Role: "a,b;c\td"}
	quoted := func(separator string) string {
		return strings.ReplaceAll("tenant|email|role\r\nm\u00fcller\U0001f600|ada@example.com|\"a,b;c\td\"\r\n", "|", separator)
	}
	for name, text := range map[string]string{
		"commas":            quoted(","),
		"semicolons":        quoted(";"),
		"tabs":              quoted("\t"),
		"byte order mark":   byteOrderMark + quoted(";"),
		"UTF-16 LE":         inUTF16(quoted("\t"), binary.LittleEndian),
		"UTF-16 BE":         inUTF16(quoted(","), binary.BigEndian),
		"quoted header":     strings.Replace(quoted(";"), "tenant;email;role", "\"tenant\";\"email\";\"role\"", 1),
		"rows of a table":   "tenant;email;role;;\nm\u00fcller\U0001f600;ada@example.com;\"a,b;c\td\";;\n;;;;\n",
		"an invisible name": "\u2060tenant,\u200bEmail ,role\nm\u00fcller\U0001f600,ada@example.com,\"a,b;c\td\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := readSheet([]byte(text), sheetOptions{columns: paramColumns})
			require.NoError(t, err)
			lines := s.lines()
			require.Len(t, lines, 1)
			require.Empty(t, lines[0].reason)
			require.Equal(t, want, lines[0].params)
		})
	}

	// The flag overrides the detection.
	text := []byte("tenant;email,role\nacme;ada@example.com,admin\n")
	s, err := readSheet(text, sheetOptions{columns: paramColumns, separator: ',', tenant: "other", mapping: map[string]string{"email": "tenant;email"}})
	require.NoError(t, err)
	require.Equal(t, "acme;ada@example.com", s.lines()[0].params.Email)

	// Invalid text makes only its own line invalid.
	broken := inUTF16("email\nada@example.com\n", binary.LittleEndian) + "\x00\xd8" + strings.TrimPrefix(inUTF16("x@example.com\nbob@example.com\n", binary.LittleEndian), "\xff\xfe") + "\x00"
	s, err = readSheet([]byte(broken), sheetOptions{columns: paramColumns, tenant: "acme"})
	require.NoError(t, err)
	var reasons []string
	for _, l := range s.lines() {
		reasons = append(reasons, l.params.Email+l.reason)
	}
	require.Equal(t, []string{"ada@example.com", "email is not valid Unicode; export the file as CSV UTF-8", "bob@example.com", "email is not valid Unicode; export the file as CSV UTF-8"}, reasons)
}

// The headers come from the documentation of programs that import these exports.
func TestImportRecognisesExports(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, test := range []struct{ program, header, line string }{
		{
			"Google Workspace", "First Name [Required],Last Name [Required],Email Address [Required],Status [READ ONLY],Org Unit Path [Required]",
			"Ada,Lovelace,ada@example.com,Active,/",
		},
		{
			"Entra ID", "userPrincipalName,displayName,surname,mail,givenName,objectId,userType,jobTitle,department,accountEnabled",
			"ada@example.onmicrosoft.com,Ada,Lovelace,ada@example.com,Ada,1,Member,,,True",
		},
		{"Okta", "login,firstName,lastName,middleName,honorificPrefix,honorificSuffix,email,title", "ada,Ada,Lovelace,,,,ada@example.com,"},
		{
			"Slack", "username,email,status,billing-active,has-2fa,has-sso,userid,fullname,displayname,expiration-timestamp",
			"ada,ada@example.com,Member,1,0,0,U1,Ada,Ada,",
		},
		{"HubSpot", "Record ID,First Name,Last Name,Email,Phone Number,Notes", "1,Ada,Lovelace,Ada@Example.com,+44 20 7946 0000,\"first\nsecond\""},
		{"GitHub", "login,name,role,saml_name_id", "ada,Ada,OWNER,ada@example.com"},
		{"GitHub", "GitHub com login,GitHub com name,GitHub com verified domain emails", "ada,Ada,ada@example.com"},
	} {
		s, err := readSheet([]byte(test.header+"\n"+test.line+"\n"), sheetOptions{columns: paramColumns, tenant: "acme"})
		require.NoError(t, err, test.program)
		e, ok := findExport(strings.Split(strings.ToLower(test.header), ","))
		require.True(t, ok)
		require.Equal(t, test.program, e.program)
		seen[e.email+e.also] = true
		l := s.lines()[0]
		require.Equal(t, clerkinvite.InviteParams{TenantID: "acme", Email: l.params.Email}, l.params, "no other column is read")
		require.Equal(t, "ada@example.com", strings.ToLower(l.params.Email))
		require.Len(t, s.ignored, len(s.header)-1)
		if test.program == "GitHub" && e.email == "saml_name_id" {
			s, err = readSheet([]byte(test.header+"\n"+test.line+"\n"), sheetOptions{columns: paramColumns, tenant: "acme", mapping: map[string]string{"role": "role"}})
			require.NoError(t, err)
			require.Equal(t, "OWNER", s.lines()[0].params.Role)
		}
	}
	require.Len(t, seen, len(exports), "each has a test")
}

func TestImportSaysWhichFlagToAdd(t *testing.T) {
	t.Parallel()
	w := &world{t: t}
	for _, test := range []struct {
		file string
		args []string
		text string
	}{
		{"Name,Work email,Team\nAda,ada@example.com,x\n", nil, `no column is named email, none tenant; add --map email="Work email"; and --tenant TENANT, or --map tenant=… with a column of the file; nothing was sent`},
		{"Name,Work email,Team\nAda,ada@example.com,x\n", []string{"--tenant", "acme"}, `no column is named email; add --map email="Work email"; nothing`},
		{"Work email,Private e-mail\nada@example.com,x\n", []string{"--tenant", "acme"}, `add --map email=… with one of "Work email", "Private e-mail"; nothing`},
		{"Tenant_ID,email\nacme,ada@example.com\n", nil, `no column is named tenant; add --map tenant="Tenant_ID"; nothing`},
		{"tenant,Kontakt\nacme,ada@example.com\n", nil, `no column is named email; add --map email=… with one of "Kontakt"; nothing`},
		{"Name,Email\nAda,ada@example.com\n", []string{"--tenant", "acme"}, `unknown columns: "Name"; must be tenant, email, role, invited_by, redirect_url, expires_in_days, template, public_metadata, data, organization or organization_role. To ignore them, add --map email="Email"; nothing`},
		{"Name,Email\nAda,ada@example.com\n", []string{"--map", "email=Mail"}, `--map email: the file has no column "Mail"; it has "Name", "Email"; nothing`},
		{"Email,Email\nada@example.com,x\n", []string{"--map", "email=email"}, `the column "email" occurs twice`},
		{"Email\nada@example.com\n", []string{"--map", "email"}, `must be like email="Work email"`},
		{"Email\nada@example.com\n", []string{"--map", "mail=Email"}, `unknown column "mail"; must be tenant, email`},
		{"Email\nada@example.com\n", []string{"--map", "reason=Email"}, `unknown column "reason"`},
		{"Email\nada@example.com\n", []string{"--map", "email=a", "--map", "email=b"}, `email is mapped twice`},
		{"Email\nada@example.com\n", []string{"--separator", "|"}, `must be comma, semicolon or tab`},
		// Without a header, no value of the first row is printed.
		{"Acme,Ismail Khan,+44 20 7946 0000\n", []string{"--map", "email=Mail"}, "the first row does not name the columns"},
		{"Ada Lovelace;secret\n", nil, "the first row does not name the columns"},
	} {
		r := w.run(append([]string{"import", w.file(test.file)}, test.args...)...)
		require.Equal(t, exitUsage, r.code, r.stdout)
		require.Contains(t, r.stderr, test.text)
		for _, data := range []string{"Ismail", "7946", "Lovelace", "secret", "@example"} {
			require.NotContains(t, r.stderr, data)
		}
	}
}

func TestImportMapsColumns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name := w.file("Name;Work E-Mail;Team;Job;Notes\nAda;ada@example.com;acme;admin;\"first\nsecond\"\n")
	args := []string{"import", name, "--map", "email=work e-mail", "--map", "tenant=Team", "--map", "role = Job"}
	r := w.run(append(args, "--json")...)
	require.Zero(t, r.code, r.stderr)
	report := decode[*importReport](t, r)
	require.Equal(t, map[outcome]int{sent: 1}, counts(t, report))
	require.Equal(t, []string{"Name", "Notes"}, report.Ignored)
	require.Equal(t, "admin", w.member("ada@example.com").Role)
	require.Contains(t, w.run(args...).stdout, "Ignored columns: \"Name\", \"Notes\"\n")

	// Line breaks in an ignored column may be lines between two stray quotes, if there is an address.
	r = w.run("import", w.file("Work email,Notes\nada@example.com,\"x\nbob@example.com,y\neve@example.com,\"\n"), "--tenant", "acme", "--map", "email=Work email")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, `line 2: "Notes" contains line breaks`)
}

// spreadsheets write a table whose rows are equally long, like these programs.
var spreadsheets = map[string]func(rows [][]string) string{
	"Excel, CSV UTF-8 where the list separator is a semicolon": func(rows [][]string) string { return byteOrderMark + minimal(rows, ';', "\r\n") },
	"Excel, CSV UTF-8":                     func(rows [][]string) string { return byteOrderMark + minimal(rows, ',', "\r\n") },
	"Excel, Unicode text":                  func(rows [][]string) string { return inUTF16(minimal(rows, '\t', "\r\n"), binary.LittleEndian) },
	"LibreOffice":                          func(rows [][]string) string { return minimal(rows, ',', "\n") },
	"LibreOffice, semicolons, text quoted": func(rows [][]string) string { return everyText(rows, ";") },
	"with an empty row": func(rows [][]string) string {
		return minimal(append(slices.Clone(rows), make([]string, len(rows[0]))), ',', "\n")
	},
	"Excel, which omits empty fields at the end": func(rows [][]string) string {
		cut := [][]string{rows[0]}
		for _, row := range rows[1:] {
			if last := len(row) - 1; row[last] == "" {
				row = row[:last]
			}
			cut = append(cut, row)
		}
		return byteOrderMark + minimal(cut, ';', "\r\n")
	},
}

func minimal(rows [][]string, separator rune, end string) string {
	var b strings.Builder
	for _, row := range rows {
		for i, value := range row {
			if i > 0 {
				b.WriteRune(separator)
			}
			if strings.ContainsAny(value, "\"\r\n"+string(separator)) {
				value = `"` + strings.ReplaceAll(value, `"`, `""`) + `"`
			}
			b.WriteString(value)
		}
		b.WriteString(end)
	}
	return b.String()
}

func everyText(rows [][]string, separator string) string {
	var b strings.Builder
	for _, row := range rows {
		quoted := make([]string, len(row))
		for i, value := range row {
			if value != "" {
				quoted[i] = `"` + strings.ReplaceAll(value, `"`, `""`) + `"`
			}
		}
		b.WriteString(strings.Join(quoted, separator) + "\n")
	}
	return b.String()
}

// table opens a file as a spreadsheet does: it finds UTF-8 by the mark, and makes all rows equally long.
func table(t *testing.T, text []byte, separator rune) [][]string {
	t.Helper()
	text, mark := bytes.CutPrefix(text, []byte(byteOrderMark))
	require.True(t, mark, "Excel takes a file without a mark for Windows-1252")
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma, r.FieldsPerRecord = separator, -1
	rows, err := r.ReadAll()
	require.NoError(t, err)
	width := 0
	for _, row := range rows {
		width = max(width, len(row))
	}
	for i, row := range rows {
		rows[i] = append(row, make([]string, width-len(row))...)
		for _, value := range row {
			require.NotRegexp(t, `^[=+@\t\r-]`, value, "a formula would be evaluated")
		}
	}
	return rows
}

// A file of --errors can be edited in a spreadsheet without changing other values, and an invalid line does not become valid.
func TestErrorsFileSurvivesSpreadsheets(t *testing.T) {
	t.Parallel()
	const columns = 4
	source := "tenant;email;role;data\n" +
		"m\u00fcller;not-an-address;=1+1;\"{\"\"seat\"\":\n12}\"\n" +
		"+acme;not-an-address2;'-admin;-5\n" +
		"acme;short@example.com\n" +
		"acme;long@example.com;admin;{};owner\n" +
		"acme;not-an-address3;;\n"
	for name, save := range spreadsheets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			original, err := readSheet([]byte(source), sheetOptions{columns: paramColumns})
			require.NoError(t, err)
			sheet, separator := original, ';'
			for round := range 3 {
				failed := filepath.Join(dir, fmt.Sprint(round))
				reasons := make(map[*record]string)
				for _, l := range sheet.lines() {
					if reasons[l.record] = l.reason; l.reason == "" {
						reasons[l.record] = "email must be a single address"
					}
				}
				require.NoError(t, sheet.writeErrors(failed, reasons))
				text, err := os.ReadFile(failed)
				require.NoError(t, err)
				rows := table(t, text, separator)
				if round == 1 { // the corrected lines have no reason
					for _, row := range rows[1:] {
						if i := slices.IndexFunc(row, writtenReason.MatchString); i == columns && !strings.Contains(row[i], "fields") {
							row[i] = ""
						}
					}
				}
				sheet, err = readSheet([]byte(save(rows)), sheetOptions{columns: paramColumns})
				require.NoError(t, err)
				separator = sheet.separator
				require.Len(t, sheet.records, len(original.records))
				for i, l := range sheet.lines() {
					was := original.lines()[i]
					require.Equal(t, was.params, l.params)
					require.Equal(t, was.reason, l.reason, "a wrong number of fields stays wrong")
					require.Equal(t, was.fault, l.fault)
				}
			}
		})
	}
}
