package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// wantHistory checks that the member has exactly these history entries.
func (s *suite) wantHistory(m *clerkinvite.Member, want ...clerkinvite.HistoryEntry) {
	s.Helper()
	got, err := s.store.History(s.Context(), m.TenantID, m.ID)
	if err != nil || len(got) != len(want) {
		s.Errorf("%d history entries, error %v; want %d", len(got), err, len(want))
		return
	}
	for i, v := range got {
		if !sameTime(&v.At, &want[i].At) {
			s.Errorf("history entry %d has the time %v, want %v", i, v.At, want[i].At)
		}
		if v.At = want[i].At; v != want[i] {
			s.Errorf("history entry %d is %+v, want %+v", i, v, want[i])
		}
	}
}

// entry returns the history entry of the change from old, nil for a new member, to m.
func entry(old, m *clerkinvite.Member) clerkinvite.HistoryEntry {
	v := clerkinvite.HistoryEntry{
		Version: m.Version, To: m.Status, Send: m.Send, Sent: m.Sent, ClerkUserID: m.ClerkUserID,
		InvitationID: m.InvitationID, Role: m.Role, Reason: m.Reason, Actor: m.ChangedBy, At: m.UpdatedAt,
	}
	if old != nil {
		v.From = old.Status
	}
	return v
}

// The history has every recorded change, in order, and no others.
func historyStateChanges(s *suite) {
	m := s.insert(reserved("tenant", "x@example.com"))[0]
	want := []clerkinvite.HistoryEntry{entry(nil, m)}
	s.wantHistory(m, want...)
	// More than ten entries, to detect versions ordered as text.
	for i, status := range slices.Concat(statuses, statuses) {
		claimed := *m
		claimed.Attempts, claimed.ClaimedUntil, claimed.Data = m.Attempts+1, after(time.Minute), json.RawMessage(`["`+status+`"]`)
		claimed.UpdatedAt = *after(time.Duration(2*i) * time.Second)
		s.change(m, &claimed)
		s.wantHistory(m, want...)

		n := in(status, &claimed)
		n.ChangedBy = fmt.Sprint("by-", i)
		if i == 0 {
			n.Send++ // otherwise no recorded field changes
		}
		n.UpdatedAt = *after(time.Duration(2*i+1) * time.Second)
		s.change(&claimed, n)
		want = append(want, entry(&claimed, n))
		m = n
	}
	s.wantHistory(m, want...)
	upper := *m
	upper.ID = strings.ToUpper(m.ID)
	s.wantHistory(&upper, want...)

	// A repeated insert is not recorded.
	s.insert(m)
	s.wantHistory(m, want...)

	// A change of any one of these is recorded.
	for _, spoil := range []func(m *clerkinvite.Member){
		func(m *clerkinvite.Member) { m.Send, m.NextAttemptAt = m.Send+1, after(0) },
		func(m *clerkinvite.Member) { m.Sent++ },
		func(m *clerkinvite.Member) { m.InvitationID = "inv_other" },
		func(m *clerkinvite.Member) { m.Role, m.ChangedBy = "owner", "" },
		func(m *clerkinvite.Member) { m.Role = "" },
		func(m *clerkinvite.Member) { m.Email, m.ChangedBy = "moved@example.com", "script" },
	} {
		n := *m
		spoil(&n)
		s.change(m, &n)
		want = append(want, entry(m, &n))
		m = &n
	}
	s.wantHistory(m, want...)
}

// A change that was not made leaves no entry.
func historyFailures(s *suite) {
	rows := s.insert(reservedMany(3, "x")...)
	holder := in(clerkinvite.StatusActive, rows[0])
	s.change(rows[0], holder)
	stale := *rows[1]
	stale.Version = 5
	taken := in(clerkinvite.StatusActive, rows[2])
	taken.ClerkUserID = holder.ClerkUserID
	results, err := s.store.Update(s.Context(), []clerkinvite.Change{{Old: &stale, New: in(clerkinvite.StatusActive, &stale)}, {Old: rows[2], New: taken}})
	if err != nil || !errors.Is(results[0].Err, clerkinvite.ErrConflict) || !errors.Is(results[1].Err, clerkinvite.ErrUserTaken) {
		s.Fatalf("%v, error %v; want a conflict and a taken user", results, err)
	}
	if _, err := s.store.Insert(s.Context(), []*clerkinvite.Member{reserved("tenant", rows[1].Email)}); err != nil {
		s.Fatal(err)
	}
	s.wantHistory(holder, entry(nil, rows[0]), entry(rows[0], holder))
	s.wantHistory(rows[1], entry(nil, rows[1]))
	s.wantHistory(rows[2], entry(nil, rows[2]))
}

// Members of two tenants with the same ID have separate histories.
func historyTenants(s *suite) {
	a := reserved("a", "x@example.com")
	b := reserved("b", "x@example.com")
	b.ID = a.ID
	a, b = s.insert(a)[0], s.insert(b)[0]
	n := in(clerkinvite.StatusFailed, b)
	got := s.update(clerkinvite.Change{Old: b, New: n})[0]
	s.wantHistory(a, entry(nil, a))
	s.wantHistory(b, entry(nil, b), entry(b, got))
	s.update(clerkinvite.Change{Old: got})
	s.wantHistory(a, entry(nil, a))
	s.wantHistory(b)
}

func historyNothing(s *suite) {
	m := s.insert(reserved("tenant", "x@example.com"))[0]
	for _, unknown := range []clerkinvite.Member{
		{TenantID: "tenant", ID: uuid()}, {TenantID: "tenant"}, {TenantID: "tenant", ID: "no uuid"}, {TenantID: "tenant", ID: "'"},
		{TenantID: "tenant", ID: "\x00"}, {TenantID: "tenant", ID: "\xff"}, {TenantID: "tenant", ID: strings.Repeat("x", 36)},
		{TenantID: "other", ID: m.ID}, {TenantID: "", ID: m.ID}, {TenantID: "Tenant", ID: m.ID}, {TenantID: "tenant\x00", ID: m.ID},
		{TenantID: "tenant\xff", ID: m.ID}, {TenantID: "tenant", ID: m.ID + " "},
	} {
		s.wantHistory(&unknown)
	}
	s.wantHistory(m, entry(nil, m))
}
