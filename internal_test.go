package clerkinvite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	testNow = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	testInv = &Invitation{ID: "inv_2", Email: "ada@example.com", CreatedAt: testNow.Add(-time.Minute)}
)

func reservedRow() Member {
	claim := testNow.Add(time.Minute)
	return Member{
		TenantID: "acme", Email: "ada@example.com", Status: StatusReserved, Send: 1, Attempts: 1, Version: 4,
		ClaimedUntil: &claim, NextAttemptAt: &claim,
	}
}

func resentRow() Member {
	m := reservedRow()
	m.Status, m.Send, m.Sent, m.InvitationID, m.ClerkUserID = StatusPending, 2, 1, "inv_1", "pending_inv_1"
	return m
}

// Each verdict changes a row as documented.
func TestChangedRow(t *testing.T) {
	t.Parallel()
	due := testNow.Add(time.Hour)
	cause := errors.New("boom")
	user := &User{ID: "user_1"}
	type row struct {
		status           Status
		user, invitation string
		sent, attempts   int
		reason           string
		claimed          bool
		due              *time.Time
	}
	for name, c := range map[string]struct {
		verdict verdict
		from    Member
		want    row
	}{
		"undecided":                 {verdict{}, reservedRow(), row{StatusReserved, "", "", 0, 1, "", true, reservedRow().NextAttemptAt}},
		"uncertain keeps the claim": {verdict{kind: isUncertain, err: cause}, reservedRow(), row{StatusReserved, "", "", 0, 1, "", true, reservedRow().NextAttemptAt}},
		"invited":                   {verdict{kind: isInvited, invitation: testInv}, reservedRow(), row{StatusPending, "pending_inv_2", "inv_2", 1, 1, "", false, nil}},
		"invited again":             {verdict{kind: isInvited, invitation: testInv}, resentRow(), row{StatusPending, "pending_inv_2", "inv_2", 2, 1, "", false, nil}},
		"linked":                    {userVerdict(user, nil, testNow), reservedRow(), row{StatusActive, "user_1", "", 1, 1, "", false, nil}},
		"linked after a resend":     {userVerdict(user, nil, testNow), resentRow(), row{StatusActive, "user_1", "inv_1", 2, 1, "", false, nil}},
		"linked by an invitation":   {userVerdict(user, testInv, testNow), reservedRow(), row{StatusActive, "user_1", "inv_2", 1, 1, "", false, nil}},
		"locked for long":           {userVerdict(&User{ID: "user_1", Locked: true, LockEndsIn: 24 * time.Hour}, nil, testNow), reservedRow(), row{StatusReserved, "", "", 0, 0, ReasonUserLocked, false, &due}},
		"locked for ever":           {userVerdict(&User{ID: "user_1", Locked: true}, nil, testNow), reservedRow(), row{StatusFailed, "", "", 1, 1, ReasonUserLocked, false, nil}},
		"locked, while sent again":  {userVerdict(&User{ID: "user_1", Locked: true, LockEndsIn: time.Hour}, nil, testNow), resentRow(), row{StatusPending, "pending_inv_1", "inv_1", 1, 0, ReasonUserLocked, false, &due}},
		"deprovisioned":             {userVerdict(&User{ID: "user_1", Deprovisioned: true}, nil, testNow), reservedRow(), row{StatusFailed, "", "", 1, 1, ReasonUserDeprovisioned, false, nil}},
		"banned":                    {userVerdict(&User{ID: "user_1", Banned: true}, nil, testNow), reservedRow(), row{StatusFailed, "", "", 1, 1, ReasonUserBanned, false, nil}},
		"refused":                   {refused("create invitation", "not_allowed_access", cause), reservedRow(), row{StatusFailed, "", "", 1, 1, "not_allowed_access", false, nil}},
		"refused resend":            {refused("create invitation", "not_allowed_access", cause), resentRow(), row{StatusPending, "pending_inv_1", "inv_1", 2, 1, "not_allowed_access", false, nil}},
		"expired":                   {verdict{kind: isExpired, invitation: testInv}, reservedRow(), row{StatusExpired, "", "inv_2", 1, 1, "", false, nil}},
		"revoked":                   {verdict{kind: isRevoked, invitation: testInv}, reservedRow(), row{StatusRevoked, "", "inv_2", 1, 1, ReasonRevokedAtClerk, false, nil}},
		"second address":            {verdict{kind: isSecondAddress}, reservedRow(), row{StatusRemoved, "", "", 1, 1, ReasonSecondAddress, false, nil}},
		"postponed":                 {verdict{kind: isPostponed, dueAt: due, reason: "unavailable"}, reservedRow(), row{StatusReserved, "", "", 0, 1, "unavailable", false, &due}},
		"postponed, not counted":    {verdict{kind: isPostponed, dueAt: due, reason: "x", uncounted: true}, reservedRow(), row{StatusReserved, "", "", 0, 0, "x", false, &due}},
		"limited":                   {verdict{kind: isLimited, dueAt: due, uncounted: true}, reservedRow(), row{StatusReserved, "", "", 0, 0, "", false, &due}},
		"released":                  {verdict{kind: isReleased, dueAt: testNow, uncounted: true}, reservedRow(), row{StatusReserved, "", "", 0, 0, "", false, &testNow}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := (&attempt{row: &c.from, verdict: c.verdict}).changedRow(testNow)
			require.Equal(t, c.want, row{
				got.Status, got.ClerkUserID, got.InvitationID, got.Sent, got.Attempts, got.Reason, got.ClaimedUntil != nil, got.NextAttemptAt,
			})
			require.True(t, allowed(c.from.Status, got.Status))
			require.Equal(t, c.from.Status == got.Status && c.from.Sent == got.Sent, c.verdict.kind == undecided || c.verdict.keepsWaiting(),
				"the send is completed unless keepsWaiting")
		})
	}
}

