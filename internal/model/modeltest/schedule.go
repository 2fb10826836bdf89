package modeltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// sequence is one run of the model.
type sequence struct {
	rand      *rand.Rand
	store     *elsewhere
	api       clerkinvite.ClerkAPI // and OrganizationAPI
	processes []*process
	free      []*coroutine
	tasks     []*task   // verbs under way, in the order in which they began
	flights   []*flight // calls under way without a caller
	calm      bool      // no faults any more
	quiet     bool      // calm, and all tasks from before have ended
	idle      int       // how often the clock was read after the last call
	step      int
	log       journal
	problem   string

	world
	oracle
}

// process is one process of the host: a Service with its own memory.
type process struct {
	number   int
	service  *clerkinvite.Service
	dead     bool
	ahead    time.Duration // how far its clock is ahead, at most maxAhead either way
	clockSet int           // the step in which its clock was last set

	// probe is the task whose request may be the first after a limit. Others of the process wait
	// for its response, and so would the scheduler if it resumed them.
	probe *task
}

// maxAhead is the largest error of a process's clock.
const maxAhead = 5 * time.Minute

// task is one call of a verb.
type task struct {
	*sequence
	process *process
	verb    verb
	name    string
	actor   string
	ref     clerkinvite.Ref // its member, for verbs about one member and DeliverMembers
	began   int             // step
	shown   int             // the step whose state Clerk's lists showed when it began
	beganAt time.Time
	before  []*clerkinvite.Member
	seen    []*clerkinvite.Member // the rows when it last read the store
	run     *coroutine
	cancel  context.CancelFunc
	fate    fate
	call    string // the next one
	request func() // the effect of that call in the store or at Clerk

	calls        int
	requests     int  // the part of them that went to Clerk
	cancelled    bool // its context is cancelled
	tooLate      bool // one of its own time limits has ended a call
	storeFailed  bool
	failed       bool // Clerk has failed, other than by a rate limit
	revokeFailed bool
	withdrew     bool                  // it has changed its member
	claims       map[mark]time.Time    // what it has claimed, and when
	claimedRows  []*clerkinvite.Member // the same, as they were claimed
	given        clerkinvite.Ref       // the form of ref that a withdrawal was called with
	first        []*clerkinvite.Member // the rows when it first read the store: it continues with the member that it found there
	looked       map[string]string     // looked-up addresses, and the verified user that was shown, or ""
	members      map[string]bool       // looked-up users, and whether they were shown as members of the organization
	made         map[string]bool       // invitations it created
	refused      map[string]bool       // addresses that Clerk refused
	noMembers    bool                  // Clerk refused people because of the organization
	lastAdmin    bool                  // Clerk refused to end the membership of the last admin
	orgUnknown   bool                  // Clerk's list said that the organization does not exist, so its invitations do not work
	orgEmpty     bool                  // the same about its memberships, so it has no members
	limited      map[string]time.Time  // limited endpoints
}

// flight is a call that continues without its caller.
type flight struct {
	*task
	call string
	land func()
}

// fate is the outcome of a task's next call.
type fate int

const (
	fine    fate = iota
	lost         // before its effect
	unheard      // after its effect
	adrift       // the caller gives up, and the call arrives later or never
)

// maxTasks is how many verbs are under way at the same time.
const maxTasks = 4

// errDead is the error of a dead process.
var errDead = errors.New("modeltest: this process is dead")

// errStore is a store's failure.
var errStore = errors.New("modeltest: the store failed")

// play runs one sequence, until its end or the first problem.
func play(store *elsewhere, seed uint64, o Options) *sequence {
	s := &sequence{rand: rand.New(rand.NewPCG(seed, 11)), store: store}
	s.organization = seed%2 == 1
	s.makeWorld()
	s.makeOracle()
	s.api = s.clerk
	if o.api != nil {
		s.api = o.api(s.clerk)
	}
	for n := range 3 {
		s.processes = append(s.processes, s.newProcess(n+1))
	}
	for s.step = 1; s.step <= o.Steps && s.problem == ""; s.step++ {
		s.something()
	}
	if s.problem == "" {
		s.end()
	}
	for _, t := range probesFirst(s.tasks) {
		t.process.dead = true
		s.free = append(s.free, t.run)
	}
	for _, c := range s.free {
		c.stop()
	}
	return s
}

