package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/clerkinvite/clerkinvite"
)

// columns maps the columns of a file to fields of InviteParams.
var columns = map[string]string{
	"tenant": "TenantID", "email": "Email", "role": "Role", "invited_by": "InvitedBy", "redirect_url": "RedirectURL",
	"expires_in_days": "ExpiresInDays", "template": "Template", "public_metadata": "PublicMetadata", "data": "Data",
	reasonColumn: "",
}

// reasonColumn is added by --errors and ignored by an import.
const reasonColumn = "reason"

// outcome is the result of a line.
type outcome string

// Each line has one outcome.
const (
	sent           outcome = "sent"            // now pending: Clerk sent an email
	linked         outcome = "linked"          // now active as a Clerk user, without an email
	alreadyInvited outcome = "already_invited" // pending before this import
	alreadyActive  outcome = "already_active"  // active before this import
	withdrawn      outcome = "withdrawn"       // revoked or removed before, and unchanged
	duplicate      outcome = "duplicate"       // same address as an earlier line
	invalid        outcome = "invalid"         // not valid
	refused        outcome = "refused"         // Clerk does not accept this person
	failed         outcome = "failed"          // another error
	waiting        outcome = "waiting"         // reserved: delivered later, by Run or the next import
	notReached     outcome = "not_reached"     // the import ended before
	newMember      outcome = "new"             // dry run: would be invited
	reinvited      outcome = "reinvited"       // dry run: would be invited again
)

// outcomes are all outcomes, in the order of the report.
var outcomes = []outcome{newMember, reinvited, sent, linked, alreadyInvited, alreadyActive, withdrawn, duplicate, invalid, refused, failed, waiting, notReached}

// line is a record of the file.
type line struct {
	number int // of its first line in the file
	fields []string
	params clerkinvite.InviteParams
	ref    clerkinvite.Ref // normalised; zero for invalid lines

	outcome   outcome
	reason    string // "" if the outcome needs no explanation
	member    *clerkinvite.Member
	delivered bool // this import has started to deliver the member
}

func (l *line) end(o outcome, reason string) { l.outcome, l.reason = o, reason }

// sheet is a file.
type sheet struct {
	header []string
	lines  []*line

	// How the file is written, for --errors: a spreadsheet that finds no byte order mark reads another encoding.
	mark, crlf bool
}

const byteOrderMark = "\ufeff"

// readSheet reads a CSV file with a header row. Unmatched quotes are an error for the whole file, because line boundaries would be
// guesses.
func readSheet(raw []byte, tenant string) (*sheet, error) {
	if bytes.HasPrefix(raw, []byte("\xff\xfe")) || bytes.HasPrefix(raw, []byte("\xfe\xff")) {
		return nil, errors.New("the file is in UTF-16; export it as CSV UTF-8")
	}
	text, mark := bytes.CutPrefix(raw, []byte(byteOrderMark))
	first, _, _ := bytes.Cut(text, []byte("\n"))
	s := &sheet{mark: mark, crlf: bytes.HasSuffix(first, []byte("\r"))}
	r := csv.NewReader(bytes.NewReader(text))
	var err error
	s.header, err = r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty; its first row must name the columns, such as tenant,email,role")
	}
	if err != nil {
		return nil, err
	}
	if err := checkHeader(s.header, tenant); err != nil {
		return nil, err
	}
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil && !errors.Is(err, csv.ErrFieldCount) {
			return nil, err
		}
		number, _ := r.FieldPos(0)
		if name := swallowing(s.header, fields); name != "" {
			return nil, fmt.Errorf("line %d: %s contains line breaks, perhaps other lines between two stray quotes", number, name)
		}
		l := &line{number: number, fields: fields, outcome: notReached}
		if err != nil {
			l.end(invalid, fmt.Sprintf("has %d fields, the header has %d", len(fields), len(s.header)))
		} else if reason := l.read(s.header, tenant); reason != "" {
			l.end(invalid, reason)
		}
		s.lines = append(s.lines, l)
	}
}

// swallowing returns the name of a field that may contain other lines of the file: only JSON has line breaks.
func swallowing(header, fields []string) string {
	for i, value := range fields {
		if !strings.ContainsAny(value, "\r\n") {
			continue
		}
		name := "a field"
		if i < len(header) {
			name = header[i]
		}
		if name != "data" && name != "public_metadata" || !json.Valid([]byte(value)) {
			return name
		}
	}
	return ""
}

// checkHeader normalises the header in place.
func checkHeader(header []string, tenant string) error {
	var unknown []string
	for i, name := range header {
		name = strings.ToLower(strings.TrimSpace(name))
		if _, ok := columns[name]; !ok {
			unknown = append(unknown, short(name))
		} else if slices.Contains(header[:i], name) {
			return fmt.Errorf("the column %s occurs twice", name)
		}
		header[i] = name
	}
	switch {
	case len(header) == 1 && strings.Contains(header[0], ";"):
		return errors.New("the columns are separated by semicolons; export the file with commas")
	case len(unknown) == len(header) || strings.ContainsAny(strings.Join(header, ""), "\r\n@"): // the text of the file, or people
		return errors.New("the first row does not name the columns; it must be such as tenant,email,role")
	case len(unknown) > 0:
		if more := len(unknown) - 3; more > 0 {
			unknown = append(unknown[:3], fmt.Sprintf("and %d more", more))
		}
		return fmt.Errorf("unknown columns: %s; must be tenant, email, role, invited_by, redirect_url, "+
			"expires_in_days, template, public_metadata or data", strings.Join(unknown, ", "))
	case !slices.Contains(header, "email"):
		return errors.New("the column email is missing")
	case tenant == "" && !slices.Contains(header, "tenant"):
		return errors.New("the column tenant is missing; add it, or use --tenant")
	}
	return nil
}

