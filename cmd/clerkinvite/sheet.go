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

	"github.com/clerkinvite/clerkinvite"
)

// columns are those that a file may have, in any order. The value is the field of InviteParams that an
// *clerkinvite.InvalidParamsError names.
var columns = map[string]string{
	"tenant": "TenantID", "email": "Email", "role": "Role", "invited_by": "InvitedBy", "redirect_url": "RedirectURL",
	"expires_in_days": "ExpiresInDays", "template": "Template", "public_metadata": "PublicMetadata", "data": "Data",
	reasonColumn: "",
}

// reasonColumn is added by --errors, and taken off when that file is imported.
const reasonColumn = "reason"

// outcome is what became of a line.
type outcome string

// Outcomes. Each line has exactly one.
const (
	sent           outcome = "sent"            // pending: Clerk has mailed the invitation
	linked         outcome = "linked"          // active: Clerk had a user, no email
	alreadyInvited outcome = "already_invited" // was pending before this call
	alreadyActive  outcome = "already_active"  // was active before this call
	withdrawn      outcome = "withdrawn"       // was revoked or removed before, and is left so
	double         outcome = "double"          // the address of a line above
	invalid        outcome = "invalid"         // cannot be invited as it stands
	refused        outcome = "refused"         // Clerk does not want this person invited
	failed         outcome = "failed"          // anything else that went wrong for this line
	waiting        outcome = "waiting"         // reserved: delivered later, by the application's Run or by importing again
	notReached     outcome = "not_reached"     // the call ended before
	fresh          outcome = "new"             // in a dry run: would be invited
	again          outcome = "again"           // in a dry run: would be invited again, after an invitation that failed or ran out
)

// outcomes are all of them, in the order of the report.
var outcomes = []outcome{fresh, again, sent, linked, alreadyInvited, alreadyActive, withdrawn, double, invalid, refused, failed, waiting, notReached}

// line is one record of the file.
type line struct {
	number int // where it begins
	fields []string
	params clerkinvite.InviteParams
	ref    clerkinvite.Ref // normalised; zero while the line is not known to be valid

	outcome outcome
	reason  string // "" if there is nothing to say
	member  *clerkinvite.Member
	mine    bool // this call has reserved the row, or found it reserved and free
}

func (l *line) end(o outcome, reason string) { l.outcome, l.reason = o, reason }

// readSheet reads a CSV file with a header row, to its end. A file whose quotes do not match is refused as a whole: what is a line
// and what is not would be a guess.
func readSheet(raw []byte, tenant string) (header []string, lines []*line, err error) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\ufeff")))) // spreadsheets begin with this mark
	header, err = r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil, errors.New("the file is empty; its first row must name the columns, as in tenant,email,role")
	}
	if err != nil {
		return nil, nil, err
	}
	if err := checkHeader(header, tenant); err != nil {
		return nil, nil, err
	}
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return header, lines, nil
		}
		if err != nil && !errors.Is(err, csv.ErrFieldCount) {
			return nil, nil, err
		}
		number, _ := r.FieldPos(0)
		l := &line{number: number, fields: fields, outcome: notReached}
		if err != nil {
			l.end(invalid, fmt.Sprintf("has %d fields, the header has %d", len(fields), len(header)))
		} else if reason := l.read(header, tenant); reason != "" {
			l.end(invalid, reason)
		}
		lines = append(lines, l)
	}
}

// checkHeader normalises the header in place.
func checkHeader(header []string, tenant string) error {
	var unknown []string
	for i, name := range header {
		name = strings.ToLower(strings.TrimSpace(name))
		if _, ok := columns[name]; !ok {
			unknown = append(unknown, strconv.Quote(name))
		} else if slices.Contains(header[:i], name) {
			return fmt.Errorf("the column %s is there twice", name)
		}
		header[i] = name
	}
	switch {
	case len(header) == 1 && strings.Contains(header[0], ";"):
		return errors.New("the columns are separated by semicolons; export the file with commas")
	case len(unknown) > 0:
		return fmt.Errorf("the header has columns that are not known: %s; known are tenant, email, role, invited_by, redirect_url, "+
			"expires_in_days, template, public_metadata, data", strings.Join(unknown, ", "))
	case !slices.Contains(header, "email"):
		return errors.New("the header has no column email")
	case tenant == "" && !slices.Contains(header, "tenant"):
		return errors.New("the header has no column tenant; add one, or say --tenant")
	}
	return nil
}

