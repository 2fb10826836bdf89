package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

func byPlace(a, b *clerkinvite.Member) int {
	return cmp.Or(cmp.Compare(a.TenantID, b.TenantID), cmp.Compare(a.ID, b.ID))
}

// orderOf returns the order of the members that q selects.
func orderOf(q clerkinvite.PageQuery) func(a, b *clerkinvite.Member) int {
	if q.NewestFirst {
		return func(a, b *clerkinvite.Member) int { return byPlace(b, a) }
	}
	return byPlace
}

// page returns the page for q, and checks its order.
func (s *suite) page(q clerkinvite.PageQuery, limit int) []*clerkinvite.Member {
	s.Helper()
	q.Limit = limit
	found, err := s.store.Page(s.Context(), q)
	if err != nil {
		s.Fatalf("Page: %v", err)
	}
	if limit > 0 && len(found) > limit {
		s.Errorf("a page of %d members, want at most %d", len(found), limit)
	}
	if !slices.IsSortedFunc(found, orderOf(q)) {
		s.Errorf("a page is not in order")
	}
	return found
}

// next returns the query for the page after the one that ends with m.
func next(q clerkinvite.PageQuery, m *clerkinvite.Member) clerkinvite.PageQuery {
	q.AfterTenantID, q.AfterID = m.TenantID, m.ID
	return q
}

// pages returns what q selects, read page by page.
func (s *suite) pages(q clerkinvite.PageQuery, limit int) (all []*clerkinvite.Member) {
	s.Helper()
	for range 10_000 {
		page := s.page(q, limit)
		all = append(all, page...)
		if len(page) < limit {
			return all
		}
		q = next(q, page[len(page)-1])
	}
	s.Fatal("the pages do not end")
	return nil
}

// wantMembers checks that q selects exactly want, in order, read by small pages.
func (s *suite) wantMembers(q clerkinvite.PageQuery, want ...*clerkinvite.Member) {
	s.Helper()
	s.wantPages(q, 5, want...)
}

// wantPages checks that q selects exactly want, in order, read by pages of limit.
func (s *suite) wantPages(q clerkinvite.PageQuery, limit int, want ...*clerkinvite.Member) {
	s.Helper()
	place := func(m *clerkinvite.Member) string { return m.TenantID + " " + m.ID }
	wanted := mapped(slices.SortedFunc(slices.Values(want), orderOf(q)), place)
	if got := mapped(s.pages(q, limit), place); !slices.Equal(got, wanted) {
		s.Errorf("pages of %d of %q: %d members %q, want %d %q", limit, fields(q), len(got), got, len(wanted), wanted)
	}
}

// fields returns the fields that a PageQuery does not print.
func fields(q clerkinvite.PageQuery) []string {
	return []string{q.TenantID, fmt.Sprint(q.Statuses), q.EmailPrefix, q.InvitedBy, q.ExpiresBefore.String(), fmt.Sprint(q.NewestFirst), q.AfterTenantID, q.AfterID}
}

// The order is byte by byte: it does not depend on a locale, case or UTF-16.
func pageOrder(s *suite) {
	tenants := []string{"b", "a", "A", "B", "a ", "aa", "a-a", "é", "e", "z", "Z", "😀", "\uffee", "1", "10", "2", "\x01"}
	var all []*clerkinvite.Member
	for i, tenant := range tenants {
		for n := range 3 {
			m := reserved(tenant, fmt.Sprintf("%d@example.com", n))
			// The IDs are not in the order of the rows.
			m.ID = fmt.Sprintf("%x%x", (i*5+n*11)%16, (i*7+n*3)%16) + m.ID[2:]
			all = append(all, m)
		}
	}
	all = s.insert(all...)
	for _, limit := range []int{1, 2, 3, 7, len(all) - 1, len(all), 1000} {
		s.wantPages(clerkinvite.PageQuery{}, limit, all...)
	}
	for i, tenant := range tenants {
		s.wantPages(clerkinvite.PageQuery{TenantID: tenant}, 2, all[3*i:3*i+3]...)
	}
	for _, m := range s.page(clerkinvite.PageQuery{}, 5) {
		s.wantStored(m)
	}
}

