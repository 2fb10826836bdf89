package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/clerkinvite/clerkinvite"
)

// label is what people call a state.
func label(s clerkinvite.Status) string {
	switch s {
	case "":
		return "Everybody"
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

// reasonWords says why a member is in its state.
func reasonWords(reason string) string {
	switch reason {
	case clerkinvite.ReasonUserBanned:
		return "this person is banned at Clerk"
	case clerkinvite.ReasonUserDeleted:
		return "the account at Clerk was deleted"
	case clerkinvite.ReasonSecondAddress:
		return "already here under another address"
	case clerkinvite.ReasonAtClerk:
		return "in Clerk’s dashboard"
	case "unavailable":
		return "Clerk did not answer"
	case "too_many_requests":
		return "Clerk’s rate limit is used up"
	case "form_param_format_invalid":
		return "Clerk takes it for no address"
	case "not_allowed_access":
		return "Clerk’s allow list does not have it"
	default:
		return strings.ReplaceAll(reason, "_", " ") // another code of Clerk's
	}
}

// trouble says what went wrong with one person, to the admin who tried to invite, or did what verb says.
func trouble(verb string, err error) string {
	var duplicate *clerkinvite.DuplicateEmailError
	var clerk *clerkinvite.ClerkInvitationError
	var cooldown *clerkinvite.CooldownError
	var invalid *clerkinvite.InvalidParamsError
	switch {
	case errors.As(err, &duplicate) && duplicate.Member != nil:
		return "is in this tenant already (" + strings.ToLower(label(duplicate.Member.Status)) + ")"
	case errors.As(err, &clerk) && clerk.Outcome == clerkinvite.Refused && clerk.Member != nil && clerk.Member.Reason != "":
		return "Clerk refuses it: " + reasonWords(clerk.Member.Reason)
	case errors.As(err, &clerk) && clerk.Outcome != clerkinvite.Refused:
		why := "Clerk does not answer"
		if api := new(clerkinvite.APIError); errors.As(err, &api) && api.StatusCode == http.StatusTooManyRequests {
			why = "Clerk’s rate limit is used up"
		}
		if verb == "revoke" || verb == "remove" || clerk.Member == nil {
			return why + ". Nothing has changed; try again later"
		}
		return why + ". It is kept, and tried again in the background"
	case errors.As(err, &cooldown):
		return fmt.Sprintf("an email went out a moment ago. Try again in %d seconds", retryAfter(err))
	case errors.As(err, &invalid) && invalid.Field == "Email":
		return "this address " + invalid.Reason
	default:
		_, message := clerkinvite.HTTPError(err)
		return message
	}
}

// didWords says what a button has done.
func didWords(verb string, m *clerkinvite.Member) string {
	switch {
	case m.Status == clerkinvite.StatusActive:
		return m.Email + " has joined."
	case m.Status == clerkinvite.StatusReserved:
		return m.Email + " will be invited in a moment."
	case verb == "resend" || verb == "invite":
		return m.Email + " has been sent a new invitation."
	default:
		return m.Email + ": " + strings.ToLower(label(m.Status)) + "."
	}
}

// summary says how it went with many.
func summary(counts map[clerkinvite.Status]int, wrong int) string {
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{
		{counts[clerkinvite.StatusPending], "invited"},
		{counts[clerkinvite.StatusActive], "joined at once, without an email"},
		{counts[clerkinvite.StatusReserved], "to be invited in the background"},
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
	_, _ = fmt.Sscanf(s, "%d-%d-%d", &pending, &active, &reserved) // what cannot be read is none
	return map[clerkinvite.Status]int{
		clerkinvite.StatusPending: pending, clerkinvite.StatusActive: active, clerkinvite.StatusReserved: reserved,
	}
}

// ago says how long t is over, in the one unit that matters.
func ago(now time.Time, t *time.Time) string {
	d := now.Sub(*t)
	if d < time.Minute {
		return "just now"
	}
	return span(d) + " ago"
}

// until says how far t is ahead.
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
		if n := int((d + unit.length/20) / unit.length); n > 0 { // 29 days and 23 hours are 30 days to people
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
