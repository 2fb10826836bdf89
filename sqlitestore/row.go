package sqlitestore

import (
	"errors"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// memberColumns are the columns of the row m, in the order in which scanMember reads them.
const memberColumns = `m.tenant_id, m.id, m.email, m.status, coalesce(m.clerk_user_id, ''), coalesce(m.invitation_id, ''),
	m.send, m.sent, m.bulk, coalesce(m.url, ''), coalesce(m.role, ''), coalesce(m.invited_by, ''), coalesce(m.changed_by, ''), m.data, m.params,
	m.version, m.attempts, m.claimed_until, m.next_attempt_at, coalesce(m.reason, ''),
	m.reserved_at, m.invited_at, m.expires_at, m.settled_at, m.updated_at`

// row is *sql.Row or *sql.Rows.
type row interface{ Scan(dest ...any) error }

func scanMember(r row) (*clerkinvite.Member, error) {
	m := new(clerkinvite.Member)
	var reserved, updated int64
	var claimed, next, invited, expires, settled *int64
	if err := r.Scan(&m.TenantID, &m.ID, &m.Email, &m.Status, &m.ClerkUserID, &m.InvitationID,
		&m.Send, &m.Sent, &m.Bulk, &m.URL, &m.Role, &m.InvitedBy, &m.ChangedBy, (*[]byte)(&m.Data), (*[]byte)(&m.Params),
		&m.Version, &m.Attempts, &claimed, &next, &m.Reason,
		&reserved, &invited, &expires, &settled, &updated); err != nil {
		return nil, err
	}
	m.ReservedAt, m.UpdatedAt = at(reserved), at(updated)
	m.ClaimedUntil, m.NextAttemptAt = optionalAt(claimed), optionalAt(next)
	m.InvitedAt, m.ExpiresAt, m.SettledAt = optionalAt(invited), optionalAt(expires), optionalAt(settled)
	return m, nil
}

// values returns the values that can change, in the order of the statements that write them.
func values(m *clerkinvite.Member) []any {
	return []any{
		string(m.Status), optional(m.ClerkUserID), optional(m.InvitationID), m.Send, m.Sent, m.Bulk, optional(m.URL.Reveal()), optional(m.Role), optional(m.InvitedBy),
		optional(m.ChangedBy), optional(string(m.Data)), optional(string(m.Params)), m.Attempts, optionalMicros(m.ClaimedUntil), optionalMicros(m.NextAttemptAt),
		optional(m.Reason), micros(m.ReservedAt), optionalMicros(m.InvitedAt), optionalMicros(m.ExpiresAt), optionalMicros(m.SettledAt), micros(m.UpdatedAt),
	}
}

var errText = errors.New("sqlitestore: a member has text that is not valid UTF-8 or contains a zero byte")

// checkText rejects text that SQLite would store, but compare and print differently.
func checkText(m *clerkinvite.Member) error {
	for _, s := range []string{m.TenantID, m.ID, m.Email, string(m.Status), m.ClerkUserID, m.InvitationID, m.URL.Reveal(), m.Role, m.InvitedBy, m.ChangedBy,
		string(m.Data), string(m.Params), m.Reason} {
		if !storeutil.IsText(s) {
			return errText
		}
	}
	return nil
}

// micros returns a time as it is stored.
func micros(t time.Time) int64 { return t.UnixMicro() }

func at(micros int64) time.Time { return time.UnixMicro(micros).UTC() }

func optional(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func optionalMicros(t *time.Time) any {
	if t == nil {
		return nil
	}
	return micros(*t)
}

func optionalAt(micros *int64) *time.Time {
	if micros == nil {
		return nil
	}
	t := at(*micros)
	return &t
}
