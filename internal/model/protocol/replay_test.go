package protocol

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

const (
	replayEmail  = "ada@example.com"
	replayTenant = "acme"

	replayOrganization = "org_acme"
)

// The replay's clock stands still except for LeasesEnd, which is longer than any lease and
// any pause after a failure.
const (
	replayLease = time.Hour
	replayEpoch = 2 * time.Hour
)

var (
	replayBorn  = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	errDead     = errors.New("this process is dead")
	errStore    = errors.New("no response from the store")
	errNoAnswer = &clerkinvite.APIError{Err: errors.New("no response in time")}
)

// replay is the real library with a real store and the fake Clerk, led through a trace.
type replay struct {
	config  *Config
	state   State
	store   clerkinvite.Store
	clerk   *clerkinvitetest.Clerk
	now     time.Time
	flights []func()
	tasks   [maxActors]*task
}

// task is one actor: a coroutine that stops before each of its calls.
type task struct {
	replay *replay
	run    func() // nil if it is idle
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	dead   bool
	fate   Kind

	call   string // the next one
	called string // the last one
	inv    string
	ignore bool
	do     func()
	err    error // of the verb that ended last
}

type taskKey struct{}

func newReplay(c *Config, store clerkinvite.Store) (*replay, error) {
	r := &replay{config: c, state: c.Start(), store: store, clerk: clerkinvitetest.NewClerk(), now: replayBorn}
	r.clerk.SetNow(func() time.Time { return r.now })
	r.clerk.AddOrganization(replayOrganization, clerkinvitetest.OrganizationSpec{})
	if c.Foreign {
		r.createForeign()
	}
	for i := range r.tasks {
		t := &task{replay: r}
		t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
			t.yield = yield
			for t.run != nil {
				t.run()
				t.run, t.call, t.do, t.inv, t.ignore = nil, "", nil, "", false
				yield(struct{}{})
			}
		})
		r.tasks[i] = t
	}
	if c.Reserved {
		service, err := r.service(clockless{store}, r.clerk, 0)
		if err != nil {
			return nil, err
		}
		if _, err := service.Reserve(context.Background(), r.params()); err != nil {
			return nil, err
		}
	}
	if err := r.compare(); err != nil {
		return nil, err
	}
	return r, nil
}

// createForeign lets another application invite the person.
func (r *replay) createForeign() {
	metadata := map[string]any{"app": "another"}
	if r.config.Organization {
		r.clerk.CreateInDashboard(replayOrganization, replayEmail, "org:member", metadata)
	} else {
		r.clerk.CreateForeign(replayEmail, metadata)
	}
}

// params are those of each invitation.
func (r *replay) params() clerkinvite.InviteParams {
	p := clerkinvite.InviteParams{TenantID: replayTenant, Email: replayEmail}
	if r.config.Organization {
		p.Organization = &clerkinvite.Organization{ID: replayOrganization, AddExisting: r.config.AddExisting}
	}
	return p
}

// service returns a service whose clock is ahead.
func (r *replay) service(store clerkinvite.Store, api clerkinvite.ClerkAPI, ahead time.Duration) (*clerkinvite.Service, error) {
	cfg := clerkinvite.Config{
		API: api, Store: store, Lease: replayLease, ResendCooldown: -1, Now: func() time.Time { return r.now.Add(ahead) },
		WithdrawOnFailure: r.config.Once,
	}
	if r.config.Organization {
		cfg.Organizations, _ = api.(clerkinvite.OrganizationAPI)
	}
	return clerkinvite.New(cfg)
}

// close ends all coroutines.
func (r *replay) close() {
	for _, t := range r.tasks {
		t.dead = true
		if t.run != nil && t.call != "" {
			t.next()
		}
		t.stop()
	}
}

// begin lets a task begin with a verb, up to its first call.
func (t *task) begin(v Verb) error {
	var ahead time.Duration
	if v == Reconcile {
		ahead = 12 * replayEpoch // so that no active member is too new for a look at its membership
	}
	service, err := t.replay.service(wiredStore{t.replay.store}, wiredAPI{t.replay.clerk}, ahead)
	if err != nil {
		return err
	}
	ctx := context.WithValue(context.Background(), taskKey{}, t)
	ref := clerkinvite.Ref{TenantID: replayTenant, Email: replayEmail}
	t.dead, t.err = false, nil
	t.run = func() {
		switch v {
		case Deliver:
			_, t.err = service.Deliver(ctx, nil)
		case Invite:
			_, t.err = service.Invite(ctx, t.replay.params())
		case Resend:
			_, t.err = service.Resend(ctx, ref)
		case Revoke:
			_, t.err = service.Revoke(ctx, ref)
		case Reconcile:
			_, t.err = service.Reconcile(ctx, nil)
		default:
			_, t.err = service.ResolveUser(ctx, "user_000001")
		}
	}
	t.next()
	return nil
}

