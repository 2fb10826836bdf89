package storetest

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// wantErased checks that nothing finds m.
func (s *suite) wantErased(m *clerkinvite.Member) {
	s.Helper()
	s.wantFound(clerkinvite.Query{IDs: []string{m.ID}, Refs: []clerkinvite.Ref{m.Ref()}, UserIDs: []string{m.ClerkUserID}})
	due, err := s.store.Due(s.Context(), clerkinvite.DueQuery{At: *after(1000 * time.Hour)})
	if err != nil {
		s.Errorf("Due: %v", err)
	}
	waiting, err := s.store.Find(s.Context(), clerkinvite.Query{Emails: []string{m.Email}})
	if err != nil {
		s.Errorf("Find: %v", err)
	}
	for _, found := range slices.Concat(due, waiting, s.page(clerkinvite.PageQuery{}, 0)) {
		if found.ID == m.ID && found.TenantID == m.TenantID {
			s.Errorf("the erased %s member was found", m.Status)
		}
	}
	s.wantHistory(m)
}

// A member can be erased in any state. The result is the erased row, and other members are unchanged.
func eraseEveryState(s *suite) {
	all := s.population()
	for i, m := range all[:len(statuses)] {
		s.wantSame(s.update(clerkinvite.Change{Old: m})[0], m)
		s.wantErased(m)
		for _, left := range all[i+1:] {
			s.wantStored(left)
			s.wantHistory(left, entry(nil, left))
		}
	}
}

// The address, the user and even the ID of an erased member are free, and its history does not come back.
func eraseReuse(s *suite) {
	for _, status := range statuses {
		first := s.insert(reserved("tenant", string(status)+"@example.com"))[0]
		m := in(status, first)
		if status == clerkinvite.StatusReserved {
			m.Attempts++
		}
		s.change(first, m)
		s.update(clerkinvite.Change{Old: m})

		again := in(status, reserved("tenant", m.Email))
		again.ClerkUserID, again.InvitationID = m.ClerkUserID, m.InvitationID
		again = s.insert(again)[0]
		s.wantStored(again)
		s.wantHistory(again, entry(nil, again))
		s.wantHistory(m)

		s.update(clerkinvite.Change{Old: again})
		sameID := reserved("tenant", m.Email)
		sameID.ID = m.ID
		sameID = s.insert(sameID)[0]
		s.wantStored(sameID)
		s.wantHistory(sameID, entry(nil, sameID))
	}
}

// A row of another version is not erased.
func eraseConflict(s *suite) {
	first := s.insert(reservedMany(2, "x")...)
	m := in(clerkinvite.StatusPending, first[0])
	s.change(first[0], m)
	ahead := *m
	ahead.Version++
	for _, old := range []*clerkinvite.Member{first[0], &ahead} {
		results, err := s.store.Update(s.Context(), []clerkinvite.Change{{Old: old}})
		if err != nil || len(results) != 1 || !errors.Is(results[0].Err, clerkinvite.ErrConflict) {
			s.Errorf("erasing version %d of a row of version 2: %v, error %v; want ErrConflict", old.Version, results, err)
		}
	}
	s.wantStored(m)
	s.wantHistory(m, entry(nil, first[0]), entry(first[0], m))
	s.wantStored(first[1])
}

// A row that does not exist counts as erased, so the call can be repeated. A new member with the same address is not erased.
func eraseGone(s *suite) {
	m := s.insert(reserved("tenant", "x@example.com"))[0]
	for range 2 {
		s.wantSame(s.update(clerkinvite.Change{Old: m})[0], m)
	}
	absent := reserved("tenant", "absent@example.com")
	absent.Version = 3
	s.wantSame(s.update(clerkinvite.Change{Old: absent})[0], absent)

	next := s.insert(reserved("tenant", "x@example.com"))[0]
	s.wantSame(s.update(clerkinvite.Change{Old: m})[0], m)
	elsewhere := *next
	elsewhere.TenantID = "other"
	s.update(clerkinvite.Change{Old: &elsewhere})
	s.wantStored(next)
	s.wantHistory(next, entry(nil, next))
}