func (s *sequence) newProcess(number int) *process {
	p := &process{number: number}
	s.setClock(p)
	once := s.chance(4)
	s.sayf("p%d withdraws on failure: %v", number, once)
	cfg := clerkinvite.Config{
		API: wiredAPI{s}, Store: wiredStore{s}, Now: func() time.Time { return s.asked().Add(p.ahead) }, WithdrawOnFailure: once,
	}
	if s.organization {
		cfg.Organizations, cfg.Authorize = wiredAPI{s}, authorize
	}
	service, err := clerkinvite.New(cfg)
	if err != nil {
		panic(err)
	}
	p.service = service
	return p
}

// setClock sets the clock of a process: right, or wrong by up to five minutes.
func (s *sequence) setClock(p *process) {
	p.ahead, p.clockSet = 0, s.step
	if !s.chance(3) {
		p.ahead = (time.Duration(s.rand.Int64N(int64(2*maxAhead))) - maxAhead).Truncate(time.Millisecond)
	}
	s.sayf("p%d's clock is %v ahead", p.number, p.ahead)
}

// asked is the library's clock. Code that reads the clock again and again without
// a call in between is in an endless loop.
func (s *sequence) asked() time.Time {
	if s.idle++; s.idle > 100_000 {
		panic("endless: no more calls")
	}
	return s.now()
}

// sayf writes to the journal. Arguments must not change afterwards.
func (s *sequence) sayf(format string, args ...any) {
	s.log = append(s.log, entry{s.step, s.now().Sub(born), format, args})
}

// failf records the first problem.
func (s *sequence) failf(format string, args ...any) {
	if s.problem == "" {
		s.problem = fmt.Sprintf(format, args...)
		s.sayf("!!! %s", s.problem)
	}
}

// chance returns true once in so many times.
func (s *sequence) chance(in int) bool { return s.rand.IntN(in) == 0 }

// pick returns one of several.
func pick[T any](s *sequence, from ...T) T { return from[s.rand.IntN(len(from))] }

// something makes one step.
func (s *sequence) something() {
	k := s.rand.IntN(100)
	switch {
	case k < 66 && len(s.tasks) > 0:
		t := pick(s, s.tasks...).orProbe()
		t.resume(s.someFate())
	case k < 82 && len(s.tasks) < maxTasks:
		s.begin(pick(s, s.processes...))
	case k < 90:
		s.outside()
	case k < 95:
		s.timePasses()
	case k < 96 && len(s.flights) > 0:
		s.land(s.rand.IntN(len(s.flights)))
	case k < 97:
		if s.chance(2) {
			s.crash(s.rand.IntN(len(s.processes)))
		}
	case k < 98 && len(s.tasks) > 0:
		t := pick(s, s.tasks...)
		s.sayf("%s: its caller goes away", t.name)
		t.cancelled = true
		t.cancel()
	case k < 99:
		s.trouble()
	case len(s.tasks) > 0: // one continues for a while
		t := pick(s, s.tasks...)
		for n := s.rand.IntN(8); n > 0 && slices.Contains(s.tasks, t); n-- {
			t.orProbe().resume(fine)
		}
	}
}

// someFate decides the outcome of a task's next call.
func (s *sequence) someFate() fate {
	if !s.chance(20) {
		return fine
	}
	return pick(s, lost, unheard, adrift)
}

// begin starts a verb in a process.
func (s *sequence) begin(p *process) {
	if p.probe != nil {
		return
	}
	k := s.rand.IntN(totalWeight)
	for _, a := range actions {
		if k -= a.weight; k < 0 {
			s.start(p, a.verb, a.run)
			return
		}
	}
}

// start starts the verb in the process and runs it up to its first call.
func (s *sequence) start(p *process, v verb, run func(t *task, ctx context.Context)) *task {
	t := &task{
		sequence: s, process: p, verb: v, began: s.step, shown: s.step, beganAt: s.now(), before: s.rows, seen: s.rows,
		claims: map[mark]time.Time{}, looked: map[string]string{}, members: map[string]bool{}, made: map[string]bool{}, refused: map[string]bool{}, limited: map[string]time.Time{},
	}
	if s.behavior.Behavior.Lag {
		t.shown = s.settled
	}
	s.started++
	t.name = fmt.Sprintf("p%d %s%d", p.number, v, s.started)
	if s.started%2 == 0 {
		t.actor = t.name
	}
	ctx, cancel := context.WithCancel(clerkinvite.WithActor(context.WithValue(context.Background(), taskKey{}, t), t.actor))
	t.cancel = cancel
	if len(s.free) == 0 {
		s.free = append(s.free, newCoroutine())
	}
	last := len(s.free) - 1
	t.run, s.free = s.free[last], s.free[:last]
	t.run.job = func() {
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				s.failf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		run(t, ctx)
	}
	s.tasks = append(s.tasks, t)
	t.resume(fine)
	return t
}