// short returns the beginning of a name, in quotes.
func short(name string) string {
	if runes := []rune(name); len(runes) > 30 {
		name = string(runes[:30]) + "…"
	}
	return strconv.QuoteToGraphic(name)
}

// read sets the parameters, and returns faults that the library cannot find.
func (l *line) read(header []string, tenant string) (fault string) {
	p := &l.params
	p.TenantID = tenant
	for i, name := range header {
		if !utf8.ValidString(l.fields[i]) {
			return name + " is not valid UTF-8; export the file as CSV UTF-8"
		}
	}
	for i, name := range header {
		value := strings.TrimSpace(l.fields[i])
		if value == "" {
			continue
		}
		switch name {
		case "tenant":
			p.TenantID = value
		case "email":
			p.Email = value
		case "role":
			p.Role = value
		case "invited_by":
			p.InvitedBy = value
		case "redirect_url":
			p.RedirectURL = value
		case "template":
			p.Template = value
		case "data":
			p.Data = json.RawMessage(value)
		case "expires_in_days":
			n, err := strconv.Atoi(value)
			if err != nil || n == 0 { // for the library, 0 means the default
				return "expires_in_days must be 1 to 365"
			}
			p.ExpiresInDays = n
		case "public_metadata":
			if p.PublicMetadata = readObject(value); p.PublicMetadata == nil {
				return "public_metadata must be a JSON object of valid Unicode"
			}
		}
	}
	return ""
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

// invalidReason returns the text of an *clerkinvite.InvalidParamsError with the name of the column.
func invalidReason(err *clerkinvite.InvalidParamsError) string {
	for name, field := range columns {
		if field == err.Field {
			return name + " " + err.Reason
		}
	}
	return err.Error()
}

// settle sets the outcome from a result of InviteMany. If another process has claimed the row, or Clerk's response was lost, it returns
// the time at which to try again.
func (l *line) settle(r clerkinvite.Result, stopped error, now time.Time) (retryAt time.Time) {
	if r.Member != nil {
		l.member = r.Member
	}
	var exists *clerkinvite.DuplicateEmailError
	var wrong *clerkinvite.InvalidParamsError
	var clerk *clerkinvite.ClerkInvitationError
	isClerk := errors.As(r.Err, &clerk)
	if r.Err == nil || isClerk && r.Member != nil {
		l.delivered = true
	}
	switch {
	case errors.As(r.Err, &exists):
		return l.settleDuplicate(r.Member, now)
	case r.Err == nil:
		switch r.Member.Status {
		case clerkinvite.StatusPending:
			l.end(sent, "")
		case clerkinvite.StatusActive:
			l.end(linked, "")
		default: // other states have an error
			l.end(waiting, "")
		}
	case errors.As(r.Err, &wrong):
		l.end(invalid, invalidReason(wrong))
	case isClerk && clerk.Outcome == clerkinvite.Refused:
		l.end(refused, explain(clerk))
	case isClerk && clerk.Queued():
		l.end(waiting, explain(clerk))
		return leaseEnd(r.Member)
	case stopped != nil && r.Member == nil:
		l.end(notReached, "")
	case errors.Is(r.Err, clerkinvite.ErrConflict):
		l.end(failed, "was revoked or removed during the import")
	default:
		l.end(failed, explain(r.Err))
	}
	return time.Time{}
}

// settleDuplicate sets the outcome of a member that existed before, or that this import reserved and another process delivered.
func (l *line) settleDuplicate(m *clerkinvite.Member, now time.Time) (retryAt time.Time) {
	switch {
	case m.Status == clerkinvite.StatusPending && l.delivered:
		l.end(sent, "")
	case m.Status == clerkinvite.StatusPending:
		l.end(alreadyInvited, l.otherRole(m))
	case m.Status == clerkinvite.StatusActive && l.delivered:
		l.end(linked, "")
	case m.Status == clerkinvite.StatusActive:
		l.end(alreadyActive, l.otherRole(m))
	case leaseEnd(m).After(now):
		l.end(waiting, "claimed by another process until "+stamp(m.ClaimedUntil))
		return leaseEnd(m)
	case m.Status == clerkinvite.StatusReserved:
		l.end(waiting, "was reserved before, and is sent with those parameters")
		return leaseEnd(m) // it may have been claimed a moment ago
	default:
		l.end(failed, "the member is "+string(m.Status)+": it was changed during the import")
	}
	return time.Time{}
}

// otherRole returns a reason if the line has another role than its member.
func (l *line) otherRole(m *clerkinvite.Member) string {
	if l.params.Role == "" || l.params.Role == m.Role {
		return ""
	}
	role := "the role " + m.Role
	if m.Role == "" {
		role = "no role"
	}
	return "keeps " + role + ": an import does not change members"
}

// leaseEnd returns when the last claim of m ends or ended, or zero if it was released.
func leaseEnd(m *clerkinvite.Member) time.Time {
	if m.ClaimedUntil == nil {
		return time.Time{}
	}
	return *m.ClaimedUntil
}