// A member must match all filters.
func pageFilters(s *suite) {
	var all []*clerkinvite.Member
	for _, tenant := range []string{"a", "b", "B"} {
		for i, status := range statuses {
			for n := range 3 {
				m := in(status, reserved(tenant, fmt.Sprintf("%c%d-%d@example.com", 'x'+n, i, n)))
				if m.InvitedBy = ""; n > 0 {
					m.InvitedBy = fmt.Sprintf("admin_%d", n)
				}
				all = append(all, m)
			}
		}
	}
	all = s.insert(all...)
	for _, tenant := range []string{"", "b", "c"} {
		for _, statuses := range [][]clerkinvite.Status{
			nil, {}, {clerkinvite.StatusPending}, {clerkinvite.StatusRemoved, clerkinvite.StatusActive, clerkinvite.StatusRemoved}, statuses, {"none", clerkinvite.StatusFailed},
		} {
			for _, prefix := range []string{"", "x", "y3", "z6-2@example.com"} {
				for _, invitedBy := range []string{"", "admin_1", "admin_2", "Admin_1"} {
					q := clerkinvite.PageQuery{TenantID: tenant, Statuses: statuses, EmailPrefix: prefix, InvitedBy: invitedBy}
					var want []*clerkinvite.Member
					for _, m := range all {
						if (tenant == "" || m.TenantID == tenant) && (len(statuses) == 0 || slices.Contains(statuses, m.Status)) &&
							strings.HasPrefix(m.Email, prefix) && (invitedBy == "" || m.InvitedBy == invitedBy) {
							want = append(want, m)
						}
					}
					s.wantMembers(q, want...)
				}
			}
		}
	}
}

// A prefix is literal text, not a pattern.
func pageEmailPrefix(s *suite) {
	var all []*clerkinvite.Member
	for _, tenant := range []string{"a", "b"} {
		for _, local := range []string{
			"a", "aa", "ab", "a%b", "a%c", "a_b", "a-b", "%", "%%", "_", `\`, `a\b`, `a\%b`, "*", "'", `"`, "$1", "é", "éa", "e\u0301", "e",
			"漢字", "漢", "😀", "😀b", "\ud7ff", "\ud7ffa", "\ue000", "\uffff", "\U0010ffff", "\U0010ffff\U0010ffff", "z\U0010ffff", "z\U0010ffffz", "zz",
		} {
			all = append(all, reserved(tenant, local+"@example.com"))
		}
	}
	all = s.insert(all...)
	prefixes := []string{"a@example.com", "a@example.com ", "b", "A", "É", " ", "z\U0010ffff\U0010ffff", strings.Repeat("a", 300)}
	for _, m := range all {
		local, _, _ := strings.Cut(m.Email, "@")
		first := []rune(local)[:1]
		prefixes = append(prefixes, local, string(first), local+"@")
	}
	slices.Sort(prefixes)
	for _, prefix := range slices.Compact(prefixes) {
		for _, tenant := range []string{"", "a"} {
			want := slices.DeleteFunc(slices.Clone(all), func(m *clerkinvite.Member) bool {
				return tenant != "" && m.TenantID != tenant || !strings.HasPrefix(m.Email, prefix)
			})
			s.wantPages(clerkinvite.PageQuery{TenantID: tenant, EmailPrefix: prefix}, 100, want...)
		}
	}
}

// NewestFirst reverses the order, with every filter and from any position.
func pageNewestFirst(s *suite) {
	var all []*clerkinvite.Member
	for _, tenant := range []string{"a", "b", "c"} {
		for i, status := range statuses {
			for n := range 2 {
				all = append(all, in(status, reserved(tenant, fmt.Sprintf("%c%d@example.com", 'x'+n, i))))
			}
		}
	}
	all = s.insert(all...)
	ofB := only(all, func(m *clerkinvite.Member) bool { return m.TenantID == "b" })
	for _, q := range []clerkinvite.PageQuery{
		{}, {Statuses: []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive, clerkinvite.StatusRemoved}}, {EmailPrefix: "x"},
		{InvitedBy: "admin_1"}, {InvitedBy: "admin_2"}, {EmailPrefix: "y", Statuses: []clerkinvite.Status{clerkinvite.StatusPending}},
		{ExpiresBefore: *after(2 * time.Hour)},
	} {
		q.TenantID, q.NewestFirst = "b", true
		match := func(m *clerkinvite.Member) bool {
			return (len(q.Statuses) == 0 || slices.Contains(q.Statuses, m.Status)) && strings.HasPrefix(m.Email, q.EmailPrefix) &&
				(q.InvitedBy == "" || m.InvitedBy == q.InvitedBy) && (q.ExpiresBefore.IsZero() || m.Status == clerkinvite.StatusPending)
		}
		s.wantPages(q, 3, only(ofB, match)...)
		for i := 0; i < len(all); i += 4 {
			place := all[i]
			s.wantPages(next(q, place), 5, only(ofB, func(m *clerkinvite.Member) bool { return match(m) && byPlace(m, place) < 0 })...)
		}
	}
	if found, err := s.store.Page(s.Context(), clerkinvite.PageQuery{NewestFirst: true}); err == nil {
		s.Errorf("%d members with NewestFirst and no TenantID; want an error", len(found))
	}
}

