package clerkinvite

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// formatLogValue is the body of every Format method: the log value, for any verb,
// so that what must not be logged cannot be printed by accident either.
func formatLogValue(w io.Writer, name string, v slog.Value) {
	_, _ = fmt.Fprint(w, name, v.Resolve())
}

// LogValue implements slog.LogValuer: the settings, without API and Store.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("expires_in_days", c.ExpiresInDays), slog.Duration("lease", c.Lease),
		slog.Duration("resend_cooldown", c.ResendCooldown))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (c Config) Format(f fmt.State, _ rune) { formatLogValue(f, "Config", c.LogValue()) }

// Format implements fmt.Formatter: every verb prints the settings only.
func (s *Service) Format(f fmt.State, _ rune) { formatLogValue(f, "Service", s.cfg.LogValue()) }

// LogValue implements slog.LogValuer: tenant and options, never the address, the metadata or the data.
func (p InviteParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("tenant", p.TenantID), slog.Int("expires_in_days", p.ExpiresInDays),
		slog.String("template", p.Template), slog.Bool("skip_email", p.SkipEmail))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (p InviteParams) Format(f fmt.State, _ rune) { formatLogValue(f, "InviteParams", p.LogValue()) }

// Format implements fmt.Formatter: every verb prints the settings of the service only.
func (r Reserver) Format(f fmt.State, _ rune) { formatLogValue(f, "Reserver", r.s.cfg.LogValue()) }

// LogValue implements slog.LogValuer: tenant, id, state and counters, never an address or a URL.
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

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (m Member) Format(f fmt.State, _ rune) { formatLogValue(f, "Member", m.LogValue()) }

// LogValue implements slog.LogValuer: the tenant, without the address.
func (r Ref) LogValue() slog.Value { return slog.GroupValue(slog.String("tenant", r.TenantID)) }

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (r Ref) Format(f fmt.State, _ rune) { formatLogValue(f, "Ref", r.LogValue()) }

// LogValue implements slog.LogValuer.
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

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (r Result) Format(f fmt.State, _ rune) { formatLogValue(f, "Result", r.LogValue()) }

// LogValue implements slog.LogValuer: both members, without their address.
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

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (c Change) Format(f fmt.State, _ rune) { formatLogValue(f, "Change", c.LogValue()) }

// LogValue implements slog.LogValuer: the tenant and how much is asked for, never an address.
func (q PageQuery) LogValue() slog.Value {
	return slog.GroupValue(slog.String("tenant", q.TenantID), slog.Any("statuses", q.Statuses), slog.String("after", q.AfterID),
		slog.Int("limit", q.Limit))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (q PageQuery) Format(f fmt.State, _ rune) { formatLogValue(f, "PageQuery", q.LogValue()) }

// LogValue implements slog.LogValuer: how much is asked for, never an address.
func (q Query) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("refs", len(q.Refs)), slog.Int("ids", len(q.IDs)), slog.Int("emails", len(q.Emails)),
		slog.Int("user_ids", len(q.UserIDs)))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (q Query) Format(f fmt.State, _ rune) { formatLogValue(f, "Query", q.LogValue()) }

// LogValue implements slog.LogValuer: the existing member, without its address.
func (e DuplicateEmailError) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("error", "a member with this email already exists in this tenant"), slog.String("tenant", e.Ref.TenantID)}
	if e.Member != nil {
		attrs = append(attrs, slog.Any("existing", *e.Member))
	}
	return slog.GroupValue(attrs...)
}

// Format implements fmt.Formatter: every verb prints the error without the address.
func (e DuplicateEmailError) Format(f fmt.State, _ rune) {
	formatLogValue(f, "DuplicateEmailError", e.LogValue())
}

// LogValue implements slog.LogValuer: all that an operator needs, without addresses.
func (e ClerkInvitationError) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("error", e.Error()), slog.String("op", e.Op), slog.String("outcome", string(e.Outcome))}
	if e.Member != nil {
		attrs = append(attrs, slog.Any("member", *e.Member))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("cause", logError(e.Err)))
	}
	return slog.GroupValue(attrs...)
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (e ClerkInvitationError) Format(f fmt.State, _ rune) {
	formatLogValue(f, "ClerkInvitationError", e.LogValue())
}

// LogValue implements slog.LogValuer: Clerk's code, long message without addresses, trace id.
func (e APIError) LogValue() slog.Value {
	attrs := []slog.Attr{slog.Int("clerk_status", e.StatusCode), slog.String("clerk_code", scrub.Line(e.Code)),
		slog.String("clerk_message", e.text()), slog.String("clerk_trace_id", scrub.Line(e.TraceID))}
	if e.RetryAfter > 0 {
		attrs = append(attrs, slog.Duration("retry_after", e.RetryAfter))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("cause", scrub.Line(e.Err.Error())), slog.Bool("not_sent", e.NotSent))
	}
	return slog.GroupValue(attrs...)
}

// Format implements fmt.Formatter: every verb prints Error, which holds no address.
func (e APIError) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, e.Error()) }

// logError returns err as something that logs without addresses.
func logError(err error) any {
	if v, ok := err.(slog.LogValuer); ok {
		return v
	}
	return scrub.Text(err.Error())
}

