package storetest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

func insertNothing(s *suite) {
	results, err := s.store.Insert(s.Context(), nil)
	if err != nil || len(results) != 0 {
		s.Errorf("Insert of no rows: %d results, error %v", len(results), err)
	}
}

// The results are in the order of the input and equal the stored members.
func insertNew(s *suite) {
	rows := []*clerkinvite.Member{
		reserved("tenant", "z@example.com"), reserved("tenant", "a@example.com"),
		reserved("other", "m@example.com"), reserved("tenant", "m@example.com"),
	}
	rows[1].Version = 7 // ignored
	inserted := s.insert(rows...)
	for i, row := range rows {
		want := *row
		want.Version = 1
		s.wantSame(inserted[i], &want)
		s.wantStored(&want)
	}
}

func insertEveryState(s *suite) {
	for _, status := range statuses {
		row := in(status, reserved("tenant", string(status)+"@example.com"))
		row.Send, row.Sent, row.Attempts = row.Send+1, row.Sent+1, 3
		row.Version = 1
		s.wantSame(s.insert(row)[0], row)
		s.wantStored(row)
	}
}

// A duplicate is reported with the existing row, and does not affect the other rows.
func insertDuplicate(s *suite) {
	for _, status := range statuses {
		old := s.insert(in(status, reserved("tenant", string(status)+"@example.com")))[0]
		rows := []*clerkinvite.Member{
			reserved("tenant", "before-"+old.Email), reserved("tenant", old.Email), reserved("tenant", "after-"+old.Email),
		}
		results, err := s.store.Insert(s.Context(), rows)
		if err != nil || len(results) != 3 {
			s.Fatalf("%d results, error %v", len(results), err)
		}
		s.wantDuplicate(results[1], rows[1].Ref(), old)
		s.wantStored(old)
		s.wantFound(clerkinvite.Query{IDs: []string{rows[1].ID}})
		for _, i := range []int{0, 2} {
			rows[i].Version = 1
			s.wantSame(results[i].Member, rows[i])
			s.wantStored(rows[i])
			if results[i].Err != nil {
				s.Errorf("row beside a duplicate: %v", results[i].Err)
			}
		}
	}
}

func insertAddressOfAnotherTenant(s *suite) {
	a := s.insert(reserved("a", "x@example.com"))[0]
	b := s.insert(reserved("b", "x@example.com"))[0]
	s.wantStored(a)
	s.wantStored(b)
}

// A repeated row counts as written, even if it has changed in the meantime.
func insertRepeated(s *suite) {
	rows := reservedMany(3, "again")
	inserted := s.insert(rows...)
	again := s.insert(rows...)
	for i := range rows {
		s.wantSame(again[i], inserted[i])
	}
	moved := s.update(clerkinvite.Change{Old: inserted[1], New: in(clerkinvite.StatusActive, inserted[1])})[0]
	again = s.insert(rows...)
	s.wantSame(again[0], inserted[0])
	s.wantSame(again[1], moved)
	s.wantStored(moved)
}

func insertMany(s *suite) {
	rows := reservedMany(size(10_000), "many")
	slices.Reverse(rows)
	for i, m := range s.insert(rows...) {
		if m.ID != rows[i].ID || m.Email != rows[i].Email || m.Version != 1 {
			s.Fatalf("result %d is not the row %d", i, i)
		}
	}
	// The same addresses with new IDs are duplicates.
	others := reservedMany(len(rows), "many")
	slices.Reverse(others)
	results, err := s.store.Insert(s.Context(), others)
	if err != nil || len(results) != len(rows) {
		s.Fatalf("%d results, error %v", len(results), err)
	}
	for i, r := range results {
		var dup *clerkinvite.DuplicateEmailError
		if !errors.As(r.Err, &dup) || dup.Member.ID != rows[i].ID {
			s.Fatalf("result %d: %v", i, r.Err)
		}
	}
}

// If any number of callers insert an address at the same time, exactly one row is written, and the other callers get that row.
func insertRace(s *suite) {
	const callers, addresses = 64, 17
	winners := make([]atomic.Pointer[clerkinvite.Member], addresses)
	all := make([][]clerkinvite.Result, callers)
	together(callers, func(c int) {
		rows := reservedMany(addresses, "race")
		var err error
		if all[c], err = s.store.Insert(s.Context(), rows); err != nil || len(all[c]) != addresses {
			s.Errorf("%d results, error %v", len(all[c]), err)
			return
		}
		for i, r := range all[c] {
			if r.Err != nil {
				continue
			}
			if r.Member.ID != rows[i].ID {
				s.Errorf("the result without an error has the row of another caller")
			}
			if !winners[i].CompareAndSwap(nil, r.Member) {
				s.Errorf("address %d was written twice", i)
			}
		}
	})
	for i := range winners {
		winner := winners[i].Load()
		if winner == nil {
			s.Errorf("address %d was never written", i)
			continue
		}
		for _, results := range all {
			if len(results) == addresses && results[i].Err != nil {
				s.wantDuplicate(results[i], winner.Ref(), winner)
			}
		}
		s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{winner.Ref()}}, winner)
	}
}

// Concurrent repetitions of a call all count as written.
func insertRepeatedRace(s *suite) {
	rows := reservedMany(9, "again")
	together(16, func(int) {
		results, err := s.store.Insert(s.Context(), rows)
		if err != nil {
			s.Errorf("Insert: %v", err)
		}
		for i, r := range results {
			if r.Err != nil || r.Member.ID != rows[i].ID {
				s.Errorf("row %d of a repeated call: %v", i, r.Err)
			}
		}
	})
}