// goOn lets a task make its call, with that fate, and continue to the next.
func (t *task) goOn(fate Kind) {
	t.fate = fate
	t.next()
}

// die ends a task before its call.
func (t *task) die() {
	t.dead = true
	t.next()
}

// pass handles every call from the library to the store or to Clerk.
func pass[T any](ctx context.Context, call string, do func() (T, error)) (answer T, err error) {
	t, ok := ctx.Value(taskKey{}).(*task)
	if !ok {
		panic("a call without the caller's context")
	}
	if t.dead {
		return answer, errDead
	}
	t.call, t.do = call, func() { answer, err = do() }
	if !t.yield(struct{}{}) || t.dead {
		t.dead = true
		return answer, errDead
	}
	work := t.do
	t.inv, t.ignore, t.called = "", false, call
	var none T
	switch t.fate {
	case Lost:
		return none, t.trouble()
	case Unheard:
		work()
		return none, t.trouble()
	case Adrift:
		t.replay.flights = append(t.replay.flights, func() { _, _ = do() })
		return none, errNoAnswer
	default:
		work()
		return answer, err
	}
}

// trouble is the error of a caller without a response.
func (t *task) trouble() error {
	for p, call := range calls {
		if call == t.called && !p.asksClerk() {
			return errStore
		}
	}
	return errNoAnswer
}

// wiredStore is the tasks' store.
type wiredStore struct{ store clerkinvite.Store }

func (w wiredStore) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	return pass(ctx, "insert", func() ([]clerkinvite.Result, error) { return w.store.Insert(context.Background(), rows) })
}

func (w wiredStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	return pass(ctx, "update", func() ([]clerkinvite.Result, error) { return w.store.Update(context.Background(), changes) })
}

func (w wiredStore) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	call := "find email"
	switch {
	case len(q.Refs) > 0:
		call = "find ref"
	case len(q.IDs) > 0 || len(q.UserIDs) == 0: // by the address: rows that may refer to an invitation
		call = "find id"
	}
	return pass(ctx, call, func() ([]*clerkinvite.Member, error) { return w.store.Find(context.Background(), q) })
}

func (w wiredStore) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	return pass(ctx, "find due", func() ([]*clerkinvite.Member, error) { return w.store.Due(context.Background(), q) })
}

func (w wiredStore) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	return pass(ctx, "scan", func() ([]*clerkinvite.Member, error) { return w.store.Page(context.Background(), q) })
}

func (w wiredStore) Counts(ctx context.Context, tenantID string) (map[clerkinvite.Status]int, error) {
	return pass(ctx, "counts", func() (map[clerkinvite.Status]int, error) { return w.store.Counts(context.Background(), tenantID) })
}

func (w wiredStore) History(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
	return pass(ctx, "history", func() ([]clerkinvite.HistoryEntry, error) { return w.store.History(context.Background(), tenantID, id) })
}

// SwapTime grants every turn immediately and knows no limit. Turns and limits only
// delay, and in the model every actor may be delayed.
func (w wiredStore) SwapTime(_ context.Context, _ string, _, next time.Time) (time.Time, error) {
	return next, nil
}

// Clock returns none: there is one clock, the replay's.
func (w wiredStore) Clock(context.Context) (time.Time, error) { return time.Time{}, nil }

// clockless is a store without a clock of its own.
type clockless struct{ clerkinvite.Store }

func (clockless) Clock(context.Context) (time.Time, error) { return time.Time{}, nil }

// wiredAPI is the tasks' Clerk.
type wiredAPI struct{ clerk *clerkinvitetest.Clerk }

func (w wiredAPI) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	if slices.Equal(q.Emails, []string{"clerkinvite@example.com"}) {
		// After a failed look-up the library checks whether Clerk responds at all. In the model it does not.
		return nil, &clerkinvite.APIError{Err: io.ErrUnexpectedEOF}
	}
	call := "users by email"
	if len(q.IDs) > 0 {
		call = "users by id"
	}
	return pass(ctx, call, func() ([]clerkinvite.User, error) { return w.clerk.FindUsers(context.Background(), q) })
}

