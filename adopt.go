package clerkinvite

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// AdoptParams describes an existing member for [Service.Adopt].
type AdoptParams struct {
	// InviteParams contains the member's tenant and address, and the host's fields. Adopt sends nothing
	// to Clerk. A later Resend uses RedirectURL, Template, SkipEmail and PublicMetadata. Until Reconcile
	// reads the real expiry from Clerk, a pending invitation is assumed to expire in ExpiresInDays.
	InviteParams

	// ClerkUserID is a Clerk user ID (user_…) or the PendingID of an invitation (pending_inv_…, or
	// pending_orginv_… if Organization is set).
	ClerkUserID string

	// ReservedAt is when the person was invited or joined. It becomes Member.ReservedAt and determines the
	// order in lists. It must not be before 1970. The zero time, or a time in the future, means now.
	ReservedAt time.Time
}

// Adopt writes rows for people who are already members or already invited, such as the rows of an
// application's existing table. A person with a user ID becomes active, and a person with an invitation ID
// becomes pending. Existing members are never changed.
//
// Adopt trusts its input: it calls neither Clerk nor Config.Authorize. Call Reconcile afterwards, which
// reads the invitations' times from Clerk, and corrects members who have joined, left or never accepted.
// If a Resend in another tenant revokes the same invitation at the same time, Reconcile makes the member revoked.
//
// It always returns one Result per person, in the order of people. Member is the new or existing row, or
// nil. Err is
//   - nil for a new member, and for an existing member with the same ClerkUserID or invitation;
//   - *[InvalidParamsError];
//   - *[DuplicateEmailError] if the tenant has a member with this address and another ClerkUserID, or if
//     the address occurs twice in the list. To link this user to a reserved or pending member, call
//     [Service.ResolveUser]. To link this user to a failed, revoked, expired or removed member, call
//     [Service.Invite];
//   - [ErrUserTaken] if another member of the tenant has this ClerkUserID. Member is that member;
//   - [ErrConflict] if other processes keep changing that member.
//
// If the call could not continue, it returns the context's or the store's error, unchanged. People who
// were not reached have the same error as their Err.
//
// Adopt writes 1,000 rows per statement. It is safe for concurrent use and safe to retry with the
// same list.
func (s *Service) Adopt(ctx context.Context, people []AdoptParams) ([]Result, error) {
	return s.InTx(s.store).Adopt(ctx, people)
}

// Adopt does the same as [Service.Adopt], in the host's transaction. A duplicate does not abort the
// transaction.
//
// Errors: see [Service.Adopt]. If the error is not nil, roll the transaction back.
func (r *Reserver) Adopt(ctx context.Context, people []AdoptParams) (_ []Result, err error) {
	ctx, op := r.s.observe(ctx, "Adopt")
	defer op.end(&err)
	results := slices.Repeat([]Result{{Err: errNotReached}}, len(people))
	rows := make([]*Member, len(people))
	taken := make(map[string]bool) // IDs of the members that have a person
	var todo []int                 // indexes into people
	if err = r.s.setClock(ctx, r.st); err == nil {
		for i, a := range people {
			if rows[i], results[i].Err = r.s.adopted(a); results[i].Err == nil {
				results[i].Err, todo = errNotReached, append(todo, i)
			}
		}
	}
	for len(todo) > 0 && err == nil {
		var distinct []int
		distinct, todo = distinctRows(rows, todo)
		sortRows(rows, distinct)
		for chunk := range slices.Chunk(distinct, reserveChunk) {
			if err = r.s.adopt(ctx, r.st, rows, chunk, results, taken); err != nil {
				break
			}
		}
	}
	for i := range results {
		if errors.Is(results[i].Err, errNotReached) {
			results[i].Err = err
		}
	}
	return results, err
}