// Batches of the same addresses in different orders do not deadlock.
func insertOppositeOrders(s *suite) {
	const rounds, callers, addresses = 5, 8, 40
	for round := range rounds {
		var written atomic.Int32
		together(callers, func(c int) {
			rows := reservedMany(addresses, fmt.Sprintf("round%d-", round))
			switch c % 3 {
			case 1:
				slices.Reverse(rows)
			case 2:
				slices.SortFunc(rows, func(a, b *clerkinvite.Member) int { return strings.Compare(a.ID[24:], b.ID[24:]) })
			}
			results, err := s.store.Insert(s.Context(), rows)
			if err != nil {
				s.Errorf("Insert: %v", err)
			}
			for _, r := range results {
				if r.Err == nil {
					written.Add(1)
				}
			}
		})
		if written.Load() != addresses {
			s.Errorf("%d rows written, want %d", written.Load(), addresses)
		}
	}
}

func updateNothing(s *suite) {
	results, err := s.store.Update(s.Context(), nil)
	if err != nil || len(results) != 0 {
		s.Errorf("Update of no rows: %d results, error %v", len(results), err)
	}
}

// All changeable fields are written and returned, even if they become empty.
func updateEveryField(s *suite) {
	m := s.insert(reserved("tenant", "x@example.com"))[0]
	for _, status := range statuses {
		n := in(status, m)
		n.Email, n.Role, n.InvitedBy, n.ChangedBy = string(status)+"@example.com", "role-"+string(status), "by-"+string(status), "then-"+string(status)
		n.Data, n.Params = json.RawMessage(`["`+status+`"]`), json.RawMessage(`{"p":"`+status+`"}`)
		n.Send, n.Sent, n.Bulk, n.Attempts = m.Send+1, n.Sent+1, true, m.Attempts+2
		n.ReservedAt, n.ClaimedUntil = *after(time.Duration(n.Send) * time.Minute), after(time.Duration(n.Send)*time.Hour)
		if n.NextAttemptAt == nil {
			n.NextAttemptAt = after(time.Duration(n.Send) * time.Millisecond)
		}
		s.change(m, n)
		m = n

		// All fields that may be empty become empty.
		n = in(status, m)
		n.Role, n.InvitedBy, n.ChangedBy, n.Data, n.Params, n.Reason, n.URL = "", "", "", nil, nil, "", clerkinvite.Secret{}
		n.Bulk = false
		n.InvitedAt, n.ExpiresAt, n.SettledAt, n.ClaimedUntil = nil, nil, nil, nil
		if status != clerkinvite.StatusPending {
			n.InvitationID = ""
		}
		s.change(m, n)
		m = n
	}
}

// change changes m to n, checks the result, and gives n its new version.
func (s *suite) change(m, n *clerkinvite.Member) {
	s.Helper()
	got := s.update(clerkinvite.Change{Old: m, New: n})[0]
	n.Version = m.Version + 1
	s.wantSame(got, n)
	s.wantStored(n)
}

// ID and TenantID do not change, even if New has other values.
func updateIdentity(s *suite) {
	m := s.insert(reserved("tenant", "x@example.com"))[0]
	n := in(clerkinvite.StatusActive, m)
	n.ID, n.TenantID, n.Version = uuid(), "other", 77
	got := s.update(clerkinvite.Change{Old: m, New: n})[0]
	n.ID, n.TenantID, n.Version = m.ID, m.TenantID, 2
	s.wantSame(got, n)
	s.wantStored(n)
}

// A claim and a release are not recorded. Otherwise they are like any other change.
func updateUnrecorded(s *suite) {
	m := s.insert(reserved("tenant", "x@example.com"))[0]
	claimed := *m
	claimed.Attempts, claimed.ClaimedUntil, claimed.NextAttemptAt = 1, after(time.Minute), after(time.Minute)
	if (clerkinvite.Change{Old: m, New: &claimed}).Recorded() {
		s.Errorf("a claim is Recorded")
	}
	s.change(m, &claimed)
	s.change(&claimed, in(clerkinvite.StatusFailed, &claimed))
}

// A change of another version, or of a row that does not exist, is not made and does not affect the others.
func updateConflict(s *suite) {
	rows := s.insert(reservedMany(3, "x")...)
	changed := s.update(clerkinvite.Change{Old: rows[1], New: in(clerkinvite.StatusPending, rows[1])})[0]
	ahead := *rows[2]
	ahead.Version = 2
	gone := reserved("tenant", "gone@example.com")
	gone.Version = 1
	elsewhere := *rows[2]
	elsewhere.TenantID = "other"

	var changes []clerkinvite.Change
	for _, old := range []*clerkinvite.Member{rows[1], &ahead, rows[0], gone, &elsewhere, rows[2]} {
		changes = append(changes, clerkinvite.Change{Old: old, New: in(clerkinvite.StatusActive, old)})
	}
	results, err := s.store.Update(s.Context(), changes)
	if err != nil || len(results) != len(changes) {
		s.Fatalf("%d results, error %v", len(results), err)
	}
	for i, r := range results {
		if i == 2 || i == 5 {
			if r.Err != nil || r.Member == nil || r.Member.ID != changes[i].Old.ID || r.Member.Version != 2 {
				s.Errorf("change %d: %v, error %v", i, r.Member, r.Err)
			}
			continue
		}
		if !errors.Is(r.Err, clerkinvite.ErrConflict) {
			s.Errorf("change %d: error %v, want ErrConflict", i, r.Err)
		}
	}
	s.wantStored(changed)
	s.wantFound(clerkinvite.Query{IDs: []string{gone.ID}})
}

