package storetest

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/clerkinvite/clerkinvite"
)

// moved returns a copy of m with another address.
func moved(m *clerkinvite.Member, email string) *clerkinvite.Member {
	n := *m
	n.Email = email
	return &n
}

// active inserts active members of one tenant with these addresses.
func (s *suite) active(emails ...string) []*clerkinvite.Member {
	s.Helper()
	rows := make([]*clerkinvite.Member, len(emails))
	for i, email := range emails {
		rows[i] = in(clerkinvite.StatusActive, reserved("tenant", email))
	}
	return s.insert(rows...)
}

// After a change, every query finds the member by the new address, and the old address is free.
func emailChanged(s *suite) {
	m := s.active("old@example.com")[0]
	n := moved(m, "new@example.com")
	s.change(m, n)
	s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{n.Ref()}}, n)
	s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{m.Ref()}})
	if page, err := s.store.Page(s.Context(), clerkinvite.PageQuery{TenantID: "tenant", EmailPrefix: "new"}); err != nil || len(page) != 1 || page[0].ID != n.ID {
		s.Errorf("the page of the new address: %v, error %v", page, err)
	}
	s.wantHistory(n, entry(nil, m), entry(m, n))

	results, err := s.store.Insert(s.Context(), []*clerkinvite.Member{reserved("tenant", n.Email)})
	if err != nil || results[0].Member == nil || results[0].Member.ID != n.ID {
		s.Errorf("Insert of the new address: %v, error %v; want the duplicate of the member", results, err)
	}
	next := s.insert(reserved("tenant", m.Email))[0]
	s.wantFound(clerkinvite.Query{Emails: []string{m.Email}}, next)
	s.change(n, moved(n, "third@example.com"))
	s.wantStored(next)
}

// The first member of a tenant that has an address keeps it. The other changes are made.
func emailTaken(s *suite) {
	holder := s.insert(reserved("tenant", "taken@example.com"))[0]
	elsewhere := s.insert(in(clerkinvite.StatusActive, reserved("other", "x@example.com")))[0]
	var emails []string
	for i := range 20 {
		emails = append(emails, fmt.Sprintf("x%d@example.com", i))
	}
	rows := s.active(emails...)
	taken := map[int]bool{0: true, 7: true, 8: true, len(rows) - 1: true}
	var changes []clerkinvite.Change
	for i, m := range rows {
		changes = append(changes, clerkinvite.Change{Old: m, New: moved(m, "y"+m.Email)})
		if taken[i] {
			changes[i].New.Email = holder.Email
		}
	}
	// The address is taken in this tenant only.
	changes = append(changes, clerkinvite.Change{Old: elsewhere, New: moved(elsewhere, holder.Email)})
	results, err := s.store.Update(s.Context(), changes)
	if err != nil {
		s.Fatal(err)
	}
	for i, r := range results {
		switch want := changes[i].New; {
		case !taken[i] && r.Err != nil:
			s.Errorf("change %d: error %v", i, r.Err)
		case !taken[i]:
			want.Version = 2
			s.wantStored(want)
		case !errors.Is(r.Err, clerkinvite.ErrEmailTaken):
			s.Errorf("change %d: error %v, want ErrEmailTaken", i, r.Err)
		default:
			s.wantStored(rows[i])
			s.wantHistory(rows[i], entry(nil, rows[i]))
		}
	}
	s.wantStored(holder)
}

// If the changes of a call give an address to two members, one gets it. If they exchange addresses, each
// change is made or the address is taken. Other changes are made.
func emailTakenInCall(s *suite) {
	rows := s.active("a@example.com", "b@example.com", "c@example.com", "d@example.com", "e@example.com")
	changes := []clerkinvite.Change{
		{Old: rows[0], New: moved(rows[0], "b@example.com")}, {Old: rows[1], New: moved(rows[1], "a@example.com")},
		{Old: rows[2], New: moved(rows[2], "same@example.com")}, {Old: rows[3], New: moved(rows[3], "same@example.com")},
		{Old: rows[4], New: in(clerkinvite.StatusRemoved, rows[4])},
	}
	results, err := s.store.Update(s.Context(), changes)
	if err != nil {
		s.Fatal(err)
	}
	var made int
	for i, r := range results {
		want := rows[i]
		switch {
		case r.Err == nil:
			want = changes[i].New
			want.Version = 2
			if i == 2 || i == 3 {
				made++
			}
		case i == 4 || !errors.Is(r.Err, clerkinvite.ErrEmailTaken):
			s.Errorf("change %d: error %v", i, r.Err)
		}
		s.wantStored(want)
	}
	if made != 1 {
		s.Errorf("%d of two members got the same address, want one", made)
	}
}

