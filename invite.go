package clerkinvite

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Config configures a [Service]. Later changes have no effect.
type Config struct {
	API   ClerkAPI // required: clerkapi.New, or a fake
	Store Store    // required: NewPgxStore, or another store that passes storetest

	// Organizations is required for InviteParams.Organization: clerkapi.New, or a fake. Keep it set
	// while members exist that were invited into an organization. If it is missing, calls that need it
	// return an error that says so, for which HTTPError returns 500, and deliveries to existing users wait.
	Organizations OrganizationAPI

	// Logger gets state changes (Info) and failures (Warn, Error), without addresses, links or
	// keys. Defaults to no logging.
	Logger *slog.Logger

	// Now is this machine's clock. Times in the store follow Store.Clock, so a test with a PgxStore must also
	// set PgxOptions.Now. Defaults to time.Now.
	Now func() time.Time

	// RedirectURL is used if InviteParams has none: an http or https URL, an app's URL
	// (myapp://accept) or a path, of at most 2048 bytes. Defaults to "", which means Clerk's own
	// page.
	RedirectURL string

	// ExpiresInDays is used if InviteParams has none: 1 to 365. Defaults to 30.
	ExpiresInDays int

	// Lease is how long a delivery attempt owns a row: 100 ms to 1 h. Requests to Clerk must
	// finish within three quarters of it. If the process dies during the first attempt, another
	// starts when the lease ends. With each further attempt this wait doubles, up to 1 h, but the
	// lease does not. Defaults to 1 minute.
	Lease time.Duration

	// ResendCooldown is how long after an invitation Resend refuses to send another. Defaults to
	// 1 minute; a negative value means none.
	ResendCooldown time.Duration

	// WithdrawOnFailure is for hosts that want an invitation now or not at all. Every invitation is
	// tried once. It is withdrawn if Clerk fails or its response is lost. A rate limit also withdraws
	// it in Invite, in Resend, and in InviteMany without Wait. Invitations from Reserve, ReserveMany,
	// and InviteMany with Wait are sent when the limit ends. The error is the same as without this
	// option.
	//
	// The member of a withdrawn invitation becomes failed, with [ReasonWithdrawn]. After a Resend, it
	// stays pending with the older invitation or, in an organization, becomes revoked.
	//
	// If Clerk may have created the invitation, it is revoked, immediately or by the next
	// Reconcile. If the process dies, the person can accept the invitation until the next Deliver,
	// Invite or Resend withdraws it.
	//
	// The option is stored with each invitation, so a later change affects only new ones. Defaults to
	// false: an invitation that could not be sent is sent later.
	WithdrawOnFailure bool

	// Authorize, if set, is called before Invite, InviteMany, Reserve or ReserveMany write
	// anything, for example to check a list of allowed domains. The parameters are valid and
	// normalised. Authorize may change them; they are checked again. Its error is returned unchanged.
	//
	// Authorize cannot enforce a number, such as free seats, because it is called concurrently, and for all
	// entries of a list before the first is written. examples/seats enforces a number in your transaction.
	Authorize func(ctx context.Context, p *InviteParams) error

	// Observer, if set, is called for verbs, requests to Clerk and state changes, for traces and
	// metrics.
	Observer Observer
}

// Service invites people and keeps their rows correct. Create it with [New]. It is safe for
// concurrent use and does not need to be closed. It starts no goroutines except in Run and, when a context ends
// during a create, one that waits for Clerk's response.
type Service struct {
	cfg    Config
	api    ClerkAPI
	store  Store
	log    *slog.Logger
	limits limits
	clock  storeClock

	lastTenant atomic.Pointer[string] // of the last batch that Deliver has claimed
}