func updateSameRowTwice(s *suite) {
	m := s.insert(reserved("tenant", "x@example.com"))[0]
	changes := []clerkinvite.Change{{Old: m, New: in(clerkinvite.StatusActive, m)}, {Old: m, New: in(clerkinvite.StatusFailed, m)}}
	results, err := s.store.Update(s.Context(), changes)
	if err != nil || len(results) != 2 {
		s.Fatalf("%d results, error %v", len(results), err)
	}
	var made *clerkinvite.Member
	for i, r := range results {
		switch {
		case r.Err == nil && made == nil:
			changes[i].New.Version = 2
			made = changes[i].New
		case !errors.Is(r.Err, clerkinvite.ErrConflict):
			s.Errorf("change %d of the same version: error %v, want ErrConflict", i, r.Err)
		}
	}
	if made == nil {
		s.Fatal("neither of two changes of a row was made")
	}
	s.wantStored(made)
}

// If a version is changed twice, only the first change is made, even if both are equal. Otherwise two attempts could claim
// the same row.
func updateSameChange(s *suite) {
	m := s.insert(reserved("tenant", "x@example.com"))[0]
	n := *m
	n.Attempts, n.ClaimedUntil = 1, after(time.Minute)
	s.change(m, &n)
	for range 3 {
		again := n
		results, err := s.store.Update(s.Context(), []clerkinvite.Change{{Old: m, New: &again}})
		if err != nil || len(results) != 1 || !errors.Is(results[0].Err, clerkinvite.ErrConflict) {
			s.Errorf("the same change of the same version again: %v, error %v; want ErrConflict", results, err)
		}
	}
	s.wantStored(&n)
}

// If any number of callers change a version at the same time, exactly one change is made.
func updateRace(s *suite) {
	m := s.insert(reserved("tenant", "x@example.com"))[0]
	for range 10 {
		var made atomic.Pointer[clerkinvite.Member]
		together(16, func(i int) {
			n := *m
			n.Attempts, n.ClaimedUntil = i, after(time.Duration(i)*time.Minute)
			results, err := s.store.Update(s.Context(), []clerkinvite.Change{{Old: m, New: &n}})
			if err != nil || len(results) != 1 {
				s.Errorf("%d results, error %v", len(results), err)
				return
			}
			n.Version = m.Version + 1
			switch {
			case results[0].Err == nil:
				s.wantSame(results[0].Member, &n)
				if !made.CompareAndSwap(nil, &n) {
					s.Errorf("two changes of the same version were made")
				}
			case !errors.Is(results[0].Err, clerkinvite.ErrConflict):
				s.Errorf("error %v, want ErrConflict", results[0].Err)
			}
		})
		if made.Load() == nil {
			s.Fatal("no change was made")
		}
		m = made.Load()
		s.wantStored(m)
	}
}

// Batches of the same rows in different orders do not deadlock, and make each change once.
func updateOppositeOrders(s *suite) {
	const callers, addresses = 8, 40
	rows := s.insert(reservedMany(addresses, "x")...)
	for round := range 5 {
		made := make([]atomic.Int32, addresses)
		together(callers, func(c int) {
			changes := make([]clerkinvite.Change, addresses)
			for i, m := range rows {
				n := *m
				n.Version, n.Attempts = int64(round+1), c
				old := *m
				old.Version = int64(round + 1)
				changes[i] = clerkinvite.Change{Old: &old, New: &n}
			}
			if c%2 == 1 {
				slices.Reverse(changes)
			}
			results, err := s.store.Update(s.Context(), changes)
			if err != nil {
				s.Errorf("Update: %v", err)
			}
			for i, r := range results {
				if r.Err == nil {
					if c%2 == 1 {
						i = addresses - 1 - i
					}
					made[i].Add(1)
				} else if !errors.Is(r.Err, clerkinvite.ErrConflict) {
					s.Errorf("error %v, want ErrConflict", r.Err)
				}
			}
		})
		for i := range made {
			if made[i].Load() != 1 {
				s.Errorf("round %d: row %d was changed %d times, want once", round, i, made[i].Load())
			}
		}
	}
}

func updateMany(s *suite) {
	rows := s.insert(reservedMany(size(5_000), "many")...)
	changes := make([]clerkinvite.Change, len(rows))
	for i, m := range rows {
		changes[len(rows)-1-i] = clerkinvite.Change{Old: m, New: in(clerkinvite.StatusPending, m)}
	}
	for i, m := range s.update(changes...) {
		if m.ID != changes[i].Old.ID || m.ClerkUserID != changes[i].New.ClerkUserID || m.Version != 2 {
			s.Fatalf("result %d is not the result of change %d", i, i)
		}
	}
}

