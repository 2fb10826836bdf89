package main

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

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

// line is a record of the file, in an import.
type line struct {
	*record
	params clerkinvite.InviteParams
	ref    clerkinvite.Ref // normalised; zero for invalid lines

	outcome   outcome
	reason    string // "" if the outcome needs no explanation
	member    *clerkinvite.Member
	delivered bool // this import has started to deliver the member
}

func (l *line) end(o outcome, reason string) { l.outcome, l.reason = o, reason }

// lines returns the lines of a file. Those with a fault are invalid.
func (s *sheet) lines() []*line {
	lines := make([]*line, len(s.records))
	for i, r := range s.records {
		l := &line{record: r, outcome: notReached}
		fault := r.fault
		if r.fault == "" {
			l.params, fault = s.params(r)
		}
		if fault != "" {
			l.end(invalid, fault)
		}
		lines[i] = l
	}
	return lines
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
	case isClerk && clerk.Outcome == clerkinvite.OutcomeRefused:
		l.end(refused, explain(clerk))
	case rejectsParameter(r.Err):
		l.end(failed, explain(clerk))
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

// rejectsParameter reports whether Clerk rejects a value of the line, such as a redirect URL that the instance does not allow. The
// member waits, but a retry cannot succeed before Clerk's settings change.
func rejectsParameter(err error) bool {
	var clerk *clerkinvite.ClerkInvitationError
	var api *clerkinvite.APIError
	return errors.As(err, &clerk) && clerk.Queued() && errors.As(err, &api) && api.StatusCode/100 == 4 &&
		api.StatusCode != http.StatusTooManyRequests && api.Meta["param_name"] != nil
}

// settleDuplicate sets the outcome of a member that existed before, or that this import reserved and another process delivered.
func (l *line) settleDuplicate(m *clerkinvite.Member, now time.Time) (retryAt time.Time) {
	switch {
	case m.Status == clerkinvite.StatusPending && l.delivered:
		l.end(sent, "")
	case m.Status == clerkinvite.StatusPending:
		l.end(alreadyInvited, l.kept(m))
	case m.Status == clerkinvite.StatusActive && l.delivered:
		l.end(linked, "")
	case m.Status == clerkinvite.StatusActive:
		l.end(alreadyActive, l.kept(m))
	case leaseEnd(m).After(now):
		l.end(waiting, "claimed by another process until "+stamp(m.ClaimedUntil))
		return leaseEnd(m)
	case m.Status == clerkinvite.StatusReserved:
		l.end(waiting, "was reserved before and will be sent with its earlier parameters")
		return leaseEnd(m) // it may have been claimed in the meantime
	default:
		l.end(failed, "the member is "+string(m.Status)+": it was changed during the import")
	}
	return time.Time{}
}

// kept returns a reason if the line has another role or organization than its member.
func (l *line) kept(m *clerkinvite.Member) string {
	var kept []string
	if l.params.Role != "" && l.params.Role != m.Role {
		kept = append(kept, keeps("role", m.Role))
	}
	if asked := l.params.Organization; asked != nil {
		has := m.Organization()
		switch {
		case has == nil:
			kept = append(kept, "stays outside the organization")
		case asked.ID != has.ID:
			kept = append(kept, keeps("organization", has.ID))
		case asked.Role != "" && asked.Role != has.Role:
			kept = append(kept, keeps("organization role", has.Role))
		}
	}
	if len(kept) == 0 {
		return ""
	}
	return strings.Join(kept, " and ") + ": an import does not change members"
}

func keeps(noun, name string) string {
	if name == "" {
		return "keeps no " + noun
	}
	return "keeps the " + noun + " " + name
}

// leaseEnd returns when the last claim of m ends or ended, or zero if it was released.
func leaseEnd(m *clerkinvite.Member) time.Time {
	if m.ClaimedUntil == nil {
		return time.Time{}
	}
	return *m.ClaimedUntil
}
