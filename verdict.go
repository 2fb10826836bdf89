package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"
)

// verdict is what Clerk's responses mean for one claimed row: what becomes of the row, and
// what the caller is told. It applies to any version of the row, so it can be written again
// if another process changes the row first. The zero value means undecided.
type verdict struct {
	kind       verdictKind
	op         string      // the operation that decided, for the caller's error
	invitation *Invitation // the row's invitation; for a linked user, the one they accepted, or nil if unknown
	user       *User       // the linked user, or the one of the active member
	other      *Member     // isSecondAddress: the active member
	reason     string      // Member.Reason
	err        error       // the cause, if Clerk refused the person or the attempt did not complete
	dueAt      time.Time   // when a row that keeps waiting is due
	uncounted  bool        // the attempt does not count
	leftOver   bool        // the member may have other open invitations; see decide
	adopted    bool        // the invitation has another marker or none, and may be another application's, so undo does not revoke it
	stop       bool        // err concerns the whole instance, so the pass ends
	withdraw   bool        // the row is withdrawn instead of waiting for another attempt
}

type verdictKind int

const (
	undecided verdictKind = iota

	// The send is completed.
	isInvited       // pending on the invitation
	isLinked        // active as the user
	isRefused       // failed; a pending member keeps its older invitation
	isExpired       // an earlier attempt's invitation has expired
	isRevoked       // an earlier attempt's invitation was revoked at Clerk
	isSecondAddress // removed: the user is in the tenant under another address
	isAbandoned     // withdrawn: the only attempt did not complete, usually because its process died

	// The row keeps waiting, or is withdrawn; see withdrawal.
	isUncertain // a request that sends may still arrive: the claim stays until the lease ends
	isPostponed // failed, and no such request may still arrive: due again later
	isLimited   // not completed because of a rate limit: due when it ends
	isReleased  // not completed because the pass ended: due immediately, or later if the attempt was early
)

// completes reports whether a verdict of kind k completes the send.
func (k verdictKind) completes() bool {
	switch k {
	case isInvited, isLinked, isRefused, isExpired, isRevoked, isSecondAddress, isAbandoned:
		return true
	default:
		return false
	}
}

// keepsWaiting reports whether the row keeps waiting for delivery.
func (v *verdict) keepsWaiting() bool {
	return v.kind != undecided && !v.kind.completes() && !v.withdraw
}

// withdrawal says when an invitation is withdrawn instead of being tried again. It is stored in the
// row when the invitation is requested, so that every attempt decides the same.
type withdrawal string

const (
	onFailure withdrawal = "failure" // if the attempt fails, but it may wait for a rate limit
	onDelay   withdrawal = "delay"   // also if a rate limit would delay it
)

// withdraws reports whether a row is withdrawn instead of waiting after a verdict of kind k. last means
// that its caller makes no other attempt.
func (w withdrawal) withdraws(k verdictKind, last bool) bool {
	switch k {
	case isUncertain, isPostponed:
		return w != ""
	case isLimited:
		return w == onDelay
	case isReleased:
		return w != "" && last
	default:
		return false
	}
}

// asUnsent completes the send without an invitation. A pending member keeps the older one, unless that was revoked.
func (a *attempt) asUnsent(m Member, reason string, now time.Time) *Member {
	switch {
	case m.Status != StatusPending:
		return asEnded(m, StatusFailed, reason, now)
	case a.olderRevoked:
		return asEnded(m, StatusRevoked, reason, now)
	}
	m.Sent, m.Reason, m.ClaimedUntil, m.NextAttemptAt = m.Send, clip(reason), nil, nil
	return &m
}

// foundEnded reports whether an invitation of an earlier attempt was found that has ended.
func (k verdictKind) foundEnded() bool { return k == isExpired || k == isRevoked }

// outcome is what the decision means for the caller's error.
func (v *verdict) outcome() Outcome {
	switch v.kind {
	case isRefused:
		return OutcomeRefused
	case isUncertain:
		return OutcomeUncertain
	default:
		return OutcomeFault
	}
}