// New returns a service. If the configuration is invalid, the error joins everything that is wrong
// with it. New does no I/O.
func New(cfg Config) (*Service, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the default
	}
	if cfg.ExpiresInDays == 0 {
		cfg.ExpiresInDays = 30
	}
	if cfg.Lease == 0 {
		cfg.Lease = time.Minute
	}
	if cfg.ResendCooldown == 0 {
		cfg.ResendCooldown = time.Minute
	}
	var invalid []error
	if cfg.API == nil {
		invalid = append(invalid, errors.New("clerkinvite: Config.API is missing: set it to the result of clerkapi.New"))
	}
	if cfg.Store == nil {
		invalid = append(invalid, errors.New("clerkinvite: Config.Store is missing: set it to the result of NewPgxStore"))
	}
	if reason := checkRedirectURL(cfg.RedirectURL); reason != "" {
		invalid = append(invalid, errors.New("clerkinvite: Config.RedirectURL "+reason))
	}
	if cfg.ExpiresInDays < 1 || cfg.ExpiresInDays > 365 {
		invalid = append(invalid, errors.New("clerkinvite: Config.ExpiresInDays must be 1 to 365, or 0 for 30"))
	}
	if cfg.Lease < minLease || cfg.Lease > maxLease {
		invalid = append(invalid, errors.New("clerkinvite: Config.Lease must be 100ms to 1h, or 0 for 1m"))
	}
	if len(invalid) > 0 {
		return nil, errors.Join(invalid...)
	}
	return &Service{cfg: cfg, api: cfg.API, store: checkedStore{cfg.Store}, log: cfg.Logger}, nil
}

// InviteParams describes one invitation. Only TenantID and Email are required.
type InviteParams struct {
	TenantID  string // 1 to 255 bytes, without control or invisible characters
	Email     string // one address, at most 254 bytes; trimmed, lower-cased, and its domain converted to ASCII
	Role      string // at most 255 bytes, without control or invisible characters; not sent to Clerk
	InvitedBy string // the same; not sent to Clerk

	RedirectURL    string         // "" means Config.RedirectURL
	ExpiresInDays  int            // 1 to 365; 0 means Config.ExpiresInDays
	Template       string         // Clerk's template_slug; "" means Clerk's "invitation"
	SkipEmail      bool           // Clerk sends no email; the host sends Member.URL itself
	PublicMetadata map[string]any // sent to Clerk, which copies it to the user or, in an organization, to the membership; with the library's key "clerkinvite" at most 8 KiB as JSON

	Organization *Organization // nil means that the person is invited into the application; otherwise Template must be ""

	Data json.RawMessage // any JSON, at most 64 KiB as stored and 128 levels deep; not sent to Clerk
}

// Invite invites one address into one tenant. It reserves a row, looks for a Clerk user who has
// verified the address, links that user or creates an invitation, and saves the result. The
// member's status says what happened:
//   - active: an existing Clerk user was linked, and no email was sent;
//   - pending: Clerk has sent the invitation.
//
// A member that is failed, revoked, expired, removed, or pending past its expiry is invited again.
//
// With Organization, active means that the user is a member of the organization. A user who is
// not a member gets the organization's invitation, or is added immediately with AddExisting. A pending
// invitation of the organization for the address is adopted, without another email.
//
// A pending or active member is a duplicate, without a request to Clerk. But if its row
// has not changed for a day, one Invite per day asks Clerk. If Clerk shows one of these changes, Invite
// updates the row as Reconcile would, and invites the person:
//
//   - The invitation was revoked or has expired.
//   - The user has another address now.
//   - The user was deleted, and another user has verified the address.
//
// Otherwise, or if Clerk fails, the member is a duplicate.
//
// If Clerk fails, Invite returns a *[ClerkInvitationError], and the row stays: see
// [ClerkInvitationError.Queued] and [Config].WithdrawOnFailure. Deliver, or another Invite,
// continues without a second email.
//
// Errors:
//   - *[InvalidParamsError], or an error about a missing Config.Organizations, before anything is written;
//   - the error of Config.Authorize, unchanged;
//   - *[DuplicateEmailError] if the tenant has a member with this address, or another caller is
//     inviting it;
//   - *[ClerkInvitationError] if Clerk refuses the person or fails, or the context ends during
//     the delivery;
//   - [ErrConflict] if the invitation is revoked or removed during the call, or the row keeps
//     changing;
//   - the context's and the store's error, unchanged.
//
// If the context ends while the invitation is being created, Invite waits up to five more seconds for
// Clerk's response. If the database or Clerk hangs, the call can take another half of Config.Lease, or
// some seconds if that is longer.
//
// Invite is safe for concurrent use, in several processes too, and safe to retry.
func (s *Service) Invite(ctx context.Context, p InviteParams) (_ *Member, err error) {
	ctx, op := s.observe(ctx, "Invite")
	defer op.end(&err)
	want, err := s.prepare(ctx, p, s.withdrawal(onDelay))
	if err != nil {
		return nil, err
	}
	return s.invite(ctx, want)
}

