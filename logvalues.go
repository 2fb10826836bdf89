package clerkinvite

import (
	"database/sql/driver"
	"fmt"
	"log/slog"
	"unique"

	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// This file decides how the types of this package print.
//
//   - A secret is a [Secret], which nothing prints.
//   - A value with personal data (a member, parameters, a query) has LogValue and Format.
//     slog, %v and every other verb print it without addresses, links and the host's data.
//     %+v and %#v print all of its fields.
//   - A type with a connection or the host's types in it (Config, Service, Reserver, PgxStore)
//     prints its settings only, with every verb.
//   - An error prints its Error(), which contains no address, link or key.

// Secret is a text that must not be printed: a signing secret, or the link of an invitation.
// fmt prints "[secret]" with every verb, and so do log/slog, encoding/json and other text
// encodings. In an unexported field of another struct, fmt prints a pointer and JSON nothing.
// Reveal returns the text. Only a debugger, or a dumper that follows unexported pointers such as go-spew, shows it.
//
// Two secrets with the same text are equal by ==, reflect.DeepEqual and assert.Equal. The
// zero value is the empty text. A Secret is stored in a database as its text.
type Secret struct{ text unique.Handle[string] }

// NewSecret returns text as a Secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{unique.Make(text)}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.text.Value()
}

// IsZero reports whether the text is empty.
func (s Secret) IsZero() bool { return s == Secret{} }

// String returns "[secret]", or "" for an empty text.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return "[secret]"
}

// Format implements fmt.Formatter: every verb prints String.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, s.String()) }

// MarshalText implements encoding.TextMarshaler: it returns String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Scan implements sql.Scanner, for stores.
func (s *Secret) Scan(src any) error {
	switch src := src.(type) {
	case nil:
		*s = Secret{}
	case string:
		*s = NewSecret(src)
	case []byte:
		*s = NewSecret(string(src))
	default:
		return fmt.Errorf("clerkinvite: scan a Secret: must be text, is %T", src)
	}
	return nil
}

// Value implements driver.Valuer, for stores.
func (s Secret) Value() (driver.Value, error) { return s.Reveal(), nil }

// logError returns the text of err for a log. Errors of the database, of Config.Authorize
// and of a host's ClerkAPI may contain anything, so it is scrubbed.
func logError(err error) string { return scrub.Line(err.Error()) }

// LogValue implements slog.LogValuer: the settings, without RedirectURL, which may contain anything.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("expires_in_days", c.ExpiresInDays), slog.Duration("lease", c.Lease),
		slog.Duration("resend_cooldown", c.ResendCooldown), slog.Bool("withdraw_on_failure", c.WithdrawOnFailure))
}

// Format implements fmt.Formatter: every verb prints the settings only.
func (c Config) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "Config", c.LogValue()) }

// Format implements fmt.Formatter: every verb prints the settings only.
func (s *Service) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "Service", s.cfg.LogValue()) }

// LogValue implements slog.LogValuer: the tenant and the options.
func (p InviteParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("tenant", p.TenantID), slog.Int("expires_in_days", p.ExpiresInDays),
		slog.String("template", p.Template), slog.Bool("skip_email", p.SkipEmail))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (p InviteParams) Format(f fmt.State, verb rune) { scrub.Format(f, verb, p) }

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (a AdoptParams) Format(f fmt.State, verb rune) { scrub.Format(f, verb, a) }

// Format implements fmt.Formatter: every verb prints the settings only.
func (r Reserver) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "Reserver", r.s.cfg.LogValue()) }

// LogValue implements slog.LogValuer: the tenant, ID, status and counters.
func (m Member) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("tenant", m.TenantID), slog.String("member", m.ID), slog.String("status", string(m.Status)),
		slog.Int("send", m.Send), slog.Int("sent", m.Sent), slog.Int("attempts", m.Attempts), slog.Int64("version", m.Version),
	}
	if m.ClerkUserID != "" {
		attrs = append(attrs, slog.String("clerk_user_id", m.ClerkUserID))
	}
	if m.Reason != "" {
		attrs = append(attrs, slog.String("reason", m.Reason))
	}
	return slog.GroupValue(attrs...)
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (m Member) Format(f fmt.State, verb rune) { scrub.Format(f, verb, m) }