// resume lets a task make the call before which it has stopped, and continue to the next.
func (t *task) resume(f fate) {
	t.fate = f
	if t.run.resume(); t.run.job != nil {
		return
	}
	t.probes(false)
	t.free = append(t.free, t.run)
	t.tasks = slices.DeleteFunc(t.tasks, func(other *task) bool { return other == t })
	if !t.process.dead {
		t.observe(t) // only this task can have changed anything
	}
}

// probes records whether the task's next request may be the first after a limit.
func (t *task) probes(maybe bool) {
	if maybe {
		t.process.probe = t
	} else if t.process.probe == t {
		t.process.probe = nil
	}
}

// orProbe returns the task, or the one for whose response it may have to wait.
func (t *task) orProbe() *task { return cmp.Or(t.process.probe, t) }

// probesFirst sorts tasks for ending them.
func probesFirst(tasks []*task) []*task {
	return slices.SortedStableFunc(slices.Values(tasks), func(a, b *task) int {
		switch {
		case a == a.process.probe && b != b.process.probe:
			return -1
		case b == b.process.probe && a != a.process.probe:
			return 1
		}
		return 0
	})
}

// finish lets a task run to its end without faults.
func (t *task) finish() {
	for slices.Contains(t.tasks, t) && t.problem == "" {
		t.resume(fine)
	}
}

// pause lets other tasks run. It returns the fate of the call, and false if the
// process is dead.
func (t *task) pause(call string, request func()) (fate, bool) {
	if t.process.dead { // its calls fail, until a wait for a limit has ended
		return fine, false
	}
	if t.calls++; t.calls > 20_000 { // InviteMany waits for hours and, with these clocks, reads the time every second
		t.failf("endless: %s does not stop making calls", t.name)
		t.process.dead = true
		return fine, false
	}
	if time.Since(t.beginning)%grain != 0 { // the task has slept, for a random time: now it is a whole grain
		t.advance(grain)
	}
	t.tick()
	t.call, t.request, t.idle = call, request, 0
	goesOn := t.run.pause()
	t.call, t.request = "", nil
	f := t.fate
	t.fate = fine
	return f, goesOn && !t.process.dead
}

// crash ends a process. Its next call may already be under way.
// Another process takes its place.
func (s *sequence) crash(i int) {
	p := s.processes[i]
	s.sayf("p%d dies", p.number)
	p.dead = true
	for _, t := range probesFirst(s.tasks) {
		if t.process != p {
			continue
		}
		if t.request != nil && s.chance(2) {
			s.sayf("    %s: %s is on its way", t.name, t.call)
			s.flights = append(s.flights, &flight{t, t.call, t.request})
		}
		t.resume(fine)
	}
	s.died++
	s.processes[i] = s.newProcess(len(s.processes) + s.died)
}

// land lets a call without a caller arrive.
func (s *sequence) land(i int) {
	f := s.flights[i]
	s.flights = slices.Delete(s.flights, i, i+1)
	s.sayf("arrives late: %s of %s", f.call, f.name)
	f.land()
}

// trouble makes some future requests to Clerk fail, or limits their number.
func (s *sequence) trouble() {
	if s.chance(4) {
		s.setClock(pick(s, s.processes...))
		return
	}
	if s.chance(4) {
		n := 1 + s.rand.IntN(4)
		s.sayf("limits: %d creates and %d bulk creates per hour", n, n-1)
		s.clerk.SetLimits(clerkinvitetest.Limits{
			Create:      clerkinvitetest.Limit{Requests: n, Per: time.Hour},
			CreateBulk:  clerkinvitetest.Limit{Requests: n - 1, Per: time.Hour},
			Sliding:     s.chance(2),
			FreeRefused: s.chance(2),
		})
		return
	}
	if s.organization && s.chance(2) {
		s.breakNext(pick(s, organizationCalls...))
		return
	}
	s.breakNext(pick(s, clerkCalls...))
}

// coroutine runs jobs, one after the other. A new goroutine for each job would cost the race
// detector more than all the rest.
type coroutine struct {
	job  func() // nil when it has ended
	next func() (struct{}, bool)
	stop func()

	yield func(struct{}) bool
}

func newCoroutine() *coroutine {
	c := &coroutine{}
	c.next, c.stop = iter.Pull(func(yield func(struct{}) bool) {
		c.yield = yield
		for c.job != nil {
			c.job()
			c.job = nil
			yield(struct{}{})
		}
	})
	return c
}

// resume continues the job, until its next pause or its end.
func (c *coroutine) resume() { c.next() }

// pause interrupts a job. It reports whether to continue the job.
func (c *coroutine) pause() bool { return c.yield(struct{}{}) }