// invite reserves a prepared row and delivers it.
func (s *Service) invite(ctx context.Context, want *Member) (*Member, error) {
	// A round ends without a result if the row changed in between or was out of date, or if an earlier
	// attempt's invitation has ended or was withdrawn.
	var own *Member // the row that the previous round has written
	for range 3 {
		r, again := s.inviteOnce(ctx, want)
		var dup *DuplicateEmailError
		switch {
		case own != nil && errors.As(r.Err, &dup) && dup.Member.ID == own.ID && dup.Member.Send == own.Send:
			// This call's own row is not a duplicate.
			return overtaken(dup.Member)
		case !again:
			return r.Member, r.Err
		}
		own = r.Member
		var err error
		if want, err = withNewID(want); err != nil {
			return nil, err
		}
	}
	return nil, ErrConflict
}

// overtaken returns the result of an Invite whose row another call delivers, has delivered, or is erasing.
func overtaken(row *Member) (*Member, error) {
	switch {
	case row.Due():
		return nil, &ClerkInvitationError{Op: "deliver", Outcome: OutcomeFault, Member: row, Err: errLeaseEnds}
	case row.Status == StatusPending, row.Status == StatusActive:
		return row, nil
	}
	return nil, ErrConflict
}

// inviteOnce is one round of invite. With again, another round is needed, and r.Member is the row that this round has
// written, if any.
func (s *Service) inviteOnce(ctx context.Context, want *Member) (r Result, again bool) {
	p, row, err := s.reserveNow(ctx, want)
	var dup *DuplicateEmailError
	if errors.As(err, &dup) {
		free, failure := s.clearStaleDuplicate(ctx, dup.Member)
		if free {
			return Result{}, true // the address can be invited now
		}
		err = cmp.Or(failure, err)
	}
	switch {
	case err != nil:
		return Result{Err: err}, false
	case row == nil: // purged
		return Result{}, true
	case row.Due() && !p.owns(row):
		return Result{Member: row}, true // the next round takes it over, unless another attempt owns it
	}
	var done delivery
	if p.owns(row) {
		done = s.deliverNow(ctx, p, row)
	} else {
		done.Member = row // another caller has delivered or ended it
	}
	switch {
	case done.Err != nil:
		return Result{Err: done.Err}, false
	case done.Member.Status == StatusActive, done.Member.Status == StatusPending:
		return done.Result, false
	case done.Member.Status == StatusReserved: // for a new send: another caller has ended the row and reserved it again
		return Result{Err: &DuplicateEmailError{done.Member.Ref(), done.Member}}, false
	case done.endedConcurrently():
		return Result{Err: ErrConflict}, false
	}
	return Result{Member: row}, true // the row has ended in another way: invite again
}

// reserveNow reserves a row and claims it for a new pass. If another caller changes the row in the meantime, the pass does
// not own it; the row is nil if it was purged.
func (s *Service) reserveNow(ctx context.Context, want *Member) (*pass, *Member, error) {
	p, err := s.newPass(ctx)
	if err != nil {
		return nil, nil, err
	}
	reserved, err := s.reserve(ctx, reservation{s.store, p, true}, []*Member{want})
	if err != nil {
		return nil, nil, err
	}
	row, err := reserved[0].Member, reserved[0].Err
	if err == nil && p.owns(row) && !p.fresh(s.now()) { // the insert waited for a transaction that had written the address
		row, err = s.reclaimRow(ctx, p, row)
	}
	return p, row, err
}

// reclaimRow claims a row of the pass again, under a new lease, unless the row has lost the first claim. It
// returns nil if the row was purged.
func (s *Service) reclaimRow(ctx context.Context, p *pass, row *Member) (claimed *Member, err error) {
	claimed, err = s.change(ctx, row.refByID(), func(current *Member) (_ *Member, err error) {
		if !current.hasClaimOf(row) {
			return current, nil
		}
		if p.lease, err = s.newLease(ctx); err != nil {
			return nil, err
		}
		p.dueAt = p.claimedAt
		next := *current
		next.Attempts-- // the same attempt
		again := s.asClaimed(next, p.claimedAt)
		first := p.claims[row.ID] // keep what it has replaced
		p.claims[row.ID] = claim{again.ClaimedUntil, first.wasDueAt, first.hadEffect}
		return again, nil
	})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return claimed, err
}

// withNewID returns want with another ID, because Store.Insert treats a row with the same ID as its own retry.
func withNewID(want *Member) (*Member, error) {
	id, err := newID()
	next := *want
	next.ID = id
	return &next, err
}

