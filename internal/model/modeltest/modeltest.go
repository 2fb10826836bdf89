// Package modeltest runs random sequences of everything that can happen to a
// clerkinvite.Service, and checks its promises after every step.
//
//	func TestModel(t *testing.T) {
//		modeltest.Run(t, func(t *testing.T) clerkinvite.Store { return mystore.New(emptyDatabase(t)) }, nil)
//	}
//
// Several processes share one store and one fake Clerk. Each verb is a coroutine
// that pauses before every call to the store or to Clerk, and sometimes after it. A
// scheduler then decides, at random but repeatably, which verb continues, which process
// dies, and which call fails or arrives late. It also decides what people do in between,
// and how time passes. Sleeps and time limits use its clock.
//
// A long run is CLERKINVITE_MODEL_SEQUENCES=100000 go test -timeout 1h -run 'TestModel$' ./internal/model/modeltest
//
// The rules are implemented here a second time, from the documentation alone
// (oracle.go, end.go), without the library's table of state changes.
package modeltest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// Options are the options of Run; nil means all defaults. Environment variables take
// precedence: CLERKINVITE_MODEL_SEQUENCES for a longer or shorter run,
// CLERKINVITE_SEED to repeat one.
type Options struct {
	Sequences int    // defaults to 1000
	Seed      uint64 // of the first sequence, the others follow; 0 means random
	Steps     int    // of each sequence, before everything is finished; defaults to 100

	// For the tests of this package: wrappers between the library and the fake.
	api func(clerkinvite.ClerkAPI) clerkinvite.ClerkAPI
}

// maxFindings ends a run, because more findings would not be read.
const maxFindings = 3

// Run runs the sequences, each on an empty store that newStore returns, in parallel
// subtests. A sequence that fails prints all of its steps and how to repeat it.
func Run(t *testing.T, newStore func(t *testing.T) clerkinvite.Store, opts *Options) {
	t.Helper()
	o := opts.complete()
	t.Logf("seeds %d to %d; CLERKINVITE_MODEL_SEQUENCES and CLERKINVITE_SEED choose others", o.Seed, o.Seed+uint64(o.Sequences)-1)
	name := t.Name()
	var played, found atomic.Int64
	for shard := range min(runtime.GOMAXPROCS(0), o.Sequences) {
		t.Run(fmt.Sprint("shard", shard), func(t *testing.T) {
			t.Parallel()
			for found.Load() < maxFindings {
				n := played.Add(1) - 1
				if n >= int64(o.Sequences) {
					return
				}
				seed := o.Seed + uint64(n)
				s := playAlone(t, newStore(t), seed, o)
				if s.problem == "" {
					continue
				}
				found.Add(1)
				t.Errorf("%s\n\nTo repeat it: CLERKINVITE_MODEL_SEQUENCES=1 CLERKINVITE_SEED=%d go test -run '^%s$'\n\nseed %d\n%s",
					s.problem, seed, strings.ReplaceAll(name, "/", "$/^"), seed, s.log)
			}
		})
	}
}

// playAlone runs one sequence with its own clock.
func playAlone(t *testing.T, store clerkinvite.Store, seed uint64, o Options) (s *sequence) {
	t.Helper()
	e := newElsewhere(t.Context(), store)
	defer e.close()
	synctest.Test(t, func(*testing.T) { s = play(e, seed, o) })
	return s
}

// complete applies the environment and the defaults.
func (opts *Options) complete() Options {
	var o Options
	if opts != nil {
		o = *opts
	}
	if n, err := strconv.Atoi(os.Getenv("CLERKINVITE_MODEL_SEQUENCES")); err == nil && n > 0 {
		o.Sequences = n
	}
	if seed, err := strconv.ParseUint(os.Getenv("CLERKINVITE_SEED"), 10, 64); err == nil {
		o.Seed = seed
	}
	if o.Sequences == 0 {
		o.Sequences = 1000
	}
	if o.Seed == 0 {
		o.Seed = 1 + rand.Uint64N(1<<40)
	}
	if o.Steps == 0 {
		o.Steps = 100
	}
	return o
}

// journal records what a sequence did. It is formatted only if it is printed.
type journal []entry

type entry struct {
	step   int
	at     time.Duration // since the sequence began
	format string
	args   []any
}

func (j journal) String() string {
	var b strings.Builder
	for _, e := range j {
		fmt.Fprintf(&b, "%5d %10v  "+e.format+"\n", append([]any{e.step, e.at}, e.args...)...)
	}
	return b.String()
}

// Schemas returns what Run's store needs on PostgreSQL: a schema for each of the sequences that run at the
// same time, which create makes once, and which exec empties before each sequence.
func Schemas(create func(t *testing.T, schema string), exec func(t *testing.T, sql string)) func(t *testing.T) (schema string) {
	var mu sync.Mutex
	schemas := make(map[*testing.T]string)
	return func(t *testing.T) string {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		schema, ok := schemas[t]
		if !ok {
			schema = fmt.Sprint("model", len(schemas))
			schemas[t] = schema
			create(t, schema)
		}
		for _, table := range []string{"history", "member", "limit"} {
			exec(t, "DELETE FROM "+schema+".clerkinvite_"+table)
		}
		return schema
	}
}