// LogValue implements slog.LogValuer: the id and whether banned, never an address.
func (u User) LogValue() slog.Value {
	return slog.GroupValue(slog.String("user", u.ID), slog.Int("addresses", len(u.Emails)), slog.Bool("banned", u.Banned))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (u User) Format(f fmt.State, _ rune) { formatLogValue(f, "User", u.LogValue()) }

// LogValue implements slog.LogValuer: the id and whether verified, never the address.
func (e UserEmail) LogValue() slog.Value {
	return slog.GroupValue(slog.String("email_id", e.ID), slog.Bool("verified", e.Verified))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (e UserEmail) Format(f fmt.State, _ rune) { formatLogValue(f, "UserEmail", e.LogValue()) }

// LogValue implements slog.LogValuer: how many values are asked for, never an address.
func (q UserQuery) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("emails", len(q.Emails)), slog.Int("ids", len(q.IDs)))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (q UserQuery) Format(f fmt.State, _ rune) { formatLogValue(f, "UserQuery", q.LogValue()) }

// LogValue implements slog.LogValuer: the options, never the address or the metadata.
func (r InvitationRequest) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("expires_in_days", r.ExpiresInDays), slog.String("template", r.Template),
		slog.Bool("skip_email", r.SkipEmail), slog.Bool("ignore_existing", r.IgnoreExisting))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (r InvitationRequest) Format(f fmt.State, _ rune) {
	formatLogValue(f, "InvitationRequest", r.LogValue())
}

// LogValue implements slog.LogValuer: the id and status, never the address or the URL.
func (inv Invitation) LogValue() slog.Value {
	return slog.GroupValue(slog.String("invitation", inv.ID), slog.String("status", inv.Status))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (inv Invitation) Format(f fmt.State, _ rune) { formatLogValue(f, "Invitation", inv.LogValue()) }

// LogValue implements slog.LogValuer: the page asked for, never the address.
func (q InvitationQuery) LogValue() slog.Value {
	return slog.GroupValue(slog.String("status", q.Status), slog.Int("limit", q.Limit), slog.Int("offset", q.Offset))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (q InvitationQuery) Format(f fmt.State, _ rune) {
	formatLogValue(f, "InvitationQuery", q.LogValue())
}

// LogValue implements slog.LogValuer: the tenant and the states, never an address.
func (p ListParams) LogValue() slog.Value {
	return slog.GroupValue(slog.String("tenant", p.TenantID), slog.Any("statuses", p.Statuses), slog.Int("limit", p.Limit))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (p ListParams) Format(f fmt.State, _ rune) { formatLogValue(f, "ListParams", p.LogValue()) }

// LogValue implements slog.LogValuer: how many members, never their addresses.
func (p Page) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("members", len(p.Members)), slog.String("next", p.Next))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (p Page) Format(f fmt.State, _ rune) { formatLogValue(f, "Page", p.LogValue()) }

// LogValue implements slog.LogValuer: what is corrected, never the data.
func (u MemberUpdate) LogValue() slog.Value {
	return slog.GroupValue(slog.Bool("role", u.Role != nil), slog.Bool("data", u.Data != nil))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (u MemberUpdate) Format(f fmt.State, _ rune) { formatLogValue(f, "MemberUpdate", u.LogValue()) }

// LogValue implements slog.LogValuer: the numbers.
func (r ReconcileReport) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("members", r.Members), slog.Int("invitations", r.Invitations),
		slog.Int("activated", r.Activated), slog.Int("removed", r.Removed), slog.Int("expired", r.Expired), slog.Int("revoked", r.Revoked),
		slog.Int("left_over", r.LeftOver), slog.Int("unknown", r.Unknown), slog.Int("ahead", r.Ahead),
		slog.Int("elsewhere", len(r.Elsewhere)), slog.Bool("complete", r.Cursor == ""))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (r ReconcileReport) Format(f fmt.State, _ rune) {
	formatLogValue(f, "ReconcileReport", r.LogValue())
}

// LogValue implements slog.LogValuer: how many secrets there are, never one of them.
func (c WebhookConfig) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("secrets", len(c.Secrets)), slog.String("instance", c.InstanceID))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (c WebhookConfig) Format(f fmt.State, _ rune) {
	formatLogValue(f, "WebhookConfig", c.LogValue())
}

// LogValue implements slog.LogValuer: how many keys there are, never one of them.
func (v WebhookVerifier) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("keys", len(v.keys)), slog.String("instance", v.instanceID))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (v WebhookVerifier) Format(f fmt.State, _ rune) {
	formatLogValue(f, "WebhookVerifier", v.LogValue())
}

// LogValue implements slog.LogValuer: ids and type, never an address.
func (e Event) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", e.ID), slog.String("type", e.Type),
		slog.String("instance", e.InstanceID), slog.String("user", e.UserID))
}

// Format implements fmt.Formatter: every verb prints what LogValue holds.
func (e Event) Format(f fmt.State, _ rune) { formatLogValue(f, "Event", e.LogValue()) }

// Format implements fmt.Formatter: every verb prints the schema only.
func (s PgxStore) Format(f fmt.State, _ rune) {
	formatLogValue(f, "PgxStore", slog.GroupValue(slog.String("schema", s.schema)))
}
