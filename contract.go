package clerkinvite

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A host's Store or ClerkAPI, such as a mock, may violate its contract. This file checks for violations
// that would otherwise make the Service panic or loop forever. The error names the method.

// checkedTx checks what a TxStore returns.
type checkedTx struct{ TxStore }

// Insert implements [TxStore].
func (s checkedTx) Insert(ctx context.Context, rows []*Member) ([]Result, error) {
	results, err := s.TxStore.Insert(ctx, rows)
	if err != nil {
		return nil, checkError("Insert", err)
	}
	return results, checkResults("Insert", results, len(rows), func(i int, m *Member) bool {
		return m.Ref() == rows[i].Ref() && (m.Version != 1 || m.ID != rows[i].ID || isWritten(m, rows[i]))
	})
}

// Update implements [TxStore].
func (s checkedTx) Update(ctx context.Context, changes []Change) ([]Result, error) {
	results, err := s.TxStore.Update(ctx, changes)
	if err != nil {
		return nil, checkError("Update", err)
	}
	return results, checkResults("Update", results, len(changes), func(i int, m *Member) bool {
		c := changes[i]
		return m.TenantID == c.Old.TenantID && m.ID == c.Old.ID && (c.New == nil || m.Version == c.Old.Version+1 && isWritten(m, c.New))
	})
}

// isWritten reports whether m has the state of the written member.
func isWritten(m, written *Member) bool {
	return m.Status == written.Status && m.Send == written.Send && m.Sent == written.Sent &&
		(m.ClaimedUntil == nil) == (written.ClaimedUntil == nil)
}

// checkResults checks that there are n results, and that each has an error or a member for which right
// returns true.
func checkResults(method string, results []Result, n int, right func(i int, m *Member) bool) error {
	if len(results) != n {
		return fmt.Errorf("clerkinvite: Store.%s returned %d results instead of %d", method, len(results), n)
	}
	for i, r := range results {
		m, kind := r.Member, ""
		var dup *DuplicateEmailError
		switch {
		case errors.As(r.Err, &dup):
			if m, kind = nil, ", a duplicate,"; dup != nil {
				m = dup.Member
			}
		case hasNilPointer(r.Err):
			return fmt.Errorf("clerkinvite: Store.%s: result %d has a nil pointer as its error", method, i)
		case r.Err != nil:
			continue
		}
		if err := checkMember(m); err != nil {
			return fmt.Errorf("clerkinvite: Store.%s: result %d%s %w", method, i, kind, err)
		}
		if !right(i, m) {
			return fmt.Errorf("clerkinvite: Store.%s: result %d%s has a different member than the input", method, i, kind)
		}
	}
	return nil
}

// checkMember returns an error if m cannot come from a correct store.
func checkMember(m *Member) error {
	switch {
	case m == nil:
		return errors.New("has no member")
	case m.Due() && m.NextAttemptAt == nil:
		return errors.New("has a due member without NextAttemptAt")
	}
	return nil
}

// checkedStore checks what a Store returns.
type checkedStore struct{ Store }

// Insert implements [TxStore].
func (s checkedStore) Insert(ctx context.Context, rows []*Member) ([]Result, error) {
	return checkedTx{s.Store}.Insert(ctx, rows)
}

// Update implements [TxStore].
func (s checkedStore) Update(ctx context.Context, changes []Change) ([]Result, error) {
	return checkedTx{s.Store}.Update(ctx, changes)
}

// Find implements [Store].
func (s checkedStore) Find(ctx context.Context, q Query) ([]*Member, error) {
	found, err := s.Store.Find(ctx, q)
	return checkMembers("Find", found, err)
}

// Due implements [Store].
func (s checkedStore) Due(ctx context.Context, q DueQuery) ([]*Member, error) {
	found, err := s.Store.Due(ctx, q)
	return checkMembers("Due", found, err)
}

// Page implements [Store].
func (s checkedStore) Page(ctx context.Context, q PageQuery) ([]*Member, error) {
	found, err := s.Store.Page(ctx, q)
	return checkMembers("Page", found, err)
}

func checkMembers(method string, found []*Member, err error) ([]*Member, error) {
	if err != nil {
		return nil, checkError(method, err)
	}
	for i, m := range found {
		if err := checkMember(m); err != nil {
			return nil, fmt.Errorf("clerkinvite: Store.%s: result %d %w", method, i, err)
		}
	}
	return found, nil
}

// Counts implements [Store].
func (s checkedStore) Counts(ctx context.Context, tenantID string) (map[Status]int, error) {
	counts, err := s.Store.Counts(ctx, tenantID)
	return counts, checkError("Counts", err)
}

// History implements [Store].
func (s checkedStore) History(ctx context.Context, tenantID, id string) ([]HistoryEntry, error) {
	entries, err := s.Store.History(ctx, tenantID, id)
	return entries, checkError("History", err)
}

// SwapTime implements [Store].
func (s checkedStore) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	stored, err := s.Store.SwapTime(ctx, name, old, next)
	if err == nil && stored.Equal(old) && !next.Equal(old) { // the caller would retry forever
		err = errors.New("clerkinvite: Store.SwapTime returned the old time without replacing it")
	}
	return stored, checkError("SwapTime", err)
}

// checkError returns err, or an error that names the method if code that reads err's fields would panic.
func checkError(method string, err error) error {
	if hasNilPointer(err) {
		return fmt.Errorf("clerkinvite: Store.%s returned a nil pointer as its error", method)
	}
	return err
}

// checkResponse returns err, or an *APIError if a method of ClerkAPI returned a nil pointer as its response
// or as its error. The *APIError counts as uncertain, because the request may have had an effect.
func checkResponse(operation string, response any, err error) error {
	method := "ClerkAPI." + strings.TrimPrefix(operation, "clerk.")
	switch {
	case err == nil && isNilPointer(response):
		return &APIError{Err: errors.New(method + " returned nil without an error")}
	case hasNilPointer(err):
		return &APIError{Err: errors.New(method + " returned a nil pointer as its error")}
	}
	return err
}

// hasNilPointer reports whether err is or wraps a nil pointer, which errors.As would find.
func hasNilPointer(err error) bool {
	switch {
	case err == nil:
		return false
	case isNilPointer(err):
		return true
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return slices.ContainsFunc(joined.Unwrap(), hasNilPointer)
	}
	return hasNilPointer(errors.Unwrap(err))
}

func isNilPointer(v any) bool {
	p := reflect.ValueOf(v)
	return p.Kind() == reflect.Pointer && p.IsNil()
}