// Changes and erasures in one call have separate results.
func eraseMixed(s *suite) {
	rows := s.insert(reservedMany(40, "x")...)
	holder := in(clerkinvite.StatusActive, rows[0])
	s.change(rows[0], holder)
	rows = rows[1:]
	gone := rows[5]
	s.update(clerkinvite.Change{Old: gone})

	changes := make([]clerkinvite.Change, len(rows))
	for i, m := range rows {
		old := *m
		changes[i].Old = &old
		switch i % 4 {
		case 0:
			changes[i].New = in(clerkinvite.StatusPending, m)
		case 2:
			changes[i].New = in(clerkinvite.StatusActive, m)
			changes[i].New.ClerkUserID = holder.ClerkUserID
		case 3:
			old.Version = 9
		}
	}
	slices.Reverse(changes)
	results, err := s.store.Update(s.Context(), changes)
	if err != nil || len(results) != len(changes) {
		s.Fatalf("%d results, error %v", len(results), err)
	}
	slices.Reverse(results)
	for i, m := range rows {
		r := results[i]
		switch i % 4 {
		case 0:
			n := in(clerkinvite.StatusPending, m)
			n.Version = 2
			s.wantSame(r.Member, n)
			s.wantStored(n)
			s.wantHistory(n, entry(nil, m), entry(m, n))
		case 1:
			s.wantSame(r.Member, m)
			s.wantErased(m)
		case 2:
			if !errors.Is(r.Err, clerkinvite.ErrUserTaken) {
				s.Errorf("row %d: error %v, want ErrUserTaken", i, r.Err)
			}
			s.wantStored(m)
		case 3:
			if !errors.Is(r.Err, clerkinvite.ErrConflict) {
				s.Errorf("row %d: error %v, want ErrConflict", i, r.Err)
			}
			s.wantStored(m)
		}
		if i%4 < 2 && r.Err != nil {
			s.Errorf("row %d: error %v", i, r.Err)
		}
	}
	s.wantStored(holder)
}

// Of a change and an erasure of the same version in one call, only one is made. Two erasures both succeed.
func eraseSameRow(s *suite) {
	rows := s.insert(reservedMany(3, "x")...)
	for i, m := range rows[:2] {
		n := in(clerkinvite.StatusFailed, m)
		changes := []clerkinvite.Change{{Old: m, New: n}, {Old: m}}
		if i == 1 {
			slices.Reverse(changes)
		}
		results, err := s.store.Update(s.Context(), changes)
		if err != nil || len(results) != 2 {
			s.Fatalf("%d results, error %v", len(results), err)
		}
		changed, erased := results[i], results[1-i]
		switch {
		case changed.Err == nil && errors.Is(erased.Err, clerkinvite.ErrConflict):
			n.Version = 2
			s.wantSame(changed.Member, n)
			s.wantStored(n)
		case erased.Err == nil && errors.Is(changed.Err, clerkinvite.ErrConflict):
			s.wantSame(erased.Member, m)
			s.wantErased(m)
		default:
			s.Errorf("changed: error %v, erased: error %v; want one success and one ErrConflict", changed.Err, erased.Err)
		}
	}
	for _, m := range s.update(clerkinvite.Change{Old: rows[2]}, clerkinvite.Change{Old: rows[2]}) {
		s.wantSame(m, rows[2])
	}
	s.wantErased(rows[2])
}

// Of concurrent changes and erasures of a version, either one change and no erasure is made, or the row is
// erased. Then all erasures succeed, and no change does.
func eraseRace(s *suite) {
	const callers = 16
	for _, m := range s.insert(reservedMany(20, "x")...) {
		var changed, erased atomic.Int32
		together(callers, func(i int) {
			change := clerkinvite.Change{Old: m}
			made := &erased
			if i%2 == 0 {
				change.New, made = in(clerkinvite.StatusPending, m), &changed
			}
			results, err := s.store.Update(s.Context(), []clerkinvite.Change{change})
			switch {
			case err != nil || len(results) != 1:
				s.Errorf("%d results, error %v", len(results), err)
			case results[0].Err == nil:
				made.Add(1)
			case !errors.Is(results[0].Err, clerkinvite.ErrConflict):
				s.Errorf("error %v, want ErrConflict", results[0].Err)
			}
		})
		there := len(s.find(clerkinvite.Query{IDs: []string{m.ID}})) == 1
		switch c, e := changed.Load(), erased.Load(); {
		case there && c == 1 && e == 0:
		case !there && c == 0 && e == callers/2:
			s.wantErased(m)
		default:
			s.Errorf("%d changes and %d erasures of one version were made, and the row exists: %t", c, e, there)
		}
	}
}

// Batches of the same rows in different orders do not deadlock.
func eraseOppositeOrders(s *suite) {
	const callers = 8
	for range 5 {
		rows := s.insert(reservedMany(40, "x")...)
		together(callers, func(c int) {
			changes := mapped(rows, func(m *clerkinvite.Member) clerkinvite.Change { return clerkinvite.Change{Old: m} })
			if c%2 == 1 {
				slices.Reverse(changes)
			}
			results, err := s.store.Update(s.Context(), changes)
			if err != nil {
				s.Errorf("Update: %v", err)
			}
			for _, r := range results {
				if r.Err != nil {
					s.Errorf("error %v", r.Err)
				}
			}
		})
		s.wantMembers(clerkinvite.PageQuery{})
	}
}

func eraseMany(s *suite) {
	rows := s.insert(reservedMany(size(5_000), "many")...)
	kept := rows[len(rows)/2]
	rows = slices.Delete(slices.Clone(rows), len(rows)/2, len(rows)/2+1)
	changes := mapped(rows, func(m *clerkinvite.Member) clerkinvite.Change { return clerkinvite.Change{Old: m} })
	for i, m := range s.update(changes...) {
		if m.ID != rows[i].ID {
			s.Fatalf("result %d is not the result of change %d", i, i)
		}
	}
	s.wantMembers(clerkinvite.PageQuery{}, kept)
}