func (w wiredAPI) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	return pass(ctx, "get user", func() (*clerkinvite.User, error) { return w.clerk.GetUser(context.Background(), id) })
}

func (w wiredAPI) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	if t, ok := ctx.Value(taskKey{}).(*task); ok {
		t.ignore = r.IgnoreExisting
	}
	return pass(ctx, "create", func() (*clerkinvite.Invitation, error) { return w.clerk.CreateInvitation(context.Background(), r) })
}

func (w wiredAPI) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	return pass(ctx, "create bulk", func() ([]clerkinvite.Invitation, error) { return w.clerk.CreateInvitations(context.Background(), rs) })
}

func (w wiredAPI) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	call := "list"
	if q.Status != "" {
		call += " " + string(q.Status)
	}
	return pass(ctx, call, func() ([]clerkinvite.Invitation, error) { return w.clerk.ListInvitations(context.Background(), q) })
}

func (w wiredAPI) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	if t, ok := ctx.Value(taskKey{}).(*task); ok {
		t.inv = r.ID
	}
	return pass(ctx, "revoke", func() (*clerkinvite.Invitation, error) {
		return w.clerk.RevokeInvitation(context.Background(), r)
	})
}

func (w wiredAPI) FindMemberships(ctx context.Context, q clerkinvite.MembershipQuery) ([]clerkinvite.Membership, error) {
	return pass(ctx, "memberships", func() ([]clerkinvite.Membership, error) { return w.clerk.FindMemberships(context.Background(), q) })
}

func (w wiredAPI) AddMember(ctx context.Context, m clerkinvite.Membership) error {
	_, err := pass(ctx, "add member", func() (struct{}, error) { return struct{}{}, w.clerk.AddMember(context.Background(), m) })
	return err
}

func (w wiredAPI) RemoveMember(ctx context.Context, m clerkinvite.Membership) error {
	_, err := pass(ctx, "remove member", func() (struct{}, error) { return struct{}{}, w.clerk.RemoveMember(context.Background(), m) })
	return err
}

// follow takes one step, in the model and in the library, and compares them.
func (r *replay) follow(e Event) error {
	next, bad := r.config.Next(&r.state, e)
	if err := r.happen(e); err != nil {
		return err
	}
	r.state = next
	if err := r.compare(); err != nil {
		return err
	}
	if bad != "" {
		return errors.New(bad)
	}
	return nil
}

// happen makes one step in the library.
func (r *replay) happen(e Event) error {
	t := r.tasks[e.Actor]
	switch e.Kind {
	case Begin:
		if t.run != nil {
			return fmt.Errorf("%v: it is still at its call %q", e, t.call)
		}
		return t.begin(Verb(e.Arg))
	case GoOn, Lost, Unheard, Adrift, Crash, CrashAdrift:
		if t.run == nil {
			return fmt.Errorf("%v: it has nothing to do", e)
		}
		switch e.Kind {
		case CrashAdrift:
			r.flights = append(r.flights, t.do)
			t.die()
		case Crash:
			t.die()
		default:
			t.goOn(e.Kind)
		}
	case Land:
		if int(e.Arg) >= len(r.flights) {
			return fmt.Errorf("%v: there is none", e)
		}
		land := r.flights[e.Arg]
		r.flights = append(r.flights[:e.Arg:e.Arg], r.flights[e.Arg+1:]...)
		land()
	case LeasesEnd:
		r.now = r.now.Add(replayEpoch)
	case Accept:
		if e.Arg == 0 {
			r.clerk.SignUp(replayEmail, true)
			return nil
		}
		_, err := r.clerk.AcceptInvitation(r.clerk.Invitations(replayEmail)[e.Arg-1].ID)
		return err
	case Elsewhere:
		_, err := r.clerk.AcceptAs(replayEmail, "other@example.com")
		members := r.clerk.Members(replayOrganization)
		r.clerk.LeaveOrganization(replayOrganization, members[len(members)-1].UserID) // the model has one user
		return err
	case Dashboard:
		r.clerk.RevokeInDashboard(r.clerk.Invitations(replayEmail)[e.Arg-1].ID)
	}
	return nil
}

// sendOf returns the send in an invitation's marker, 0 for none.
func sendOf(inv clerkinvite.Invitation) int8 {
	var m struct {
		Mark struct {
			Send int8 `json:"send"`
		} `json:"clerkinvite"`
	}
	_ = json.Unmarshal(inv.PublicMetadata, &m)
	return m.Mark.Send
}

