// Package storetest checks an implementation of [clerkinvite.Store].
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) clerkinvite.Store {
//			return mystore.New(emptyDatabase(t))
//		})
//	}
//
// It imports only the standard library and clerkinvite.
package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// Run runs a parallel subtest for each rule of the contract. newStore returns an empty store for
// a subtest; it may use t.Cleanup. With -short the large batches are smaller.
//
// Two rules are skipped if the store does not have their method:
//   - Backlog(ctx, now), as [clerkinvite.PgxStore.Backlog].
//   - Refuse(ctx, tenantID) error, which only a test needs: from then on, the database refuses all
//     writes of rows of this tenant, for example by a trigger.
func Run(t *testing.T, newStore func(t *testing.T) clerkinvite.Store) {
	for _, rule := range []struct {
		name string
		test func(*suite)
	}{
		{"Insert/Nothing", insertNothing},
		{"Insert/New", insertNew},
		{"Insert/EveryState", insertEveryState},
		{"Insert/Duplicate", insertDuplicate},
		{"Insert/AddressOfAnotherTenant", insertAddressOfAnotherTenant},
		{"Insert/Repeated", insertRepeated},
		{"Insert/Many", insertMany},
		{"Insert/Race", insertRace},
		{"Insert/RepeatedRace", insertRepeatedRace},
		{"Insert/OppositeOrders", insertOppositeOrders},
		{"Update/Nothing", updateNothing},
		{"Update/EveryField", updateEveryField},
		{"Update/Identity", updateIdentity},
		{"Update/Unrecorded", updateUnrecorded},
		{"Update/Conflict", updateConflict},
		{"Update/SameRowTwice", updateSameRowTwice},
		{"Update/SameChange", updateSameChange},
		{"Update/Race", updateRace},
		{"Update/OppositeOrders", updateOppositeOrders},
		{"Update/Many", updateMany},
		{"UserTaken/Insert", userTakenInsert},
		{"UserTaken/OtherChanges", userTakenOtherChanges},
		{"UserTaken/OtherTenant", userTakenOtherTenant},
		{"UserTaken/Freed", userTakenFreed},
		{"UserTaken/Race", userTakenRace},
		{"Email/Changed", emailChanged},
		{"Email/Taken", emailTaken},
		{"Email/TakenInCall", emailTakenInCall},
		{"Email/Conflict", emailConflict},
		{"Email/Race", emailRace},
		{"Email/OppositeOrders", emailOppositeOrders},
		{"Erase/EveryState", eraseEveryState},
		{"Erase/Reuse", eraseReuse},
		{"Erase/Conflict", eraseConflict},
		{"Erase/Gone", eraseGone},
		{"Erase/Mixed", eraseMixed},
		{"Erase/SameRow", eraseSameRow},
		{"Erase/Race", eraseRace},
		{"Erase/OppositeOrders", eraseOppositeOrders},
		{"Erase/Many", eraseMany},
		{"Refused", refusedRows},
		{"Find/Nothing", findNothing},
		{"Find/Refs", findRefs},
		{"Find/RefsByID", findRefsByID},
		{"Find/RefsByUser", findRefsByUser},
		{"Find/IDs", findIDs},
		{"Find/Emails", findEmails},
		{"Find/UserIDs", findUserIDs},
		{"Find/Duplicates", findDuplicates},
		{"Find/Many", findMany},
		{"Due/Order", dueOrder},
		{"Due/Turns", dueTurns},
		{"Due/Limit", dueLimit},
		{"Page/Order", pageOrder},
		{"Page/Filters", pageFilters},
		{"Page/EmailPrefix", pageEmailPrefix},
		{"Page/NewestFirst", pageNewestFirst},
		{"Page/ExpiresBefore", pageExpiresBefore},
		{"Page/Nothing", pageNothing},
		{"Page/After", pageAfter},
		{"Page/Limit", pageLimit},
		{"Page/Changes", pageChanges},
		{"Counts", countsOfTenant},
		{"History/StateChanges", historyStateChanges},
		{"History/Failures", historyFailures},
		{"History/Tenants", historyTenants},
		{"History/Nothing", historyNothing},
		{"Backlog", backlogCounts},
		{"SwapTime/Table", swapTimeTable},
		{"SwapTime/Names", swapTimeNames},
		{"SwapTime/Microseconds", swapTimeMicroseconds},
		{"SwapTime/Race", swapTimeRace},
		{"Clock", clockRuns},
		{"Context", contextEnded},
		{"Copies", copies},
		{"JSON", jsonFidelity},
		{"Text", textFidelity},
		{"Times", timeFidelity},
	} {
		t.Run(rule.name, func(t *testing.T) {
			t.Parallel()
			rule.test(&suite{T: t, store: shaped{newStore(t)}})
		})
	}
}

// now is the time of all tests. It has microseconds.
var now = time.Date(2026, 3, 1, 9, 30, 15, 123456000, time.UTC)

func after(d time.Duration) *time.Time {
	t := now.Add(d)
	return &t
}

// suite is one subtest. Helpers that report with Errorf may be called from any goroutine.
type suite struct {
	*testing.T
	store clerkinvite.Store
}

// shaped turns a malformed result into an error, so that the rules need not check for it.
type shaped struct{ clerkinvite.Store }

func (s shaped) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	results, err := s.Store.Insert(ctx, rows)
	if err != nil {
		return results, err
	}
	return shape(results, len(rows))
}