// If an earlier attempt or a rejected bulk request may have created the invitation, the released row says so.
func TestChangedRow_MayHaveEffect(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		attempt  attempt
		attempts int
		reason   string
		mayExist bool
	}{
		"sent nothing":                {attempt{verdict: verdict{kind: isPostponed, reason: "x"}}, 2, "x", false},
		"an earlier attempt":          {attempt{verdict: verdict{kind: isPostponed, reason: "x"}, claim: claim{hadEffect: true}}, 2, "x", true},
		"an earlier attempt, limited": {attempt{verdict: verdict{kind: isLimited, uncounted: true}, claim: claim{hadEffect: true}}, 1, "", true},
		"a bulk request":              {attempt{verdict: verdict{kind: isReleased, uncounted: true}, bulkRejected: true}, 2, ReasonBulkRejected, true},
		"a bulk request, postponed":   {attempt{verdict: verdict{kind: isPostponed, reason: "x", uncounted: true}, bulkRejected: true}, 2, "x", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, from := c.attempt, reservedRow()
			from.Attempts, a.row = 2, &from
			got := a.changedRow(testNow)
			require.Equal(t, c.attempts, got.Attempts)
			require.Equal(t, c.reason, got.Reason)
			require.Equal(t, c.mayExist, got.mayHaveEffect())
		})
	}
}

// Each verdict returns this to the caller.
func TestVerdictReport(t *testing.T) {
	t.Parallel()
	host, clerk := errors.New("breaker open"), &APIError{StatusCode: 503}
	for name, c := range map[string]struct {
		verdict verdict
		outcome Outcome // of a *ClerkInvitationError; "" means none
		err     error   // the error or its cause
	}{
		"invited":                     {verdict{kind: isInvited, invitation: testInv}, "", nil},
		"linked":                      {userVerdict(&User{ID: "user_1"}, nil, testNow), "", nil},
		"banned":                      {userVerdict(&User{ID: "user_1", Banned: true}, nil, testNow), OutcomeRefused, errBanned},
		"refused":                     {refused("x", "y", clerk), OutcomeRefused, clerk},
		"uncertain":                   {verdict{kind: isUncertain, err: clerk}, OutcomeUncertain, clerk},
		"uncertain, the host's error": {verdict{kind: isUncertain, err: host}, "", host},
		"postponed":                   {verdict{kind: isPostponed, err: clerk, stop: true}, OutcomeFault, clerk},
		"postponed, the host's error": {verdict{kind: isPostponed, err: host, stop: true}, "", host},
		"limited":                     {verdict{kind: isLimited, err: clerk}, OutcomeFault, clerk},
		"released":                    {verdict{kind: isReleased, err: context.Canceled}, OutcomeFault, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := reservedRow()
			m := (&attempt{row: &from, verdict: c.verdict}).changedRow(testNow)
			d := c.verdict.report(m)
			require.Same(t, m, d.Member)
			require.Equal(t, c.verdict.kind, d.kind)
			require.Equal(t, c.verdict.stop, d.stop)
			var clerkErr *ClerkInvitationError
			if errors.As(d.Err, &clerkErr) {
				require.Equal(t, c.outcome, clerkErr.Outcome)
				require.Same(t, m, clerkErr.Member)
			} else {
				require.Empty(t, c.outcome)
			}
			if c.err == nil {
				require.NoError(t, d.Err)
			} else {
				require.ErrorIs(t, d.Err, c.err)
			}
		})
	}
	other := &Member{ID: "x"}
	var dup *DuplicateEmailError
	v := verdict{kind: isSecondAddress, other: other}
	require.ErrorAs(t, v.report(&Member{TenantID: "acme"}).Err, &dup)
	require.Same(t, other, dup.Member)
}

// What a failed call means depends on whether it could have sent an email, on whether it was about
// others, too, and on the number of attempts.
func TestFailureVerdict(t *testing.T) {
	t.Parallel()
	answer := func(status int, code string, meta map[string]any) *APIError {
		return &APIError{StatusCode: status, Code: code, Meta: meta}
	}
	create, createBulk := call{op: "create invitation", sends: true}, call{op: "create invitations", sends: true, several: true}
	find, findMany := call{op: "find users"}, call{op: "find users", several: true}
	template := answer(422, "form_param_value_invalid", map[string]any{"param_name": "template_slug"})
	for name, c := range map[string]struct {
		call     call
		err      error
		attempts int
		kind     verdictKind
		wait     time.Duration // postponed or limited only
		counted  bool
		stop     bool
	}{
		"lost create":                    {create, &APIError{Err: io.ErrUnexpectedEOF}, 1, isUncertain, 0, true, false},
		"lost bulk create":               {createBulk, &APIError{Err: io.ErrUnexpectedEOF}, 1, isUncertain, 0, true, false},
		"lost look-up":                   {find, &APIError{Err: io.ErrUnexpectedEOF}, 1, isPostponed, time.Minute, true, false},
		"lost shared look-up":            {findMany, &APIError{Err: io.ErrUnexpectedEOF}, 1, isPostponed, time.Minute, false, true},
		"not sent":                       {create, &APIError{NotSent: true, Err: io.EOF}, 1, isPostponed, time.Minute, true, true},
		"wrong key":                      {create, answer(401, "clerk_key_invalid", nil), 1, isPostponed, time.Minute, true, true},
		"quota of all users":             {create, answer(403, "user_quota_exceeded", nil), 1, isPostponed, time.Minute, true, true},
		"unknown quota":                  {create, answer(403, "odd_quota", nil), 1, isPostponed, time.Minute, true, false},
		"unknown 402":                    {create, answer(402, "odd", nil), 1, isPostponed, time.Minute, true, false},
		"rate limit":                     {find, &APIError{StatusCode: 429, RetryAfter: 7 * time.Second}, 1, isLimited, 7 * time.Second, false, false},
		"refused":                        {create, answer(403, "not_allowed_access", nil), 1, isRefused, 0, true, false},
		"refused, shared":                {createBulk, answer(403, "not_allowed_access", nil), 1, isPostponed, time.Minute, true, true},
		"own fault, first attempt":       {create, template, 1, isPostponed, time.Minute, true, false},
		"own fault, short Retry-After":   {create, &APIError{StatusCode: 403, RetryAfter: time.Second}, 1, isPostponed, time.Minute, true, false},
		"own fault, long Retry-After":    {create, &APIError{StatusCode: 403, RetryAfter: 5 * time.Minute}, 1, isPostponed, 5 * time.Minute, true, false},
		"own fault, third attempt":       {create, template, 3, isRefused, 0, true, false},
		"own fault, third attempt, bulk": {createBulk, template, 3, isPostponed, time.Minute, true, false},
		"held at Clerk":                  {create, answer(422, "form_identifier_exists", nil), 1, isPostponed, time.Minute, true, false},
		"not sent by the adapter":        {create, &InvalidParamsError{"Email", "x"}, 1, isPostponed, time.Minute, true, false},
		"the host's error, create":       {create, errors.New("breaker open"), 1, isUncertain, 0, true, false},
		"the host's error, look-up":      {find, errors.New("breaker open"), 1, isPostponed, time.Minute, true, true},
		"proxy time-out, create":         {create, answer(408, "", nil), 1, isUncertain, 0, true, false},
		"server error, look-up":          {find, answer(503, "", nil), 1, isPostponed, time.Minute, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row := reservedRow()
			row.Attempts = c.attempts
			if row.Attempts > 1 {
				row.Reason = reasonOf(c.err) // the attempt before failed in the same way
			}
			v := failureVerdict(&row, c.call, fmt.Errorf("x: %w", c.err), testNow, time.Minute)
			require.Equal(t, c.kind, v.kind)
			require.ErrorIs(t, v.err, c.err)
			require.Equal(t, c.call.op, v.op)
			require.Equal(t, c.counted, !v.uncounted)
			require.Equal(t, c.stop, v.stop)
			if c.kind == isPostponed || c.kind == isLimited {
				require.Equal(t, testNow.Add(c.wait), v.dueAt)
			}
		})
	}
}

