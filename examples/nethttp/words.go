package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/clerkinvite/clerkinvite"
)

// person matches one entry of a list of people: an address after a name, after a name with commas, or anything else up to a separator.
var person = regexp.MustCompile(`(?:"[^"\n]*"|[^",;<>\n])*<([^<>\s]+@[^<>\s]+)>|(?:"[^"\n]*"|[^"@;<>\n])*<([^<>\s]+@[^<>\s]+)>|[^,;\n]+`)

// addresses returns the addresses of a pasted list. Commas, semicolons and line breaks separate them; of "Name <address>", only the
// address remains.
func addresses(list string) (found []string) {
	for _, match := range person.FindAllStringSubmatch(list, -1) {
		if email := strings.TrimSpace(cmp.Or(match[1], match[2], match[0])); email != "" {
			found = append(found, email)
		}
	}
	return found
}

// label returns the name of a state on the page.
func label(s clerkinvite.Status) string {
	switch s {
	case "":
		return "All"
	case clerkinvite.StatusReserved:
		return "Waiting"
	case clerkinvite.StatusPending:
		return "Invited"
	case clerkinvite.StatusFailed:
		return "Refused"
	default:
		return sentence(string(s))
	}
}

// reasonWords returns a text for a member's reason.
func reasonWords(reason string) string {
	switch reason {
	case clerkinvite.ReasonUserBanned:
		return "this person is banned at Clerk"
	case clerkinvite.ReasonUserDeprovisioned:
		return "this person is deprovisioned at Clerk"
	case clerkinvite.ReasonUserLocked:
		return "this person is locked at Clerk"
	case clerkinvite.ReasonUserDeleted:
		return "the Clerk account was deleted"
	case clerkinvite.ReasonSecondAddress:
		return "already a member under another address"
	case clerkinvite.ReasonLeftOrganization:
		return "left the Clerk organization"
	case clerkinvite.ReasonOrganizationFull:
		return "the Clerk organization has no free seat"
	case clerkinvite.ReasonRevokedAtClerk:
		return "in Clerk’s dashboard"
	case clerkinvite.ReasonUnavailable:
		return "Clerk did not respond"
	case "too_many_requests":
		return "Clerk’s rate limit was reached"
	case "form_param_format_invalid":
		return "Clerk does not accept the address"
	case "not_allowed_access":
		return "not on Clerk’s allowlist"
	default:
		return strings.ReplaceAll(reason, "_", " ") // another Clerk code
	}
}

// trouble returns the text for an error with one member.
func trouble(err error) string {
	var duplicate *clerkinvite.DuplicateEmailError
	var clerk *clerkinvite.ClerkInvitationError
	var cooldown *clerkinvite.CooldownError
	var invalid *clerkinvite.InvalidParamsError
	switch {
	case errors.As(err, &duplicate) && duplicate.Member != nil:
		return "is already in this tenant (" + strings.ToLower(label(duplicate.Member.Status)) + ")"
	case errors.As(err, &clerk) && clerk.Outcome == clerkinvite.OutcomeRefused && clerk.Member != nil && clerk.Member.Reason != "":
		return "refused: " + reasonWords(clerk.Member.Reason)
	case errors.As(err, &clerk) && clerk.Outcome != clerkinvite.OutcomeRefused:
		why := "Clerk does not respond"
		if api := new(clerkinvite.APIError); errors.As(err, &api) && api.StatusCode == http.StatusTooManyRequests {
			why = "Clerk’s rate limit was reached"
		}
		if clerk.Queued() {
			return why + ". The invitation is saved and will be sent in the background"
		}
		return why + ". Nothing was changed; try again later"
	case errors.As(err, &cooldown):
		return fmt.Sprintf("an email was sent a moment ago. Try again in %d seconds", retryAfter(err))
	case errors.As(err, &invalid) && invalid.Field == "Email":
		return "this address " + invalid.Reason
	default:
		_, message := clerkinvite.HTTPError(err)
		return message
	}
}

// didWords returns the text after a button succeeded.
func didWords(verb string, m *clerkinvite.Member) string {
	switch {
	case m.Status == clerkinvite.StatusActive:
		return m.Email + " has joined."
	case m.Status == clerkinvite.StatusReserved:
		return m.Email + " will be invited in a moment."
	case verb == "resend" || verb == "invite":
		return m.Email + " was sent a new invitation."
	default:
		return m.Email + ": " + strings.ToLower(label(m.Status)) + "."
	}
}

// summary returns the text after several people were invited.
func summary(counts map[clerkinvite.Status]int, wrong int) string {
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{
		{counts[clerkinvite.StatusPending], "invited"},
		{counts[clerkinvite.StatusActive], "joined without an email"},
		{counts[clerkinvite.StatusReserved], "waiting"},
		{wrong, "not invited"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	return strings.Join(parts, ", ") + "."
}

// numbers and readNumbers carry the counts of summary through a redirect.
func numbers(counts map[clerkinvite.Status]int) string {
	return fmt.Sprintf("%d-%d-%d", counts[clerkinvite.StatusPending], counts[clerkinvite.StatusActive], counts[clerkinvite.StatusReserved])
}

func readNumbers(s string) map[clerkinvite.Status]int {
	var pending, active, reserved int
	_, _ = fmt.Sscanf(s, "%d-%d-%d", &pending, &active, &reserved) // unreadable numbers are 0
	return map[clerkinvite.Status]int{
		clerkinvite.StatusPending: pending, clerkinvite.StatusActive: active, clerkinvite.StatusReserved: reserved,
	}
}

// ago returns how long ago t was, in one unit.
func ago(now time.Time, t *time.Time) string {
	d := now.Sub(*t)
	if d < time.Minute {
		return "just now"
	}
	return span(d) + " ago"
}

// until returns how far t is ahead, in one unit.
func until(now time.Time, t *time.Time) string {
	d := t.Sub(now)
	switch {
	case d <= 0:
		return "now"
	case d < time.Minute:
		return "within a minute"
	default:
		return "in " + span(d)
	}
}

func span(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int((d + unit.length/20) / unit.length); n > 0 { // 29 days and 23 hours become 30 days
			if n == 1 {
				return "1 " + unit.name
			}
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return "a minute"
}

// sentence returns s with a capital letter, and a full stop if it has words.
func sentence(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	s = string(unicode.ToUpper(r)) + s[size:]
	if strings.Contains(s, " ") && !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}