func (s shaped) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	results, err := s.Store.Update(ctx, changes)
	if err != nil {
		return results, err
	}
	return shape(results, len(changes))
}

func shape(results []clerkinvite.Result, n int) ([]clerkinvite.Result, error) {
	if len(results) != n {
		return nil, fmt.Errorf("%d results for %d rows", len(results), n)
	}
	for i, r := range results {
		var dup *clerkinvite.DuplicateEmailError
		if duplicate := errors.As(r.Err, &dup); r.Member == nil && (r.Err == nil || duplicate) || duplicate && dup.Member == nil {
			return nil, fmt.Errorf("result %d lacks its member", i)
		}
	}
	return results, nil
}

func (s shaped) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	return shapeFound(s.Store.Find(ctx, q))
}

func (s shaped) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	return shapeFound(s.Store.Due(ctx, q))
}

func (s shaped) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	return shapeFound(s.Store.Page(ctx, q))
}

func shapeFound(found []*clerkinvite.Member, err error) ([]*clerkinvite.Member, error) {
	if slices.Contains(found, nil) {
		return nil, errors.Join(err, errors.New("a member that was found is nil"))
	}
	return found, err
}

// uuid returns a new version 7 UUID, like those of the service.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	ms := time.Now().UnixMilli()
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	b[6], b[8] = b[6]&0x0f|0x70, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// reserved returns the row of a first invitation.
func reserved(tenant, email string) *clerkinvite.Member {
	return &clerkinvite.Member{
		ID: uuid(), TenantID: tenant, Email: email, Status: clerkinvite.StatusReserved,
		Role: "editor", InvitedBy: "admin_1", ChangedBy: "admin_2", Data: json.RawMessage(`{"team": 7}`), Params: json.RawMessage(`{"redirect_url":"https://example.com"}`),
		Send: 1, ReservedAt: now, NextAttemptAt: after(0), UpdatedAt: now,
	}
}

// reservedMany returns n rows of one tenant, named after prefix.
func reservedMany(n int, prefix string) []*clerkinvite.Member {
	rows := make([]*clerkinvite.Member, n)
	for i := range rows {
		rows[i] = reserved("tenant", fmt.Sprintf("%s%05d@example.com", prefix, i))
	}
	return rows
}

// in returns a copy of m in another state.
func in(status clerkinvite.Status, m *clerkinvite.Member) *clerkinvite.Member {
	c := *m
	c.Status, c.Sent, c.SettledAt, c.NextAttemptAt, c.UpdatedAt = status, c.Send, after(time.Second), nil, *after(time.Second)
	c.InvitationID = "inv_" + m.ID
	c.InvitedAt, c.ExpiresAt = after(time.Minute), after(time.Hour)
	c.ClerkUserID, c.URL, c.Reason = "", clerkinvite.Secret{}, ""
	switch status {
	case clerkinvite.StatusReserved:
		c.Sent, c.SettledAt, c.NextAttemptAt, c.InvitationID, c.InvitedAt, c.ExpiresAt = c.Send-1, nil, after(0), "", nil, nil
	case clerkinvite.StatusPending:
		c.ClerkUserID, c.URL = clerkinvite.PendingID(c.InvitationID), clerkinvite.NewSecret("https://example.com/accept?ticket=secret")
	case clerkinvite.StatusActive:
		c.ClerkUserID = "user_" + m.ID
	default:
		c.Reason = "because"
	}
	return &c
}

var statuses = clerkinvite.Statuses()

// insert writes rows that are new and returns them as written.
func (s *suite) insert(rows ...*clerkinvite.Member) []*clerkinvite.Member {
	s.Helper()
	results, err := s.store.Insert(s.Context(), rows)
	return s.members(results, err, len(rows))
}

// update makes changes that succeed and returns the members.
func (s *suite) update(changes ...clerkinvite.Change) []*clerkinvite.Member {
	s.Helper()
	results, err := s.store.Update(s.Context(), changes)
	return s.members(results, err, len(changes))
}