// A rejection ends a row only if the attempt before was rejected for the same reason. An outage of two
// attempts says nothing about the row.
func TestClassify_RejectedAgain(t *testing.T) {
	t.Parallel()
	meta := map[string]any{"param_name": "template_slug"}
	create := call{op: "create invitation", sends: true, othersCreated: true}
	for name, c := range map[string]struct {
		err      error
		attempts int
		before   string // Member.Reason of the attempt before
		want     Outcome
	}{
		"a parameter, again":             {&APIError{StatusCode: 422, Code: "form_param_value_invalid", Meta: meta}, 3, "form_param_value_invalid", OutcomeRefused},
		"a parameter, after an outage":   {&APIError{StatusCode: 422, Code: "form_param_value_invalid", Meta: meta}, 3, "unavailable", OutcomeFault},
		"a parameter, after lost ones":   {&APIError{StatusCode: 422, Code: "form_param_value_invalid", Meta: meta}, 3, "", OutcomeFault},
		"a firewall, again":              {&APIError{StatusCode: 403}, 3, ReasonRejected, OutcomeRefused},
		"a firewall, after an outage":    {&APIError{StatusCode: 403}, 3, "unavailable", OutcomeFault},
		"a firewall, the second attempt": {&APIError{StatusCode: 403}, 2, ReasonRejected, OutcomeFault},
		"not sent by the adapter, again": {&InvalidParamsError{"Email", "x"}, 3, ReasonRejected, OutcomeRefused},
		"a long code, again":             {&APIError{StatusCode: 400, Code: strings.Repeat("x", 2000)}, 3, clip(strings.Repeat("x", 2000)), OutcomeRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row := reservedRow()
			row.Attempts, row.Reason = c.attempts, c.before
			require.Equal(t, c.want, classify(&row, create, c.err))
		})
	}
}

// What a failed create can have done, and whether it means that Clerk refuses this person.
func TestClassify(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	answer := func(status int, code string, meta map[string]any) *APIError {
		return &APIError{StatusCode: status, Code: code, Meta: meta}
	}
	for name, c := range map[string]struct {
		err  error
		want Outcome
	}{
		"bad format, names the parameter": {answer(422, "form_param_format_invalid", map[string]any{"param_name": "email_address"}), OutcomeRefused},
		"names the address":               {answer(400, "x", map[string]any{"email_addresses": []any{"ADA@example.com"}}), OutcomeRefused},
		"names the address, alone":        {answer(400, "x", map[string]any{"email_addresses": email}), OutcomeRefused},
		"names another address":           {answer(400, "x", map[string]any{"email_addresses": []any{"bob@example.com"}}), OutcomeFault},
		"block list":                      {answer(403, "not_allowed_access", nil), OutcomeRefused},
		"block list, names":               {answer(403, "not_allowed_access", map[string]any{"identifiers": []any{email}}), OutcomeRefused},
		"another parameter":               {answer(422, "form_param_value_invalid", map[string]any{"param_name": "redirect_url"}), OutcomeFault},
		"a duplicate is not a refusal":    {answer(400, "duplicate_record", map[string]any{"email_addresses": []any{email}}), OutcomeFault},
		"taken address is not a refusal":  {answer(422, "form_identifier_exists", map[string]any{"param_name": "email_address"}), OutcomeFault},
		"wrong key":                       {answer(401, "clerk_key_invalid", nil), OutcomeFault},
		"payment":                         {answer(402, "", nil), OutcomeFault},
		"quota":                           {answer(403, "user_quota_exceeded", nil), OutcomeFault},
		"a page of Cloudflare's":          {&APIError{StatusCode: 403, Err: errors.New("no JSON")}, OutcomeFault},
		"development emails":              {answer(400, "dev_monthly_email_limit_exceeded", nil), OutcomeFault},
		"rate limit":                      {answer(429, "too_many_requests", nil), OutcomeFault},
		"conflict":                        {answer(409, "resource_locked", nil), OutcomeFault},
		"not sent":                        {&APIError{NotSent: true, Err: io.EOF}, OutcomeFault},
		"refused by the adapter":          {&InvalidParamsError{"Email", "x"}, OutcomeFault},
		"time-out":                        {&APIError{Err: context.DeadlineExceeded}, OutcomeUncertain},
		"cut":                             {&APIError{Err: io.ErrUnexpectedEOF}, OutcomeUncertain},
		"redirect":                        {answer(307, "", nil), OutcomeUncertain},
		"unreadable success":              {&APIError{StatusCode: 200, Err: errors.New("no JSON")}, OutcomeUncertain},
		"server error, even if it names":  {answer(500, "internal_clerk_error", map[string]any{"param_name": "email_address"}), OutcomeUncertain},
		"unavailable":                     {answer(503, "", nil), OutcomeUncertain},
		"a proxy's time-out":              {answer(408, "", nil), OutcomeUncertain},
		"an unknown error":                {errors.New("boom"), OutcomeUncertain},
	} {
		require.Equal(t, c.want, classify(&Member{Email: email}, call{sends: true}, fmt.Errorf("x: %w", c.err)), name)
	}
}