// changedRow returns the row changed as the verdict says.
func (a *attempt) changedRow(now time.Time) *Member {
	m, v := *a.row, &a.verdict
	if v.uncounted && !a.bulkRejected { // a rejected bulk request counts in Attempts, so that the next attempt looks first
		m.Attempts--
	}
	if v.withdraw {
		n := a.asUnsent(m, ReasonWithdrawn, now)
		if v.kind == isUncertain { // an email may have been sent just now; asUnsent keeps the time of a resend's older one
			n.SettledAt = &now
			n.ClaimedUntil = &now // not a claim: justWithdrawn makes Purge wait for a lease after it
		}
		return n
	}
	switch v.kind {
	case isInvited:
		p := a.params
		if v.adopted {
			p.ExpiresInDays = 0 // another caller chose when this invitation expires
		}
		return asInvited(m, v.invitation, p, now)
	case isLinked:
		if v.invitation != nil {
			m = *asInvited(m, v.invitation, a.params, now)
		}
		return asJoined(m, v.user.ID, now)
	case isRefused, isAbandoned:
		return a.asUnsent(m, v.reason, now)
	case isExpired:
		return asEnded(*asInvited(m, v.invitation, a.params, now), StatusExpired, "", now)
	case isRevoked:
		m.InvitationID = v.invitation.ID
		return asEnded(m, StatusRevoked, ReasonRevokedAtClerk, now)
	case isSecondAddress:
		return asEnded(m, StatusRemoved, ReasonSecondAddress, now)
	case isPostponed:
		m.Reason = clip(v.reason)
		return asReleased(m, v.dueAt, a.mayHaveEffect())
	case isLimited, isReleased:
		if a.bulkRejected {
			m = withAnotherAttempt(m) // usedItsOnlyAttempt does not count this one
		}
		dueAt := v.dueAt
		if a.claim.wasDueAt.After(dueAt) { // an early attempt must not make the row due earlier
			dueAt = a.claim.wasDueAt
		}
		return asReleased(m, dueAt, a.mayHaveEffect())
	default: // undecided, isUncertain: write does not write these
		return &m
	}
}

// mayHaveEffect reports whether this or an earlier attempt may have had an effect. Then asReleased sets the flag that
// Member.mayHaveEffect reads.
func (a *attempt) mayHaveEffect() bool {
	return a.claim.hadEffect || a.bulkRejected || a.maybeAdded != nil
}

// report returns the delivery for v. m is the row as written or, if that failed, as claimed.
func (v *verdict) report(m *Member) *delivery {
	d := &delivery{Result{Member: m}, v.kind, v.stop}
	switch v.kind {
	case isInvited:
		if m.InvitationID == v.invitation.ID && m.Status == StatusPending {
			m.URL = v.invitation.URL
		}
	case isSecondAddress:
		d.Err = &DuplicateEmailError{m.Ref(), v.other}
	case isRefused, isUncertain, isPostponed, isLimited, isReleased:
		d.Err = &ClerkInvitationError{Op: v.op, Outcome: v.outcome(), Member: m, Err: v.err}
		failure := failureOf(v.err, "")
		if (v.kind == isUncertain || v.kind == isPostponed) && (failure == foreignError || failure == notConfigured) {
			d.Err = v.err // the host's own error or mistake passes unchanged
		}
	default:
	}
	return d
}

// maxLock is the longest wait before a locked user is looked up again; an operator may lift the lock early.
const maxLock = time.Hour

// userVerdict decides for a row whose address u has verified. accepted is the invitation that brought the user, or
// nil if it is unknown. Anyone can lock a user by typing wrong passwords. A temporary lock therefore postpones
// the row instead of refusing the person.
func userVerdict(u *User, accepted *Invitation, now time.Time) verdict {
	switch reason, cause := u.barred(); {
	case reason == ReasonUserLocked && u.LockEndsIn > 0:
		return verdict{
			kind: isPostponed, op: "find users", reason: reason, err: cause,
			dueAt: now.Add(min(u.LockEndsIn, maxLock)), uncounted: true,
		}
	case reason != "":
		return refused("find users", reason, cause)
	}
	return verdict{kind: isLinked, user: u, invitation: accepted}
}

