package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// paramColumns are the columns for fields of InviteParams.
var paramColumns = []string{
	"tenant", "email", "role", "invited_by", "redirect_url", "expires_in_days", "template", "public_metadata", "data", "organization", "organization_role",
}

// reasonColumn is added by --errors and ignored by an import.
const reasonColumn = "reason"

// export is a CSV file that another program writes. Names are folded.
type export struct {
	program string
	email   string // the column with the address
	also    string // another column, if email alone does not identify the export
}

// exports are the exports whose column with the address is known. In such a file, other columns are read only with --map, because
// a column such as GitHub's "role" does not mean what ours means.
var exports = []export{
	{"Google Workspace", "email address [required]", ""}, // Directory, Users, Download users
	{"Entra ID", "mail", "userprincipalname"},            // Users, Bulk operations, Download users
	{"Okta", "email", "login"},                           // the template of Import users from CSV
	{"Slack", "email", "billing-active"},                 // Manage members, Export member list
	{"HubSpot", "email", "record id"},                    // Contacts, Export
	{"GitHub", "saml_name_id", ""},                       // an organization's People, Export
	{"GitHub", "github com verified domain emails", ""},
}

// findExport returns the export with these folded names in its header.
func findExport(names []string) (export, bool) {
	i := slices.IndexFunc(exports, func(e export) bool {
		return slices.Contains(names, e.email) && (e.also == "" || slices.Contains(names, e.also))
	})
	if i < 0 {
		return export{}, false
	}
	return exports[i], true
}

// maxColumns is the maximum number of columns of a file.
const maxColumns = 1000

// fold returns the form in which names of columns are compared.
func fold(name string) string {
	return strings.ToLower(strings.TrimSpace(strings.Map(func(r rune) rune {
		if scrub.Invisible(r) {
			return -1
		}
		return r
	}, name)))
}

// setMapping is the flag --map.
func (o *sheetOptions) setMapping(s string) error {
	column, name, ok := strings.Cut(s, "=")
	column, name = strings.TrimSpace(column), strings.TrimSpace(name)
	switch _, twice := o.mapping[column]; {
	case !ok || name == "":
		return errors.New(`must be like email="Work email"`)
	case !slices.Contains(o.columns, column):
		return fmt.Errorf("unknown column %s; must be %s", short(column), list(o.columns))
	case twice:
		return fmt.Errorf("%s is mapped twice", column)
	}
	if o.mapping == nil {
		o.mapping = make(map[string]string)
	}
	o.mapping[column] = name
	return nil
}

// assign sets the header, and finds our columns in it. Errors contain no value of the file: they name columns only if the first row
// is certainly a header.
func (s *sheet) assign(header []string, o sheetOptions) error {
	s.header, s.columns, s.defaults = header, make(map[string]int), o.defaults()
	noHeader := errors.New("the first row does not name the columns; it must be like tenant,email,role, or --map must name one of its columns")
	all := strings.Join(header, "")
	switch {
	case strings.ContainsRune(all, 0):
		return errors.New("the file is perhaps UTF-16 without a byte order mark; export it as CSV UTF-8")
	case strings.ContainsAny(all, "\r\n@"): // the text of the file, or people
		return noHeader
	case len(header) > maxColumns:
		return fmt.Errorf("the first row has %d columns; must be at most %d", len(header), maxColumns)
	}
	known := slices.Clone(o.columns)
	for _, name := range o.mapping {
		known = append(known, fold(name))
	}
	names := make([]string, len(header))
	for i, name := range header {
		names[i] = fold(name)
	}
	if !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(known, name) || aboutMail.MatchString(name) }) {
		return noHeader
	}
	s.reason = slices.Index(names, reasonColumn)
	e, exported := findExport(names)
	for _, column := range o.columns {
		name, mapped := o.mapping[column]
		switch {
		case mapped:
			name = fold(name)
		case !exported:
			name = column
		case column == "email":
			name = e.email
		default:
			continue
		}
		at := slices.Index(names, name)
		switch {
		case at < 0 && mapped:
			return fmt.Errorf("--map %s: the file has no column %s; it has %s", column, short(o.mapping[column]), shortList(header))
		case at < 0:
		case slices.Contains(names[at+1:], name):
			return fmt.Errorf("the column %s occurs twice", short(name))
		default:
			s.columns[column] = at
		}
	}
	var unknown []string
	for i, name := range header {
		if s.nameAt(i) == "" {
			unknown = append(unknown, strings.TrimSpace(name))
		}
	}
	if text := s.missing(unknown); text != "" {
		return errors.New(text)
	}
	if _, ok := s.columns["organization"]; !ok && s.defaults["organization"] == "" && s.defaults["organization_role"] != "" {
		return errors.New("--organization-role needs --organization, or a column named organization")
	}
	if len(unknown) > 0 && !exported && len(o.mapping) == 0 {
		return fmt.Errorf("unknown columns: %s; must be %s. To ignore them, add --map email=%s",
			shortList(unknown), list(o.columns), short(header[s.columns["email"]]))
	}
	s.ignored = unknown
	return nil
}

