package clerkinvitetest

import (
	"fmt"
	"log/slog"

	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// This file has what the types of this package print, by the rule of package clerkinvite.

// Format implements fmt.Formatter: every verb prints counts only.
func (c *Clerk) Format(f fmt.State, _ rune) {
	if c == nil {
		_, _ = fmt.Fprint(f, "<nil>")
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprintf(f, "Clerk[users=%d invitations=%d emails=%d]", len(c.userByID), len(c.invitations), len(c.mail))
}

// Format implements fmt.Formatter: every verb prints the number of members.
func (s *MemoryStore) Format(f fmt.State, _ rune) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintf(f, "MemoryStore[members=%d]", len(s.members))
}

// LogValue implements slog.LogValuer: the ID and the number of addresses.
func (s UserSpec) LogValue() slog.Value {
	return slog.GroupValue(slog.String("user", s.ID), slog.Int("addresses", len(s.Emails)), slog.Bool("banned", s.Banned))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (s UserSpec) Format(f fmt.State, verb rune) { scrub.Format(f, verb, s) }

// LogValue implements slog.LogValuer: the maximum of members and the number of roles.
func (o OrganizationSpec) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("max_members", o.MaxMembers), slog.Int("roles", len(o.Roles)))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (o OrganizationSpec) Format(f fmt.State, verb rune) { scrub.Format(f, verb, o) }

// LogValue implements slog.LogValuer: the switches.
func (e EmailSpec) LogValue() slog.Value {
	return slog.GroupValue(slog.Bool("verified", e.Verified), slog.Bool("reserved", e.Reserved),
		slog.Bool("null_verification", e.NullVerification))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (e EmailSpec) Format(f fmt.State, verb rune) { scrub.Format(f, verb, e) }

// LogValue implements slog.LogValuer: the invitation, the template and the time.
func (m Mail) LogValue() slog.Value {
	return slog.GroupValue(slog.String("invitation", m.InvitationID), slog.String("template", m.Template), slog.Time("at", m.At))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (m Mail) Format(f fmt.State, verb rune) { scrub.Format(f, verb, m) }

// LogValue implements slog.LogValuer: the ID, the size and the time.
func (w Webhook) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", w.ID), slog.Int("bytes", len(w.Payload)), slog.Time("at", w.At))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (w Webhook) Format(f fmt.State, verb rune) { scrub.Format(f, verb, w) }

// LogValue implements slog.LogValuer: what fails and how.
func (f Fault) LogValue() slog.Value {
	return slog.GroupValue(slog.String("call", string(f.Call)), slog.String("when", f.When.String()),
		slog.String("kind", string(f.Kind)), slog.Int("times", f.Times), slog.Int("status", f.Status))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (f Fault) Format(s fmt.State, verb rune) { scrub.Format(s, verb, f) }