func attempts(n int, change ...func(a *attempt)) []*attempt {
	list := make([]*attempt, n)
	for i := range list {
		list[i] = &attempt{row: &Member{Email: fmt.Sprintf("p%d@example.com", i), Send: 1, Attempts: 1}}
		for _, f := range change {
			f(list[i])
		}
	}
	return list
}

// Which attempts may share a request.
func TestNewQueue(t *testing.T) {
	t.Parallel()
	list := attempts(6)
	list[1].row.Attempts = 2
	list[2].row.Send = 2
	list[3].params.PublicMetadata = []byte(`{"plan":"pro"}`)
	list[4].row.Email = list[0].row.Email
	q := newQueue(list, true)
	require.Equal(t, []*attempt{list[0], list[2], list[5]}, q.batchable)
	require.Equal(t, []*attempt{list[1], list[3], list[4]}, q.single)
	require.True(t, q.more)
}

// Which attempts are next, and whether they share a request.
func TestQueueNext(t *testing.T) {
	t.Parallel()
	limit := limitIn(limitedFor(time.Minute), testNow)
	for name, c := range map[string]struct {
		queue  queue
		shared int // attempts that can share a request, and whether they have tried
		tried  bool
		single int
		first  bool // the attempts are not of imports
		again  bool // the single ones are not first attempts
		want   int
		bulk   bool
	}{
		"empty":              {want: 0},
		"ten share":          {queue: queue{more: true}, shared: 12, single: 3, want: 10, bulk: true},
		"the last few share": {shared: 4, single: 3, want: 4, bulk: true},
		"one goes alone":     {shared: 1, want: 1},
		"one shares if the single endpoint is limited":         {queue: queue{singleLimit: limit}, shared: 1, want: 1, bulk: true},
		"a request for ten is not spent on fewer":              {queue: queue{more: true}, shared: 4, want: 0},
		"single ones go in the meantime":                       {queue: queue{more: true}, shared: 4, single: 2, want: 1},
		"those that were tried do not wait":                    {queue: queue{more: true}, shared: 4, tried: true, want: 4, bulk: true},
		"those who come before imports do not wait":            {queue: queue{more: true}, shared: 4, single: 2, first: true, want: 4, bulk: true},
		"bulk limited: one by one":                             {queue: queue{more: true, bulkLimit: limit}, shared: 12, want: 1},
		"bulk limited: single ones first":                      {queue: queue{bulkLimit: limit}, shared: 12, single: 1, want: 1},
		"both limited: those that share wait":                  {queue: queue{bulkLimit: limit, singleLimit: limit}, shared: 12, want: 0},
		"the share used up: those who are not imported go":     {queue: queue{bulkLimit: limit, shareLimit: limit}, shared: 12, first: true, want: 1},
		"both limited: single ones may have something to find": {queue: queue{bulkLimit: limit, singleLimit: limit}, shared: 12, single: 2, again: true, want: 1},
		"both limited: all wait":                               {queue: queue{bulkLimit: limit, singleLimit: limit}, shared: 12, single: 2, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := c.queue
			q.batchable, q.single = attempts(c.shared, func(a *attempt) {
				a.batchable, a.bulkRejected, a.row.Bulk = true, c.tried, !c.first
			}), attempts(c.single, func(a *attempt) {
				if c.again {
					a.row.Attempts = 2
				}
			})
			first := append(append([]*attempt{}, q.single...), q.batchable...)
			if c.bulk {
				first = append([]*attempt{}, q.batchable...)
			}
			group, bulk := q.next()
			require.Len(t, group, c.want)
			require.Equal(t, c.bulk, bulk)
			require.Equal(t, first[:c.want], append([]*attempt{}, group...))
			require.Equal(t, c.shared+c.single-c.want, len(q.batchable)+len(q.single), "no attempt is lost")
		})
	}
}

// The share of imports is used up and the bulk endpoint limited: who is not imported goes alone.
func TestQueueNext_ShareUsedUp(t *testing.T) {
	t.Parallel()
	limit := limitIn(limitedFor(time.Minute), testNow)
	q := &queue{batchable: attempts(3, func(a *attempt) { a.batchable, a.row.Bulk = true, true }), bulkLimit: limit, shareLimit: limit}
	q.batchable[1].row.Bulk = false
	one := q.batchable[1]
	group, bulk := q.next()
	require.Equal(t, []*attempt{one}, group)
	require.False(t, bulk)
	group, _ = q.next()
	require.Empty(t, group)
	require.Len(t, q.batchable, 2)
}

// Attempts that can share a request wait for the first of the two endpoints. The share limits only
// members of imports.
func TestQueueBlockedBy(t *testing.T) {
	t.Parallel()
	short, long := limitIn(limitedFor(time.Minute), testNow), limitIn(limitedFor(time.Hour), testNow)
	later := limitIn(limitedFor(30*time.Second), testNow.Add(time.Minute)) // a shorter wait that ends later
	for i, c := range []struct {
		bulk, single, share *metLimit
		imported, other     *metLimit
	}{
		{},
		{bulk: short},
		{single: short},
		{bulk: short, single: long, imported: short, other: short},
		{bulk: long, single: short, imported: short, other: short},
		{bulk: short, single: later, imported: short, other: short},
		{bulk: long, share: short, imported: short},
	} {
		q := &queue{bulkLimit: c.bulk, singleLimit: c.single, shareLimit: c.share}
		require.Equal(t, c.imported, q.blockedBy(&attempt{batchable: true, row: &Member{Bulk: true}}), i)
		require.Equal(t, c.other, q.blockedBy(&attempt{batchable: true, row: &Member{}}), i)
	}
}

