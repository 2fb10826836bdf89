package protocol

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func memory() clerkinvite.Store { return clerkinvitetest.NewMemoryStore() }

// play follows a trace and then finishes everything.
func play(c *Config, store clerkinvite.Store, trace []Event) error {
	r, err := newReplay(c, store)
	if err != nil {
		return err
	}
	defer r.close()
	for i, e := range trace {
		if err := r.follow(e); err != nil {
			return fmt.Errorf("%s: step %d, %v: %w\n%s", c.Name, i+1, e, err, c.Tell(trace))
		}
	}
	if done, err := r.rest(); err != nil {
		return fmt.Errorf("%s: %d steps after the trace: %w\n%s", c.Name, len(done), err, c.Tell(append(trace, done...)))
	}
	return nil
}

// The library makes every kind of step of the model, and after each step its row, its
// next calls, Clerk's invitations and the emails are the model's.
func TestTheLibraryFollowsTheModel(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "the model's traces replayed against the library")
	random := testkit.Random(t)
	traces, steps := 0, 0
	for _, x := range exploreAll() {
		for _, trace := range x.traces {
			if testing.Short() && random.IntN(4) > 0 {
				continue
			}
			require.NoError(t, play(x.Config, memory(), trace))
			traces, steps = traces+1, steps+len(trace)
		}
	}
	walks := 300
	switch {
	case testing.Short():
		walks = 60
	case tally.Long():
		walks = 50_000
	}
	steps += walk(t, walks)
	row.Done(fmt.Sprintf("%d traces, one for each kind of step, and %d random walks", traces, walks),
		"0 differences", fmt.Sprintf("%d steps compared", steps))
}

// walk makes random steps in the model and in the library, and returns their number.
func walk(t *testing.T, walks int) int {
	t.Helper()
	seed := testkit.Seed()
	t.Logf("random walks from seed %d; CLERKINVITE_SEED chooses another", seed)
	var walked, steps atomic.Int64
	var failure atomic.Pointer[error]
	var wg sync.WaitGroup
	all := configs()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for n := walked.Add(1) - 1; n < int64(walks) && failure.Load() == nil; n = walked.Add(1) - 1 {
				c := all[n%int64(len(all))]
				trace, err := wander(c, rand.New(rand.NewPCG(seed, uint64(n))))
				if steps.Add(int64(len(trace))); err != nil {
					err = fmt.Errorf("walk %d, %s: %w\n%s", n, c.Name, err, c.Tell(trace))
					failure.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failure.Load(); err != nil {
		t.Fatal(*err)
	}
	return int(steps.Load())
}

// wander makes one random walk.
func wander(c *Config, random *rand.Rand) (trace []Event, err error) {
	r, err := newReplay(c, memory())
	if err != nil {
		return nil, err
	}
	defer r.close()
	for {
		events := c.Events(&r.state)
		if len(events) == 0 {
			break
		}
		e := events[random.IntN(len(events))]
		// Otherwise rare events would be used up before the actors get far.
		if e.Kind > GoOn && random.IntN(3) > 0 {
			continue
		}
		trace = append(trace, e)
		if err := r.follow(e); err != nil {
			return trace, err
		}
	}
	done, err := r.rest()
	return append(trace, done...), err
}

// The same on PostgreSQL, with some of the traces.
func TestPostgresFollowsTheModel(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	store := clerkinvite.NewPgxStore(pool, nil)
	require.NoError(t, store.Migrate(t.Context()))
	sample := 40
	switch {
	case testing.Short():
		sample = 15
	case tally.Long():
		sample = 2000
	}
	type played struct {
		*Config
		trace []Event
	}
	var all []played
	for _, x := range exploreAll() {
		for _, trace := range x.traces {
			all = append(all, played{x.Config, trace})
		}
	}
	for i := range min(sample, len(all)) {
		for _, table := range []string{"history", "member", "limit"} {
			_, err := pool.Exec(t.Context(), "DELETE FROM clerkinvite_"+table)
			require.NoError(t, err)
		}
		p := all[i*len(all)/min(sample, len(all))]
		require.NoError(t, play(p.Config, store, p.trace))
	}
}

// errDeviates means that the library does not do what the protocol without a rule does.
var errDeviates = errors.New("deviates")

// The library does not follow the protocol without one of its rules: led along
// the shortest bad trace, it deviates, or ends well.
func TestTheLibraryLeavesBadTraces(t *testing.T) {
	t.Parallel()
	left := 0
	for _, n := range needed {
		bad := named(n.in, n.rule)
		found := bad.Explore(nil)
		require.NotEmpty(t, found.Bad)
		good := named(n.in, All)
		err := lead(good, bad, found.Trace)
		if errors.Is(err, errDeviates) {
			left++
			err = nil
		}
		require.NoError(t, err, "%s\n%s", n.rule, bad.Tell(found.Trace))
	}
	t.Logf("the library deviates from %d of %d bad traces, the others end well", left, len(needed))
	require.Greater(t, left, len(needed)/2)
}

// lead follows a trace of bad while the library does the same, and then finishes
// everything.
func lead(good, bad *Config, trace []Event) error {
	r, err := newReplay(good, memory())
	if err != nil {
		return err
	}
	defer r.close()
	state, deviated := bad.Start(), error(nil)
	for _, e := range trace {
		if !sameCalls(&state, &r.state) {
			deviated = errDeviates
			break
		}
		next, _ := bad.Next(&state, e)
		state = next
		if err := r.follow(e); err != nil {
			return err
		}
	}
	if !sameCalls(&state, &r.state) {
		deviated = errDeviates
	}
	if _, err := r.rest(); err != nil {
		return err
	}
	return deviated
}

// sameCalls reports whether the actors' next calls are the same in two states.
func sameCalls(a, b *State) bool {
	for i := range a.actors {
		callA, invA, ignoreA := a.Call(i)
		callB, invB, ignoreB := b.Call(i)
		if callA != callB || invA != invB || ignoreA != ignoreB {
			return false
		}
	}
	return a.invitations == b.invitations && a.row == b.row
}