// A new row is not written if another row of the tenant has its user or invitation. The result has that row. If a row with
// the same address exists too, the duplicate is the result.
func userTakenInsert(s *suite) {
	pending := s.insert(in(clerkinvite.StatusPending, reserved("tenant", "pending@example.com")))[0]
	active := s.insert(in(clerkinvite.StatusActive, reserved("tenant", "active@example.com")))[0]
	withUser := func(tenant, email string, holder *clerkinvite.Member) *clerkinvite.Member {
		m := in(holder.Status, reserved(tenant, email))
		m.InvitationID, m.ClerkUserID = holder.InvitationID, holder.ClerkUserID
		return m
	}
	good := reserved("tenant", "good@example.com")
	rows := []*clerkinvite.Member{
		withUser("tenant", "a@example.com", pending), good, withUser("tenant", "b@example.com", active),
		withUser("other", "a@example.com", pending), withUser("tenant", pending.Email, active),
	}
	results, err := s.store.Insert(s.Context(), rows)
	if err != nil || len(results) != len(rows) {
		s.Fatalf("%d results, error %v", len(results), err)
	}
	for i, holder := range map[int]*clerkinvite.Member{0: pending, 2: active} {
		if r := results[i]; !errors.Is(r.Err, clerkinvite.ErrUserTaken) || r.Member == nil || r.Member.ID != holder.ID {
			s.Errorf("row %d: %v, error %v; want the member with its user and ErrUserTaken", i, r.Member, r.Err)
		}
		s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{rows[i].Ref()}})
		s.wantHistory(rows[i])
	}
	for _, i := range []int{1, 3} {
		if results[i].Err != nil {
			s.Errorf("row %d, whose user is free: error %v", i, results[i].Err)
		}
	}
	s.wantDuplicate(results[4], pending.Ref(), pending)
}

// A change fails if another row of the tenant has the user. The others are made.
func userTakenOtherChanges(s *suite) {
	rows := s.insert(reservedMany(40, "x")...)
	holder := s.update(clerkinvite.Change{Old: rows[0], New: in(clerkinvite.StatusActive, rows[0])})[0]
	rows = rows[1:]
	changes := make([]clerkinvite.Change, len(rows))
	taken := map[int]bool{0: true, 13: true, 14: true, len(rows) - 1: true}
	for i, m := range rows {
		changes[i] = clerkinvite.Change{Old: m, New: in(clerkinvite.StatusActive, m)}
		if taken[i] {
			changes[i].New.ClerkUserID = holder.ClerkUserID
		}
	}
	changes[5].Old = in(clerkinvite.StatusReserved, changes[5].Old)
	changes[5].Old.Version = 99
	results, err := s.store.Update(s.Context(), changes)
	if err != nil || len(results) != len(changes) {
		s.Fatalf("%d results, error %v", len(results), err)
	}
	for i, r := range results {
		want := changes[i].New
		want.Version = 2
		switch {
		case taken[i]:
			if !errors.Is(r.Err, clerkinvite.ErrUserTaken) {
				s.Errorf("change %d: error %v, want ErrUserTaken", i, r.Err)
			}
			want = rows[i]
		case i == 5:
			if !errors.Is(r.Err, clerkinvite.ErrConflict) {
				s.Errorf("change %d: error %v, want ErrConflict", i, r.Err)
			}
			want = rows[i]
		case r.Err != nil:
			s.Errorf("change %d: error %v", i, r.Err)
		default:
			s.wantSame(r.Member, want)
		}
		s.wantStored(want)
	}
	s.wantStored(holder)
}

func userTakenOtherTenant(s *suite) {
	for _, tenant := range []string{"a", "b", "A", "a "} {
		m := s.insert(reserved(tenant, "x@example.com"))[0]
		n := in(clerkinvite.StatusActive, m)
		n.ClerkUserID = "user_1"
		s.change(m, n)
	}
	if found := s.find(clerkinvite.Query{UserIDs: []string{"user_1"}}); len(found) != 4 {
		s.Errorf("the user is active in %d tenants, want 4", len(found))
	}
}

// A user is free again when its row leaves active. A row may keep its own user.
func userTakenFreed(s *suite) {
	rows := s.insert(reservedMany(2, "x")...)
	first := in(clerkinvite.StatusActive, rows[0])
	s.change(rows[0], first)
	kept := *first
	kept.Role = "admin"
	s.change(first, &kept)
	s.change(&kept, in(clerkinvite.StatusRemoved, &kept))
	second := in(clerkinvite.StatusActive, rows[1])
	second.ClerkUserID = first.ClerkUserID
	s.change(rows[1], second)
}

func userTakenRace(s *suite) {
	const callers = 12
	rows := s.insert(reservedMany(callers, "x")...)
	var made atomic.Pointer[clerkinvite.Member]
	together(callers, func(i int) {
		n := in(clerkinvite.StatusActive, rows[i])
		n.ClerkUserID = "user_1"
		results, err := s.store.Update(s.Context(), []clerkinvite.Change{{Old: rows[i], New: n}})
		if err != nil || len(results) != 1 {
			s.Errorf("%d results, error %v", len(results), err)
			return
		}
		switch {
		case results[0].Err == nil:
			n.Version = 2
			if !made.CompareAndSwap(nil, n) {
				s.Errorf("two rows have the user")
			}
		case !errors.Is(results[0].Err, clerkinvite.ErrUserTaken):
			s.Errorf("error %v, want ErrUserTaken", results[0].Err)
		}
	})
	if made.Load() == nil {
		s.Fatal("no row has the user")
	}
	s.wantFound(clerkinvite.Query{UserIDs: []string{"user_1"}}, made.Load())
}

func findNothing(s *suite) {
	s.insert(reservedMany(3, "x")...)
	s.wantFound(clerkinvite.Query{})
	s.wantFound(clerkinvite.Query{
		Refs:    []clerkinvite.Ref{{TenantID: "tenant", Email: "unknown@example.com"}, {}},
		IDs:     []string{uuid(), ""},
		Emails:  []string{"unknown@example.com", ""},
		UserIDs: []string{"user_unknown", ""},
	})
}

