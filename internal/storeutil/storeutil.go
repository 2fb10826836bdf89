// Package storeutil has what the stores of this repository share.
package storeutil

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// HookTime is the name of the time ([clerkinvite.Store].SwapTime) at which a store with OnChange first
// wrote to the database.
const HookTime = "hook"

// Limit returns the limit of a query for which 0 means 1000.
func Limit(limit int) int { return cmp.Or(max(limit, 0), 1000) }

// IsUUID reports whether id is a UUID, in either case.
func IsUUID(id string) bool { return len(id) == 36 && uuid.Validate(id) == nil }

// IsText reports whether a database can store s. Other strings match nothing.
func IsText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// Texts returns the strings of list that a database can store.
func Texts[S ~string](list []S) []S {
	return slices.DeleteFunc(slices.Clone(list), func(s S) bool { return !IsText(string(s)) })
}

// Unique removes the elements of list whose key an earlier element has.
func Unique[E any, K comparable](list []E, key func(E) K) []E {
	seen := make(map[K]bool, len(list))
	return slices.DeleteFunc(list, func(e E) bool {
		duplicate := seen[key(e)]
		seen[key(e)] = true
		return duplicate
	})
}

// InTurns sorts due members as a clerkinvite.DueQuery describes. of returns whether a member has
// Bulk, and its tenant; order compares two members of one tenant.
func InTurns[M any](members []M, after string, of func(M) (bulk bool, tenantID string), order func(a, b M) int) {
	type key struct {
		bulk     bool
		tenantID string
	}
	type turn struct {
		key
		member M
		n      int // the member is the tenant's nth
	}
	slices.SortFunc(members, order)
	turns, n := make([]turn, len(members)), make(map[key]int)
	for i, m := range members {
		var k key
		k.bulk, k.tenantID = of(m)
		n[k]++
		turns[i] = turn{k, m, n[k]}
	}
	number := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	slices.SortFunc(turns, func(a, b turn) int {
		return cmp.Or(number(a.bulk)-number(b.bulk), a.n-b.n, number(a.tenantID <= after)-number(b.tenantID <= after), cmp.Compare(a.tenantID, b.tenantID))
	})
	for i, t := range turns {
		members[i] = t.member
	}
}

// PageStart returns the ID after which a page of a tenant begins, or "" if it begins with the tenant's
// first member. ok is false if the page comes after all members of the tenant.
func PageStart(tenantID, afterTenantID, afterID string, newestFirst bool) (id string, ok bool) {
	order := cmp.Compare(afterTenantID, tenantID)
	if newestFirst {
		order = -order
	}
	switch {
	case afterTenantID == "" && afterID == "" || order < 0:
		return "", true
	case order > 0:
		return "", false
	}
	return afterID, true
}

// PrefixEnd returns the least text that is greater, byte by byte, than every text that begins
// with prefix. If no text is, it returns one that is greater than every email address.
func PrefixEnd(prefix string) string {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch {
		case last == 0xd7ff: // followed by the surrogates, which are not text
			return prefix + "\ue000"
		case last < utf8.MaxRune:
			return prefix + string(last+1)
		}
	}
	return strings.Repeat(string(utf8.MaxRune), 64) // four bytes each; an address has at most 254
}