// ExpiresBefore selects pending members only, to the microsecond.
func pageExpiresBefore(s *suite) {
	var all []*clerkinvite.Member
	for _, tenant := range []string{"a", "b"} {
		for i, status := range statuses {
			for n := range 4 {
				m := in(status, reserved(tenant, fmt.Sprintf("%d%d@example.com", n, i)))
				if status != clerkinvite.StatusReserved {
					m.ExpiresAt = after(time.Duration(n) * time.Microsecond)
				}
				if status == clerkinvite.StatusPending && n == 3 {
					m.ExpiresAt = nil
				}
				all = append(all, m)
			}
		}
	}
	all = s.insert(all...)
	for _, tenant := range []string{"", "a"} {
		for _, statuses := range [][]clerkinvite.Status{nil, {clerkinvite.StatusPending}, {clerkinvite.StatusActive, clerkinvite.StatusPending}, {clerkinvite.StatusExpired}} {
			for _, prefix := range []string{"", "1"} {
				for n := range 4 {
					q := clerkinvite.PageQuery{TenantID: tenant, Statuses: statuses, EmailPrefix: prefix, ExpiresBefore: after(time.Duration(n) * time.Microsecond).In(time.FixedZone("", 3600))}
					s.wantMembers(q, only(all, func(m *clerkinvite.Member) bool {
						return (tenant == "" || m.TenantID == tenant) && (len(statuses) == 0 || slices.Contains(statuses, m.Status)) && strings.HasPrefix(m.Email, prefix) &&
							m.Status == clerkinvite.StatusPending && m.ExpiresAt != nil && m.ExpiresAt.Before(q.ExpiresBefore)
					})...)
				}
			}
		}
	}
}

// Counts are exact and concern one tenant.
func countsOfTenant(s *suite) {
	want := make(map[clerkinvite.Status]int)
	var all []*clerkinvite.Member
	for i, status := range statuses {
		if status == clerkinvite.StatusFailed {
			continue
		}
		for n := range i + 1 {
			want[status]++
			all = append(all, in(status, reserved("tenant", fmt.Sprintf("%d%s@example.com", n, status))), in(status, reserved("Tenant", fmt.Sprintf("%d%s@example.com", n, status))))
		}
	}
	all = s.insert(all...)
	s.insert(reservedMany(1_010, "x")...)
	want[clerkinvite.StatusReserved] += 1_010
	s.wantCounts("tenant", want)
	for _, odd := range []string{"", "other", "tenant ", "\x00", "\xff"} {
		s.wantCounts(odd, nil)
	}
	s.update(clerkinvite.Change{Old: all[len(all)-2]})
	want[all[len(all)-2].Status]--
	s.wantCounts("tenant", want)
}

func (s *suite) wantCounts(tenantID string, want map[clerkinvite.Status]int) {
	s.Helper()
	got, err := s.store.Counts(s.Context(), tenantID)
	if err != nil {
		s.Fatalf("Counts: %v", err)
	}
	for _, status := range statuses {
		if got[status] != want[status] {
			s.Errorf("tenant %q: %d %s members, want %d", tenantID, got[status], status, want[status])
		}
	}
}

// A value that no member can have matches nothing and is not an error.
func pageNothing(s *suite) {
	s.wantMembers(clerkinvite.PageQuery{})
	s.insert(reservedMany(3, "x")...)
	for _, odd := range []string{"unknown", "'", "\x00", "\xff", "x\x00", "x\xff", strings.Repeat("x", 300)} {
		for _, q := range []clerkinvite.PageQuery{
			{TenantID: odd}, {EmailPrefix: odd}, {InvitedBy: odd}, {Statuses: []clerkinvite.Status{clerkinvite.Status(odd)}},
			{TenantID: "tenant", EmailPrefix: odd}, {TenantID: "tenant", InvitedBy: odd},
			{TenantID: "tenant", Statuses: []clerkinvite.Status{clerkinvite.Status(odd)}},
		} {
			s.wantMembers(q)
		}
	}
}