func newID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("clerkinvite: generate member ID: %w", err)
	}
	return id.String(), nil
}

// Reserve writes the row for an invitation and sends nothing. DeliverMembers sends it
// immediately; otherwise Run sends it when it reaches it.
//
// Errors: those of Invite, without Clerk's. A member that is already reserved is a
// *[DuplicateEmailError]. Reserve is safe for concurrent use and safe to retry.
func (s *Service) Reserve(ctx context.Context, p InviteParams) (*Member, error) {
	return (&Reserver{s, s.store}).Reserve(ctx, p)
}

// InTx returns a Reserver that writes through st, usually PgxStore.WithTx(tx). The reserved row
// commits or rolls back with the host's rows, and nothing is sent before the commit. After it,
// call [Service.DeliverMembers], or leave the row to Run.
func (s *Service) InTx(st TxStore) *Reserver { return &Reserver{s, checkedTx{st}} }

// Reserver writes members inside the host's transaction. It cannot call Clerk.
type Reserver struct {
	s  *Service
	st TxStore
}

// Reserve writes the row for an invitation. A duplicate does not abort the transaction.
//
// Errors: those of [Service.Reserve]. It is as safe for concurrent use as the transaction is.
func (r *Reserver) Reserve(ctx context.Context, p InviteParams) (_ *Member, err error) {
	ctx, op := r.s.observe(ctx, "Reserve")
	defer op.end(&err)
	want, err := r.s.prepare(ctx, p, r.s.withdrawal(onFailure))
	if err != nil {
		return nil, err
	}
	results, err := r.s.reserve(ctx, reservation{st: r.st}, []*Member{want})
	if err != nil {
		return nil, err
	}
	if results[0].Err != nil {
		return nil, results[0].Err
	}
	return results[0].Member, nil
}

// reservation says how reserve writes rows.
type reservation struct {
	st       TxStore
	pass     *pass // claims the rows; without one they wait for Deliver
	takeOver bool  // a reserved row that no attempt owns is not a duplicate
}

// slot is one row that reserve must write.
type slot struct {
	want     *Member
	existing *Member // the existing row with this address
	result   Result
	done     bool
}

func (sl *slot) finish(r Result) { sl.result, sl.done = r, true }

// reserve writes one row per wanted member, or turns an existing row into the wanted one if its
// state allows that. Otherwise Result.Err is a *DuplicateEmailError. After an error, the results say
// which rows were written.
func (s *Service) reserve(ctx context.Context, r reservation, wanted []*Member) ([]Result, error) {
	err := s.setClock(ctx, r.st)
	slots, now := make([]*slot, len(wanted)), s.now()
	for i, m := range wanted {
		m.ReservedAt, m.NextAttemptAt, m.UpdatedAt = now, &now, now
		slots[i] = &slot{want: r.claim(s, m)}
	}
	// A row may change between the insert that found it and the update that renews it. Every
	// round means that another caller made progress, so a few are enough.
	for round, open := 0, slots; round < 10 && len(open) > 0 && err == nil; round++ {
		open, err = s.reserveOnce(ctx, r, open)
	}
	results := make([]Result, len(slots))
	for i, sl := range slots {
		results[i] = sl.result
		if !sl.done {
			results[i] = Result{Err: cmp.Or(err, ErrConflict)}
		}
	}
	return results, err
}

// claim claims the row for the reservation's pass, if it has one.
func (r reservation) claim(s *Service, m *Member) *Member {
	if r.pass == nil {
		return m
	}
	return r.pass.claim(s, *m)
}

// reserveOnce inserts the wanted rows, and renews the existing rows with these addresses. It returns the
// slots whose row another caller changed in between.
func (s *Service) reserveOnce(ctx context.Context, r reservation, slots []*slot) (open []*slot, err error) {
	if err := s.insert(ctx, r.st, slots); err != nil {
		return nil, err
	}
	// Read the time now, because the insert may have waited.
	if err := s.setClock(ctx, r.st); err != nil {
		return nil, err
	}
	now := s.now()
	var changes []Change
	var renewed []*slot
	for _, sl := range slots {
		if sl.done {
			continue
		}
		if next := renew(sl.existing, sl.want, now, r.takeOver); next != nil {
			changes, renewed = append(changes, Change{sl.existing, r.claim(s, next)}), append(renewed, sl)
		} else {
			sl.finish(Result{sl.existing, &DuplicateEmailError{sl.existing.Ref(), sl.existing}})
		}
	}
	updated, err := s.apply(ctx, r.st, changes)
	if err != nil {
		return nil, err
	}
	for i, sl := range renewed {
		if errors.Is(updated[i].Err, ErrConflict) {
			open = append(open, sl)
		} else {
			sl.finish(updated[i])
		}
	}
	return open, nil
}

