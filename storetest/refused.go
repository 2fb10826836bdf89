package storetest

import (
	"context"
	"errors"
	"fmt"

	"github.com/clerkinvite/clerkinvite"
)

// refuser is an optional method of the tested store, see [Run].
type refuser interface {
	Refuse(ctx context.Context, tenantID string) error
}

// A row that the database refuses has an error and does not change. The other rows of the call are written.
func refusedRows(s *suite) {
	wrapped, _ := s.store.(shaped)
	store, ok := wrapped.Store.(refuser)
	if !ok {
		s.Skip("the store does not have the optional method Refuse")
	}
	const n = 8 // the database refuses every third row
	named := func(name string) []*clerkinvite.Member {
		rows := make([]*clerkinvite.Member, n)
		for i := range rows {
			rows[i] = reserved([]string{"refused", "tenant", "other"}[i%3], fmt.Sprint(name, i, "@example.com"))
		}
		return rows
	}
	changed, erased, added := s.insert(named("changed")...), s.insert(named("erased")...), named("added")
	if err := store.Refuse(s.Context(), "refused"); err != nil {
		s.Fatalf("Refuse: %v", err)
	}
	check := func(what string, i int, r clerkinvite.Result) (refused bool) {
		s.Helper()
		refused = i%3 == 0
		if (r.Err != nil) != refused || errors.Is(r.Err, clerkinvite.ErrConflict) {
			s.Errorf("%s row %d: error %v; want one, and not ErrConflict, only for refused rows", what, i, r.Err)
		}
		return refused
	}

	results, err := s.store.Insert(s.Context(), added)
	if err != nil {
		s.Fatalf("Insert: error of the whole call: %v", err)
	}
	for i, r := range results {
		if check("added", i, r) {
			s.wantErased(added[i])
		} else if r.Err == nil {
			s.wantStored(r.Member)
			s.wantHistory(r.Member, entry(nil, r.Member))
		}
	}

	var changes []clerkinvite.Change
	for i, m := range changed {
		changes = append(changes, clerkinvite.Change{Old: m, New: in(clerkinvite.StatusPending, m)}, clerkinvite.Change{Old: erased[i]})
	}
	results, err = s.store.Update(s.Context(), changes)
	if err != nil {
		s.Fatalf("Update: error of the whole call: %v", err)
	}
	for i, m := range changed {
		if check("changed", i, results[2*i]) {
			s.wantStored(m)
			s.wantHistory(m, entry(nil, m))
		} else if now := results[2*i].Member; now != nil {
			s.wantStored(now)
			s.wantHistory(now, entry(nil, m), entry(m, now))
		}
		if check("erased", i, results[2*i+1]) {
			s.wantStored(erased[i])
			s.wantHistory(erased[i], entry(nil, erased[i]))
		} else {
			s.wantErased(erased[i])
		}
	}
}