// refused decides for a person whom Clerk does not accept.
func refused(op, reason string, cause error) verdict {
	return verdict{kind: isRefused, op: op, reason: reason, err: cause}
}

// callFailed logs a failed call and decides for the row.
func (s *Service) callFailed(ctx context.Context, p *pass, a *attempt, c call, err error) verdict {
	if !c.sends && canceled(ctx) {
		return s.released(ctx, p) // the caller's context has ended, and the call was not a create
	}
	now := s.now()
	c.early = a.early
	c.othersCreated = c.sends && s.createdSincePreviousAttempt(a.row, now)
	v := failureVerdict(a.row, c, err, now, s.backoff(a.row.Attempts))
	log := s.log.With("op", c.op, "outcome", v.outcome(), "member", *a.row, "cause", logError(err))
	if failure := failureOf(err, ""); failure == foreignError || failure == notConfigured {
		log.WarnContext(ctx, "delivery failed before Clerk")
	} else {
		log.WarnContext(ctx, "call to Clerk failed")
	}
	return v
}

// createdSincePreviousAttempt reports whether this process has created an invitation since the row's previous attempt.
// The time of that attempt is not stored; it was usually at least its backoff ago.
func (s *Service) createdSincePreviousAttempt(row *Member, now time.Time) bool {
	previous := max(1, row.Attempts-1)
	return s.limits.createdSince(now.Add(-s.backoff(previous)))
}

// limited decides for a row that has to wait for the end of a rate limit.
func (s *Service) limited(op string, limit *metLimit) verdict {
	err := limit.err
	var api *APIError
	if errors.As(err, &api) { // the error tells the caller how long to wait from now
		known := *api
		known.wait = max(limit.ends.Sub(s.now()), time.Millisecond)
		err = &known
	}
	return verdict{kind: isLimited, op: op, err: err, dueAt: limit.ends, uncounted: true}
}

// released decides for a row that the pass did not reach, or not completely.
func (s *Service) released(ctx context.Context, p *pass) verdict {
	cause := context.Cause(ctx)
	switch {
	case cause != nil:
	case p.fresh(s.now()):
		cause = errPassEnded
	default:
		cause = errLeaseEnds
	}
	return verdict{kind: isReleased, op: "deliver", err: cause, dueAt: p.dueAt, uncounted: true}
}

var errPassEnded = errors.New("clerkinvite: not attempted: the call ended before this member's turn")

// call describes a request to Clerk that failed.
type call struct {
	op      string
	sends   bool // it could have sent an email, or have added a member
	several bool // it also concerned other members

	organization bool // it was about an organization

	early         bool // its attempt began before the row was due
	othersCreated bool // creates for other members have succeeded since the previous attempt; only set if sends
}

// failureVerdict decides for a row after a failed call. wait is how long to wait before the next attempt. Clerk's
// Retry-After replaces it. But after a rejection, wait is the minimum, because repeated rejections are final.
func failureVerdict(row *Member, c call, err error, now time.Time, wait time.Duration) verdict {
	switch classify(row, c, err) {
	case OutcomeRefused:
		return refused(c.op, reasonOf(err), err)
	case OutcomeUncertain:
		return verdict{kind: isUncertain, op: c.op, err: err}
	default:
		if told, ok := RetryAfter(err); ok && (told > wait || !failureOf(err, "").rejects()) {
			wait = told
		}
		if failureOf(err, "") == rateLimited {
			return verdict{kind: isLimited, op: c.op, err: err, dueAt: now.Add(wait), uncounted: true}
		}
		return verdict{
			kind: isPostponed, op: c.op, err: err, reason: reasonOf(err), dueAt: now.Add(wait),
			uncounted: c.several && !c.sends, // a look-up for several rows says nothing about one of them
			stop:      stops(c, err),
		}
	}
}