// population inserts a row in every state for each of two tenants.
func (s *suite) population() (all []*clerkinvite.Member) {
	s.Helper()
	for _, tenant := range []string{"a", "b"} {
		for _, status := range statuses {
			all = append(all, in(status, reserved(tenant, string(status)+"@example.com")))
		}
	}
	return s.insert(all...)
}

func findRefs(s *suite) {
	all := s.population()
	for _, m := range all {
		s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{m.Ref()}}, m)
	}
	s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{
		all[0].Ref(), all[8].Ref(), all[0].Ref(), {TenantID: "c", Email: all[0].Email}, {TenantID: "A", Email: all[0].Email},
		{TenantID: "a\x00", Email: all[0].Email}, {TenantID: "a\xff", Email: all[0].Email}, {TenantID: "a ", Email: all[0].Email},
	}}, all[0], all[8])
}

func findRefsByID(s *suite) {
	all := s.population()
	for _, m := range all {
		s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: m.TenantID, ID: m.ID}}}, m)
		s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: otherTenant(m), ID: m.ID}}})
	}
	s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{
		{TenantID: "a", ID: all[3].ID}, {TenantID: "a", ID: all[3].ID}, {TenantID: "b", ID: all[9].ID}, {TenantID: "a", ID: all[9].ID},
		{TenantID: "A", ID: all[3].ID}, {TenantID: "c", ID: all[3].ID}, {TenantID: "a\xff", ID: all[3].ID}, {TenantID: "", ID: all[3].ID},
		{TenantID: "a", ID: uuid()}, {TenantID: "a", ID: "no uuid"}, {TenantID: "a", ID: "\x00"}, {TenantID: "a"},
	}}, all[3], all[9])
}

// otherTenant returns a tenant of the population that does not have m.
func otherTenant(m *clerkinvite.Member) string {
	if m.TenantID == "a" {
		return "b"
	}
	return "a"
}

// A ClerkUserID names the member that has it now, pending or active.
func findRefsByUser(s *suite) {
	all := s.population()
	var refs []clerkinvite.Ref
	var want []*clerkinvite.Member
	for _, m := range all {
		refs = append(refs, clerkinvite.Ref{TenantID: m.TenantID, ClerkUserID: m.ClerkUserID}, clerkinvite.Ref{TenantID: otherTenant(m), ClerkUserID: m.ClerkUserID},
			clerkinvite.Ref{TenantID: m.TenantID, ClerkUserID: m.InvitationID}, clerkinvite.Ref{TenantID: m.TenantID, ClerkUserID: m.ID})
		if m.ClerkUserID != "" {
			want = append(want, m)
			s.wantFound(clerkinvite.Query{Refs: refs[len(refs)-4 : len(refs)-3]}, m)
			s.wantFound(clerkinvite.Query{Refs: refs[len(refs)-3 : len(refs)-2]})
		}
	}
	s.wantFound(clerkinvite.Query{Refs: append(refs, clerkinvite.Ref{TenantID: "a", ClerkUserID: "\xff"}, clerkinvite.Ref{TenantID: "a", ClerkUserID: "\x00"})}, want...)

	pending := all[1]
	joined := s.update(clerkinvite.Change{Old: pending, New: in(clerkinvite.StatusActive, pending)})[0]
	s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: "a", ClerkUserID: pending.ClerkUserID}}})
	s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{
		{TenantID: "a", ClerkUserID: joined.ClerkUserID}, {TenantID: "a", ID: joined.ID}, {TenantID: "a", Email: joined.Email},
	}}, joined)
}

func findIDs(s *suite) {
	all := s.population()
	for _, m := range all {
		s.wantFound(clerkinvite.Query{IDs: []string{m.ID}}, m)
	}
	s.wantFound(clerkinvite.Query{IDs: []string{
		all[3].ID, strings.ToUpper(all[9].ID), all[3].ID, uuid(), "no uuid", "", "'", "\x00", "\xff", all[1].ID + " ",
		strings.Repeat("x", 36), all[1].Email,
	}}, all[3], all[9])
}

func findEmails(s *suite) {
	all := s.population()
	waiting := map[clerkinvite.Status]bool{clerkinvite.StatusReserved: true, clerkinvite.StatusPending: true, clerkinvite.StatusExpired: true}
	var emails []string
	var want []*clerkinvite.Member
	for i, m := range all[:len(statuses)] {
		emails = append(emails, m.Email, m.Email)
		if waiting[m.Status] {
			want = append(want, m, all[i+len(statuses)])
			s.wantFound(clerkinvite.Query{Emails: []string{m.Email}}, m, all[i+len(statuses)])
		} else {
			s.wantFound(clerkinvite.Query{Emails: []string{m.Email}})
		}
	}
	s.wantFound(clerkinvite.Query{Emails: append(emails, "", "\x00", "\xff", "%", "reserved@example.co")}, want...)
}

func findUserIDs(s *suite) {
	all := s.population()
	var ids []string
	var want []*clerkinvite.Member
	for _, m := range all {
		ids = append(ids, m.ClerkUserID, m.InvitationID, m.ID)
		if m.Status == clerkinvite.StatusActive {
			want = append(want, m)
			s.wantFound(clerkinvite.Query{UserIDs: []string{m.ClerkUserID}}, m)
		} else {
			s.wantFound(clerkinvite.Query{UserIDs: []string{m.ClerkUserID}})
		}
	}
	s.wantFound(clerkinvite.Query{UserIDs: append(ids, ids...)}, want...)
}