// LogValue implements slog.LogValuer: the tenant.
func (r Ref) LogValue() slog.Value { return slog.GroupValue(slog.String("tenant", r.TenantID)) }

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (r Ref) Format(f fmt.State, verb rune) { scrub.Format(f, verb, r) }

// LogValue implements slog.LogValuer: the member and the error, both without personal data.
func (r Result) LogValue() slog.Value {
	var attrs []slog.Attr
	if r.Member != nil {
		attrs = append(attrs, slog.Any("member", *r.Member))
	}
	if r.Err != nil {
		attrs = append(attrs, slog.Any("err", logError(r.Err)))
	}
	return slog.GroupValue(attrs...)
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (r Result) Format(f fmt.State, verb rune) { scrub.Format(f, verb, r) }

// LogValue implements slog.LogValuer: both members.
func (c Change) LogValue() slog.Value {
	var attrs []slog.Attr
	if c.Old != nil {
		attrs = append(attrs, slog.Any("old", *c.Old))
	}
	if c.New != nil {
		attrs = append(attrs, slog.Any("new", *c.New))
	}
	return slog.GroupValue(attrs...)
}

// LogValue implements slog.LogValuer: the tenant, the statuses and the position.
func (q PageQuery) LogValue() slog.Value {
	return slog.GroupValue(slog.String("tenant", q.TenantID), slog.Any("statuses", q.Statuses), slog.String("after", q.AfterID),
		slog.Int("limit", q.Limit))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (q PageQuery) Format(f fmt.State, verb rune) { scrub.Format(f, verb, q) }

// LogValue implements slog.LogValuer: the states, the counters and the IDs at Clerk.
func (e HistoryEntry) LogValue() slog.Value {
	return slog.GroupValue(slog.Int64("version", e.Version), slog.String("from", string(e.From)), slog.String("to", string(e.To)),
		slog.Int("send", e.Send), slog.Int("sent", e.Sent), slog.String("clerk_user_id", e.ClerkUserID),
		slog.String("invitation", e.InvitationID), slog.String("reason", e.Reason), slog.Time("at", e.At))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (e HistoryEntry) Format(f fmt.State, verb rune) { scrub.Format(f, verb, e) }

// LogValue implements slog.LogValuer: the time and the limit.
func (q DueQuery) LogValue() slog.Value {
	return slog.GroupValue(slog.Time("at", q.At), slog.Int("limit", q.Limit))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (q DueQuery) Format(f fmt.State, verb rune) { scrub.Format(f, verb, q) }

// LogValue implements slog.LogValuer: the limit.
func (o DeliverOptions) LogValue() slog.Value { return slog.GroupValue(slog.Int("limit", o.Limit)) }

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (o DeliverOptions) Format(f fmt.State, verb rune) { scrub.Format(f, verb, o) }

// LogValue implements slog.LogValuer: the number of values.
func (q Query) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("refs", len(q.Refs)), slog.Int("ids", len(q.IDs)), slog.Int("emails", len(q.Emails)),
		slog.Int("user_ids", len(q.UserIDs)))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (q Query) Format(f fmt.State, verb rune) { scrub.Format(f, verb, q) }

// LogValue implements slog.LogValuer: the ID, the number of addresses, and why the user cannot become a member.
func (u User) LogValue() slog.Value {
	reason, _ := u.barred()
	return slog.GroupValue(slog.String("user", u.ID), slog.Int("addresses", len(u.Emails)), slog.String("barred", reason))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (u User) Format(f fmt.State, verb rune) { scrub.Format(f, verb, u) }

// LogValue implements slog.LogValuer: the ID, and whether the address is verified.
func (e UserEmail) LogValue() slog.Value {
	return slog.GroupValue(slog.String("email_id", e.ID), slog.Bool("verified", e.Verified))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (e UserEmail) Format(f fmt.State, verb rune) { scrub.Format(f, verb, e) }

// LogValue implements slog.LogValuer: the number of values.
func (q UserQuery) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("emails", len(q.Emails)), slog.Int("ids", len(q.IDs)))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (q UserQuery) Format(f fmt.State, verb rune) { scrub.Format(f, verb, q) }

// LogValue implements slog.LogValuer: the options.
func (r InvitationRequest) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("expires_in_days", r.ExpiresInDays), slog.String("template", r.Template),
		slog.Bool("skip_email", r.SkipEmail), slog.Bool("ignore_existing", r.IgnoreExisting))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (r InvitationRequest) Format(f fmt.State, verb rune) { scrub.Format(f, verb, r) }

// LogValue implements slog.LogValuer: the ID and the status.
func (inv Invitation) LogValue() slog.Value {
	return slog.GroupValue(slog.String("invitation", inv.ID), slog.String("status", string(inv.Status)))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (inv Invitation) Format(f fmt.State, verb rune) { scrub.Format(f, verb, inv) }

// LogValue implements slog.LogValuer: the page.
func (q InvitationQuery) LogValue() slog.Value {
	return slog.GroupValue(slog.String("status", string(q.Status)), slog.Int("limit", q.Limit), slog.Int("offset", q.Offset))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (q InvitationQuery) Format(f fmt.State, verb rune) { scrub.Format(f, verb, q) }

// LogValue implements slog.LogValuer: the tenant, the statuses and the limit.
func (p ListParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("tenant", p.TenantID), slog.Any("statuses", p.Statuses), slog.Int("limit", p.Limit))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (p ListParams) Format(f fmt.State, verb rune) { scrub.Format(f, verb, p) }

// LogValue implements slog.LogValuer: the number of members.
func (p Page) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("members", len(p.Members)), slog.String("next", p.Next))
}

// LogValue implements slog.LogValuer: which fields are set.
func (u MemberUpdate) LogValue() slog.Value {
	return slog.GroupValue(slog.Bool("role", u.Role != nil), slog.Bool("data", u.Data != nil))
}

// Format implements fmt.Formatter: %+v and %#v print all fields, other verbs the log value.
func (u MemberUpdate) Format(f fmt.State, verb rune) { scrub.Format(f, verb, u) }

// LogValue implements slog.LogValuer: the numbers.
func (r ReconcileReport) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("members", r.Members), slog.Int("invitations", r.Invitations),
		slog.Int("activated", r.Activated), slog.Int("removed", r.Removed), slog.Int("expired", r.Expired), slog.Int("revoked", r.Revoked),
		slog.Int("left_over", r.LeftOver), slog.Int("unknown", r.Unknown), slog.Int("newer", r.Newer), slog.Int("missing", r.Missing),
		slog.Int("moved", r.Moved), slog.Int("out_of_date", len(r.OutOfDate)), slog.Int("accepted_elsewhere", len(r.AcceptedElsewhere)), slog.Bool("more", r.Cursor != ""))
}

// LogValue implements slog.LogValuer: the IDs and the type.
func (e Event) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", e.ID), slog.String("type", e.Type),
		slog.String("instance", e.InstanceID), slog.String("user", e.UserID),
		slog.String("organization", e.OrganizationID), slog.String("invitation", e.InvitationID))
}

// Format implements fmt.Formatter: %+v and %#v print all exported fields, other verbs the log value.
func (e Event) Format(f fmt.State, verb rune) { scrub.Format(f, verb, e) }

// Format implements fmt.Formatter: every verb prints the settings only.
func (s PgxStore) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprint(f, "PgxStore", slog.GroupValue(slog.String("schema", s.schema)))
}
