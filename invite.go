package clerkinvite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// Config is what a [Service] is made of. Changing it after New changes nothing.
type Config struct {
	API   ClerkAPI // required: clerkapi.New, or a fake
	Store Store    // required: NewPgxStore, or another that passes storetest

	// Logger gets moves (Info) and failures (Warn). It never gets an address, a
	// link or a key. Defaults to none.
	Logger *slog.Logger

	// Now is the clock for everything that is stored or compared with what is
	// stored. Defaults to time.Now.
	Now func() time.Time

	// RedirectURL is used where InviteParams has none. An http or https URL.
	// Defaults to "", Clerk's own.
	RedirectURL string

	// ExpiresInDays is used where InviteParams has none: 1 to 365. Defaults to 30.
	ExpiresInDays int

	// Lease is how long one attempt at delivering owns a row: 100 ms to 1 h. Its
	// calls to Clerk end after three quarters of it; if the process dies, the next
	// attempt starts when it has passed. Defaults to 1 minute.
	Lease time.Duration

	// ResendCooldown is how long after an invitation Resend refuses to send the next.
	// Defaults to 1 minute; a negative value is none.
	ResendCooldown time.Duration

	// Authorize, if set, is asked before anything is written: domain allow lists,
	// free seats and so on. The parameters are valid and normalised; it may change
	// them, and they are checked again. Its error is returned as it is. It is called
	// concurrently.
	Authorize func(ctx context.Context, p *InviteParams) error

	// Observer, if set, sees verbs, requests to Clerk and moves, for traces and metrics.
	Observer Observer
}

// Service invites, delivers and resolves. Make one with [New]. It is safe for
// concurrent use, starts no goroutine, and needs no closing.
type Service struct {
	cfg   Config
	api   ClerkAPI
	store Store
	log   *slog.Logger
	gates gates
}