// A reserved or pending member with Sent < Send is due from the microsecond of its NextAttemptAt. The tenant's earliest member
// comes first.
func dueOrder(s *suite) {
	resend := in(clerkinvite.StatusPending, reserved("tenant", "resend@example.com"))
	resend.Send, resend.NextAttemptAt = 2, after(-time.Second)
	settled := in(clerkinvite.StatusPending, reserved("tenant", "settled@example.com"))
	settled.NextAttemptAt = after(-time.Hour)
	early := reserved("tenant", "early@example.com")
	early.NextAttemptAt = after(-time.Minute)
	exact := reserved("tenant", "exact@example.com")
	late := reserved("tenant", "late@example.com")
	late.NextAttemptAt = after(time.Microsecond)
	claimed := reserved("tenant", "claimed@example.com")
	claimed.NextAttemptAt, claimed.ClaimedUntil = after(-2*time.Second), after(time.Hour)
	rows := []*clerkinvite.Member{late, exact, resend, settled, early, claimed}
	for _, status := range []clerkinvite.Status{clerkinvite.StatusFailed, clerkinvite.StatusRevoked, clerkinvite.StatusExpired, clerkinvite.StatusRemoved, clerkinvite.StatusActive} {
		m := in(status, reserved("tenant", string(status)+"@example.com"))
		m.Send, m.NextAttemptAt = 2, after(-time.Hour)
		rows = append(rows, m)
	}
	s.insert(rows...)

	due := func(at time.Time, limit int, want ...*clerkinvite.Member) {
		s.Helper()
		s.wantDue(clerkinvite.DueQuery{At: at, Limit: limit}, want...)
	}
	due(now, 0, early, claimed, resend, exact)
	due(now, 2, early, claimed)
	due(*after(time.Microsecond), 5, early, claimed, resend, exact, late)
	due(*after(-time.Second), 0, early, claimed, resend)
	due(*after(-time.Second - time.Microsecond), 0, early, claimed)
	due(now.In(time.FixedZone("", 5*3600)), 1, early)
	due(*after(-2 * time.Minute), 0)
}

// Tenants take turns, whatever the limit and the first tenant. Members without Bulk come first. Times and tenants repeat, and
// some tenants have no due member.
func dueTurns(s *suite) {
	tenants := []string{"", "A", "a", "a-1", "a1", "b", "later", "\u00e4", "\U0001f600", "\uffff"} // "" starts with the first tenant
	var rows []*clerkinvite.Member
	for i, tenant := range tenants[1:] {
		for k := range i*i + 1 {
			m := reserved(tenant, fmt.Sprintf("%d@example.com", k))
			m.Bulk = (i+k)%3 > 0
			m.NextAttemptAt = after(-time.Duration((i*7+k*5)%9) * time.Microsecond)
			if tenant == "later" || k%4 == 3 {
				m.NextAttemptAt = after(time.Duration(1+k) * time.Microsecond)
			}
			rows = append(rows, m)
		}
	}
	rows = s.insert(rows...)
	for _, from := range append(tenants, "0", "a-", "a0", "c", "\U0010ffff") {
		want := inTurns(rows, from)
		for _, limit := range []int{1, 2, 3, 5, 8, 13, 21, 34, 55, 89, len(want) - 1, len(want), len(want) + 1, 0} {
			q := clerkinvite.DueQuery{At: now, AfterTenantID: from, Limit: limit}
			if limit == 0 {
				limit = len(want)
			}
			s.wantDue(q, want[:min(limit, len(want))]...)
		}
	}
}

// inTurns returns the members that are due, in the order of a DueQuery.
func inTurns(rows []*clerkinvite.Member, from string) (due []*clerkinvite.Member) {
	for _, bulk := range []bool{false, true} {
		queues := make(map[string][]*clerkinvite.Member)
		for _, m := range rows {
			if m.Bulk == bulk && !m.NextAttemptAt.After(now) {
				queues[m.TenantID] = append(queues[m.TenantID], m)
			}
		}
		var before, behind []string
		for _, tenant := range slices.Sorted(maps.Keys(queues)) {
			slices.SortFunc(queues[tenant], func(a, b *clerkinvite.Member) int {
				return cmp.Or(a.NextAttemptAt.Compare(*b.NextAttemptAt), cmp.Compare(a.ID, b.ID))
			})
			if tenant > from {
				before = append(before, tenant)
			} else {
				behind = append(behind, tenant)
			}
		}
		for len(queues) > 0 {
			for _, tenant := range append(before, behind...) {
				if queue := queues[tenant]; len(queue) > 0 {
					due, queues[tenant] = append(due, queue[0]), queue[1:]
				} else {
					delete(queues, tenant)
				}
			}
		}
	}
	return due
}

// wantDue checks that exactly want are due, in this order.
func (s *suite) wantDue(q clerkinvite.DueQuery, want ...*clerkinvite.Member) {
	s.Helper()
	found, err := s.store.Due(s.Context(), q)
	if err != nil {
		s.Errorf("Due: %v", err)
	}
	name := func(m *clerkinvite.Member) string { return m.TenantID + " " + m.Email }
	if got, want := mapped(found, name), mapped(want, name); !slices.Equal(got, want) {
		s.Errorf("due after %q, at most %d, are %q, want %q", q.AfterTenantID, q.Limit, got, want)
	}
}

func mapped[A, B any](list []A, f func(A) B) []B {
	out := make([]B, len(list))
	for i, v := range list {
		out[i] = f(v)
	}
	return out
}