// adopted validates a and returns its row.
func (s *Service) adopted(a AdoptParams) (*Member, error) {
	m, err := s.newMember(&a.InviteParams, "")
	if err != nil {
		return nil, err
	}
	now := s.now()
	invitation, pending := InvitationID(a.ClerkUserID)
	prefix := "inv_"
	if a.Organization != nil {
		prefix = "orginv_"
	}
	m.ClerkUserID, m.InvitationID, m.Sent, m.Reason, m.UpdatedAt = a.ClerkUserID, invitation, m.Send, ReasonAdopted, now
	switch {
	case pending && strings.HasPrefix(invitation, prefix) && invitation != prefix && (&Invitation{ID: invitation}).hasID():
		expires := now.AddDate(0, 0, a.ExpiresInDays)
		m.Status, m.ExpiresAt = StatusPending, &expires
	case strings.HasPrefix(a.ClerkUserID, "user_") && a.ClerkUserID != "user_" && clerkID.MatchString(a.ClerkUserID):
		m.Status, m.InvitationID = StatusActive, ""
	default:
		return nil, &InvalidParamsError{"ClerkUserID", "must be a Clerk user's ID (user_…) or pending_ and an invitation's ID (pending_" + prefix + "…)"}
	}
	at := now
	if a.ReservedAt.Before(now) && !a.ReservedAt.IsZero() {
		if at = a.ReservedAt; at.Unix() < 0 {
			return nil, &InvalidParamsError{"ReservedAt", "must not be before 1970"}
		}
		m.ID = withTime(m.ID, at)
	}
	m.ReservedAt, m.SettledAt = at, &at
	return m, nil
}

// withTime returns a version 7 UUID with its time replaced. Lists are ordered by ID.
func withTime(id string, at time.Time) string {
	u := uuid.MustParse(id)
	for i, ms := 5, at.UnixMilli(); i >= 0; i-- {
		u[i], ms = byte(ms), ms>>8
	}
	return u.String()
}

// distinctRows splits todo, which contains indexes into rows. No two rows of distinct have the same address or
// Clerk user. Repetitions go to later, so that the store reports them as duplicates of rows that exist.
func distinctRows(rows []*Member, todo []int) (distinct, later []int) {
	type key struct{ tenantID, emailOrUser string } // an address never equals a user ID
	seen := make(map[key]bool)
	for _, i := range todo {
		email, user := key{rows[i].TenantID, rows[i].Email}, key{rows[i].TenantID, rows[i].ClerkUserID}
		if seen[email] || seen[user] {
			later = append(later, i)
		} else {
			distinct = append(distinct, i)
		}
		seen[email], seen[user] = true, true
	}
	return distinct, later
}

// adopt writes the rows at the indexes in chunk, and sets their results. A member in taken is a duplicate.
func (s *Service) adopt(ctx context.Context, st TxStore, rows []*Member, chunk []int, results []Result, taken map[string]bool) error {
	batch := make([]*Member, len(chunk))
	for k, i := range chunk {
		batch[k] = rows[i]
		batch[k].ChangedBy = actor(ctx)
	}
	inserted, err := st.Insert(ctx, batch)
	if err != nil {
		return err
	}
	for k, i := range chunk {
		results[i] = inserted[k]
		var dup *DuplicateEmailError
		switch {
		case inserted[k].Err == nil:
			s.memberAdded(ctx, inserted[k].Member)
		case errors.As(inserted[k].Err, &dup) && dup.Member.hasOrHad(rows[i].ClerkUserID) && !taken[dup.Member.ID]:
			results[i].Err = nil
		}
		if results[i].Err == nil {
			taken[results[i].Member.ID] = true
		}
	}
	return nil
}

// hasOrHad reports whether m has the Clerk user ID, or had it while it was pending on its last invitation.
func (m Member) hasOrHad(clerkUserID string) bool {
	invitation, pending := InvitationID(clerkUserID)
	return m.ClerkUserID == clerkUserID || pending && m.InvitationID == invitation
}