// insert inserts the wanted rows. It sets existing to the existing row with this address, if any.
func (s *Service) insert(ctx context.Context, st TxStore, slots []*slot) error {
	rows := make([]*Member, len(slots))
	for i, sl := range slots {
		rows[i] = sl.want
		rows[i].ChangedBy = actor(ctx)
	}
	inserted, err := st.Insert(ctx, rows)
	if err != nil {
		return err
	}
	for i, sl := range slots {
		var dup *DuplicateEmailError
		if r := inserted[i]; errors.As(r.Err, &dup) {
			sl.existing = dup.Member
		} else {
			sl.finish(r) // the store may have repeated the insert after a lost response, and the row may have changed since
			if r.Err == nil {
				s.memberAdded(ctx, r.Member)
			}
		}
	}
	return nil
}

// renew returns old prepared for the wanted invitation, or nil if old is a duplicate.
func renew(old, want *Member, now time.Time, takeOver bool) *Member {
	switch {
	case old.isClaimed(now):
		return nil
	case old.Status == StatusReserved && takeOver:
		return takenOver(old, want)
	case old.Status == StatusFailed, old.Status == StatusRevoked, old.Status == StatusRemoved, old.overdue(now):
		return newSend(old, want, now)
	default:
		return nil
	}
}

// takenOver returns a reserved row that no attempt owns, prepared for the wanted invitation. If Clerk may have an
// invitation with other parameters, the parameters cannot change any more. Then takenOver returns nil or, if the
// invitation may be tried only once, the row prepared to be withdrawn first.
func takenOver(old, want *Member) *Member {
	n, params := *old, paramsAfter(old, want)
	n.Role, n.InvitedBy, n.Data = want.Role, want.InvitedBy, want.Data
	switch {
	case bytes.Equal(old.Params, params): // keep them
	case !old.mayHaveEffect():
		n.Params, n.Attempts = params, 0
	case old.clerkParams().Withdraw != "":
		// This makes usedItsOnlyAttempt true, so the new attempt sends nothing and withdraws the send: see decideAbandoned. The
		// next round of invite starts another send.
		n = withoutAnotherAttempt(n)
	default:
		return nil
	}
	n.Bulk = old.Bulk && want.Bulk // a member that was once invited individually stays first
	return &n
}

// newSend returns a member that has ended, prepared for the wanted invitation.
func newSend(old, want *Member, now time.Time) *Member {
	n := *old
	n.Role, n.InvitedBy, n.Data, n.Params = want.Role, want.InvitedBy, want.Data, paramsAfter(old, want)
	n.Status, n.Send, n.Bulk, n.Attempts = StatusReserved, old.Send+1, want.Bulk, 0
	n.ClerkUserID, n.InvitationID, n.URL, n.Reason = "", "", Secret{}, ""
	n.InvitedAt, n.ExpiresAt, n.SettledAt = nil, nil, nil
	n.ReservedAt, n.NextAttemptAt, n.ClaimedUntil = now, &now, nil
	return &n
}

// paramsAfter returns the parameters of want for the row old. If the row was invited elsewhere, Clerk may still have an open
// invitation there, so the parameters say where.
func paramsAfter(old, want *Member) json.RawMessage {
	from, to := old.organization(), want.organization()
	if from == to && !bytes.Contains(old.Params, []byte(`"earlier"`)) { // do not decode the others
		return want.Params
	}
	p := want.clerkParams()
	for _, organization := range append(old.clerkParams().Earlier, from) {
		if organization != to && !slices.Contains(p.Earlier, organization) {
			p.Earlier = append(p.Earlier, organization)
		}
	}
	params, err := json.Marshal(p)
	if err != nil { // cannot happen, because the parameters were decoded
		return want.Params
	}
	return params
}

