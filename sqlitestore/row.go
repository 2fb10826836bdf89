package sqlitestore

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/clerkinvite/clerkinvite"
)

// memberColumns is what a statement returns of the row m, in the order of scanMember.
const memberColumns = `m.tenant_id, m.id, m.email, m.status, coalesce(m.clerk_user_id, ''), coalesce(m.invitation_id, ''),
	m.send, m.sent, coalesce(m.url, ''), coalesce(m.role, ''), coalesce(m.invited_by, ''), m.data, m.params,
	m.version, m.attempts, m.claimed_until, m.next_attempt_at, coalesce(m.reason, ''),
	m.reserved_at, m.invited_at, m.expires_at, m.settled_at, m.updated_at`

// row is *sql.Row or *sql.Rows.
type row interface{ Scan(dest ...any) error }

func scanMember(r row) (*clerkinvite.Member, error) {
	m := new(clerkinvite.Member)
	var reserved, updated int64
	var claimed, next, invited, expires, settled *int64
	if err := r.Scan(&m.TenantID, &m.ID, &m.Email, &m.Status, &m.ClerkUserID, &m.InvitationID,
		&m.Send, &m.Sent, &m.URL, &m.Role, &m.InvitedBy, (*[]byte)(&m.Data), (*[]byte)(&m.Params),
		&m.Version, &m.Attempts, &claimed, &next, &m.Reason,
		&reserved, &invited, &expires, &settled, &updated); err != nil {
		return nil, err
	}
	m.ReservedAt, m.UpdatedAt = at(reserved), at(updated)
	m.ClaimedUntil, m.NextAttemptAt = optionalAt(claimed), optionalAt(next)
	m.InvitedAt, m.ExpiresAt, m.SettledAt = optionalAt(invited), optionalAt(expires), optionalAt(settled)
	return m, nil
}

// values are those of a member that can change, in the order of the statements that write them.
func values(m *clerkinvite.Member) []any {
	return []any{
		string(m.Status), optional(m.ClerkUserID), optional(m.InvitationID), m.Send, m.Sent, optional(m.URL.Reveal()), optional(m.Role), optional(m.InvitedBy),
		optional(string(m.Data)), optional(string(m.Params)), m.Attempts, optionalMicros(m.ClaimedUntil), optionalMicros(m.NextAttemptAt),
		optional(m.Reason), micros(m.ReservedAt), optionalMicros(m.InvitedAt), optionalMicros(m.ExpiresAt), optionalMicros(m.SettledAt), micros(m.UpdatedAt),
	}
}

// stored returns m as it comes back from the file, sharing nothing with m.
func stored(m *clerkinvite.Member) *clerkinvite.Member {
	c := *m
	c.ID = strings.ToLower(m.ID)
	c.Data, c.Params = cloneJSON(m.Data), cloneJSON(m.Params)
	c.ReservedAt, c.UpdatedAt = at(micros(m.ReservedAt)), at(micros(m.UpdatedAt))
	for _, t := range []**time.Time{&c.ClaimedUntil, &c.NextAttemptAt, &c.InvitedAt, &c.ExpiresAt, &c.SettledAt} {
		if *t != nil {
			kept := at(micros(**t))
			*t = &kept
		}
	}
	return &c
}

func cloneJSON(b json.RawMessage) json.RawMessage {
	if len(b) == 0 {
		return nil
	}
	return slices.Clone(b)
}

// checkText refuses what SQLite would keep, but compare and print as something else.
func checkText(m *clerkinvite.Member) error {
	for _, s := range []string{m.TenantID, m.ID, m.Email, string(m.Status), m.ClerkUserID, m.InvitationID, m.URL.Reveal(), m.Role, m.InvitedBy,
		string(m.Data), string(m.Params), m.Reason} {
		if !storable(s) {
			return errors.New("sqlitestore: a member has text that is not valid UTF-8, or holds a zero byte")
		}
	}
	return nil
}

// storable reports whether s can be in a column at all; what cannot matches nothing.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// isUUID reports whether id has the form of a UUID, in whatever case.
func isUUID(id string) bool {
	if len(id) != 36 {
		return false
	}
	for i, c := range []byte(id) {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
		default:
			return false
		}
	}
	return true
}

// micros is how a time is kept.
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