// reasonOf returns what Member.Reason says after a failed call.
func reasonOf(err error) string {
	switch {
	case saysFull(err):
		return ReasonOrganizationFull
	case failureOf(err, "").rejects():
		return cmp.Or(codeOf(err), ReasonRejected)
	}
	return cmp.Or(codeOf(err), ReasonUnavailable)
}

// firstFinalAttempt is the first attempt at which a rejection can end the row although Clerk does not say that it refuses
// the person. The row must have been rejected for the same reason before: see Member.Reason. Earlier rejections may be the mistake of a
// firewall, for example while its rules are being changed. So may rejections in quick succession: an early attempt, such
// as after a second click on a button, does not end the row.
const firstFinalAttempt = 3

// classify decides what a failed call can have done to the row's invitation, and whether it
// means that Clerk refuses this person. For organizations see refusedByOrganization in organization.go.
func classify(row *Member, c call, err error) Outcome {
	if c.organization && !c.several && refusedByOrganization(err) {
		return OutcomeRefused
	}
	rowAtFault := false // it would not have happened with another row
	switch failureOf(err, row.Email) {
	case foreignError, noResponse: // assume the worst
		if c.sends {
			return OutcomeUncertain
		}
	case personRejected:
		if !c.several { // otherwise it is unknown whom Clerk refuses
			return OutcomeRefused
		}
	case invalidRequest, parameterRejected:
		rowAtFault = true
	case rejected:
		rowAtFault = c.othersCreated
	case addressTaken:
		// lookAgain's call does not send, so othersCreated is false. Then the member of an application waits, because its next
		// attempt may be allowed to set ignore_existing. In an organization, which has none, repeated rejections end the row.
		rowAtFault = c.othersCreated || c.organization
	default:
	}
	// A row that is always rejected would use up other members' requests.
	again := row.Attempts >= firstFinalAttempt && row.Reason == clip(reasonOf(err))
	if rowAtFault && again && !c.early && !c.several {
		return OutcomeRefused
	}
	return OutcomeFault
}

// stops reports whether a fault concerns the whole instance, so that the pass must end. A fault that concerns one
// member does not end the pass.
func stops(c call, err error) bool {
	switch failureOf(err, "") {
	case foreignError, noConnection, instanceRejected:
		return true
	case invalidRequest, parameterRejected, busy:
		return false
	default:
		return c.several
	}
}

// failure is the kind of a failed call to Clerk.
type failure int

const (
	noFailure         failure = iota
	foreignError              // not Clerk's: the host's, such as an open circuit breaker
	invalidRequest            // the adapter did not send it
	notConfigured             // this process has no Config.Organizations; it concerns members of organizations only
	noConnection              // nothing was sent
	noResponse                // sent; no response, an unreadable one, a redirect, 5xx
	rateLimited               // 429
	instanceRejected          // a key, a quota: it concerns all members
	addressTaken              // Clerk has an invitation or a user for the address: a reason to look again
	personRejected            // Clerk does not accept this address
	parameterRejected         // Clerk rejects a parameter: the redirect URL, the template, the metadata
	busy                      // 409: another request holds a lock
	rejected                  // another 4xx, with or without a known code
)

// failureOf returns the kind of a failure. email is the address that the call was about. If it is "", an error that
// names an address is not personRejected.
func failureOf(err error, email string) failure {
	var invalid *InvalidParamsError
	var api *APIError
	switch {
	case err == nil:
		return noFailure
	case errors.As(err, &invalid):
		return invalidRequest
	case errors.Is(err, errNoOrganizations):
		return notConfigured
	case !errors.As(err, &api):
		return foreignError
	case api.StatusCode == http.StatusTooManyRequests: // before NotSent: a limit known from an earlier response is both
		return rateLimited
	case api.NotSent:
		return noConnection
	case api.StatusCode/100 != 4, api.StatusCode == http.StatusRequestTimeout: // 408 may come from a proxy that passed the request on
		return noResponse
	case slices.Contains(takenCodes, api.Code):
		return addressTaken
	case api.StatusCode == http.StatusUnauthorized, slices.Contains(instanceCodes, api.Code):
		return instanceRejected
	case api.StatusCode == http.StatusConflict:
		return busy
	case api.Code == codeNotAllowed, email != "" && names(api.Meta, email):
		return personRejected
	case api.Meta[metaParamName] != nil:
		return parameterRejected
	default:
		return rejected
	}
}

