package main

import "strings"

// mutant is a fault, and the test that must fail with it.
type mutant struct {
	name  string
	test  string
	pkg   string // of the test; "" is the root
	edits []edit
}

// edit replaces a text that the file has exactly once.
type edit struct{ file, old, now string }

func (m mutant) in() string {
	if m.pkg == "" {
		return "."
	}
	return m.pkg
}

// top is the test function, and pattern what selects the test.
func (m mutant) top() string {
	top, _, _ := strings.Cut(m.test, "/")
	return top
}

func (m mutant) pattern() string {
	return "^" + strings.ReplaceAll(m.test, "/", "$/^") + "$"
}

var mutants = []mutant{
	// Uniqueness and compare-and-swap.
	{name: "an update ignores the version", test: "TestPgxStore/cache_statement/Update/Conflict", edits: []edit{
		{"internal/pgsql/update.sql", "m.id = i.id AND m.version = i.old_version\n	ORDER BY", "m.id = i.id\n	ORDER BY"},
		{"internal/pgsql/part_changed.sql", "m.id = i.id AND m.version = i.old_version AND NOT i.erase", "m.id = i.id AND NOT i.erase"},
	}},
	{name: "any state change is allowed", test: "TestApplyAsksTheTable", edits: []edit{
		{"state.go", "return from == to || slices.Contains(transitions[from], to)", "return from == to || to != \"\" || slices.Contains(transitions[from], to)"},
	}},
	{name: "a lost response to a write counts as a failure", test: "TestPgxStoreLostResponses", pkg: "./internal/attacks", edits: []edit{
		{"store_pgx.go", "mayBeApplied = mayBeApplied || effect", "mayBeApplied = mayBeApplied && effect"},
	}},
	{name: "a state change leaves no history", test: "TestPgxStore/cache_statement/History/.*", edits: []edit{
		{"internal/pgsql/part_changed.sql", "FROM changed WHERE recorded", "FROM changed WHERE recorded AND false"},
	}},
	{name: "a claim is its caller's change", test: "TestActorOfEachChange", edits: []edit{
		{"state.go", "			if c.Recorded() {\n				c.New.ChangedBy", "			if c.New != nil {\n				c.New.ChangedBy"},
	}},
	{name: "an invalid actor is stored", test: "TestInvalidActor", edits: []edit{
		{"lease.go", "if err := checkActor(ctx); err != nil {", "if err := checkActor(ctx); err != nil && st == nil {"},
	}},
	{name: "a change of the role leaves no history", test: "TestUpdateAndHistory", edits: []edit{
		{"store.go", "c.Old.Role != c.New.Role || c.Old.Email", "c.Old.Email"},
	}},
	{name: "the address of an invited member changes", test: "TestApplyAsksTheTable", edits: []edit{
		{"state.go", "c.Old.Email != c.New.Email && !c.keepsActive()", "c.Old.Email != c.New.Email && c.New == nil"},
	}},
	{name: "a taken address aborts the host's transaction", test: "TestPgxStoreWithTx", edits: []edit{
		{"store_pgx.go", "c.New.ClerkUserID != c.Old.ClerkUserID || c.New.Email != c.Old.Email)", "c.New.ClerkUserID != c.Old.ClerkUserID)"},
	}},

	{name: "an erasure that a host's key refuses panics", test: "TestPgxStore_HostKeyViolatedByATrigger", edits: []edit{
		{"store_pgx_rows.go", "len(changes) > 1, changes[0].New == nil:", "len(changes) > 1:"},
	}},
	{name: "a large list is inserted in its own order", test: "TestManyInsertInOneOrder", edits: []edit{
		{"many.go", "	sortRows(m.wanted, todo)\n", ""},
	}},

	// One email per send.
	{name: "no claim is respected", test: "TestPromise1_ConcurrentInvitesFromManyProcesses", pkg: "./internal/attacks", edits: []edit{
		{"lease.go", "return m.ClaimedUntil != nil && m.ClaimedUntil.After(now) && m.ClaimedUntil.Before(now.Add(2*maxLease))",
			"return m.ClaimedUntil != nil && m.ClaimedUntil.After(now) && m.ClaimedUntil.Before(now)"},
	}},
	{name: "the lease is released after an uncertain response", test: "TestTheLibraryFollowsTheModel", pkg: "./internal/model/protocol", edits: []edit{
		{"verdict.go", "		return verdict{kind: isUncertain, op: c.op, err: err}",
			"		return verdict{kind: isPostponed, op: c.op, err: err, dueAt: now}"},
	}},
	{name: "an uncertain response counts as a failure", test: "TestClassify", edits: []edit{
		{"verdict.go", "		if c.sends {\n			return OutcomeUncertain", "		if c.sends {\n			return OutcomeFault"},
	}},
	{name: "adoption is skipped", test: "TestPromise3_LostResponses/memory", edits: []edit{
		{"deliver_find.go", "	case InvitationPending:\n		return verdict{kind: isInvited, invitation: own}", "	case InvitationPending:\n		return verdict{}"},
	}},
	{name: "the next attempt does not look first", test: "TestInvite_AfterALostInvitationHasEnded", edits: []edit{
		{"deliver_create.go", "if a.isRetry() || a.hasEarlierSends() ||", "if a.hasEarlierSends() ||"},
	}},
	{name: "every create sets ignore_existing", test: "TestPromise3_LateCreate", edits: []edit{
		{"deliver_create.go", "		return s.api.CreateInvitation(ctx, a.invitationRequest(ignoreExisting))", "		return s.api.CreateInvitation(ctx, a.invitationRequest(ignoreExisting || a.row != nil))"},
	}},
	{name: "a row is settled before the call", test: "TestPromise3_LostResponses/memory", edits: []edit{
		{"deliver_create.go", "	inv, err := exchange(ctx, s, e.create,",
			`	a.verdict = verdict{kind: isInvited, invitation: &Invitation{ID: "inv_early"}}
	s.settle(ctx, p.lease, a)
	a.row, a.delivery, a.verdict = a.delivery.Member, nil, verdict{}
	inv, err := exchange(ctx, s, e.create,`},
	}},
	{name: "a create starts at the end of the lease", test: "TestInvite_WaitForATransactionDoesNotUseUpTheLease", edits: []edit{
		{"lease.go", "return time.Since(l.started) < l.length/2 && now.Sub(l.claimedAt) < l.length/2",
			"return time.Since(l.started) < 100*l.length && now.Sub(l.claimedAt) < 100*l.length"},
	}},
	{name: "an overtaken attempt drops its result", test: "TestUpdateDuringDelivery", edits: []edit{
		{"deliver_settle.go", "case row.Due() && row.Send == a.row.Send:", "case row.Due() && row.Send < a.row.Send:"},
	}},
	{name: "an attempt keeps a claim on a member that the host has updated", test: "TestUpdateDuringDelivery_RateLimit/memory", edits: []edit{
		{"deliver_settle.go", "a.verdict.keepsWaiting() && !row.hasClaimOf(a.row):", "a.verdict.keepsWaiting():"},
	}},
	{name: "a create is sent again on another connection", test: "TestCreateIsSentOnceOnReusedConnection", pkg: "./clerkapi", edits: []edit{
		{"clerkapi/exchange.go", "req.Body, req.ContentLength, req.GetBody = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil",
			`req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Header.Set("Idempotency-Key", "same")`},
	}},

	// Honest outcomes.
	{name: "a failed invitation waits although the host wants it withdrawn", test: "TestWithdrawOnFailure_EveryFault/memory", pkg: "./internal/attacks", edits: []edit{
		{"verdict.go", "	case isUncertain, isPostponed:\n		return w != \"\"\n", "	case isUncertain, isPostponed:\n		return w == \"never\"\n"},
	}},
	{name: "a rate limit withdraws invitations whose callers wait", test: "TestWithdrawOnFailure_RateLimits/InviteMany_with_Wait", pkg: "./internal/attacks", edits: []edit{
		{"verdict.go", "		return w == onDelay\n", "		return w != \"\"\n"},
	}},
	{name: "a rate limit of a list withdraws invitations whose callers wait", test: "TestWithdrawOnFailure_AnyRequestMeetsALimit/list_for_a_create", pkg: "./internal/attacks", edits: []edit{
		{"verdict.go", "		if failureOf(err, \"\") == rateLimited {\n			return verdict{kind: isLimited", "		if failureOf(err, \"\") == rateLimited && c.sends {\n			return verdict{kind: isLimited"},
	}},
	{name: "an attempt that had to wait after a bulk request counts as failed", test: "TestWithdrawOnFailure_LimitAfterARejectedBulkRequest/Deliver_keeps_partial", pkg: "./internal/attacks", edits: []edit{
		{"deliver.go", "		earlier--\n", "		earlier -= 0\n"},
	}},
	{name: "the parameters of an open invitation change", test: "TestInvite_ParametersOfAnOpenInvitation/temporary_lock/memory", edits: []edit{
		{"state.go", "	if mayHaveEffect {", "	if mayHaveEffect && m.Attempts > 100 {"},
	}},
	{name: "parameters cannot be corrected after attempts that sent nothing", test: "TestInvite_CorrectsParametersAfterAttemptsThatSentNothing", edits: []edit{
		{"deliver.go", ", m.mayHaveEffect()}", ", m.Attempts > 0}"},
	}},
	{name: "an attempt that sent nothing forgets an earlier one", test: "TestInvite_CorrectsParametersAfterAttemptsThatSentNothing", edits: []edit{
		{"deliver.go", ", m.mayHaveEffect()}", ", m.ID == \"\"}"},
	}},
	{name: "a failed purge forgets that Clerk may have the invitation", test: "TestInvite_ParametersOfAnOpenInvitation/Purge_fails/memory", edits: []edit{
		{"withdraw.go", "next.ClaimedUntil = c.before.ClaimedUntil", "next.ClaimedUntil = nil"},
	}},
	{name: "an attempt after a bulk request does not count", test: "TestPromise4_RevokeOfALockedUserWithAnOpenInvitation", edits: []edit{
		{"verdict.go", "if v.uncounted && !a.bulkRejected {", "if v.uncounted {"},
	}},
	{name: "an invitation is sent after its caller has gone away", test: "TestWithdrawOnFailure_CallerGoesAway", pkg: "./internal/attacks", edits: []edit{
		{"deliver.go", "	p.lastTry = true\n", ""},
	}},
	{name: "an invitation that must be tried once is tried again", test: "TestPromise4_WithdrawOnFailureAfterACrash/Deliver", pkg: "./internal/attacks", edits: []edit{
		{"deliver.go", "!= \"\" && earlier > 0", "!= \"\" && earlier > 100"},
	}},
	{name: "a withdrawn invitation stays open", test: "TestPromise4_WithdrawOnFailureRevokes/memory", pkg: "./internal/attacks", edits: []edit{
		{"deliver.go", "request may have created one\n		return true\n", "request may have created one\n		return a.hasEarlierRequests()\n"},
	}},
	{name: "a resend continues a send that was given up", test: "TestWithdrawOnFailure_ResendAfterACrash/Resend", pkg: "./internal/attacks", edits: []edit{
		{"resend.go", "if row.Due() && params.Withdraw == \"\" {", "if row.Due() {"},
	}},
	{name: "a resend is not tried once", test: "TestWithdrawOnFailure_ResendTakesTheServicesChoice", pkg: "./internal/attacks", edits: []edit{
		{"resend.go", "w != params.Withdraw {", "w != params.Withdraw && w != onDelay {"},
	}},
	{name: "a withdrawn invitation counts as postponed", test: "TestWithdrawOnFailure_RateLimits/Reserve", pkg: "./internal/attacks", edits: []edit{
		{"deliver.go", "d.Err != nil && m != nil && m.Due():", "d.Err != nil && m != nil:"},
	}},
	{name: "a refused invitation is reported as queued", test: "TestClerkInvitationError_Queued", edits: []edit{
		{"errors.go", "return e.Outcome != OutcomeRefused && e.Member != nil", "return e.Member != nil"},
	}},
	{name: "RetryAfter believes a proxy", test: "TestRetryAfter_Bounds", edits: []edit{
		{"errors.go", "			return limitWait(endpointCreate, api.RetryAfter), true", "			return api.RetryAfter, true"},
	}},

	// Clocks.
	{name: "limits are compared with a clock that was set", test: "TestDeliver_ClockSetBeforeTheTurn", edits: []edit{
		{"deliver.go", "	err = s.setClock(ctx, s.store) // Config.Now", "	err = nil // Config.Now"},
	}},
	{name: "a process uses its own clock", test: "TestPromise3_OneEmailWithWrongClocks", pkg: "./internal/attacks", edits: []edit{
		{"lease.go", "	return c.last.ahead\n", "	return c.last.ahead * 0\n"},
	}},
	{name: "a change of the clock is not noticed", test: "TestClock_IsMeasuredAgain", pkg: "./internal/attacks", edits: []edit{
		{"lease.go", "|| drift.Abs() > tolerance", "|| drift.Abs() > 1000*time.Hour"},
	}},
	{name: "the clock is measured once", test: "TestClock_IsMeasuredAgain", pkg: "./internal/attacks", edits: []edit{
		{"lease.go", "|| age >= maxClockAge ||", "|| age >= 1000*maxClockAge ||"},
	}},
	{name: "a slow measurement is believed", test: "TestClock_SlowResponses", pkg: "./internal/attacks", edits: []edit{
		{"lease.go", "if best.inexact <= tolerance {", "if best.inexact <= 1000*time.Hour {"},
	}},
	{name: "a failed measurement is ignored", test: "TestClock_Fails", pkg: "./internal/attacks", edits: []edit{
		{"lease.go", "		if err != nil {\n			return err\n		}\n		returned", "		if err != nil {\n			return nil\n		}\n		returned"},
	}},
	{name: "a claim does not measure the clock", test: "TestClock_IsMeasuredAgain", pkg: "./internal/attacks", edits: []edit{
		{"lease.go", "	err := s.setClock(ctx, s.store)\n", "	err := ctx.Err()\n"},
	}},
	{name: "a change of the clock during a request is not noticed", test: "TestClock_IsSetDuringARequest", pkg: "./internal/attacks", edits: []edit{
		{"ratelimit.go", "	s.refreshClock(ctx)\n", ""},
	}},
	{name: "a lease is longer than Config.Lease", test: "TestLease_IsNotLonger", pkg: "./internal/attacks", edits: []edit{
		{"lease.go", "until := now.Add(s.cfg.Lease - random)", "until := now.Add(s.cfg.Lease + random)"},
	}},
	{name: "the clock returns the start of the transaction", test: "TestPgxStoreClock", pkg: "./internal/attacks", edits: []edit{
		{"store_pgx.go", "SELECT clock_timestamp()", "SELECT now()"},
	}},
	{name: "callers get the database's time", test: "TestClock_CallersGetTheirOwnTime", pkg: "./internal/attacks", edits: []edit{
		{"lease.go", "return t.Add(-s.clock.ahead())", "return t.Add(0 * s.clock.ahead())"},
	}},

	// Which members are delivered, and when.
	{name: "DeliverMembers without refs delivers all members", test: "TestDeliverMembers", edits: []edit{
		{"deliver.go", "	todo, err := normalizedRefs(refs)\n", "	todo, err := normalizedRefs(refs)\n	if len(refs) == 0 {\n		return s.Deliver(ctx, nil)\n	}\n"},
	}},
	{name: "parameters change although Clerk may have the invitation", test: "TestInvite_FixedConfiguration", edits: []edit{
		{"invite.go", "	case !old.mayHaveEffect():\n", "	case old.ID != \"\":\n"},
	}},
	{name: "an interrupted purge counts as an attempt", test: "TestInvite_TakesOverAnEndedClaim", edits: []edit{
		{"state.go", "m.ClaimedUntil != nil && m.Attempts > 0 }", "m.ClaimedUntil != nil }"},
	}},
	{name: "a new send keeps the claim of an earlier one", test: "TestInvite_TakesOverAnEndedClaim", edits: []edit{
		{"invite.go", "n.ClaimedUntil = now, &now, nil", "n.ClaimedUntil = now, &now, old.ClaimedUntil"},
	}},
	{name: "one rejection after an outage refuses a person", test: "TestDeliver_RejectedOnceAfterAnOutage", edits: []edit{
		{"verdict.go", "again := row.Attempts >= firstFinalAttempt && row.Reason == clip(reasonOf(err))", "again := row.Attempts >= firstFinalAttempt"},
	}},
	{name: "rejections in quick succession refuse a person", test: "TestInvite_QuickAttemptsDecideNothing/Invite/none/memory", edits: []edit{
		{"verdict.go", "again && !c.early && !c.several", "again && !c.several"},
	}},
	{name: "a short Retry-After brings rejections together", test: "TestFailureVerdict", edits: []edit{
		{"verdict.go", "ok && (told > wait || !failureOf(err, \"\").rejects())", "ok"},
	}},
	{name: "an early attempt that is released makes the next one due", test: "TestInvite_QuickAttemptsDecideNothing/Resend/canceled/memory", edits: []edit{
		{"verdict.go", "if a.claim.wasDueAt.After(dueAt) {", "if a.claim.wasDueAt.IsZero() {"},
	}},
	{name: "two rejections in quick succession allow ignore_existing", test: "TestDeliver_HiddenHolderNeedsTwoRejections", edits: []edit{
		{"deliver_create.go", "codeIdentifierExists && !a.early", "codeIdentifierExists"},
	}},
	{name: "a caller's own member is a duplicate, if another attempt delivers it", test: "TestInvite_OvertakenAfterASlowInsert", edits: []edit{
		{"invite.go", "		return overtaken(dup.Member)\n", "		return nil, r.Err\n"},
	}},
	{name: "a claim from the future blocks a member", test: "TestInvite_ClaimFromAClockThatWasAhead", edits: []edit{
		{"lease.go", "		!m.UpdatedAt.After(now.Add(clockTolerance))\n", "		true\n"},
	}},
	{name: "a limit is counted from the end of the pass", test: "TestDeliver_AllWhoWaitForALimitAreDueAtTheSameTime", edits: []edit{
		{"deliver_create.go", "\"create invitation\", limit))\n\t\t} else {", "\"create invitation\", limitIn(limit.err, s.now())))\n\t\t} else {"},
	}},

	// Left-over invitations, and no others, are revoked.
	{name: "the winner's invitation is revoked", test: "TestTheLibraryFollowsTheModel", pkg: "./internal/model/protocol", edits: []edit{
		{"deliver_settle.go", "!a.verdict.adopted && !slices.ContainsFunc(rows, func(m *Member) bool { return m.InvitationID == id })", "!a.verdict.adopted"},
	}},
	{name: "a left-over invitation stays open", test: "TestWithdrawDuringDelivery", edits: []edit{
		{"deliver_settle.go", "if !a.verdict.adopted && !slices", "if a.verdict.adopted && !slices"},
	}},
	{name: "an overtaken attempt revokes an invitation that another tenant's member waits for", test: "TestPromise3_AdoptedInvitationOfAnEndedAttemptStays", edits: []edit{
		{"deliver_settle.go", "Query{IDs: []string{a.row.ID}, Emails: []string{a.row.Email}}", "Query{IDs: []string{a.row.ID}}"},
	}},
	{name: "a resend leaves the older invitation open", test: "TestResend/memory", edits: []edit{
		{"deliver.go", "return a.hasEarlierSends() && !a.olderRevoked\n", "return a.hasEarlierSends() && a.olderRevoked\n"},
	}},
	{name: "a resend whose invitation was revoked leaves the older one open", test: "TestPromise4_ResendRevokedAtClerk", edits: []edit{
		{"deliver.go", "which has ended\n		return a.hasEarlierSends()\n", "which has ended\n		return a.hasEarlierSends() && a.olderRevoked\n"},
	}},
	{name: "a resend that links leaves the older invitation open", test: "TestResend_RevokesTheOlderInvitationOfAUser", edits: []edit{
		{"deliver.go", "return a.hasEarlierSends() || a.hasEarlierRequests()", "return a.hasEarlierRequests()"},
	}},
	{name: "the invitation of a pending row is not kept", test: "TestKeeps", edits: []edit{
		{"deliver_leftovers.go", "return row.InvitationID == inv.ID || underWay", "return underWay"},
	}},
	{name: "a resend leaves the older invitation open, if it has no marker", test: "TestPromise4_ResendOfAnImportedMember", edits: []edit{
		{"deliver_leftovers.go", "		return inv.ID == previous\n", "		return inv.ID != previous\n"},
	}},
	{name: "a resend kills another tenant's link", test: "TestPromise4_ResendOfAnImportedMember", edits: []edit{
		{"deliver_leftovers.go", "!ours && list[i].ID == previous {", "!ours && list[i].ID == \"\" {"},
	}},
	{name: "every duplicate costs a list request", test: "TestInvite_PendingDuplicateThatHasEndedAtClerk", edits: []edit{
		{"invite.go", "	noted, err := s.changeOne(ctx, row, &unchanged)\n", "	noted, err := &unchanged, ctx.Err()\n"},
	}},
	{name: "a duplicate whose invitation is not listed counts as revoked", test: "TestInvite_PendingDuplicateThatHasEndedAtClerk", edits: []edit{
		{"invite.go", "	for i := range list {\n		if m, ours", "	next = asEndedAtClerk(row, InvitationRevoked, now)\n	for i := range list {\n		if m, ours"},
	}},
	{name: "a duplicate is removed with another instance's key", test: "TestInvite_ActiveDuplicateWithAnotherInstancesKey", edits: []edit{
		{"invite.go", "if ours, err := s.proveKeyFor(ctx, row); err != nil || !ours {", "if _, err := s.proveKeyFor(ctx, row); err != nil {"},
	}},
	{name: "an error of the store counts as a duplicate", test: "TestPromise6_StaleDuplicateWhoseUpdateFails/address_given_up,_second_write/memory/store", edits: []edit{
		{"invite.go", "		err = cmp.Or(failure, err)\n", "		_ = failure\n"},
	}},
	{name: "a conflict over a stale duplicate is an error", test: "TestPromise6_StaleDuplicateWhoseUpdateFails/revoked,_second_write/memory/conflict", edits: []edit{
		{"invite.go", "	case errors.Is(err, ErrConflict):\n		return false, nil\n	}\n	return free, err", "	}\n	return free, err"},
	}},
	{name: "a resend trusts a list that lags", test: "TestPromise4_ResendWhileClerksListLags", edits: []edit{
		{"deliver_leftovers.go", "if previous != \"\" && !listed {", "if previous == \"\" && !listed {"},
	}},
	{name: "Purge trusts a list that lags", test: "TestPromise4_PurgeWhileClerksListLags", edits: []edit{
		{"withdraw.go", "		return accepted, s.revokeUnlisted(ctx, row)\n", "		return accepted, nil\n"},
	}},
	{name: "Purge trusts the list after a revocation during an attempt", test: "TestPromise4_PurgeAfterALostResponse/revoked", edits: []edit{
		{"withdraw.go", "			ended.ClaimedUntil = ended.SettledAt // so that Purge waits for a lease; see justWithdrawn\n", ""},
	}},
	{name: "Purge trusts the list after a withdrawal", test: "TestPromise4_PurgeAfterALostResponse/withdrawn", edits: []edit{
		{"verdict.go", "			n.ClaimedUntil = &now // not a claim: justWithdrawn makes Purge wait for a lease after it\n", ""},
	}},
	{name: "another application's invitations are revoked", test: "TestPromise4_ReconcileRevokesOnlyLeftOvers", edits: []edit{
		{"reconcile_invitations.go", "				r.report.Unknown++ // may belong to another application", "				leftOver = append(leftOver, RevokeRequest{l.ID, l.OrganizationID})"},
	}},
	{name: "a user with the address counts as a member of the organization", test: "TestOrganization/NewPerson", edits: []edit{
		{"pending.go", " || !p.isMember(u, row) {\n\t\t\tcontinue", " {\n\t\t\tcontinue"},
	}},
	{name: "existing users are added without being asked", test: "TestOrganization/ExistingUser", edits: []edit{
		{"organization.go", "case a.params.Organization.AddExisting:", "case a.params.Organization != nil:"},
	}},
	{name: "a membership ends that no attempt can have created", test: "TestOrganization_WithdrawKeepsAMembershipOfOthers/Revoke/nothing_was_sent", edits: []edit{
		{"organization.go", "m.Due() && m.mayHaveEffect()\n", "m.Due() && m.Attempts > 0\n"},
	}},
	{name: "a membership ends that another tenant needs", test: "TestOrganization_WithdrawKeepsAMembershipOfOthers/Revoke/another_tenant_needs_it", edits: []edit{
		{"organization.go", "	err = s.removeUnneeded(ctx, row, u, p)\n	if errors.Is(err, ErrLastAdmin) { // the user", "	err = s.removeMember(ctx, row.organization(), u.ID)\n	if errors.Is(err, ErrLastAdmin) { // the user"},
	}},
	{name: "members that cannot be claimed come back before all others", test: "TestMembersThatCannotBeClaimedBlockNobody", edits: []edit{
		{"deliver.go", "	p.unclaimable, b.unclaimable = unclaimable, unclaimable\n", ""},
	}},
	{name: "a hook without a deadline", test: "TestHookThatBlocksWithoutADeadline", edits: []edit{
		{"store_pgx.go", "	left := hookTime\n", "	left := 24 * time.Hour\n"},
	}},
	{name: "a deleted organization fails its users' sign-ins", test: "TestOrganization_DeletedWhileAUserIsAwaited", edits: []edit{
		{"pending.go", "	if saysDeletedOrganization(err) {", "	if false {"},
	}},
	{name: "a failed look-up ends the count of failures in a row", test: "TestCountFailures", edits: []edit{
		{"deliver_create.go", "func(a *attempt) bool { return a.verdict.kind.completes() }):", "func(a *attempt) bool { return a.verdict.kind != undecided }):"},
	}},
	{name: "a membership ends by which the member has just become active", test: "TestOrganization_AddedMembershipStays", edits: []edit{
		{"organization.go", "other.ID != row.ID || other.Version != row.Version", "other.ID != row.ID"},
	}},
	{name: "a membership ends that another member has just accepted", test: "TestOrganization_WithdrawKeepsAnUnreportedMembership", edits: []edit{
		{"organization.go", "	failure := s.resolveOthers(ctx, row, u, p)\n", "	failure := ctx.Err()\n"},
	}},
	{name: "Remove leaves another tenant's member waiting for an accepted invitation", test: "TestOrganization_SharedInvitationAccepted", edits: []edit{
		{"organization.go", "if err := s.resolveSharers(ctx, row); err != nil {", "if err := ctx.Err(); err != nil {"},
	}},
	{name: "Remove believes a list of memberships that lags", test: "TestOrganization_WithdrawWhileMembershipsLag", edits: []edit{
		{"organization.go", "m != nil || row.Status.Waits() && accepted != notAccepted || row.addingInterrupted()", "m != nil"},
	}},
	{name: "the link of an adopted invitation stays open", test: "TestOrganization_RemoveRevokesAnAdoptedInvitation", edits: []edit{
		{"withdraw.go", "	m, _ := inv.mark()\n	return m.ID == row.ID || inv.ID", "	m, marked := inv.mark()\n	return m.ID == row.ID || !marked && inv.ID"},
	}},
	{name: "a resend with another instance's key loses the older invitation", test: "TestOrganization_ResendWithAnotherInstance/another_instance's_key", edits: []edit{
		{"deliver_settle.go", "case s.deletedOrganization(ctx, a.row, err):", "case saysNoOrganization(err):"},
	}},
	{name: "a link is revoked although Config.Organizations is missing", test: "TestOrganization_RemoveByAProcessWithout", edits: []edit{
		{"withdraw.go", "if endsMembership && s.cfg.Organizations == nil {", "if endsMembership && to == \"\" {"},
	}},
	{name: "a full organization stops the pass", test: "TestOrganization/Full", edits: []edit{
		{"verdict.go", "if c.organization && !c.several && refusedByOrganization(err) {", "if c.organization && c.several && refusedByOrganization(err) {"},
	}},
	{name: "a refused resend waits on a dead link", test: "TestOrganization/ResendRefused", edits: []edit{
		{"verdict.go", "	case a.olderRevoked:\n", "	case a.olderRevoked && m.ID == \"\":\n"},
	}},
	{name: "an empty list of members removes members", test: "TestOrganization_ReconcileEmptyList", edits: []edit{
		{"reconcile_members.go", "if !r.progress.SeesMembers {", "if false {"},
	}},
	{name: "a dry run does not count a move to an address that it frees", test: "TestOrganization_DryRunOfAMoveToAFreedAddress", edits: []edit{
		{"reconcile_members.go", "				m = cmp.Or(r.unwritten[m.ID], m)\n", ""},
	}},
	{name: "a dry run does not try a taken address again", test: "TestReconcile_AddressPassesToAnotherMember", pkg: "./internal/attacks", edits: []edit{
		{"reconcile_members.go", "	for try := range 2 { // moveMembers", "	for try := range 1 { // moveMembers"},
	}},
	{name: "a dry run moves second addresses away too early", test: "TestReconcile_AddressPassesToAnotherMember", pkg: "./internal/attacks", edits: []edit{
		{"reconcile_members.go", "(try == 0 ||", "(try < 0 ||"},
	}},
	{name: "leavers are forgotten until Clerk shows a membership", test: "TestOrganization_LeaversFarFromVisibleMembers", edits: []edit{
		{"reconcile_members.go", "if !r.progress.SeesMembers {\n", "if !r.progress.SeesMembers {\n\t\tclear(r.leavers)\n"},
	}},
	{name: "a cursor's leavers are forgotten", test: "TestOrganization_LeaversFarFromVisibleMembers", edits: []edit{
		{"reconcile.go", "inOrder(ctx, r.readLeavers, r.members)", "r.members(ctx)"},
	}},
	{name: "a late event removes a new member of an organization", test: "TestOrganization_LateEventKeepsNewMembers", edits: []edit{
		{"event.go", "func(row *Member) bool { return row.isFresh(s.now()) }", "func(row *Member) bool { return false }"},
	}},
	{name: "an invitation is revoked although another tenant waits for it", test: "TestOrganization_SharedInvitationStays", edits: []edit{
		{"reconcile_invitations.go", "			case slices.ContainsFunc(l.adopters, r.waits):\n", ""},
	}},
	{name: "a dry run does not count an invitation that it leaves over", test: "TestPromise4_SharedInvitationLeftOver", edits: []edit{
		{"reconcile_invitations.go", "return !r.opts.DryRun || !r.changed[row.ID] }", "return row != nil }"},
	}},
	{name: "a process without Config.Organizations delivers nothing", test: "TestOrganization_DeliveredByAProcessWithout", edits: []edit{
		{"verdict.go", "		return notConfigured\n", "		return foreignError\n"},
	}},
	{name: "a process without Config.Organizations refuses members", test: "TestOrganization_DeliveredByAProcessWithout", edits: []edit{
		{"verdict.go", "		return notConfigured\n", "		return invalidRequest\n"},
	}},
	{name: "a user is added after the lease", test: "TestOrganization_NotAddedAfterTheLease", edits: []edit{
		{"organization.go", "if ctx.Err() != nil || !p.fresh(s.now()) || p.failures >= maxFailures {", "if ctx.Err() != nil || p.failures >= maxFailures {"},
	}},
	{name: "a user whom a revoked attempt has added stays", test: "TestOrganization_RevokedWhileAdding", edits: []edit{
		{"organization.go", "		a.maybeAdded = u\n		return userVerdict(u, nil, s.now())", "		return userVerdict(u, nil, s.now())"},
	}},
	{name: "an adopted invitation expires when the caller's would", test: "TestOrganization_ForeignInvitationExpiresLater", edits: []edit{
		{"verdict.go", "			p.ExpiresInDays = 0 // another", "			// another"},
	}},
	{name: "a member of a deleted organization cannot be removed", test: "TestOrganization_Deleted", edits: []edit{
		{"withdraw.go", "if err != nil && !s.deletedOrganization(ctx, row, err) {", "if err != nil {"},
	}},
	{name: "another instance's key shows that an organization was deleted", test: "TestOrganization_Deleted", edits: []edit{
		{"organization.go", "	known, err := s.keySeemsRight(ctx)\n	return err == nil && known\n", "	_, err := s.keySeemsRight(ctx)\n	return err == nil\n"},
	}},
	{name: "a barred user loses a membership that no attempt has added", test: "TestOrganization_BarredMemberOfOthersStays_TriedOnce", edits: []edit{
		{"organization.go", "v.kind != isLinked && a.claim.hadEffect && !m.isOlder(a.row)", "v.kind != isLinked && m != nil"},
	}},
	{name: "Revoke ends a membership that is older than the member", test: "TestOrganization_RevokeKeepsAnOlderMembership", edits: []edit{
		{"organization.go", "case u == nil, !mayBeMember, to == StatusRevoked && m != nil && m.isOlder(row):", "case u == nil, !mayBeMember:"},
	}},
	{name: "a resend without a new invitation keeps the revoked one", test: "TestOrganization_UnfinishedResend", edits: []edit{
		{"deliver_settle.go", "		s.checkOlder(ctx, a)\n", ""},
	}},
	{name: "a request that hangs keeps other members from being written", test: "TestOrganization_HangingRequestDoesNotKeepOthersFromSettling", edits: []edit{
		{"deliver_settle.go", "	provisional := filter(open, (*attempt).isProvisional)\n	s.write(ctx, l, filter(open, func(a *attempt) bool { return !a.isProvisional() })) // first, because confirm may hang\n", "	provisional := open\n"},
	}},
	{name: "a user with two addresses whom a revoked attempt has added stays", test: "TestOrganization_RevokedWhileAdding", edits: []edit{
		{"deliver_settle.go", "	if !mayJoin && !row.needsMembership(a.organization()) {", "	if false {"},
	}},
	{name: "a member is active in another organization than the attempt's", test: "TestPromise5_OrganizationChangedDuringTheAttempt", edits: []edit{
		{"deliver_settle.go", "	if mayJoin && row.Due() {", "	if row.Due() {"},
	}},
	{name: "a user stays in the organization although the member was invited into another", test: "TestPromise5_OrganizationChangedDuringTheAttempt", edits: []edit{
		{"organization.go", "return o != nil && o.ID == organization && (m.Status", "return o != nil && (m.Status"},
	}},
	{name: "an overtaken attempt ends a membership that a waiting member needs", test: "TestOrganization_AddedUserOfAWaitingMemberStays", edits: []edit{
		{"organization.go", "(m.Status == StatusActive || m.Status.Waits() && o.AddExisting)", "m.Status == StatusActive"},
	}},
	{name: "an overtaken attempt keeps a membership although the person is to be asked", test: "TestOrganization_InvitedAgainWhileAdding", edits: []edit{
		{"organization.go", "m.Status.Waits() && o.AddExisting)", "m.Status.Waits())"},
	}},
	{name: "a user with two addresses whom a purged attempt has added stays", test: "TestOrganization_RevokedWhileAdding", edits: []edit{
		{"deliver_settle.go", "	if own < 0 {\n		_ = s.removeAdded(ctx, a)\n", "	if own < 0 {\n"},
	}},
	{name: "a user who was added for a second address stays", test: "TestOrganization_AddedForASecondAddress", edits: []edit{
		{"deliver_settle.go", "			_ = s.removeAdded(ctx, a)\n			return nil\n", "			return nil\n"},
	}},
	{name: "an active member leaves its organization for a second address", test: "TestOrganization_AddedForASecondAddress", edits: []edit{
		{"organization.go", "return other.ID != row.ID || other.Version != row.Version", "return false"},
	}},
	{name: "an invitation into an organization does not show that the key is right", test: "TestOrganization_InvitationShowsTheInstance", edits: []edit{
		{"reconcile.go", "	if s.cfg.Organizations != nil {\n		queries =", "	if false {\n		queries ="},
	}},
	{name: "an older invitation that Clerk does not show refuses the person", test: "TestOrganization_ResendOfAnUnknownInvitation", edits: []edit{
		{"organization.go", "organization: !saysNotFound(err)}", "organization: true}"},
	}},
	{name: "a withdrawn resend starts no cooldown", test: "TestPurge_AfterAWithdrawnResend/then_revoked_false", edits: []edit{
		{"verdict.go", "			n.SettledAt = &now\n			n.ClaimedUntil", "			n.ClaimedUntil"},
	}},
	{name: "a revoked member forgets a withdrawn resend", test: "TestPurge_AfterAWithdrawnResend/then_revoked_true", edits: []edit{
		{"withdraw.go", " || s.justWithdrawn(row, *ended.SettledAt) {", " {"},
	}},
	{name: "lost responses are counted for each organization", test: "TestOrganization_LostResponsesStopThePass", edits: []edit{
		{"deliver_create.go", "stop = s.createGroup(", "p.failures = 0\n\t\tstop = s.createGroup("},
	}},
	{name: "a resend adopts an older invitation", test: "TestResend_DoesNotAdoptAnOlderInvitation", edits: []edit{
		{"resend.go", "next.Reason, next.ReservedAt = next.Send+1, 0, \"\", now", "next.Reason = next.Send+1, 0, \"\""},
	}},
	{name: "a list into a full organization sends all its bulk requests", test: "TestOrganization_RefusedListCostsFewRequests", edits: []edit{
		{"deliver_create.go", "		q.separate() // a full", "		// a full"},
	}},
	{name: "a person who has accepted the older invitation is invited again", test: "TestPromise3_OrganizationAcceptedBeforeResend/during_the_call", edits: []edit{
		{"organization.go", "		v, _ = s.findAgain(ctx, p, a)\n", ""},
	}},
	{name: "a full organization's kept invitation is not looked for", test: "TestPromise3_OrganizationFullKeepsPart/keeps_part/memory", edits: []edit{
		{"deliver_create.go", "a.hasEarlierSends() || a.mayHoldSeat(p.closedOrganizations[a.organization()])", "a.hasEarlierSends()"},
	}},
	{name: "a member is refused although its invitation has a seat", test: "TestPromise3_OrganizationFullKeepsPart/counts_seats_first/memory", edits: []edit{
		{"deliver_create.go", "	if a.mayHoldSeat(created.err) {", "	if a == nil && a.mayHoldSeat(created.err) {"},
	}},
	{name: "a new Invite revokes an invitation that another tenant's member waits for", test: "TestOrganization_SharedInvitationStays", edits: []edit{
		{"deliver_find.go", "			f.adoptable = inv\n		}\n	}\n	return nil", "			continue\n		}\n	}\n	return nil"},
	}},
	{name: "a resend adopts another tenant's invitation", test: "TestOrganization_ResendReplacesAnotherInvitation", edits: []edit{
		{"deliver_find.go", "	return a.isResend() && !a.mayBeOwn(inv)", "	return false"},
	}},
	{name: "a resend revokes its invitation without metadata", test: "TestOrganization_ResendKeepsItsUnmarkedInvitation", edits: []edit{
		{"deliver_find.go", "a.isResend() && !a.mayBeOwn(inv)", "a.isResend()"},
	}},
	{name: "a new Invite revokes another application's invitation", test: "TestOrganization", edits: []edit{
		{"deliver_find.go", "a.isResend() && !a.mayBeOwn(inv)", "!a.mayBeOwn(inv)"},
	}},
	{name: "a removed member stays in the organization", test: "TestOrganization/RevokeAndRemove", edits: []edit{
		{"organization.go", "		return s.removeMember(ctx, row.organization(), row.ClerkUserID)", "		return nil"},
	}},
	{name: "a removed member can still accept an older invitation", test: "TestOrganization_RemoveRevokesAnUnusedInvitation", edits: []edit{
		{"withdraw.go", "(m.Send > 1 || m.InvitationID != \"\" || m.Attempts > 0)", "m.Send > 1"},
	}},
	{name: "a removed member can still accept a lost invitation", test: "TestOrganization_RemoveRevokesALostInvitation", edits: []edit{
		{"withdraw.go", " || m.Attempts > 0)", ")"},
	}},
	{name: "a member who has moved leaves an invitation open", test: "TestOrganization_MovedMember", edits: []edit{
		{"invite.go", "append(old.clerkParams().Earlier, from)", "old.clerkParams().Earlier"},
	}},
	{name: "a removed member who was not active stays in the organization", test: "TestOrganization_RemoveEndsTheMembership", edits: []edit{
		{"organization.go", "return to == StatusRemoved && m.org", "return m.Status == StatusActive && m.org"},
	}},
	{name: "another tenant's member keeps waiting for an accepted invitation", test: "TestOrganization_SharedInvitationAccepted", edits: []edit{
		{"withdraw.go", "	if to == StatusRemoved && (!row.Status.Waits() || row.organization() == \"\") {", "	if to == StatusRemoved {"},
	}},
	{name: "a revoke writes the row and leaves the link working", test: "TestPromise4_WithdrawRevokesALostInvitation", edits: []edit{
		{"withdraw.go", "accepted, err := s.revokeOpen(ctx, row, row.mayHaveOthers(to))", "accepted, err := notAccepted, ctx.Err()"},
	}},
	{name: "a member becomes active while it is being removed", test: "TestOrganization_RemoveKeepsAnotherTenantsMembership", edits: []edit{
		{"pending.go", "		rows = p.withoutEnding(rows)\n", ""},
	}},
	{name: "a membership that the library has added proves an acceptance", test: "TestOrganization_WithdrawnAddProvesNothing", edits: []edit{
		{"organization.go", "	p.onlyAccepted = true // the", "	p.onlyAccepted = false // the"},
	}},
	{name: "the invitation of a lost create is revoked as adopted", test: "TestOrganization_AdoptedInvitationOfALostCreate", edits: []edit{
		{"withdraw.go", "(other.InvitationID == inv.ID || created)", "(other.InvitationID == inv.ID || created && false)"},
	}},
	{name: "Remove trusts a later list of memberships", test: "TestOrganization_RemoveWithAListThatLags", edits: []edit{
		{"organization.go", "	if m != nil { // the list may", "	if m != nil && false { // the list may"},
	}},
	{name: "a resend into a deleted organization never ends", test: "TestOrganization_ResendIntoADeletedOrganization", edits: []edit{
		{"deliver_settle.go", "s.backoff(a.row.Attempts) >= time.Hour:", "s.backoff(a.row.Attempts) > time.Hour:"},
	}},
	{name: "organizations that are disabled count as deleted", test: "TestOrganization_EndWhileOrganizationsAreDisabled", edits: []edit{
		{"organization.go", "!saysDeletedOrganization(failure)", "!saysNoOrganization(failure)"},
	}},
	{name: "another tenant's hook keeps a member", test: "TestOrganization_RemoveBesideAFailingHook", edits: []edit{
		{"pending.go", "if err == nil || ctx.Err() != nil || errors.As(err, &clerks) {", "if true || errors.As(err, &clerks) {"},
	}},
	{name: "a revoke revokes another invitation", test: "TestPromise3_EveryFaultPoint/no_fault", pkg: "./internal/attacks", edits: []edit{
		{"withdraw.go", "failure := s.revoke(ctx, RevokeRequest{inv.ID,", "failure := s.revoke(ctx, RevokeRequest{inv.ID + \"0\","},
	}},
	{name: "an erased second address takes another tenant's link away", test: "TestPromise4_SecondAddressSharesAnAdoptedInvitation", edits: []edit{
		{"withdraw.go", "isFinal(inv.Status) || m.ID == row.ID && row.organization() == \"\" {", "isFinal(inv.Status) || m.ID != \"\" || row.Status != \"\" {"},
	}},
	{name: "a failed list keeps a link working", test: "TestPromise4_WithdrawWithoutAList", edits: []edit{
		{"withdraw.go", "		wasAccepted, err := s.revokeOne(ctx, row, Invitation{ID: row.InvitationID})\n		if err != nil {",
			"		if _, err := s.listInvitations(ctx, row, \"\"); err != nil {\n			return notAccepted, err\n		}\n		wasAccepted, err := s.revokeOne(ctx, row, Invitation{ID: row.InvitationID})\n		if err != nil {"},
	}},
	{name: "Migrate trusts what the connection remembers", test: "TestMigrate_OnAConnectionThatRemembersMissingTables", edits: []edit{
		{"store_pgx_migrate.go", "SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1::text))", "SELECT to_regclass($1::text) IS NOT NULL"},
	}},
	{name: "new tables keep Supabase's default privileges", test: "TestMigrate_DefaultPrivileges", edits: []edit{
		{"store_pgx_migrate.go", "rolname IN ('anon', 'authenticated')", "rolname IN ('authenticated')"},
	}},
	{name: "Migrate cannot check what it must not read", test: "TestMigrate_DocumentedPrivileges", edits: []edit{
		{"store_pgx_migrate.go", "if err != nil || !readable {", "if err != nil || !readable && version > 0 {"},
	}},
	{name: "a failed purge keeps its claim on a newer row", test: "TestPurge_ReleasesTheClaimOfANewerRow", edits: []edit{
		{"withdraw.go", "	if errors.Is(err, ErrConflict) { // the member was updated", "	if false { // the member was updated"},
	}},
	{name: "a purge leaves the link working", test: "TestPurge", edits: []edit{
		{"withdraw.go", "	if _, err := s.revokeOpen(inside, c.row, true); err != nil && !s.deletedOrganization(inside, c.row, err) {\n		return err\n	}\n", "	_ = inside\n"},
	}},

	// By proof only.
	{name: "an unverified address is proof", test: "TestPromise2_UnverifiedHolderNeitherLinksNorBlocks", edits: []edit{
		{"clerk.go", "return e.Verified && sameEmail(e.Address, email)", "return sameEmail(e.Address, email)"},
	}},
	{name: "the event is the proof", test: "TestPromise5_OldEventDoesNotDecide", edits: []edit{
		{"event.go", "	u, err := s.readUser(ctx, e.UserID)\n	if errors.Is(err, ErrNotFound) {\n		return nil, s.unconfirmed(ctx, e) // deleted since, not shown yet, or the dashboard's example event",
			"	u, err := e.User, ctx.Err()\n	if errors.Is(err, ErrNotFound) {\n		return nil, s.unconfirmed(ctx, e) // deleted since, not shown yet, or the dashboard's example event"},
	}},
	{name: "an overdue row resolves like any other", test: "TestPromise5_ResolveAfterExpiry", edits: []edit{
		{"pending.go", "	case !row.overdue(now) &&", "	case !row.overdue(now.AddDate(-100, 0, 0)) &&"},
	}},
	{name: "an account younger than the invitation is proof", test: "TestResolve_AccountYoungerThanTheExpiryWithAClockBehind/memory", edits: []edit{
		{"pending.go", " && !u.createdAfterExpiry(row),", ","},
	}},
	{name: "a look-up of IDs is not split", test: "TestReconcile_PoisonedUserDoesNotBlockOthers", edits: []edit{
		{"deliver_find.go", "case len(keys) > 1 && ctx.Err() == nil &&", "case len(keys) > 1 && !l.byID && ctx.Err() == nil &&"},
	}},
	{name: "if Clerk rejects all look-ups, every member fails", test: "TestDeliver_RejectingAllLookUpsFailsNoMember", edits: []edit{
		{"deliver_find.go", "!failure.ofInstance() && l.health.excuseFailure(ctx)", "!failure.ofInstance()"},
	}},
	{name: "a blocked hook uses up the time of the other rows", test: "TestOnChange_OneMemberDoesNotBlockOthers/blocks", pkg: "./internal/attacks", edits: []edit{
		{"store_pgx.go", "	if own {\n", "	if !own {\n"},
	}},
	{name: "Reconcile ignores users of adopted members whose invitation Clerk does not know", test: "TestAdopt_ThenReconcileWithoutTheInvitation", edits: []edit{
		{"reconcile_invitations.go", ", r.unlistedInvitations", ""},
	}},
	{name: "an error of the mirror fails the whole batch", test: "TestMirror_ErrorFailsOneMember", edits: []edit{
		{"store_pgx.go", "		return rowError{err}\n	}\n	return err\n}\n\n// write calls f", "		return err\n	}\n	return err\n}\n\n// write calls f"},
	}},
	{name: "a mirror compares a citext as text", test: "TestMirror_TakesExistingRows", edits: []edit{
		{"mirror.go", "pg_namespace.oid IN (relnamespace, typnamespace)", "pg_namespace.oid IN (relnamespace)"},
	}},
	{name: "a mirror takes two tenants for one", test: "TestMirror_TenantsThatDifferInCase", edits: []edit{
		{"mirror.go", ` AND a.{{tenant_id}}::text COLLATE "C" = clerkinvite_mirror.old_tenant_id::text`, ""},
	}},
	{name: "a mirror erases the host's row", test: "TestMirror_PurgeKeepsTheHostsLeftRow", edits: []edit{
		{"mirror.go", "COLLATE \"C\" = 'left_' || OLD.id", "COLLATE \"C\" <> ''"},
	}},
	{name: "a mirror finds a temporary table first", test: "TestMirror_AnyWriter", edits: []edit{
		{"mirror.go", " || ', pg_temp';\n", ";\n"},
	}},
	{name: "Up takes addresses that the triggers cannot find", test: "TestMirror_RefusesAddressesNotNormalised", edits: []edit{
		{"mirror.go", "CASE count(*) WHEN 2 THEN", "CASE count(*) WHEN 3 THEN"},
	}},
	{name: "a mirror takes an address with white space", test: "TestMirror_RefusesAddressesNotNormalised", edits: []edit{
		{"mirror.go", "'[^!-@[-~]' ELSE '[^!-~]'", "'[A-Z]' ELSE '[^!-~]'"},
	}},
	{name: "a row of a former member is not repaired", test: "TestMirror_RowsOfNoMember", edits: []edit{
		{"mirror.go", "		leftRows += `", "		_ = `"},
	}},
	{name: "a second row of a member is not reported", test: "TestMirror_RowsOfNoMember", edits: []edit{
		{"mirror.go", "sameUser + \" AND \" + missing + \")\"", "sameUser + \")\""},
	}},
	{name: "Up takes a partial index", test: "TestMirror_NeedsAUniqueIndex", edits: []edit{
		{"mirror.go", " AND indisvalid AND indpred IS NULL", " AND indisvalid"},
	}},
	{name: "a mirror takes a table that rejects every new row", test: "TestMirror_NeedsDefaults", edits: []edit{
		{"mirror.go", "(attnotnull OR typnotnull)", "typnotnull"},
	}},
	{name: "Sync compares a citext as text", test: "TestMirror_RefusesAddressesNotNormalised", edits: []edit{
		{"mirror.go", "concat_ws(', ', nullif(path, ''), {{schemas}})", "path"},
	}},
	{name: "Sync does not block writes", test: "TestMirror_SyncBlocksWrites", edits: []edit{
		{"mirror.go", "	LOCK TABLE {{member}} IN SHARE MODE;\n", ""},
	}},
	{name: "Sync fails as a whole", test: "TestMirror_SyncErrorFailsOneMember", edits: []edit{
		{"mirror.go", "'40', '42', '53', '58', 'XX'", "'23', '40', '42', '53', '58', 'XX'"},
	}},
	{name: "Sync writes a cycle without a free address", test: "TestMirror_SyncAfterAddressesMoved", edits: []edit{
		{"mirror.go", "			IF member.id = moved.id THEN\n", "			IF false THEN\n"},
	}},
	{name: "Sync writes the first of a chain first", test: "TestMirror_SyncAfterAddressesMoved", edits: []edit{
		{"mirror.go", "FOR i IN REVERSE cardinality(chain) .. 1 LOOP", "FOR i IN 1 .. cardinality(chain) LOOP"},
	}},
	{name: "a name is not quoted in a dollar quote", test: "TestMirror_HostileNames", edits: []edit{
		{"mirror.go", "		quote = \"$m\" + quote[1:]\n", "		break\n"},
	}},
	{name: "Adopt takes two equal people for one", test: "TestAdopt_RepeatedEntries", edits: []edit{
		{"adopt.go", " && !taken[dup.Member.ID]:", ":"},
	}},
	{name: "Sync writes where Up has failed", test: "TestMirror_FailsAsAWhole", edits: []edit{
		{"mirror.go", "	LOCK TABLE {{member}} IN SHARE MODE;\n	{{guard}}\n", "	LOCK TABLE {{member}} IN SHARE MODE;\n"},
	}},
	{name: "a left row keeps its user", test: "TestMirror_LeftColumn", edits: []edit{
		{"mirror.go", "			leftSets = append(leftSets, name+\" = 'left_' || {{row}}.id\")\n", ""},
	}},
	{name: "a write for several tenants never ends", test: "TestReconcile_EndsAlthoughTheStoreHangs", edits: []edit{
		{"state.go", "ctx, cancel := context.WithTimeout(ctx, writeTime)", "ctx, cancel := context.WithCancel(ctx)"},
	}},
	{name: "a claim waits for a locked row without end", test: "TestDeliver_ClaimThatBlocks", edits: []edit{
		{"deliver.go", "s.applyBounded(ctx, changes)", "s.apply(ctx, s.store, changes)"},
	}},
	{name: "an error for one member leaves out the others of a revoked invitation", test: "TestOrganization_SharedInvitationRevoked", edits: []edit{
		{"event.go", "		err = cmp.Or(err, rowErr)\n", "		if err = cmp.Or(err, rowErr); err != nil {\n			break\n		}\n"},
	}},
	{name: "a panic in the first half skips the second", test: "TestOnChange_OneMemberDoesNotBlockOthers/panics", pkg: "./internal/attacks", edits: []edit{
		{"store_pgx.go", "		defer splitInto(results[n:], batch[n:], write) // even if the first half panics\n		splitInto(results[:n], batch[:n], write)\n",
			"		splitInto(results[:n], batch[:n], write)\n		splitInto(results[n:], batch[n:], write)\n"},
	}},
	{name: "a banned user is linked", test: "TestPromise2_BarredUserIsRefused", edits: []edit{
		{"clerk.go", "	case u.Banned:\n", "	case u.Banned && u.ID == \"\":\n"},
	}},
	{name: "a user without a verified address changes a member's address", test: "TestPromise5_AddressStays", pkg: "./internal/attacks", edits: []edit{
		{"pending.go", "len(u.verifiedEmails()) > 0 && ", ""},
	}},
	{name: "a partly read user changes a member's address", test: "TestPromise5_IncompleteUserChangesNothing", pkg: "./internal/attacks", edits: []edit{
		{"pending.go", "!u.Incomplete &&", "true &&"},
	}},
	{name: "a member gets an unverified address", test: "TestPromise5_AddressStays", pkg: "./internal/attacks", edits: []edit{
		{"pending.go", "primary != \"\" && u.hasVerified(primary)", "primary != \"\""},
	}},
	{name: "any ended row is erased for an address", test: "TestPromise1_TakenAddressIsReported", pkg: "./internal/attacks", edits: []edit{
		{"pending.go", "m.Status == StatusRemoved && m.Reason == ReasonSecondAddress", "m.Status == StatusRemoved || m.Status == StatusRevoked"},
	}},
	{name: "an event of a new address is believed", test: "TestHandleEvent_UnconfirmedAddress", pkg: "./internal/attacks", edits: []edit{
		{"event.go", "			return !u.gaveUp(row)\n", "			return false\n"},
	}},
	{name: "the new owner of an address is a duplicate", test: "TestPromise1_NewOwnerOfAnAddressIsInvited", pkg: "./internal/attacks", edits: []edit{
		{"invite.go", "err == nil && (updated == nil || updated.Email != row.Email)", "err == nil && updated == nil"},
	}},
	{name: "a temporarily locked user is refused permanently", test: "TestPromise2_LockedUserIsLinkedWhenTheLockEnds", edits: []edit{
		{"verdict.go", "u.LockEndsIn > 0:\n", "u.LockEndsIn < 0:\n"},
	}},
	{name: "a user who was missing hours ago is removed now", test: "TestReconcile_PauseDoesNotRemoveAUserThatClerkShowsLate", edits: []edit{
		{"reconcile_members.go", "case lookedUp && !row.isFresh(r.began):", "case lookedUp && !row.isFresh(r.s.now()):"},
	}},
	{name: "the key of another instance removes all members", test: "TestReconcile_WrongKey", edits: []edit{
		{"reconcile_members.go", "		if !r.keyProvenFor(row) {\n", "		if false {\n"},
		{"reconcile.go", "return r.progress.Known == nil && r.progress.Absent != \"\"", "return false"},
	}},
	{name: "a new member proves another instance's key", test: "TestReconcile_AnotherInstanceWithNewMembers", edits: []edit{
		{"reconcile.go", "!r.progress.Known.After(t)", "!t.IsZero()"},
	}},
	{name: "a new member proves another instance's key to Invite", test: "TestReconcile_AnotherInstanceWithNewMembers", edits: []edit{
		{"reconcile.go", "	return r.keyProvenFor(row), err\n", "	return r.progress.Known != nil, err\n"},
	}},
	{name: "the oldest members of another instance's key block the others", test: "TestReconcile_ManyMissingMembersDoNotBlockOthers", edits: []edit{
		{"reconcile_members.go", "(r.keyProvenFor(row) || len(r.missing) < reconcilePage)", "len(r.missing) < reconcilePage"},
	}},
	{name: "an organization that the key does not know was deleted", test: "TestOrganization_LeftWithAnotherInstancesKey", edits: []edit{
		{"event.go", "return err == nil && !gone, err", "return err == nil || gone, err"},
	}},
	{name: "a list that leaves a user out removes members", test: "TestReconcile_ListsThatLeaveUsersOut", edits: []edit{
		{"reconcile_members.go", "		if gone[row.ClerkUserID] {", "		if true {"},
	}},
	{name: "any 404 says that a user does not exist", test: "TestReconcile_OnlyA404Removes", edits: []edit{
		{"verdict.go", "api.StatusCode == http.StatusNotFound && api.Code == codeResourceNotFound", "api.StatusCode == http.StatusNotFound"},
	}},
	{name: "an event that Clerk contradicts is forgotten", test: "TestHandleEvent_ClerkContradictsAYoungEvent", edits: []edit{
		{"event.go", "	return ErrUnconfirmed\n", "	return nil\n"},
	}},
	{name: "a second write uses the clock of the first", test: "TestInvite_ClockIsSetBetweenTwoWrites", edits: []edit{
		{"deliver_settle.go", "	s.refreshClock(ctx)\n	changes := make(", "	changes := make("},
	}},
	{name: "an event whose age is unknown is forgotten", test: "TestHandleEvent_ClockFails", edits: []edit{
		{"event.go", "	if err := s.setClock(ctx, s.store); err != nil { // Config.Now may have been set since HandleEvent began\n		return err\n", "	if s.setClock(ctx, s.store) != nil {\n		return nil\n"},
	}},
	{name: "an assumed expiry is believed", test: "TestAdopt_ThenReconcileAfterTheAssumedExpiry", edits: []edit{
		{"reconcile_members.go", "		if row.InvitedAt != nil {\n			continue\n", "		if true {\n			continue\n"},
	}},
	{name: "an open invitation does not prove the key", test: "TestReconcile_OverdueMembersExpire", edits: []edit{
		{"reconcile_invitations.go", "			if list[i].isCurrent() {\n", "			if list[i].isCurrent() && status != InvitationPending {\n"},
	}},
	{name: "an invitation that cannot be read has expired", test: "TestReconcile_AdoptedMemberWhoseInvitationCannotBeRead", edits: []edit{
		{"reconcile_members.go", "			r.unresolved[row.ID] = true\n			if err := r.excuse(", "			if err := r.excuse("},
	}},
	{name: "a 404 revokes", test: "TestWithdraw_UnexplainedRejection", edits: []edit{
		{"deliver_leftovers.go", "	case codeOf(err) == codeAlreadyRevoked:", "	case codeOf(err) == codeAlreadyRevoked || saysNotFound(err):"},
	}},
	{name: "an unknown status counts as ended", test: "TestWithdraw_UnexplainedRejection", edits: []edit{
		{"withdraw.go", "	return status == InvitationAccepted || status == InvitationExpired || status == InvitationRevoked", "	return status != InvitationPending"},
	}},
	{name: "an invitation without metadata counts as another application's", test: "TestPromise3_LostBulkCreateWithoutMetadata", edits: []edit{
		{"deliver_find.go", "if expectOwn && a.mayBeOwn(inv) {", "if false && a.mayBeOwn(inv) {"},
	}},

	{name: "a panic while reconciling does not reach the caller", test: "TestRun_PanicsReachTheCaller", edits: []edit{
		{"run.go", "			panic(panicked)\n", ""},
	}},
	{name: "a panic while delivering leaves a goroutine", test: "TestRun_PanicsReachTheCaller", edits: []edit{
		{"run.go", "	defer stop() // before wait, even if runDeliver panics\n	s.runDeliver(work, o.Interval)\n", "	s.runDeliver(work, o.Interval)\n	stop()\n"},
	}},

	// Webhooks.
	{name: "no signature is verified", test: "TestPromise9_ForgeriesAreRefused", pkg: "./internal/attacks", edits: []edit{
		{"webhook.go", "valid := false", "valid := true"},
	}},
	{name: "a webhook never expires", test: "TestVerifyTolerance", edits: []edit{
		{"webhook.go", "case age > webhookTolerance:", "case age > 10000*webhookTolerance:"},
	}},
	{name: "two headers pass as one", test: "TestPromise9_ForgeriesAreRefused", pkg: "./internal/attacks", edits: []edit{
		{"webhook.go", "err == nil && len(values) != 1 {", "err == nil && len(values) < 1 {"},
	}},
	{name: "two signatures pass as one that was split", test: "TestVerifyRefusesTwoHeaders", edits: []edit{
		{"webhook.go", "return strings.Contains(part, \",\")", "return part == \",\""},
	}},
	{name: "a body may arrive at any speed", test: "TestWebhookHandlerLimitsTheTimeOfABody", edits: []edit{
		{"webhook.go", "	limitReading(w, r)\n", ""},
	}},
	{name: "the end of a large body is not signed", test: "TestWebhookHandler", edits: []edit{
		{"webhook.go", "rest, err = io.Copy(sig, body)", "rest, err = io.Copy(io.Discard, body)"},
	}},
	{name: "an empty secret is a secret", test: "TestNewWebhookVerifierSecrets", edits: []edit{
		{"webhook.go", "	case len(key) < minWebhookKey:", "	case len(key) > 1<<20:"},
	}},

	{name: "a dead connection is not noticed", test: "TestDefaultTransportNoticesDeadConnections", pkg: "./clerkapi", edits: []edit{
		{"clerkapi/client.go", "transport.HTTP2.SendPingTimeout, transport.HTTP2.PingTimeout = pingAfter, pingTimeout", "_, _ = pingAfter, pingTimeout"},
	}},

	// Limits, names and secrets.
	{name: "a script is the URL of an app", test: "TestCheckRedirectURL", edits: []edit{
		{"validate.go", "jar|javascript|", "jar|"},
	}},
	{name: "another host is a path", test: "TestCheckRedirectURL", edits: []edit{
		{"validate.go", " && !strings.HasPrefix(s, \"//\")", ""},
	}},
	{name: "a rate limit is known to one process only", test: "TestPromise8_RateLimitIsRemembered", edits: []edit{
		{"ratelimit.go", "	s.publishLimit(ctx, endpoint, padded, hits)\n", "	_ = hits\n"},
	}},
	{name: "a rate limit is forgotten", test: "TestPromise8_RateLimitIsRemembered", edits: []edit{
		{"ratelimit.go", "m.until, m.padded, m.hits = until, padded, m.hits+1\n", "_, m.hits = until, m.hits+1\n"},
	}},
	{name: "an interactive call waits for the margin", test: "TestRateLimit_InteractiveCallsWaitAsLongAsClerkSays", edits: []edit{
		{"ratelimit.go", "if background && m.padded", "if m.padded"},
	}},
	{name: "a limit lasts as long as a firewall says", test: "TestRateLimit_RetryAfterIsBounded", edits: []edit{
		{"ratelimit.go", "	return min(retryAfter, longestLimit(endpoint))", "	return retryAfter"},
	}},
	{name: "all callers probe after a limit", test: "TestRateLimit_OneRequestProbes", edits: []edit{
		{"ratelimit.go", "if first = m.probe == nil; first {", "if first = true; first {"},
	}},
	{name: "a create that was not sent ends a limit", test: "TestStartCreate_LeaseEndsBeforeTheProbe", edits: []edit{
		{"deliver_create.go", "		done(false)\n", "		done(true)\n"},
	}},
	{name: "a deleted limit is remembered", test: "TestRunbookLiftALimit", pkg: "./internal/doccheck", edits: []edit{
		{"ratelimit.go", "case stored.Before(m.stored):", "case false:"},
	}},
	{name: "an earlier limit replaces a later one", test: "TestNoteLimit_Concurrent", edits: []edit{
		{"ratelimit.go", "stored, s.now(), hits)", "stored, s.now(), s.limits.hits(endpoint))"},
	}},
	{name: "an import uses all single creates", test: "TestDeliver_ImportsLeaveAShare", edits: []edit{
		{"deliver_create.go", "if err == nil && fromShare && p.background {", "if false {"},
	}},
	{name: "a turn does not read the limit", test: "TestDeliver_ObeysALimitSetDuringThePass", edits: []edit{
		{"deliver_create.go", "err = s.loadLimits(ctx, endpoint) //", "err = ctx.Err() //"},
	}},
	{name: "background deliveries do not read the limits of lists and revocations", test: "TestPromise8_LimitsOfOtherProcesses", edits: []edit{
		{"deliver.go", "	ctx = withStoredLimits(ctx)\n", ""},
	}},
	{name: "InviteMany does not read the limits of lists", test: "TestPromise8_LimitsOfOtherProcesses", edits: []edit{
		{"many.go", "	ctx = withStoredLimits(ctx)\n", ""},
	}},
	{name: "Reconcile does not read limits", test: "TestPromise8_LimitsOfOtherProcesses", edits: []edit{
		{"reconcile.go", "withStoredLimits(withPace(ctx, &pace{turn: t}))", "withPace(ctx, &pace{turn: t})"},
	}},
	{name: "the turn to reconcile is not renewed", test: "TestRun_LongReconciliationsDoNotPileUp", edits: []edit{
		{"ratelimit.go", "	if t.ends.Sub(now) >= length/2 {", "	if true {"},
	}},
	{name: "a panic keeps the turn to reconcile", test: "TestRun_PanicGivesTheTurnBack", edits: []edit{
		{"run.go", "	defer func() { t.release(ctx, next) }()\n	report, err = s.reconcileAll(ctx, t)\n", "	report, err = s.reconcileAll(ctx, t)\n	defer func() { t.release(ctx, next) }()\n"},
	}},
	{name: "an import counts as single invitations", test: "TestBulk", edits: []edit{
		{"many.go", "		want.Bulk = true\n", ""},
	}},
	{name: "a person of an import stays behind it after a single invite", test: "TestBulk", edits: []edit{
		{"invite.go", "n.Bulk = old.Bulk && want.Bulk", "n.Bulk = old.Bulk || want.Bulk"},
	}},
	{name: "each batch begins with the first tenant", test: "TestDeliver_TenantsTakeTurns", edits: []edit{
		{"deliver.go", "q.AfterTenantID = *last", "q.AfterTenantID = (*last)[:0]"},
	}},
	{name: "the first tenant with many due members gets all places", test: "TestPgxStore/cache_statement/Due/Turns", edits: []edit{
		{"internal/pgsql/due.sql", "ORDER BY c.bulk, turn, wrapped, c.tenant_id LIMIT", "ORDER BY c.bulk, wrapped, c.tenant_id, turn LIMIT"},
	}},
	{name: "addresses keep their case", test: "TestNormalizeEmail", edits: []edit{
		{"validate.go", "	local = strings.ToLower(local) //", "	local = strings.Clone(local) //"},
	}},
	{name: "an ID names members of any tenant", test: "TestPgxStore/cache_statement/Find/RefsByID", edits: []edit{
		{"internal/pgsql/find_ref_ids.sql", "WHERE tenant_id = x.tenant_id AND id = x.value", "WHERE id = x.value"},
	}},
	{name: "a user is a member of any tenant", test: "TestPgxStore/cache_statement/Find/RefsByUser", edits: []edit{
		{"internal/pgsql/find_ref_users.sql", "WHERE tenant_id = x.tenant_id AND clerk_user_id = x.value", "WHERE clerk_user_id = x.value"},
	}},
	{name: "a verb loses a member whose pending ID ends", test: "TestRef_PendingIDWhileThePersonJoins", edits: []edit{
		{"state.go", "		ref = row.refByID() //", "		_ = row.refByID() //"},
	}},
	{name: "a Ref with two names is accepted", test: "TestRef_Invalid", edits: []edit{
		{"validate.go", "case r.Email != \"\" && r.ID == \"\" && r.ClerkUserID == \"\":", "case r.Email != \"\":"},
	}},
	{name: "a state without members is missing from the counts", test: "TestCounts", edits: []edit{
		{"members.go", "	for _, status := range Statuses() {\n		counts", "	for status := range found {\n		counts"},
	}},
	{name: "a cursor works in either order", test: "TestList_NewestFirst", edits: []edit{
		{"members.go", "	if marked != newestFirst {", "	if false && marked != newestFirst {"},
	}},
	{name: "the newest members come first on each page only", test: "TestPgxStore/cache_statement/Page/NewestFirst", edits: []edit{
		{"internal/pgsql/pgsql.go", "\"{{after}}\", \"<\", \"{{up to}}\", \">=\", \"{{direction}}\", \"DESC\"", "\"{{after}}\", \">\", \"{{up to}}\", \"<=\", \"{{direction}}\", \"ASC\""},
	}},
	{name: "a reminder goes to members that have joined", test: "TestList_ExpiresBefore", edits: []edit{
		{"store_pgx_rows.go", "arg.Statuses, arg.ExpiresBefore = []Status{StatusPending}, pgxTime", "arg.Statuses, arg.ExpiresBefore = statuses, pgxTime"},
	}},
	{name: "a prefix keeps its domain in Unicode", test: "TestNormalizePrefix", edits: []edit{
		{"validate.go", "				labels[i] = ascii", "				_ = ascii"},
	}},
	{name: "the link of an invitation is in the JSON of a member", test: "TestPromise6_NoSecretInJSON", pkg: "./internal/attacks", edits: []edit{
		{"store.go", "	URL Secret `json:\"-\"`", "	URL Secret `json:\"url\"`"},
	}},
	{name: "signing secrets are logged", test: "TestPromise6_NothingPrivateIsPrinted", pkg: "./internal/attacks", edits: []edit{
		{"logvalues.go", "fmt.Fprint(f, s.String())", "fmt.Fprint(f, s.Reveal())"},
	}},
	{name: "the error text of a duplicate contains the address", test: "TestPromise6_ErrorTextsHaveNothingPrivate", pkg: "./internal/attacks", edits: []edit{
		{"errors.go", `already has this person as a member", e.Ref.TenantID)`, `already has this person as a member", e.Ref.Email)`},
	}},
	{name: "a letter that toolchains map differently is accepted", test: "TestUnstableDomains", edits: []edit{
		{"validate.go", "strings.ContainsFunc(domain+shown, isUnstable)", "strings.ContainsFunc(shown, isUnstable)"},
	}},
	{name: "only the stored bytes of Data are counted", test: "TestBadInput/memory/tiny_number", edits: []edit{
		{"validate.go", "numericSize(tok.String()) > maxNumber", "len(tok) > maxNumber"},
	}},
	{name: "only one form of a domain is looked up", test: "TestInvite_DomainInEitherForm", edits: []edit{
		{"validate.go", "err == nil && form != email && sameEmail(form, email)", "err == nil && form == \"\" && sameEmail(form, email)"},
	}},
	{name: "one invalid user fails the look-up", test: "TestOneRuleForResponsesAndWebhooks", pkg: "./clerkapi", edits: []edit{
		{"clerkapi/users.go", "		if !ok {\n			continue\n		}", "		if !ok {\n			return nil, false, errors.New(\"a user has no valid ID\")\n		}"},
	}},
	{name: "a membership of another organization counts", test: "TestFindMembershipsResponse", pkg: "./clerkapi", edits: []edit{
		{"clerkapi/organizations.go", "m.UserID != \"\" && m.OrganizationID == organization", "m.UserID != \"\""},
	}},
	{name: "a user missing from an unfiltered page is not a member", test: "TestFindMembershipsResponse", pkg: "./clerkapi", edits: []edit{
		{"clerkapi/organizations.go", "if len(items) >= maxPage {", "if false {"},
	}},
	{name: "an organization is put into a path unchecked", test: "TestTrap11IDsAreValidated", pkg: "./clerkapi", edits: []edit{
		{"internal/clerkcheck/clerkcheck.go", "case !wire.ValidID(m.OrganizationID):", "case false:"},
	}},
	{name: "a plan without a free seat has another reason", test: "TestOrganization_RefusalNamesTheOrganization", edits: []edit{
		{"organization.go", "code == codeFull || code == codeNoSeats", "code == codeFull"},
	}},
	{name: "a bulk request mixes organizations", test: "TestTrap16InvitationsIntoOrganizations", pkg: "./clerkapi", edits: []edit{
		{"internal/clerkcheck/clerkcheck.go", "case r.OrganizationID != rs[0].OrganizationID:", "case false:"},
	}},
	{name: "a store's results are not counted", test: "TestContract_Store", pkg: "./internal/attacks", edits: []edit{
		{"contract.go", "if len(results) != n {", "if false {"},
	}},
	{name: "a duplicate without a member is accepted", test: "TestContract_Store", pkg: "./internal/attacks", edits: []edit{
		{"contract.go", "case m == nil:", "case false:"},
	}},
	{name: "a store that never swaps a time is called forever", test: "TestContract_Store", pkg: "./internal/attacks", edits: []edit{
		{"contract.go", "stored.Equal(old) && !next.Equal(old)", "false"},
	}},
}