// New checks the whole configuration and returns every fault in it, joined in one
// error. It does no I/O.
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
	var faults []error
	if cfg.API == nil {
		faults = append(faults, errors.New("clerkinvite: Config.API is missing: set it to the result of clerkapi.New"))
	}
	if cfg.Store == nil {
		faults = append(faults, errors.New("clerkinvite: Config.Store is missing: set it to the result of NewPgxStore"))
	}
	if reason := checkRedirectURL(cfg.RedirectURL); reason != "" {
		faults = append(faults, errors.New("clerkinvite: Config.RedirectURL "+reason))
	}
	if cfg.ExpiresInDays < 1 || cfg.ExpiresInDays > 365 {
		faults = append(faults, errors.New("clerkinvite: Config.ExpiresInDays must be 1 to 365, or 0 for 30"))
	}
	if cfg.Lease < 100*time.Millisecond || cfg.Lease > maxLease {
		faults = append(faults, errors.New("clerkinvite: Config.Lease must be 100ms to 1h, or 0 for 1m"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return &Service{cfg: cfg, api: cfg.API, store: cfg.Store, log: cfg.Logger}, nil
}

// now is the time in the form in which it is stored.
func (s *Service) now() time.Time { return s.cfg.Now().UTC().Truncate(time.Microsecond) }

// InviteParams is one invitation. Only TenantID and Email are required.
type InviteParams struct {
	TenantID  string // 1 to 255 bytes
	Email     string // one address, at most 254 bytes; trimmed, lower-cased, its domain in IDNA form
	Role      string // the host's own, at most 255 bytes; not sent to Clerk
	InvitedBy string // the host's own, at most 255 bytes; not sent to Clerk

	RedirectURL    string         // http or https, at most 2048 bytes; "" takes Config.RedirectURL
	ExpiresInDays  int            // 1 to 365; 0 takes Config.ExpiresInDays
	Template       string         // Clerk's template_slug; "" is Clerk's "invitation"
	SkipEmail      bool           // Clerk sends no email; the host sends Member.URL itself
	PublicMetadata map[string]any // to Clerk, ends in the user's public metadata; 8 KiB as JSON with the library's own key "clerkinvite"

	Data json.RawMessage // the host's own JSON, at most 64 KiB and 128 levels; never sent to Clerk
}

// Invite invites one address into one tenant: it writes the row, asks Clerk who
// holds the address, links that user or creates Clerk's invitation, and settles the
// row. Status of the result says what happened: active, an existing user was linked
// and no email went out; pending, Clerk has sent the invitation.
//
// Invite is safe for concurrent use and for repetition, from any number of
// processes: one caller invites, every other gets a *[DuplicateEmailError]. If it
// fails with a *[ClerkInvitationError] whose Member is reserved, nothing is lost:
// Deliver, or inviting again, goes on from there without a second email.
//
// A member that is failed, revoked, expired, removed, or pending past its expiry is
// invited anew.
//
// Errors: *[InvalidParamsError] before anything is written; what Config.Authorize
// returns; *[DuplicateEmailError]; *[ClerkInvitationError]; [ErrConflict] if somebody
// withdraws the invitation while it is made; a store's error as it is.
func (s *Service) Invite(ctx context.Context, p InviteParams) (_ *Member, err error) {
	ctx, seen := s.observe(ctx, "Invite")
	defer seen.done(&err)
	want, err := s.prepare(ctx, p)
	if err != nil {
		return nil, err
	}
	return s.invite(ctx, want)
}

// invite is Invite for a row that is prepared.
func (s *Service) invite(ctx context.Context, want *Member) (*Member, error) {
	for range 3 {
		l := s.newLease()
		reserved, err := s.reserve(ctx, s.store, []*Member{want}, &l, true)
		if err != nil {
			return nil, err
		}
		if reserved[0].Err != nil {
			return nil, reserved[0].Err
		}
		row := reserved[0].Member
		if !l.fresh() {
			// The insert had to wait, for a transaction that holds the address.
			l = s.newLease()
			again, err := s.apply(ctx, s.store, []Change{{row, s.claimed(*released(*row, l.due), l.claimedAt)}})
			if err != nil {
				return nil, err
			}
			if errors.Is(again[0].Err, ErrConflict) {
				// Somebody else went on with it meanwhile, and may have erased it.
				if want, err = withNewID(want); err != nil {
					return nil, err
				}
				continue
			}
			if again[0].Err != nil {
				return nil, again[0].Err
			}
			row = again[0].Member
		}
		done := s.deliver(ctx, l, []*Member{row})[0]
		if done.Err != nil {
			return nil, done.Err
		}
		m := done.Member
		switch {
		case m.Status == StatusActive, m.Status == StatusPending:
			return m, nil
		case m.Status == StatusReserved: // for another caller by now
			return nil, &DuplicateEmailError{m.Ref(), m}
		case done.withdrawn():
			return nil, ErrConflict
		}
		// An earlier attempt had invited this person, its answer was lost, and that
		// invitation has ended since; or another attempt failed. The caller wants one
		// that works, or to know why not.
		if want, err = withNewID(want); err != nil {
			return nil, err
		}
	}
	return nil, ErrConflict
}

// withdrawn reports whether somebody who knew what they did ended the invitation
// while it was made.
func (d delivery) withdrawn() bool {
	m := d.Member
	return !d.over && (m.Status == StatusRevoked || m.Status == StatusRemoved && m.Reason != ReasonSecondAddress)
}

// withNewID returns the row to insert with another id: the one that is there may be
// this very insert's, and a new one must not pass for it.
func withNewID(want *Member) (*Member, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("clerkinvite: no random numbers: %w", err)
	}
	next := *want
	next.ID = id.String()
	return &next, nil
}

// Reserve writes the row for an invitation and sends nothing: Deliver does, later.
// Validation, Authorize and errors are those of Invite; a member that is already
// reserved is a *[DuplicateEmailError].
func (s *Service) Reserve(ctx context.Context, p InviteParams) (*Member, error) {
	return s.InTx(s.store).Reserve(ctx, p)
}

// InTx returns a Reserver that writes through st, usually PgxStore.WithTx(tx): the
// invitation commits or rolls back with the host's own rows, and nothing is sent
// before Deliver runs after the commit.
func (s *Service) InTx(st TxStore) *Reserver { return &Reserver{s, st} }

// Reserver reserves invitations inside a transaction of the host's. It can do
// nothing else: there is no way to call Clerk while the transaction is open.
type Reserver struct {
	s  *Service
	st TxStore
}

// Reserve writes the row for an invitation. See [Service.Reserve]. A duplicate does
// not abort the transaction. Errors are the same, and those of the transaction; it is
// as safe for concurrent use as that is.
func (r *Reserver) Reserve(ctx context.Context, p InviteParams) (_ *Member, err error) {
	ctx, seen := r.s.observe(ctx, "Reserve")
	defer seen.done(&err)
	want, err := r.s.prepare(ctx, p)
	if err != nil {
		return nil, err
	}
	results, err := r.s.reserve(ctx, r.st, []*Member{want}, nil, false)
	if err != nil {
		return nil, err
	}
	if results[0].Err != nil {
		return nil, results[0].Err
	}
	return results[0].Member, nil
}

// reserve writes one row per member wanted, or makes a row that is there the wanted
// one if its state allows it; Result.Err is a *DuplicateEmailError if not. With a
// lease the rows are claimed by the caller; without one they are left for delivery.
// With takeOver a reserved row that nobody holds is no duplicate.
func (s *Service) reserve(ctx context.Context, st TxStore, wanted []*Member, l *lease, takeOver bool) ([]Result, error) {
	results := make([]Result, len(wanted))
	var todo []int
	for i, w := range wanted {
		todo = append(todo, i)
		if l != nil {
			w = s.claimed(*w, l.claimedAt)
		}
		results[i].Member = w
	}
	// A row can change between the insert that met it and the update that would make
	// it ours; each round somebody got on, so a few rounds are plenty.
	for round := 0; len(todo) > 0; round++ {
		if round == 10 {
			return nil, ErrConflict
		}
		rows := make([]*Member, len(todo))
		for k, i := range todo {
			rows[k] = results[i].Member
		}
		inserted, err := st.Insert(ctx, rows)
		if err != nil {
			return nil, err
		}
		var changes []Change
		var at []int
		for k, i := range todo {
			var dup *DuplicateEmailError
			if !errors.As(inserted[k].Err, &dup) {
				results[i] = inserted[k]
				if inserted[k].Err != nil {
					continue
				}
				if inserted[k].Member.Version == rows[k].Version {
					s.moved(ctx, "", StatusReserved)
					continue
				}
				// Written, but its answer came so late that the row has moved on.
				dup = &DuplicateEmailError{inserted[k].Member.Ref(), inserted[k].Member}
			}
			now := s.now() // the insert may have had to wait
			renewed := renew(dup.Member, rows[k], now, takeOver)
			if renewed == nil {
				results[i] = Result{dup.Member, dup}
				continue
			}
			if l != nil {
				renewed = s.claimed(*renewed, l.claimedAt)
			}
			changes, at = append(changes, Change{dup.Member, renewed}), append(at, i)
		}
		todo = todo[:0]
		if len(changes) == 0 {
			break
		}
		updated, err := s.apply(ctx, st, changes)
		if err != nil {
			return nil, err
		}
		for k, i := range at {
			if errors.Is(updated[k].Err, ErrConflict) {
				todo = append(todo, i)
				continue
			}
			results[i] = updated[k]
		}
	}
	return results, nil
}

// renew returns old as it has to be for a new invitation, not yet claimed, or nil if
// old stands in its way.
func renew(old, want *Member, now time.Time, takeOver bool) *Member {
	n := *old
	n.Role, n.InvitedBy, n.Data = want.Role, want.InvitedBy, want.Data
	switch {
	case old.held(now):
		return nil
	case old.Status == StatusReserved:
		if !takeOver {
			return nil
		}
		// What Clerk may have been told already is not changed behind its back.
		if old.Attempts > 0 && !bytes.Equal(old.Params, want.Params) {
			return nil
		}
		n.Params = want.Params
		return &n
	case old.Status == StatusFailed, old.Status == StatusRevoked, old.Status == StatusRemoved, old.overdue(now):
		n.Status, n.Send, n.Attempts, n.Params = StatusReserved, old.Send+1, 0, want.Params
		n.ClerkUserID, n.InvitationID, n.URL, n.Reason = "", "", Secret{}, ""
		n.InvitedAt, n.ExpiresAt, n.SettledAt = nil, nil, nil
		n.ReservedAt, n.NextAttemptAt = now, &now
		return &n
	default:
		return nil
	}
}

// clerkParams is Member.Params: what goes to Clerk with the invitation. Equal
// parameters have equal encodings.
type clerkParams struct {
	RedirectURL    string          `json:"redirect_url,omitempty"`
	ExpiresInDays  int             `json:"expires_in_days,omitempty"`
	Template       string          `json:"template,omitempty"`
	SkipEmail      bool            `json:"skip_email,omitempty"`
	PublicMetadata json.RawMessage `json:"public_metadata,omitempty"`
}

// metadataKey is the key of the library's mark in public_metadata.
const metadataKey = "clerkinvite"

// prepare checks p, asks Authorize, and returns the row to reserve.
func (s *Service) prepare(ctx context.Context, p InviteParams) (*Member, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, err := s.newMember(&p)
	if err != nil || s.cfg.Authorize == nil {
		return m, err
	}
	if err := s.cfg.Authorize(ctx, &p); err != nil {
		return nil, err
	}
	return s.newMember(&p)
}

// newMember validates and normalises p and returns the row for it.
func (s *Service) newMember(p *InviteParams) (*Member, error) {
	ref, err := p.ref()
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
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("clerkinvite: no random numbers: %w", err)
	}
	metadata, reason := encodeMetadata(p.PublicMetadata, mark{id.String(), 1_000_000})
	if reason != "" {
		return nil, &InvalidParamsError{"PublicMetadata", reason}
	}
	params, err := json.Marshal(clerkParams{p.RedirectURL, p.ExpiresInDays, p.Template, p.SkipEmail, metadata})
	if err != nil {
		return nil, &InvalidParamsError{"PublicMetadata", "is not a JSON object"}
	}
	now := s.now()
	return &Member{
		ID: id.String(), TenantID: p.TenantID, Email: p.Email, Status: StatusReserved,
		Role: p.Role, InvitedBy: p.InvitedBy, Data: p.Data, Params: params,
		Send: 1, Version: 1, ReservedAt: now, NextAttemptAt: &now, UpdatedAt: now,
	}, nil
}

func (p *InviteParams) ref() (Ref, error) { return Ref{p.TenantID, p.Email}.normalized() }