func dueLimit(s *suite) {
	rows := reservedMany(1_010, "due")
	for i, m := range rows {
		m.NextAttemptAt = after(-time.Duration(i) * time.Second)
	}
	s.insert(rows...)
	slices.Reverse(rows)
	s.wantDue(clerkinvite.DueQuery{At: now}, rows[:1000]...)
	s.wantDue(clerkinvite.DueQuery{At: now, Limit: 1005}, rows[:1005]...)
	s.wantDue(clerkinvite.DueQuery{At: now, Limit: 5000}, rows...)
}

// A member that several selectors match is returned once.
func findDuplicates(s *suite) {
	all := s.population()
	m, active := all[0], all[2]
	s.wantFound(clerkinvite.Query{
		Refs: []clerkinvite.Ref{m.Ref(), active.Ref()}, IDs: []string{m.ID, active.ID}, Emails: []string{m.Email},
		UserIDs: []string{active.ClerkUserID},
	}, m, all[7], active)
}

func findMany(s *suite) {
	rows := s.insert(reservedMany(size(5_000), "many")...)
	refs := mapped(rows, func(m *clerkinvite.Member) clerkinvite.Ref { return m.Ref() })
	byID := mapped(rows, func(m *clerkinvite.Member) clerkinvite.Ref { return clerkinvite.Ref{TenantID: m.TenantID, ID: m.ID} })
	for name, q := range map[string]clerkinvite.Query{
		"Refs":       {Refs: refs},
		"Refs by ID": {Refs: byID},
		"IDs":        {IDs: mapped(rows, func(m *clerkinvite.Member) string { return m.ID })},
		"Emails":     {Emails: mapped(rows, func(m *clerkinvite.Member) string { return m.Email })},
	} {
		if found := s.find(q); len(found) != len(rows) {
			s.Errorf("%d of %d found by %s", len(found), len(rows), name)
		}
	}
}

// If the context has ended, every call returns its error and writes nothing.
func contextEnded(s *suite) {
	m := s.insert(reserved("tenant", "x@example.com"))[0]
	canceled, cancel := context.WithCancel(s.Context())
	cancel()
	expired, cancel := context.WithDeadline(s.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for want, ctx := range map[error]context.Context{context.Canceled: canceled, context.DeadlineExceeded: expired} {
		results, err := s.store.Insert(ctx, []*clerkinvite.Member{reserved("tenant", "y@example.com")})
		s.wantEnded("Insert", err, want, len(results))
		results, err = s.store.Update(ctx, []clerkinvite.Change{{Old: m, New: in(clerkinvite.StatusActive, m)}})
		s.wantEnded("Update", err, want, len(results))
		found, err := s.store.Find(ctx, clerkinvite.Query{IDs: []string{m.ID}})
		s.wantEnded("Find", err, want, len(found))
		results, err = s.store.Update(ctx, []clerkinvite.Change{{Old: m}})
		s.wantEnded("Update that erases", err, want, len(results))
		found, err = s.store.Page(ctx, clerkinvite.PageQuery{})
		s.wantEnded("Page", err, want, len(found))
		counts, err := s.store.Counts(ctx, m.TenantID)
		s.wantEnded("Counts", err, want, len(counts))
		found, err = s.store.Due(ctx, clerkinvite.DueQuery{At: now})
		s.wantEnded("Due", err, want, len(found))
		entries, err := s.store.History(ctx, m.TenantID, m.ID)
		s.wantEnded("History", err, want, len(entries))
		_, err = s.store.SwapTime(ctx, "create", time.Time{}, now)
		s.wantEnded("SwapTime", err, want, 0)
		_, err = s.store.Clock(ctx)
		s.wantEnded("Clock", err, want, 0)
	}
	s.wantStored(m)
	s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: "tenant", Email: "y@example.com"}}})
	s.wantTime("create", time.Time{}, time.Time{}, time.Time{})
}

func (s *suite) wantEnded(call string, err, want error, results int) {
	s.Helper()
	if !errors.Is(err, want) || results != 0 {
		s.Errorf("%s after the end of its context: %d results, error %v; want %v", call, results, err, want)
	}
}

// The store shares no memory with arguments and results.
func copies(s *suite) {
	spoil := func(m *clerkinvite.Member) {
		m.Status, m.Role, m.Version, m.Email = clerkinvite.StatusRemoved, "spoiled", 99, "spoiled@example.com"
		if len(m.Data) == 0 || len(m.Params) == 0 || m.NextAttemptAt == nil {
			s.Fatal("Data, Params or NextAttemptAt is missing")
		}
		m.Data[0], m.Params[0] = 'x', 'x'
		*m.NextAttemptAt = time.Time{}
	}
	row := reserved("tenant", "x@example.com")
	row.Version = 1
	want := reserved("tenant", "x@example.com")
	want.ID, want.Version = row.ID, 1

	inserted := s.insert(row)[0]
	spoil(row)
	s.wantStored(want)
	spoil(inserted)
	s.wantStored(want)
	again, err := s.store.Insert(s.Context(), []*clerkinvite.Member{reserved("tenant", "x@example.com")})
	if err != nil {
		s.Fatal(err)
	}
	spoil(again[0].Member)
	s.wantStored(want)
	for _, m := range s.find(clerkinvite.Query{IDs: []string{want.ID}}) {
		spoil(m)
	}
	due, err := s.store.Due(s.Context(), clerkinvite.DueQuery{At: now})
	if err != nil {
		s.Fatal(err)
	}
	for _, m := range append(due, s.page(clerkinvite.PageQuery{}, 0)...) {
		spoil(m)
	}
	s.wantStored(want)

	n := reserved("tenant", "x@example.com")
	n.ID, n.Role = want.ID, "changed"
	updated := s.update(clerkinvite.Change{Old: want, New: n})[0]
	spoil(n)
	spoil(updated)
	want.Version, want.Role = 2, "changed"
	s.wantStored(want)
}