// clerkParams is what Member.Params contains: the parameters of the invitation. Equal parameters have
// equal encodings.
type clerkParams struct {
	RedirectURL    string          `json:"redirect_url,omitempty"`
	ExpiresInDays  int             `json:"expires_in_days,omitempty"`
	Template       string          `json:"template,omitempty"`
	SkipEmail      bool            `json:"skip_email,omitempty"`
	PublicMetadata json.RawMessage `json:"public_metadata,omitempty"`

	Organization *Organization `json:"organization,omitempty"`

	Withdraw withdrawal `json:"withdraw,omitempty"` // not sent to Clerk
	Earlier  []string   `json:"earlier,omitempty"`  // other places that the member was invited into before: organizations, and "" for the application
}

// clerkParams decodes Params. Rows of this library always decode; a row that the host wrote gets the zero value.
func (m Member) clerkParams() (p clerkParams) {
	_ = json.Unmarshal(m.Params, &p)
	return p
}

// InviteParams returns the parameters of the member's last invitation, for inviting the person again.
// RedirectURL and ExpiresInDays contain the Config's values if the caller set none. Organization is nil
// if the person was invited into the application.
func (m Member) InviteParams() InviteParams {
	p := m.clerkParams()
	var metadata map[string]any
	var values map[string]json.RawMessage // keep their encoding, so that equal parameters stay equal
	_ = json.Unmarshal(p.PublicMetadata, &values)
	for key, value := range values {
		if metadata == nil {
			metadata = make(map[string]any, len(values))
		}
		metadata[key] = value
	}
	return InviteParams{
		TenantID: m.TenantID, Email: m.Email, Role: m.Role, InvitedBy: m.InvitedBy,
		RedirectURL: p.RedirectURL, ExpiresInDays: p.ExpiresInDays, Template: p.Template, SkipEmail: p.SkipEmail, PublicMetadata: metadata,
		Organization: p.Organization, Data: m.Data,
	}
}

// organization returns the ID of the organization that the invitation is for, or "".
func (p clerkParams) organization() string {
	if p.Organization == nil {
		return ""
	}
	return p.Organization.ID
}

// withdrawal returns w if Config.WithdrawOnFailure is set.
func (s *Service) withdrawal(w withdrawal) withdrawal {
	if !s.cfg.WithdrawOnFailure {
		return ""
	}
	return w
}

// maxSend is the largest send number for which the size of the metadata is checked.
const maxSend = 1_000_000

// metadataKey is the key of the library's marker in public_metadata.
const metadataKey = "clerkinvite"

// prepare checks p, calls Authorize, and returns the row to reserve.
func (s *Service) prepare(ctx context.Context, p InviteParams, w withdrawal) (*Member, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, err := s.newMember(&p, w)
	if err != nil || s.cfg.Authorize == nil {
		return m, err
	}
	if err := s.cfg.Authorize(ctx, &p); err != nil {
		return nil, err
	}
	return s.newMember(&p, w)
}

// newMember validates and normalises p and returns the row for it, without its times.
func (s *Service) newMember(p *InviteParams, w withdrawal) (*Member, error) {
	ref, err := addressRef(p.TenantID, p.Email)
	if err != nil {
		return nil, err
	}
	p.Email = ref.Email
	if p.RedirectURL == "" {
		p.RedirectURL = s.cfg.RedirectURL
	}
	if p.ExpiresInDays == 0 {
		p.ExpiresInDays = s.cfg.ExpiresInDays
	}
	for _, check := range []struct{ field, reason string }{
		{"Role", checkText(p.Role, 255)},
		{"InvitedBy", checkText(p.InvitedBy, 255)},
		{"RedirectURL", checkRedirectURL(p.RedirectURL)},
		{"ExpiresInDays", checkDays(p.ExpiresInDays)},
		{"Template", checkTemplate(p.Template)},
		{"Data", checkData(p.Data)},
	} {
		if check.reason != "" {
			return nil, &InvalidParamsError{check.field, check.reason}
		}
	}
	if err := s.checkOrganization(p); err != nil {
		return nil, err
	}
	id, err := newID()
	if err != nil {
		return nil, err
	}
	metadata, reason := encodeMetadata(p.PublicMetadata, mark{id, maxSend})
	if reason != "" {
		return nil, &InvalidParamsError{"PublicMetadata", reason}
	}
	params, err := json.Marshal(clerkParams{p.RedirectURL, p.ExpiresInDays, p.Template, p.SkipEmail, metadata, p.Organization, w, nil})
	if err != nil {
		return nil, &InvalidParamsError{"PublicMetadata", "is not a JSON object"}
	}
	return &Member{
		ID: id, TenantID: p.TenantID, Email: p.Email, Status: StatusReserved,
		Role: p.Role, InvitedBy: p.InvitedBy, Data: p.Data, Params: params,
		Send: 1, Version: 1,
	}, nil
}