// read fills in the parameters, and returns what is wrong with them as far as the library cannot say it.
func (l *line) read(header []string, tenant string) (fault string) {
	p := &l.params
	p.TenantID = tenant
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
			if err != nil || n == 0 { // 0 would stand for the default
				return "expires_in_days must be 1 to 365"
			}
			p.ExpiresInDays = n
		case "public_metadata":
			d := json.NewDecoder(strings.NewReader(value))
			d.UseNumber() // a number stays as it is written
			if d.Decode(&p.PublicMetadata) != nil || p.PublicMetadata == nil || d.More() {
				return "public_metadata must be a JSON object"
			}
		}
	}
	return ""
}

// invalidReason says an *clerkinvite.InvalidParamsError in the words of the file.
func invalidReason(err *clerkinvite.InvalidParamsError) string {
	for name, field := range columns {
		if field == err.Field {
			return name + " " + err.Reason
		}
	}
	return err.Error()
}

// settle notes what InviteMany says. again is not zero if a later attempt is worth waiting for: then another process, which may be
// dead, holds the row, or an answer of Clerk's was lost.
func (l *line) settle(r clerkinvite.Result, stopped error, now time.Time) (again time.Time) {
	if r.Member != nil {
		l.member = r.Member
	}
	var duplicate *clerkinvite.DuplicateEmailError
	var wrong *clerkinvite.InvalidParamsError
	var clerk *clerkinvite.ClerkInvitationError
	isClerk := errors.As(r.Err, &clerk)
	if r.Err == nil || isClerk && r.Member != nil {
		l.mine = true
	}
	switch {
	case errors.As(r.Err, &duplicate):
		return l.settleDuplicate(r.Member, now)
	case r.Err == nil:
		switch r.Member.Status {
		case clerkinvite.StatusPending:
			l.end(sent, "")
		case clerkinvite.StatusActive:
			l.end(linked, "")
		default: // the others come with an error
			l.end(waiting, "")
		}
	case errors.As(r.Err, &wrong):
		l.end(invalid, invalidReason(wrong))
	case isClerk && clerk.Outcome == clerkinvite.Refused:
		l.end(refused, explain(clerk))
	case isClerk && r.Member != nil && r.Member.Status == clerkinvite.StatusReserved && (stopped != nil || clerk.Outcome == clerkinvite.Uncertain):
		l.end(waiting, explain(clerk))
		return leaseEnd(r.Member)
	case stopped != nil && r.Member == nil:
		l.end(notReached, "")
	case errors.Is(r.Err, clerkinvite.ErrConflict):
		l.end(failed, "was withdrawn meanwhile")
	default:
		l.end(failed, explain(r.Err))
	}
	return time.Time{}
}

// settleDuplicate notes that the member was there before, or that this call reserved it and another process went on with it.
func (l *line) settleDuplicate(m *clerkinvite.Member, now time.Time) (again time.Time) {
	switch {
	case m.Status == clerkinvite.StatusPending && l.mine:
		l.end(sent, "")
	case m.Status == clerkinvite.StatusPending:
		l.end(alreadyInvited, l.otherRole(m))
	case m.Status == clerkinvite.StatusActive && l.mine:
		l.end(linked, "")
	case m.Status == clerkinvite.StatusActive:
		l.end(alreadyActive, l.otherRole(m))
	case leaseEnd(m).After(now):
		l.end(waiting, "another process holds it until "+stamp(m.ClaimedUntil))
		return leaseEnd(m)
	case m.Status == clerkinvite.StatusReserved:
		l.end(waiting, "was reserved with other parameters, and is sent with those")
		return leaseEnd(m) // it may have been held when it was met
	default:
		l.end(failed, "the member is "+string(m.Status)+" and was changed meanwhile")
	}
	return time.Time{}
}

// otherRole says if a line names another role than its member has.
func (l *line) otherRole(m *clerkinvite.Member) string {
	if l.params.Role == "" || l.params.Role == m.Role {
		return ""
	}
	role := "the role " + m.Role
	if m.Role == "" {
		role = "no role"
	}
	return "is left with " + role + ": an import changes no member"
}

// leaseEnd returns when the lease of the last attempt at m ends or has ended, zero if it was given up.
func leaseEnd(m *clerkinvite.Member) time.Time {
	if m.ClaimedUntil == nil {
		return time.Time{}
	}
	return *m.ClaimedUntil
}