// aboutMail matches names of columns that may contain addresses, but does not match names of people.
var aboutMail = regexp.MustCompile(`\be?-?mails?\b|email`)

// missing returns which required columns are missing and which flags to add, or "".
func (s *sheet) missing(unknown []string) string {
	var columns, flags []string
	if _, ok := s.columns["email"]; !ok {
		columns = append(columns, "email")
		candidates := slices.DeleteFunc(slices.Clone(unknown), func(name string) bool { return !aboutMail.MatchString(fold(name)) })
		switch {
		case len(candidates) == 1 && utf8.RuneCountInString(candidates[0]) <= maxName:
			flags = append(flags, "--map email="+short(candidates[0]))
		case len(candidates) > 0:
			flags = append(flags, "--map email=… with one of "+shortList(candidates))
		case len(unknown) > 0:
			flags = append(flags, "--map email=… with one of "+shortList(unknown))
		default:
			flags = append(flags, "it")
		}
	}
	if _, ok := s.columns["tenant"]; !ok && s.defaults["tenant"] == "" {
		columns = append(columns, "tenant")
		flag := "--tenant TENANT, or --map tenant=… with a column of the file"
		for _, name := range unknown {
			if fold(name) == "tenant_id" { // as in the library's own table
				flag = "--map tenant=" + short(name)
			}
		}
		flags = append(flags, flag)
	}
	if len(columns) == 0 {
		return ""
	}
	return fmt.Sprintf("no column is named %s; add %s", strings.Join(columns, ", none "), strings.Join(flags, "; and "))
}

// list returns words with commas and "or".
func list(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// maxName is the number of characters of a name that are printed.
const maxName = 40

// short returns the beginning of a name, quoted.
func short(name string) string {
	if runes := []rune(name); len(runes) > maxName {
		name = string(runes[:maxName]) + "…"
	}
	return strconv.QuoteToGraphic(name)
}

// shortList returns the first names.
func shortList(names []string) string {
	const most = 3
	shown := make([]string, 0, most+1)
	for _, name := range names[:min(len(names), most)] {
		shown = append(shown, short(name))
	}
	if more := len(names) - most; more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(shown, ", ")
}

// params returns the parameters of a line, and a fault that the library cannot find.
func (s *sheet) params(r *record) (p clerkinvite.InviteParams, fault string) {
	p = clerkinvite.InviteParams{
		TenantID: s.getOrDefault(r, "tenant"), Email: s.get(r, "email"), Role: s.get(r, "role"), InvitedBy: s.get(r, "invited_by"),
		RedirectURL: s.get(r, "redirect_url"), Template: s.get(r, "template"),
	}
	if id := s.getOrDefault(r, "organization"); id != "" {
		p.Organization = &clerkinvite.Organization{ID: id, Role: s.getOrDefault(r, "organization_role")}
	} else if s.get(r, "organization_role") != "" {
		return p, "organization_role needs an organization"
	}
	if value := s.get(r, "data"); value != "" {
		p.Data = json.RawMessage(value)
	}
	if value := s.get(r, "expires_in_days"); value != "" {
		n, err := strconv.Atoi(value)
		if err != nil || n == 0 { // for the library, 0 means the default
			return p, "expires_in_days must be 1 to 365"
		}
		p.ExpiresInDays = n
	}
	if value := s.get(r, "public_metadata"); value != "" {
		if p.PublicMetadata = readObject(value); p.PublicMetadata == nil {
			return p, "public_metadata must be a JSON object of valid Unicode"
		}
	}
	return p, ""
}

// readObject returns a JSON object, or nil. Numbers are unchanged. Escapes of half a surrogate pair are refused: the decoder replaces
// them by U+FFFD.
func readObject(value string) (object map[string]any) {
	d := json.NewDecoder(strings.NewReader(value))
	d.UseNumber()
	if !json.Valid([]byte(value)) || d.Decode(&object) != nil {
		return nil
	}
	if strings.ContainsRune(fmt.Sprint(object), utf8.RuneError) {
		return nil
	}
	return object
}

var camel = regexp.MustCompile(`([a-z])([A-Z])`)

// invalidReason returns the text of an *clerkinvite.InvalidParamsError with the name of the column.
func invalidReason(err *clerkinvite.InvalidParamsError) string {
	column := strings.ToLower(camel.ReplaceAllString(err.Field, "${1}_$2"))
	return strings.NewReplacer("tenant_id", "tenant", "organization.id", "organization", ".", "_").Replace(column) + " " + err.Reason
}