// Which requests count as failures in a row.
func TestCountFailures(t *testing.T) {
	t.Parallel()
	group := func(kinds ...verdictKind) []*attempt {
		list := attempts(len(kinds))
		for i, kind := range kinds {
			list[i].verdict, list[i].delivery = verdict{kind: kind, err: errNoInvitation}, &delivery{}
		}
		return list
	}
	again, unread := group(isUncertain), group(isPostponed)
	again[0].row.Attempts = 2
	unread[0].verdict.err = &APIError{StatusCode: 502}
	for name, c := range map[string]struct {
		group []*attempt
		want  int
	}{
		"a failure":                      {group(isUncertain), 3},
		"one of several":                 {group(isInvited, isUncertain), 3},
		"some need their own requests":   {group(undecided, isUncertain), 3},
		"a success":                      {group(isInvited), 0},
		"a refusal":                      {group(isRefused), 0},
		"a member that failed before":    {again, 2},
		"a look-up that failed":          {unread, 2},
		"a rate limit":                   {group(isLimited), 2},
		"a request that decided nothing": {group(undecided, undecided), 2},
	} {
		p := &pass{failures: 2}
		p.countFailures(c.group)
		require.Equal(t, c.want, p.failures, name)
		require.Equal(t, c.want == 3, slices.ContainsFunc(c.group, (*attempt).stopsPass), name)
	}
}

// Undecided attempts return to the queue that they can still use.
func TestQueuePutBack(t *testing.T) {
	t.Parallel()
	list := attempts(4)
	list[0].batchable, list[2].batchable = true, true
	list[3].verdict = verdict{kind: isInvited}
	waiting := attempts(2)
	q := &queue{batchable: waiting[:1:1], single: waiting[1:2:2]}
	q.putBack(list)
	require.Equal(t, []*attempt{list[0], list[2], waiting[0]}, q.batchable)
	require.Equal(t, []*attempt{waiting[1], list[1]}, q.single)
}

var statuses = Statuses()

// updates counts the changes that reach the store.
type updates struct {
	Store
	changes []Change
}

func (u *updates) Update(_ context.Context, changes []Change) ([]Result, error) {
	u.changes = append(u.changes, changes...)
	results := make([]Result, len(changes))
	for i, c := range changes {
		results[i].Member = c.New
	}
	return results, nil
}

// A state change that is not in the table never reaches the store, and does not stop others.
func TestApplyAsksTheTable(t *testing.T) {
	t.Parallel()
	store := &updates{}
	s, err := New(Config{API: struct{ ClerkAPI }{}, Store: store})
	require.NoError(t, err)
	var changes []Change
	for _, from := range statuses {
		for _, to := range statuses {
			changes = append(changes, Change{&Member{Status: from}, &Member{Status: to}})
		}
	}
	results, err := s.apply(t.Context(), store, changes)
	require.NoError(t, err)
	for i, c := range changes {
		if c.Old.Status == c.New.Status || slices.Contains(transitions[c.Old.Status], c.New.Status) {
			require.NoError(t, results[i].Err)
			require.Contains(t, store.changes, c)
			continue
		}
		var refused *TransitionError
		require.ErrorAs(t, results[i].Err, &refused)
		require.Equal(t, &TransitionError{c.Old.Status, c.New.Status}, refused)
		require.NotContains(t, store.changes, c)
	}
	for _, from := range statuses { // another address
		for _, to := range append(transitions[from], from) {
			results, err := s.apply(t.Context(), store, []Change{{&Member{Status: from, Email: "a"}, &Member{Status: to, Email: "b"}}})
			require.NoError(t, err)
			require.Equal(t, from == StatusActive && to == StatusActive, results[0].Err == nil, "%s to %s", from, to)
		}
	}
	require.Equal(t, []Status{StatusRemoved}, transitions[StatusActive])
	for _, over := range []Status{StatusFailed, StatusRevoked, StatusRemoved} {
		require.Equal(t, []Status{StatusReserved}, transitions[over], "%s only comes back by a new invitation", over)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	s := &Service{cfg: Config{Lease: time.Minute}}
	require.Equal(t, time.Minute, s.backoff(1))
	require.Equal(t, 2*time.Minute, s.backoff(2))
	require.Equal(t, 32*time.Minute, s.backoff(6))
	require.Equal(t, time.Hour, s.backoff(7))
	require.Equal(t, time.Hour, s.backoff(1000))
}

// Only a proven address makes a member active, case by case.
func TestKeeps(t *testing.T) {
	t.Parallel()
	row := func(status Status, send, sent int, current string) *Member {
		return &Member{Status: status, Send: send, Sent: sent, InvitationID: current}
	}
	for name, c := range map[string]struct {
		keep bool
		row  *Member
		id   string
		send int
	}{
		"the current one":                        {true, row(StatusPending, 1, 1, "inv_1"), "inv_1", 1},
		"a copy of the current one":              {false, row(StatusPending, 1, 1, "inv_1"), "inv_2", 1},
		"an older one":                           {false, row(StatusPending, 2, 2, "inv_2"), "inv_1", 1},
		"the current one while a resend runs":    {true, row(StatusPending, 2, 1, "inv_1"), "inv_1", 1},
		"the new one while a resend runs":        {true, row(StatusPending, 2, 1, "inv_1"), "inv_2", 2},
		"one that is about to be settled":        {true, row(StatusReserved, 1, 0, ""), "inv_1", 1},
		"an older one while the next is due":     {false, row(StatusReserved, 2, 1, ""), "inv_1", 1},
		"of a higher send: a restored backup":    {true, row(StatusPending, 1, 1, "inv_1"), "inv_2", 2},
		"of a higher send, row revoked":          {true, row(StatusRevoked, 1, 1, "inv_1"), "inv_2", 2},
		"of a revoked row":                       {false, row(StatusRevoked, 1, 1, "inv_1"), "inv_1", 1},
		"of a row revoked before it was settled": {false, row(StatusRevoked, 1, 0, ""), "inv_1", 1},
		"of an active row":                       {false, row(StatusActive, 1, 1, "inv_1"), "inv_1", 1},
	} {
		require.Equal(t, c.keep, keeps(c.row, &Invitation{ID: c.id}, c.send), name)
	}
}

// Which rows become a user's, decided without a store and without Clerk.
func TestResolutions(t *testing.T) {
	t.Parallel()
	valid, over := testNow.Add(time.Hour), testNow.Add(-time.Hour)
	sent := testNow.Add(-48 * time.Hour)
	row := func(tenant, id, email string, status Status, expires time.Time) *Member {
		return &Member{TenantID: tenant, ID: id, Email: email, Status: status, InvitationID: "inv_" + id, InvitedAt: &sent, ExpiresAt: &expires, ReservedAt: sent}
	}
	u := &User{ID: "user_1", PrimaryEmailID: "e1", CreatedAt: sent.Add(-time.Hour), Emails: []UserEmail{
		{ID: "e1", Address: "Ada@example.com", Verified: true}, {ID: "e2", Address: "ada@example.org", Verified: true}, {ID: "e3", Address: "ada@example.net"},
	}}
	late := *u
	late.CreatedAt = sent.Add(time.Hour)
	banned, deprovisioned, locked := *u, *u, *u
	banned.Banned, deprovisioned.Deprovisioned, locked.Locked = true, true, true
	locked.LockEndsIn = time.Minute
	active := row("a", "9", "x@example.com", StatusActive, valid)
	active.ClerkUserID = "user_1"
	for name, c := range map[string]struct {
		user               *User
		rows               []*Member
		accepted           map[string]bool
		changes, postponed map[string]Status // by ID
	}{
		"no member":                     {user: u},
		"pending":                       {u, []*Member{row("a", "1", "ada@example.com", StatusPending, valid)}, nil, map[string]Status{"1": StatusActive}, nil},
		"in two tenants":                {u, []*Member{row("a", "1", "ada@example.com", StatusPending, valid), row("b", "2", "ada@example.org", StatusReserved, valid)}, nil, map[string]Status{"1": StatusActive, "2": StatusActive}, nil},
		"unverified":                    {u, []*Member{row("a", "1", "ada@example.net", StatusPending, valid)}, nil, nil, nil},
		"revoked":                       {u, []*Member{row("a", "1", "ada@example.com", StatusRevoked, valid)}, nil, nil, nil},
		"deprovisioned":                 {&deprovisioned, []*Member{row("a", "1", "ada@example.com", StatusPending, valid)}, nil, nil, nil},
		"locked":                        {&locked, []*Member{row("a", "1", "ada@example.com", StatusPending, valid)}, nil, nil, nil},
		"banned":                        {&banned, []*Member{row("a", "1", "ada@example.com", StatusPending, valid)}, nil, nil, nil},
		"primary first, the other ends": {u, []*Member{row("a", "1", "ada@example.org", StatusPending, valid), row("a", "2", "ada@example.com", StatusPending, valid)}, nil, map[string]Status{"2": StatusActive}, map[string]Status{"1": StatusRemoved}},
		"already active":                {u, []*Member{row("a", "1", "ada@example.com", StatusPending, valid), active}, nil, map[string]Status{"1": StatusRemoved}, nil},
		"overdue":                       {u, []*Member{row("a", "1", "ada@example.com", StatusPending, over)}, nil, nil, nil},
		"overdue, account made in time": {&late, []*Member{row("a", "1", "ada@example.com", StatusPending, over)}, nil, map[string]Status{"1": StatusActive}, nil},
		"expired, accepted":             {u, []*Member{row("a", "1", "ada@example.com", StatusExpired, over)}, map[string]bool{"inv_1": true}, map[string]Status{"1": StatusActive}, nil},
		"expired stays beside another":  {u, []*Member{row("a", "1", "ada@example.org", StatusExpired, over), active}, map[string]bool{"inv_1": true}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changes, postponed := resolutions(c.user, c.rows, proof{accepted: c.accepted}, testNow)
			byID := func(changes []Change) map[string]Status {
				var out map[string]Status
				for _, ch := range changes {
					if out == nil {
						out = make(map[string]Status)
					}
					out[ch.New.ID] = ch.New.Status
					if ch.New.Status == StatusActive {
						require.Equal(t, c.user.ID, ch.New.ClerkUserID)
					} else {
						require.Equal(t, ReasonSecondAddress, ch.New.Reason)
					}
				}
				return out
			}
			require.Equal(t, c.changes, byID(changes))
			require.Equal(t, c.postponed, byID(postponed))
		})
	}
}