// row returns the stored row, or nil.
func (r *replay) row() (*clerkinvite.Member, error) {
	rows, err := r.store.Find(context.Background(), clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: replayTenant, Email: replayEmail}}})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0], nil
}

// compare compares the library's world with the model's.
func (r *replay) compare() error {
	m, err := r.row()
	if err != nil {
		return err
	}
	s := &r.state
	invitations := r.clerk.Invitations(replayEmail)
	number := map[string]int8{}
	emails := 0
	for i, inv := range invitations {
		number[inv.ID] = int8(i + 1)
		if want := s.invitations[i]; want.status.String() != string(inv.Status) || want.send != sendOf(inv) {
			return fmt.Errorf("invitation %d is %s of send %d at Clerk, in the model %v of send %d", i+1, inv.Status, sendOf(inv), want.status, want.send)
		}
	}
	for i, want := range s.invitations {
		if want.status != none && i >= len(invitations) {
			return fmt.Errorf("invitation %d does not exist at Clerk, in the model it is %v", i+1, want.status)
		}
		if want.send > 0 {
			emails++
		}
	}
	if sent := r.clerk.EmailsTo(replayEmail); sent != emails {
		return fmt.Errorf("%d emails, in the model %d", sent, emails)
	}
	if members := len(r.clerk.Members(replayOrganization)); (members > 0) != s.member {
		return fmt.Errorf("%d members of the organization, in the model %v", members, s.member)
	}
	if err := r.compareRow(m, number); err != nil {
		return err
	}
	for i, t := range r.tasks {
		call, inv, ignore := s.Call(i)
		if t.call != call || number[t.inv] != inv || t.ignore != ignore {
			return fmt.Errorf("%c is about to %q %d %v, in the model to %q %d %v (its verb's error: %w)", 'A'+i, t.call, number[t.inv], t.ignore, call, inv, ignore, t.err)
		}
	}
	if len(r.flights) != r.flying() {
		return fmt.Errorf("%d creates are under way, in the model %d", len(r.flights), r.flying())
	}
	return nil
}

func (r *replay) flying() int {
	n := 0
	for _, f := range r.state.flights {
		if f.send > 0 {
			n++
		}
	}
	return n
}

func (r *replay) compareRow(m *clerkinvite.Member, number map[string]int8) error {
	want := r.state.row
	if m == nil {
		if want.status != none {
			return fmt.Errorf("the row does not exist, in the model it does")
		}
		return nil
	}
	is := row{
		send: int8(m.Send), sent: int8(m.Sent), attempts: int8(m.Attempts), version: int8(m.Version), inv: number[m.InvitationID],
		held: want.held, next: want.next,
	}
	for s := reserved; s <= revoked; s++ {
		if s.String() == string(m.Status) {
			is.status = s
		}
	}
	if is != want {
		return fmt.Errorf("the row is %+v, in the model %+v", is, want)
	}
	if held := m.ClaimedUntil != nil && m.ClaimedUntil.After(r.now); held != (want.held > r.state.epoch) {
		return fmt.Errorf("held: %v, in the model %v", held, !held)
	}
	if !want.due() {
		return nil
	}
	at := replayBorn.Add(time.Duration(want.next) * replayEpoch)
	if m.NextAttemptAt == nil || m.NextAttemptAt.After(at) || !m.NextAttemptAt.After(at.Add(-replayEpoch)) {
		return fmt.Errorf("due at %v, in the model between %v and %v", m.NextAttemptAt, at.Add(-replayEpoch), at)
	}
	return nil
}

// rest finishes everything without faults, step by step as the model does, and
// checks the final state.
func (r *replay) rest() ([]Event, error) {
	var done []Event
	take := func(e Event) error {
		done = append(done, e)
		return r.follow(e)
	}
	finish := func() error {
		for i := range r.state.actors {
			for n := 0; r.state.actors[i].verb != NoVerb; n++ {
				if n == 200 {
					return fmt.Errorf("%c does not end", 'A'+i)
				}
				if err := take(Event{Kind: GoOn, Actor: int8(i)}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := finish(); err != nil {
		return done, err
	}
	for _, v := range []Verb{Deliver, Reconcile, Deliver, Reconcile} {
		if v == Deliver {
			if err := take(Event{Kind: LeasesEnd}); err != nil {
				return done, err
			}
		}
		if err := take(Event{Kind: Begin, Arg: int8(v)}); err != nil {
			return done, err
		}
		if err := finish(); err != nil {
			return done, err
		}
	}
	if bad := r.config.settledWell(&r.state); bad != "" {
		return done, errors.New(bad)
	}
	return done, nil
}