// Data keeps its meaning, Params its bytes, and a JSON null is not the same as no value.
func jsonFidelity(s *suite) {
	values := []string{
		`null`, `true`, `0`, `""`, `[]`, `{}`, `"null"`, `[null]`, `{"a":null}`, ` { "b" : 1 ,  "a" : [ 2 ] } `,
		`"ünïcödé 漢字 😀 \u00e9 \ud83d\ude00"`, `{"'":"\"\\\/\b\f\n\r\t$1 %s ;--"}`, `"<script>&amp;\u2028\u2029"`,
		`12345678901234567890123456789`, `0.1000000000000000055511151231257827`, `-1.5e-10`, `1e20`,
		strings.Repeat(`[`, 100) + strings.Repeat(`]`, 100),
		`{"large":"` + strings.Repeat("0123456789abcdef", 4<<10-2) + `"}`,
	}
	var old []*clerkinvite.Member
	for i, v := range values {
		row := reserved("tenant", fmt.Sprintf("%d@example.com", i))
		row.Data, row.Params, row.Version = json.RawMessage(v), json.RawMessage(v), 1
		s.wantSame(s.insert(row)[0], row)
		s.wantStored(row)
		old = append(old, row)
	}
	for i, m := range old {
		n := *m
		v := values[(i+1)%len(values)]
		n.Data, n.Params = json.RawMessage(v), json.RawMessage(v)
		s.change(m, &n)
	}
	none := reserved("tenant", "none@example.com")
	none.Data, none.Params, none.Version = nil, nil, 1
	s.wantSame(s.insert(none)[0], none)
	s.wantStored(none)

	// Params may contain JSON that cannot be stored as text; Data need not.
	nul := reserved("tenant", "nul@example.com")
	nul.Params, nul.Version = json.RawMessage(`{"b":"\u0000","a":"\ud800","a":1}`), 1
	s.wantSame(s.insert(nul)[0], nul)
	s.wantStored(nul)
}

// Text is stored and compared byte for byte.
func textFidelity(s *suite) {
	texts := []string{
		"plain", "Plain", "plain ", " plain", `'"\`, `\u0041`, "{}", "null", "NULL", "$1", "%", "_", "a\nb\tc\r", "\x01",
		"é", "e\u0301", "漢字", "😀", "\u2028", "\ufffd", `\ufffd`, "<&>", strings.Repeat("x", 255), strings.Repeat("é", 127),
	}
	var want []*clerkinvite.Member
	for _, text := range texts {
		row := in(clerkinvite.StatusFailed, reserved(text, "x@example.com"))
		row.Role, row.InvitedBy, row.ChangedBy, row.Reason, row.Version = text, text, text, text, 1
		s.wantSame(s.insert(row)[0], row)
		want = append(want, row)
	}
	for _, m := range want {
		s.wantFound(clerkinvite.Query{Refs: []clerkinvite.Ref{m.Ref()}}, m)
	}
	// Text that cannot be stored is rejected, not changed into another tenant's.
	for _, bad := range []string{"\xff", "\ufffd\xff", "a\x00"} {
		if results, err := s.store.Insert(s.Context(), []*clerkinvite.Member{reserved(bad, "x@example.com")}); err == nil && results[0].Err == nil {
			s.Errorf("Insert kept a tenant id of the bytes %x", bad)
		}
	}
}

// Times are UTC with microseconds, no matter which zone they were in.
func timeFidelity(s *suite) {
	zone := time.FixedZone("zone", -9*3600-30*60)
	for i, at := range []time.Time{
		time.Date(2026, 12, 31, 23, 59, 59, 999999000, time.UTC),
		time.Date(2026, 3, 29, 2, 30, 0, 1000, time.UTC),
		time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(1969, 12, 31, 23, 59, 59, 999999000, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
	} {
		local := at.In(zone)
		row := reserved("tenant", fmt.Sprintf("%d@example.com", i))
		row.ReservedAt, row.UpdatedAt, row.NextAttemptAt, row.ClaimedUntil, row.InvitedAt, row.ExpiresAt, row.SettledAt = local, local, &local, &local, &local, &local, &local
		want := *row
		want.ReservedAt, want.UpdatedAt, want.NextAttemptAt, want.ClaimedUntil, want.InvitedAt, want.ExpiresAt, want.SettledAt = at, at, &at, &at, &at, &at, &at
		want.Version = 1
		s.wantSame(s.insert(row)[0], &want)
		s.wantStored(&want)
	}
	// Nanoseconds may be dropped or rounded: the difference is less than a microsecond.
	at := now.Add(789)
	row := reserved("tenant", "nano@example.com")
	row.UpdatedAt, row.ClaimedUntil = at, &at
	got := s.insert(row)[0]
	stored := s.find(clerkinvite.Query{IDs: []string{row.ID}})[row.ID]
	for _, m := range []*clerkinvite.Member{got, stored} {
		if m == nil || m.ClaimedUntil == nil || m.UpdatedAt.Sub(at).Abs() >= time.Microsecond || m.UpdatedAt.Nanosecond()%1000 != 0 || !m.ClaimedUntil.Equal(m.UpdatedAt) {
			s.Errorf("%v came back as %v", at, m.UpdatedAt)
		}
	}
	if stored != nil {
		s.wantSame(got, stored)
	}
}