// When the store's clock must be measured again.
func TestSkewStale(t *testing.T) {
	t.Parallel()
	at := instant{testNow, testNow}
	for name, c := range map[string]struct {
		measured   instant
		wall, mono time.Duration // since then
		want       bool
	}{
		"never measured":                    {instant{}, 0, 0, true},
		"just now":                          {at, 0, 0, false},
		"nearly ten minutes ago":            {at, 10*time.Minute - 1, 10*time.Minute - 1, false},
		"ten minutes ago":                   {at, 10 * time.Minute, 10 * time.Minute, true},
		"corrected by a second":             {at, time.Minute + time.Second, time.Minute, false},
		"corrected by a second, backward":   {at, time.Minute - time.Second, time.Minute, false},
		"set forward":                       {at, time.Minute + time.Second + 1, time.Minute, true},
		"set back":                          {at, time.Minute - time.Second - 1, time.Minute, true},
		"set back by days":                  {at, -72 * time.Hour, time.Minute, true},
		"the machine was suspended":         {at, time.Hour, time.Second, true},
		"set back while it was suspended":   {at, time.Second, time.Second, false}, // nothing has changed
		"a monotonic clock that was halted": {at, 2 * time.Second, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := instant{testNow.Add(c.wall), testNow.Add(c.mono)}
			require.Equal(t, c.want, skew{measured: c.measured}.stale(now, time.Second))
		})
	}
}

func TestNewSkew(t *testing.T) {
	t.Parallel()
	after := func(wall, mono time.Duration) instant { return instant{testNow.Add(wall), testNow.Add(mono)} }
	for name, c := range map[string]struct {
		returned instant
		stored   time.Time
		want     skew
	}{
		"no clock":                     {after(time.Minute, time.Minute), time.Time{}, skew{}},
		"equal, at once":               {after(0, 0), testNow, skew{}},
		"ahead":                        {after(0, 0), testNow.Add(5 * time.Minute), skew{ahead: 5 * time.Minute}},
		"behind":                       {after(0, 0), testNow.Add(-5 * time.Minute), skew{ahead: -5 * time.Minute}},
		"read halfway":                 {after(time.Second, time.Second), testNow.Add(time.Minute + time.Second/2), skew{ahead: time.Minute, inexact: time.Second / 2}},
		"set forward in the meantime":  {after(time.Hour, 0), testNow, skew{ahead: -time.Hour / 2, inexact: time.Hour / 2}},
		"set back in the meantime":     {after(-time.Hour, 0), testNow, skew{ahead: time.Hour / 2, inexact: time.Hour / 2}},
		"suspended in the meantime":    {after(time.Hour, time.Second), testNow.Add(time.Hour), skew{ahead: time.Hour / 2, inexact: time.Hour / 2}},
		"a test's clock, slow machine": {after(0, time.Second), testNow, skew{inexact: time.Second / 2}},
		"to the microsecond":           {after(0, 0), testNow.Add(1499), skew{ahead: time.Microsecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.want.measured = c.returned
			require.Equal(t, c.want, newSkew(after(0, 0), c.returned, c.stored))
		})
	}
}