// rejects reports whether Clerk, or something before it, has rejected the request itself.
func (f failure) rejects() bool {
	return f == invalidRequest || f == addressTaken || f == personRejected || f == parameterRejected || f == rejected
}

// ofInstance reports whether a failure certainly concerns the whole Clerk instance.
func (f failure) ofInstance() bool {
	return f == foreignError || f == noConnection || f == rateLimited || f == instanceRejected
}

// Clerk's error codes, and parts of an error's meta, that decide how to continue. Source: Clerk's error
// catalogue; see docs/clerk-facts.md.
const (
	codeDuplicate           = "duplicate_record"
	codeIdentifierExists    = "form_identifier_exists"
	codeNotAllowed          = "not_allowed_access"
	codeAlreadyRevoked      = "invitation_already_revoked"
	codeAlreadyAccepted     = "invitation_already_accepted"
	codeResourceNotFound    = "resource_not_found"
	codeAlreadyMember       = "already_a_member_in_organization"
	codeNotPending          = "organization_invitation_not_pending"
	codeLastAdmin           = "organization_minimum_permissions_needed"
	codeNoOrganizations     = "organization_not_enabled_in_instance"
	codeUnknownOrganization = "organization_not_found_or_unauthorized"
	codeFull                = "organization_membership_quota_exceeded"
	codeNoSeats             = "insufficient_seats"
	codeNotAdmin            = "not_an_admin_in_organization"
	paramEmail              = "email_address"
	metaParamName           = "param_name"
	metaEmailAddresses      = "email_addresses"
	metaIdentifiers         = "identifiers"
)

// takenCodes are the codes of a create for an address that already has an invitation or a user, in the
// organization if the create is for one.
var takenCodes = []string{codeDuplicate, codeIdentifierExists, "organization_invitation_not_unique", codeAlreadyMember}

// instanceCodes are Clerk's error codes that concern the whole instance.
var instanceCodes = []string{
	"clerk_key_invalid", "authorization_header_format_invalid", "could_not_authenticate_request", "authorization_invalid",
	"user_quota_exceeded", "quota_exceeded", "dev_monthly_email_limit_exceeded", "invitations_not_supported",
	"api_version_invalid", "unsupported_subscription_plan_features",
}

// saysNotFound reports whether Clerk says that the requested object does not exist. A proxy's 404 does not count.
func saysNotFound(err error) bool {
	var api *APIError
	return errors.As(err, &api) && api.StatusCode == http.StatusNotFound && api.Code == codeResourceNotFound
}

// codeOf returns Clerk's error code, or "".
func codeOf(err error) string {
	var api *APIError
	if errors.As(err, &api) {
		return api.Code
	}
	return ""
}

// statusOf returns the HTTP status in an error from Clerk, or 0.
func statusOf(err error) int {
	var api *APIError
	if errors.As(err, &api) {
		return api.StatusCode
	}
	return 0
}

// names reports whether the meta of an error about one address names it.
func names(meta map[string]any, email string) bool {
	return meta[metaParamName] == paramEmail || listsAddress(meta, email)
}

// listsAddress reports whether one of the lists in the meta of an error contains the address.
func listsAddress(meta map[string]any, email string) bool {
	for _, key := range []string{metaEmailAddresses, metaIdentifiers} {
		list, ok := meta[key].([]any)
		if !ok {
			list = []any{meta[key]}
		}
		if slices.ContainsFunc(list, func(v any) bool { s, ok := v.(string); return ok && sameEmail(s, email) }) {
			return true
		}
	}
	return false
}