// members returns the members of results. The test ends if one of them is an error.
func (s *suite) members(results []clerkinvite.Result, err error, n int) []*clerkinvite.Member {
	s.Helper()
	if err != nil {
		s.Fatalf("error of the whole call: %v", err)
	}
	if len(results) != n {
		s.Fatalf("%d results for %d rows", len(results), n)
	}
	list := make([]*clerkinvite.Member, n)
	for i, r := range results {
		if r.Err != nil || r.Member == nil {
			s.Fatalf("result %d: member %v, error %v; want a member and no error", i, r.Member, r.Err)
		}
		list[i] = r.Member
	}
	return list
}

// find returns what q selects, by id.
func (s *suite) find(q clerkinvite.Query) map[string]*clerkinvite.Member {
	s.Helper()
	found, err := s.store.Find(s.Context(), q)
	if err != nil {
		s.Errorf("Find: %v", err)
	}
	byID := make(map[string]*clerkinvite.Member, len(found))
	for _, m := range found {
		if byID[m.ID] != nil {
			s.Errorf("Find returned the member %s twice", m.ID)
		}
		byID[m.ID] = m
	}
	return byID
}

// wantFound checks that q selects exactly the wanted members.
func (s *suite) wantFound(q clerkinvite.Query, want ...*clerkinvite.Member) {
	s.Helper()
	found := s.find(q)
	for _, w := range want {
		if found[w.ID] == nil {
			s.Errorf("Find did not return the %s member %s", w.Status, w.ID)
			continue
		}
		s.wantSame(found[w.ID], w)
		delete(found, w.ID)
	}
	for _, m := range found {
		s.Errorf("Find returned the %s member %s, which the query does not match", m.Status, m.ID)
	}
}

// wantStored checks that the store has exactly want under its ID.
func (s *suite) wantStored(want *clerkinvite.Member) {
	s.Helper()
	s.wantFound(clerkinvite.Query{IDs: []string{want.ID}}, want)
}

// wantSame compares all fields: Data by its meaning as JSON, the others exactly.
func (s *suite) wantSame(got, want *clerkinvite.Member) {
	s.Helper()
	if got == nil {
		s.Errorf("no member, want %s", want.ID)
		return
	}
	g, w := reflect.ValueOf(*got), reflect.ValueOf(*want)
	for i := range g.NumField() {
		field, a, b := g.Type().Field(i).Name, g.Field(i).Interface(), w.Field(i).Interface()
		same := reflect.DeepEqual(a, b)
		switch a := a.(type) {
		case time.Time:
			b, _ := b.(time.Time)
			same = sameTime(&a, &b)
		case *time.Time:
			b, _ := b.(*time.Time)
			same = sameTime(a, b)
		case json.RawMessage:
			b, _ := b.(json.RawMessage)
			same = (a == nil) == (b == nil) && (bytes.Equal(a, b) || field == "Data" && sameJSON(a, b))
		}
		if !same {
			s.Errorf("%s is %.200v, want %.200v", field, a, b)
		}
	}
}

// sameTime reports whether got is want, in UTC.
func sameTime(got, want *time.Time) bool {
	if got == nil || want == nil {
		return got == want
	}
	return got.Equal(*want) && got.Location() == time.UTC
}

// sameJSON compares two JSON values. Numbers are compared by value.
func sameJSON(a, b json.RawMessage) bool {
	var values [2]any
	for i, raw := range []json.RawMessage{a, b} {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if dec.Decode(&values[i]) != nil {
			return false
		}
		values[i] = canonical(values[i])
	}
	return reflect.DeepEqual(values[0], values[1])
}

// canonical replaces each number in v by its value.
func canonical(v any) any {
	switch v := v.(type) {
	case json.Number:
		if r, ok := new(big.Rat).SetString(v.String()); ok {
			return r.String()
		}
	case []any:
		for i := range v {
			v[i] = canonical(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = canonical(v[k])
		}
	}
	return v
}

// wantDuplicate checks that r is the result for a row of ref whose address existing has.
func (s *suite) wantDuplicate(r clerkinvite.Result, ref clerkinvite.Ref, existing *clerkinvite.Member) {
	s.Helper()
	var dup *clerkinvite.DuplicateEmailError
	if !errors.As(r.Err, &dup) {
		s.Errorf("error is %v, want a *DuplicateEmailError", r.Err)
		return
	}
	if dup.Ref != ref {
		s.Errorf("DuplicateEmailError has the wrong Ref: %v", dup.Ref)
	}
	s.wantSame(dup.Member, existing)
	s.wantSame(r.Member, existing)
}

// together calls f(0) … f(n-1) at the same time, each in its own goroutine, and waits for all.
func together(n int, f func(i int)) {
	var ready, done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			f(i)
		})
	}
	done.Wait()
}

// size returns n, or less with -short.
func size(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}