// A change of another version is a conflict, even if its address is taken. A member that keeps its
// address does not take it.
func emailConflict(s *suite) {
	rows := s.active("a@example.com", "b@example.com")
	stale := *rows[0]
	stale.Version = 9
	kept := *rows[1]
	kept.Role = "owner"
	results, err := s.store.Update(s.Context(), []clerkinvite.Change{
		{Old: &stale, New: moved(&stale, "b@example.com")}, {Old: rows[1], New: &kept},
	})
	if err != nil || !errors.Is(results[0].Err, clerkinvite.ErrConflict) || results[1].Err != nil {
		s.Errorf("%v, error %v; want a conflict and a change", results, err)
	}
	s.wantStored(rows[0])
}

// If any number of members get an address at the same time, in new and in changed rows, exactly one
// succeeds.
func emailRace(s *suite) {
	const callers = 12
	for round := range 5 {
		address := fmt.Sprintf("wanted%d@example.com", round)
		var emails []string
		for i := range callers {
			emails = append(emails, fmt.Sprintf("x%d-%d@example.com", round, i))
		}
		rows := s.active(emails...)
		var made atomic.Pointer[clerkinvite.Member]
		together(callers, func(i int) {
			var results []clerkinvite.Result
			var err error
			if i%2 == 0 {
				results, err = s.store.Update(s.Context(), []clerkinvite.Change{{Old: rows[i], New: moved(rows[i], address)}})
			} else {
				results, err = s.store.Insert(s.Context(), []*clerkinvite.Member{reserved("tenant", address)})
			}
			var dup *clerkinvite.DuplicateEmailError
			switch {
			case err != nil:
				s.Errorf("error of the whole call: %v", err)
			case results[0].Err == nil:
				if !made.CompareAndSwap(nil, results[0].Member) {
					s.Errorf("two members have the address")
				}
			case !errors.Is(results[0].Err, clerkinvite.ErrEmailTaken) && !errors.As(results[0].Err, &dup):
				s.Errorf("error %v, want ErrEmailTaken or a *DuplicateEmailError", results[0].Err)
			}
		})
		if made.Load() == nil {
			s.Fatal("no member has the address")
		}
		s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{made.Load().Ref()}}, made.Load())
	}
}

// Batches in which members exchange addresses, while others insert them in the opposite order, do not
// fail.
func emailOppositeOrders(s *suite) {
	const callers, members = 6, 8
	address := func(i int) string { return fmt.Sprintf("free%d@example.com", i%members) }
	var emails []string
	for i := range callers * members {
		emails = append(emails, fmt.Sprintf("x%d@example.com", i))
	}
	rows := s.active(emails...)
	for range 3 {
		together(callers+2, func(c int) {
			if c >= callers {
				inserted := make([]*clerkinvite.Member, members)
				for i := range inserted {
					inserted[i] = in(clerkinvite.StatusActive, reserved("tenant", address(i*(2*c-2*callers-1)+members)))
				}
				if _, err := s.store.Insert(s.Context(), inserted); err != nil {
					s.Errorf("Insert: %v", err)
				}
				return
			}
			mine := rows[c*members : (c+1)*members]
			changes := make([]clerkinvite.Change, members)
			for i, m := range mine {
				changes[i] = clerkinvite.Change{Old: m, New: moved(m, address(i*(2*(c%2)-1)+c+members))}
			}
			results, err := s.store.Update(s.Context(), changes)
			if err != nil {
				s.Errorf("Update: %v", err)
				return
			}
			for i, r := range results {
				if r.Err == nil {
					mine[i] = r.Member
				} else if !errors.Is(r.Err, clerkinvite.ErrEmailTaken) {
					s.Errorf("error %v, want ErrEmailTaken", r.Err)
				}
			}
		})
		erased := make([]clerkinvite.Change, 0, members)
		for i := range members {
			for _, m := range s.find(clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: "tenant", Email: address(i)}}}) {
				if m.Version == 1 { // inserted
					erased = append(erased, clerkinvite.Change{Old: m})
				}
			}
		}
		s.update(erased...)
	}
	for _, m := range rows {
		s.wantStored(m)
	}
}