// A measurement replaces one that is stale or less exact.
func TestNoteSkew(t *testing.T) {
	t.Parallel()
	later := instant{testNow.Add(time.Second), testNow.Add(time.Second)}
	for name, c := range map[string]struct {
		known, measured skew
		want            time.Duration
	}{
		"first":        {skew{}, skew{2, 9, later}, 2},
		"more exact":   {skew{1, 9, instant{testNow, testNow}}, skew{2, 8, later}, 2},
		"as exact":     {skew{1, 9, instant{testNow, testNow}}, skew{2, 9, later}, 1},
		"less exact":   {skew{1, 9, instant{testNow, testNow}}, skew{2, 10, later}, 1},
		"clock is set": {skew{1, 9, instant{testNow.Add(-time.Hour), testNow}}, skew{2, 10, later}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := storeClock{last: c.known}
			clock.note(c.measured, time.Second)
			require.Equal(t, c.want, clock.ahead())
		})
	}
}

// A limit lasts as long as Clerk says, but no longer than Clerk's limits do. Background passes wait longer, in proportion.
func TestLimitWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ told, create, createMargin, other time.Duration }{
		{time.Second, time.Second, time.Second, time.Second},
		{30 * time.Second, 30 * time.Second, 30 * time.Second, 30 * time.Second},
		{time.Minute, time.Minute, time.Minute, time.Minute},
		{61 * time.Second, 61 * time.Second, time.Minute, time.Minute},
		{time.Hour, time.Hour, time.Minute, time.Minute},
		{24 * time.Hour, time.Hour, time.Minute, time.Minute},
		{math.MaxInt64, time.Hour, time.Minute, time.Minute},
		{0, time.Minute, time.Minute, time.Minute},
		{-time.Hour, time.Minute, time.Minute, time.Minute},
		{math.MinInt64, time.Minute, time.Minute, time.Minute},
	} {
		for _, endpoint := range []string{endpointCreate, endpointCreateBulk} {
			require.Equal(t, c.create, limitWait(endpoint, c.told), c.told)
			require.Equal(t, c.createMargin, limitMarginOf(endpoint, c.create), c.told)
		}
		for _, endpoint := range []string{endpointFindUsers, endpointGetUser, endpointList, endpointRevoke} {
			require.Equal(t, c.other, limitWait(endpoint, c.told), c.told)
			require.Zero(t, limitMarginOf(endpoint, c.other), c.told)
		}
	}
}

// The memory of a limit follows the store, unless a clock is wrong.
func TestLimitsLoaded(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return testNow.Add(time.Duration(minutes) * time.Minute) }
	for name, c := range map[string]struct {
		endpoint         string
		known            limit
		stored           time.Time
		wait, background time.Duration // afterwards
	}{
		"nothing known":                    {endpointCreate, limit{}, time.Time{}, 0, 0},
		"another's, create":                {endpointCreate, limit{}, at(30), 0, 30 * time.Minute},
		"another's":                        {endpointList, limit{}, at(1), time.Minute, time.Minute},
		"another's has ended":              {endpointList, limit{}, at(-1), 0, 0},
		"a later one of another":           {endpointCreate, limit{until: at(5), padded: at(6), stored: at(6)}, at(30), 5 * time.Minute, 30 * time.Minute},
		"ours":                             {endpointCreate, limit{until: at(5), padded: at(6), stored: at(6)}, at(6), 5 * time.Minute, 6 * time.Minute},
		"ours was deleted":                 {endpointCreate, limit{until: at(5), padded: at(6), stored: at(6)}, time.Time{}, 0, 0},
		"ours was deleted, a minute stays": {endpointCreate, limit{until: at(5), padded: at(6), stored: at(6)}, at(1), time.Minute, time.Minute},
		"ours could not be shared":         {endpointCreate, limit{until: at(5), padded: at(6)}, time.Time{}, 5 * time.Minute, 6 * time.Minute},
		"ours could not be shared, an older one ended": {endpointList, limit{until: at(1), padded: at(1)}, at(-9), time.Minute, time.Minute},
		"years ahead":            {endpointCreate, limit{until: at(5), padded: at(6), stored: at(6)}, at(1e6), 5 * time.Minute, 6 * time.Minute},
		"too long for a look-up": {endpointFindUsers, limit{}, at(60), 0, 0},
		"a clock that is ahead":  {endpointFindUsers, limit{}, at(5), 5 * time.Minute, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &limits{byEndpoint: map[string]*limit{c.endpoint: &c.known}}
			l.loaded(c.endpoint, c.stored, testNow, c.known.hits)
			require.Equal(t, c.wait, max(0, l.wait(c.endpoint, false, testNow)))
			require.Equal(t, c.background, max(0, l.wait(c.endpoint, true, testNow)))
		})
	}
}

// A read that began before this process met the limit does not lift it.
func TestLimitsLoaded_Late(t *testing.T) {
	t.Parallel()
	l := &limits{}
	seen := l.hits(endpointCreate)
	until := testNow.Add(time.Hour)
	l.change(endpointCreate, func(m *limit) { *m = limit{until: until, padded: until, stored: until, hits: m.hits + 1} })
	l.loaded(endpointCreate, time.Time{}, testNow, seen)
	require.Equal(t, time.Hour, l.wait(endpointCreate, false, testNow))
}

// limitedStore calls between after it has stored a time, once.
type limitedStore struct {
	Store
	stored  time.Time
	between func()
}

func (s *limitedStore) Clock(context.Context) (time.Time, error) { return time.Time{}, nil }

func (s *limitedStore) SwapTime(_ context.Context, _ string, old, next time.Time) (time.Time, error) {
	if s.stored.Equal(old) {
		s.stored = next
	}
	stored, between := s.stored, s.between
	if s.between = nil; between != nil {
		between()
	}
	return stored, nil
}