// A page continues after a position, whether or not a member has it.
func pageAfter(s *suite) {
	var all []*clerkinvite.Member
	for _, tenant := range []string{"a", "b", "c"} {
		for i := range 3 {
			all = append(all, reserved(tenant, fmt.Sprintf("%d@example.com", i)))
		}
	}
	all = s.insert(all...)
	slices.SortFunc(all, byPlace)
	for i, m := range all {
		s.wantPages(next(clerkinvite.PageQuery{}, m), 4, all[i+1:]...)
		s.wantMembers(next(clerkinvite.PageQuery{EmailPrefix: "1"}, m), only(all[i+1:], func(m *clerkinvite.Member) bool { return m.Email[0] == '1' })...)
		for _, q := range []clerkinvite.PageQuery{
			{TenantID: "b"}, {TenantID: "b", Statuses: statuses}, {TenantID: "b", EmailPrefix: "1"}, {TenantID: "b", InvitedBy: "admin_1"},
		} {
			s.wantMembers(next(q, m), only(all[i+1:], func(m *clerkinvite.Member) bool {
				return m.TenantID == "b" && strings.HasPrefix(m.Email, q.EmailPrefix)
			})...)
		}
		upper := *m
		upper.ID = strings.ToUpper(m.ID)
		s.wantMembers(next(clerkinvite.PageQuery{}, &upper), all[i+1:]...)
	}
	for _, place := range []clerkinvite.Member{
		{TenantID: "aa", ID: "ffffffff-ffff-ffff-ffff-ffffffffffff"}, {TenantID: "b", ID: "00000000-0000-0000-0000-000000000000"},
		{TenantID: "a", ID: "ffffffff-ffff-ffff-ffff-ffffffffffff"},
	} {
		s.wantMembers(next(clerkinvite.PageQuery{}, &place), all[3:]...)
		s.wantMembers(next(clerkinvite.PageQuery{TenantID: "b"}, &place), all[3:6]...)
	}
	// An empty page without an error would skip members silently.
	for _, place := range []clerkinvite.Member{{TenantID: "a", ID: "no uuid"}, {TenantID: "a", ID: "\x00"}, {TenantID: "a\xff", ID: all[0].ID}, {TenantID: "\x00", ID: all[0].ID}} {
		q := next(clerkinvite.PageQuery{}, &place)
		if found, err := s.store.Page(s.Context(), q); err == nil {
			s.Errorf("%d members after the invalid position %q %q; want an error", len(found), place.TenantID, place.ID)
		}
	}
}

func only[T any](list []T, keep func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), func(v T) bool { return !keep(v) })
}

func pageLimit(s *suite) {
	rows := s.insert(reservedMany(1_010, "x")...)
	slices.SortFunc(rows, byPlace)
	for _, q := range []clerkinvite.PageQuery{{}, {TenantID: "tenant"}, {TenantID: "tenant", Statuses: statuses}, {TenantID: "tenant", EmailPrefix: "x"}} {
		for limit, want := range map[int]int{0: 1000, 1: 1, 999: 999, 1005: 1005, 5000: 1010} {
			found := s.page(q, limit)
			if len(found) != want || found[0].ID != rows[0].ID || found[want-1].ID != rows[want-1].ID {
				s.Errorf("%d members on a page of %d, or not the first; want %d", len(found), limit, want)
			}
		}
	}
}

// A member that exists and matches from the first page to the last is returned exactly once, even if others come and go.
func pageChanges(s *suite) {
	for _, q := range []clerkinvite.PageQuery{
		{}, {TenantID: "tenant"}, {TenantID: "tenant", NewestFirst: true}, {TenantID: "tenant", EmailPrefix: "stay"}, {Statuses: []clerkinvite.Status{clerkinvite.StatusReserved}},
		{TenantID: "tenant", Statuses: []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusPending}},
	} {
		stay := s.insert(reservedMany(30, "stay")...)
		seen := make(map[string]int)
		at := q
		for round := 0; ; round++ {
			page := s.page(at, 4)
			for _, m := range page {
				seen[m.ID]++
			}
			if len(page) < 4 {
				break
			}
			last := page[3]
			at = next(q, last)
			// The last member of the page is erased, an earlier one changes, and others are added before
			// and after that place.
			s.update(clerkinvite.Change{Old: last}, clerkinvite.Change{Old: page[0], New: in(clerkinvite.StatusActive, page[0])})
			var come []*clerkinvite.Member
			for i := range 2 {
				m := reserved("tenant", fmt.Sprintf("stay-no-%d-%d@example.com", round, i))
				m.ID = fmt.Sprintf("%08x", 0xffffffff*i) + m.ID[8:]
				come = append(come, m)
			}
			s.insert(come...)
			if round > 100 {
				s.Fatal("the pages do not end")
			}
		}
		for _, m := range stay {
			if seen[m.ID] != 1 {
				s.Errorf("%q: a member was returned %d times, want once", fields(q), seen[m.ID])
			}
		}
		for _, m := range s.pages(clerkinvite.PageQuery{}, 1000) {
			s.update(clerkinvite.Change{Old: m})
		}
	}
}