// doubtAge is how old a row must be before Invite checks a duplicate at Clerk. Run reconciles every hour,
// so younger rows are rarely out of date.
const doubtAge = 24 * time.Hour

// doubtful reports whether the row is so old that it may differ from Clerk.
func (m Member) doubtful(now time.Time) bool {
	return (m.Status == StatusPending || m.Status == StatusActive) && !m.Due() && !m.isClaimed(now) && now.Sub(m.UpdatedAt) >= doubtAge
}

// clearStaleDuplicate handles a member that blocks an invitation as a duplicate. If the row may be out of
// date, it asks Clerk and changes the row as Reconcile would. It reports whether the address can be
// invited now. That is false, without an error, if Clerk fails or another process changes the row.
func (s *Service) clearStaleDuplicate(ctx context.Context, row *Member) (free bool, err error) {
	if !row.doubtful(s.now()) {
		return false, nil
	}
	// Because UpdatedAt is set before Clerk is called, a member is checked once a day, however many callers there are
	// and whatever Clerk responds.
	unchanged := *row
	noted, err := s.changeOne(ctx, row, &unchanged)
	switch {
	case err != nil:
	case noted.Status == StatusActive:
		free, err = s.addressGivenUp(ctx, noted)
	default:
		free, err = s.invitationEnded(ctx, noted)
	}
	var clerks *APIError
	switch {
	case errors.As(err, &clerks):
		s.log.WarnContext(ctx, "duplicate not checked", "member", *row, "cause", logError(err))
		return false, nil
	case errors.Is(err, ErrConflict):
		return false, nil
	}
	return free, err
}

// invitationEnded ends a pending member if Clerk lists its invitation as ended. It reports whether the address is free.
func (s *Service) invitationEnded(ctx context.Context, row *Member) (bool, error) {
	list, err := s.listAll(ctx, row)
	if err != nil {
		return false, err
	}
	next := listedAsEnded(row, list, s.now())
	if next == nil {
		return false, nil
	}
	_, err = s.changeOne(ctx, row, next)
	return err == nil, err
}

// listedAsEnded returns the pending row in its new state if Clerk lists its invitation as ended, and nil
// otherwise. An invitation that is missing from the list may still exist.
func listedAsEnded(row *Member, list []Invitation, now time.Time) (next *Member) {
	for i := range list {
		if m, ours := list[i].mark(); ours && m.ID == row.ID && m.Send > row.Send {
			return nil // the row is older than the invitation, as after restoring a backup
		}
		if list[i].ID == row.InvitationID {
			next = asEndedAtClerk(row, list[i].Status, now)
		}
	}
	return next
}

// addressGivenUp reads an active member's user from Clerk. If the user has given up the member's address,
// the member gets the user's new address. If the user was deleted, userReplaced decides. It reports whether
// the address is free.
func (s *Service) addressGivenUp(ctx context.Context, row *Member) (bool, error) {
	if !clerkID.MatchString(row.ClerkUserID) {
		return false, nil // imported with an ID that Clerk cannot have
	}
	u, err := s.readUser(ctx, row.ClerkUserID)
	if errors.Is(err, ErrNotFound) {
		return s.userReplaced(ctx, row)
	}
	if err != nil {
		return false, err
	}
	updated, err := s.updateAddress(ctx, u, row, true)
	return err == nil && (updated == nil || updated.Email != row.Email), err // nil if the member was purged
}

// userReplaced removes an active member whose user was deleted if another user has verified the address. It
// first checks the secret key, because another Clerk instance does not know the user.
func (s *Service) userReplaced(ctx context.Context, row *Member) (bool, error) {
	users, err := s.findUsersOf(ctx, row.Email)
	if u := verifiedBy(users, row.Email); err != nil || u == nil || u.ID == row.ClerkUserID {
		return false, err
	}
	if ours, err := s.proveKeyFor(ctx, row); err != nil || !ours {
		return false, err
	}
	_, err = s.changeOne(ctx, row, asEnded(*row, StatusRemoved, ReasonUserDeleted, s.now()))
	return err == nil, err
}