// If two requests meet a limit, the later limit stays, although the earlier one is stored first and loaded last.
func TestNoteLimit_Concurrent(t *testing.T) {
	t.Parallel()
	store := &limitedStore{}
	s, err := New(Config{API: struct{ ClerkAPI }{}, Store: store, Now: func() time.Time { return testNow }})
	require.NoError(t, err)
	meet := func(wait time.Duration) {
		_ = s.noteLimit(t.Context(), endpointCreate, &APIError{StatusCode: 429, RetryAfter: wait})
	}
	store.between = func() { meet(time.Hour) }
	meet(10 * time.Minute)
	require.Equal(t, time.Hour, s.limits.wait(endpointCreate, false, testNow))
}

// foundStore finds the same members for each query.
type foundStore struct {
	Store
	rows []*Member
}

func (s foundStore) Find(context.Context, Query) ([]*Member, error) { return s.rows, nil }

// An invitation that is twice in Clerk's list has its member twice.
func TestWithMembers_Repeated(t *testing.T) {
	t.Parallel()
	row := resentRow()
	row.ID = "0196f000-0000-7000-8000-000000000001"
	s, err := New(Config{API: struct{ ClerkAPI }{}, Store: foundStore{rows: []*Member{&row}}})
	require.NoError(t, err)
	inv := Invitation{ID: "inv_1", Email: row.Email, PublicMetadata: withMark(nil, mark{row.ID, 1})}
	list, err := s.withMembers(t.Context(), []Invitation{inv, inv})
	require.NoError(t, err)
	require.Len(t, list, 2)
	for _, l := range list {
		require.Equal(t, &row, l.row)
		require.Empty(t, l.adopters)
	}
}

// A limit ends if the clock is set back.
func TestLimitsWait_ClockSetBack(t *testing.T) {
	t.Parallel()
	l := &limits{byEndpoint: map[string]*limit{endpointCreate: {until: testNow.Add(time.Hour), padded: testNow.Add(61 * time.Minute)}}}
	for _, background := range []bool{false, true} {
		require.Positive(t, l.wait(endpointCreate, background, testNow))
		require.Zero(t, l.wait(endpointCreate, background, testNow.AddDate(-1, 0, 0)))
	}
}

// A limit that cannot be true, because the clock was set back, ends with the next response. Otherwise all requests would
// wait for each other until the clock gets there.
func TestLimitsProbe_ClockSetBack(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var l limits
	l.change(endpointGetUser, func(m *limit) { m.until = now.Add(30 * time.Second) })
	now = now.Add(-24 * time.Hour)
	_, first := l.startProbe(endpointGetUser)
	require.True(t, first)
	l.endProbe(endpointGetUser, now, true)
	probe, _ := l.startProbe(endpointGetUser)
	require.Nil(t, probe)
}

// A create that was let through after a limit, but whose lease ended before it was sent, has shown nothing: the next
// request is still alone.
func TestStartCreate_LeaseEndsBeforeTheProbe(t *testing.T) {
	t.Parallel()
	s := &Service{cfg: Config{Now: func() time.Time { return testNow }, Lease: time.Minute}}
	s.limits.change(endpointCreate, func(m *limit) { m.until = testNow.Add(-time.Second) })
	_, err := s.startCreate(t.Context(), &pass{lease: lease{length: time.Minute, claimedAt: testNow.Add(-time.Hour)}}, &applicationEndpoints, endpointCreate, false)
	require.ErrorIs(t, err, errLeaseEnds)
	_, first := s.limits.startProbe(endpointCreate)
	require.True(t, first)
}

// The share lets 86 single creates through per hour. A window begins with the first one, wherever in Clerk's hour.
func TestSpend(t *testing.T) {
	t.Parallel()
	for _, began := range []time.Time{testNow, testNow.Add(41*time.Minute + 123456789), testNow.In(time.FixedZone("", 1800))} {
		t.Run(fmt.Sprint(began), func(t *testing.T) {
			t.Parallel()
			var share time.Time
			var wait time.Duration
			for i := range applicationEndpoints.shareCreates {
				share, wait = spend(share, began.Add(time.Duration(i)*30*time.Second), applicationEndpoints.shareCreates)
				require.Zero(t, wait, i)
				require.Equal(t, share.Truncate(time.Microsecond), share, "as a store keeps it")
			}
			for _, after := range []time.Duration{50 * time.Minute, time.Hour} {
				next, wait := spend(share, began.Add(after), applicationEndpoints.shareCreates)
				require.Equal(t, share, next)
				require.InDelta(t, shareWindow-after, wait, float64(time.Second))
				require.Positive(t, wait)
				// After the wait, a whole window is free again.
				next, wait = spend(share, began.Add(after).Add(wait), applicationEndpoints.shareCreates)
				require.Zero(t, wait)
				require.EqualValues(t, 1, next.Sub(next.Truncate(time.Second))/time.Microsecond)
			}
		})
	}
	t.Run("another process's clock", func(t *testing.T) {
		t.Parallel()
		spent := testNow.Add(time.Duration(applicationEndpoints.shareCreates) * time.Microsecond)
		_, wait := spend(spent, testNow.Add(-4*time.Minute), applicationEndpoints.shareCreates)
		require.Positive(t, wait)
		_, wait = spend(spent, testNow.Add(-6*time.Minute), applicationEndpoints.shareCreates)
		require.Zero(t, wait, "it is not believed")
	})
}

// Any ten seconds have at most 75 requests, three quarters of a development instance's limit.
func TestPace(t *testing.T) {
	t.Parallel()
	p := &pace{}
	now := testNow
	var sent []time.Time
	for i := range 1000 {
		if i == 500 {
			now = now.Add(time.Hour) // an hour without a request saves up no more than the burst
		}
		now = now.Add(max(0, p.next(now)))
		sent = append(sent, now)
	}
	for i, first := range sent {
		n := 0
		for _, at := range sent[i:] {
			if at.Sub(first) < 10*time.Second {
				n++
			}
		}
		require.LessOrEqual(t, n, 75)
	}
	require.Equal(t, sent[0], sent[24], "the burst")
	require.InDelta(t, 475.0/5, sent[499].Sub(sent[0]).Seconds(), 1)
}
