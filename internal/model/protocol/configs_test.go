package protocol

import (
	"sync"
	"testing"

	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// configs are the explorations. The short mode has two actors at the same time, each
// exploration with a few kinds of events, and together all kinds. The
// long mode also has three actors, and more events.
func configs() []*Config {
	list := []*Config{
		{Name: "deliver", Actors: 2, Begins: map[Verb]int8{Deliver: 3}, Crashes: 1, Losses: 1, Ends: 2, Reserved: true, Late: true},
		{Name: "foreign", Actors: 2, Begins: map[Verb]int8{Deliver: 3}, Crashes: 2, Losses: 1, Ends: 2, Reserved: true, Foreign: true},
		{Name: "foreign late", Actors: 2, Begins: map[Verb]int8{Deliver: 2}, Crashes: 1, Losses: 1, Ends: 2, Reserved: true, Foreign: true, Late: true},
		{Name: "foreign accepted", Actors: 2, Begins: map[Verb]int8{Deliver: 2}, Crashes: 1, Losses: 1, Ends: 1, Accepts: 1, Reserved: true, Foreign: true},
		{Name: "dashboard", Actors: 2, Begins: map[Verb]int8{Deliver: 2}, Crashes: 1, Losses: 1, Ends: 1, Dashboard: 1, Reserved: true},
		{Name: "dashboard late", Actors: 2, Begins: map[Verb]int8{Deliver: 2}, Crashes: 1, Losses: 1, Ends: 1, Dashboard: 1, Reserved: true, Late: true},
		{Name: "resend", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Resend: 1, Reconcile: 1}, Crashes: 1, Losses: 1, Ends: 1, Reserved: true},
		{Name: "resend dashboard", Actors: 2, Begins: map[Verb]int8{Deliver: 1, Resend: 1, Reconcile: 1}, Crashes: 1, Ends: 1, Dashboard: 1, Reserved: true},
		{Name: "revoke", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Revoke: 1}, Crashes: 1, Losses: 1, Ends: 1, Reserved: true, Late: true},
		{Name: "revoke resend", Actors: 2, Begins: map[Verb]int8{Deliver: 1, Resend: 1, Revoke: 1}, Crashes: 1, Ends: 1, Accepts: 1, Reserved: true},
		{Name: "invite", Actors: 2, Begins: map[Verb]int8{Invite: 2, Revoke: 1}, Crashes: 1, Losses: 1, Ends: 1},
		{Name: "accept", Actors: 2, Begins: map[Verb]int8{Deliver: 1, Resend: 1, Resolve: 1, Reconcile: 1}, Crashes: 1, Ends: 1, Accepts: 1, Reserved: true},
		{Name: "reconcile", Actors: 2, Begins: map[Verb]int8{Deliver: 1, Invite: 1, Revoke: 1, Reconcile: 1}, Crashes: 1, Ends: 1, Reserved: true},
		{Name: "store", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Resend: 1, Revoke: 1}, Cuts: 1, Ends: 1, Reserved: true},
		{Name: "once", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Invite: 2}, Crashes: 1, Losses: 1, Ends: 1, Once: true},
		{Name: "once late", Actors: 2, Begins: map[Verb]int8{Deliver: 1, Invite: 2}, Losses: 1, Ends: 1, Once: true, Late: true},
		{Name: "once resend", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Resend: 2, Reconcile: 1}, Crashes: 1, Losses: 1, Ends: 1, Reserved: true, Once: true},
		{Name: "once revoke", Actors: 2, Begins: map[Verb]int8{Deliver: 1, Invite: 1, Revoke: 1}, Crashes: 1, Losses: 1, Ends: 1, Accepts: 1, Once: true},
		{Name: "once store", Actors: 2, Begins: map[Verb]int8{Deliver: 1, Invite: 2}, Cuts: 1, Ends: 1, Once: true},
		{Name: "store accept", Actors: 2, Begins: map[Verb]int8{Deliver: 1, Invite: 1, Reconcile: 1, Resolve: 1}, Cuts: 2, Ends: 1, Accepts: 1},
		{Name: "organization", Actors: 2, Begins: map[Verb]int8{Deliver: 2}, Crashes: 1, Losses: 1, Ends: 1, Accepts: 1, Reserved: true, Foreign: true, Organization: true},
		{Name: "organization resend", Actors: 2, Begins: map[Verb]int8{Deliver: 1, Resend: 1, Reconcile: 1}, Crashes: 1, Losses: 1, Ends: 1, Reserved: true, Organization: true},
		{Name: "organization revoke", Actors: 2, Begins: map[Verb]int8{Deliver: 1, Resend: 1, Revoke: 1}, Losses: 1, Ends: 1, Accepts: 1, Reserved: true, Organization: true},
		{Name: "organization accept", Actors: 2, Begins: map[Verb]int8{Invite: 1, Deliver: 1, Resolve: 1, Reconcile: 1}, Crashes: 1, Ends: 1, Accepts: 2, Organization: true},
		{Name: "organization elsewhere", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Resend: 1, Reconcile: 1}, Crashes: 1, Ends: 1, Accepts: 1, Elsewhere: 1, Reserved: true, Organization: true},
		{Name: "organization add", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Resend: 1}, Losses: 1, Ends: 1, Accepts: 1, Reserved: true, Organization: true, AddExisting: true},
		{Name: "organization add late", Actors: 2, Begins: map[Verb]int8{Deliver: 2}, Crashes: 1, Losses: 1, Ends: 1, Accepts: 2, Reserved: true, Organization: true, AddExisting: true, Late: true},
	}
	if tally.Long() {
		list = append(list,
			&Config{Name: "three deliver", Actors: 3, Begins: map[Verb]int8{Deliver: 4}, Crashes: 2, Losses: 1, Ends: 2, Reserved: true, Late: true},
			&Config{Name: "three foreign", Actors: 3, Begins: map[Verb]int8{Deliver: 4}, Crashes: 2, Losses: 1, Ends: 2, Reserved: true, Foreign: true},
			&Config{Name: "three resend", Actors: 3, Begins: map[Verb]int8{Deliver: 2, Resend: 1, Reconcile: 1}, Crashes: 1, Losses: 1, Ends: 1, Reserved: true},
			&Config{Name: "three revoke", Actors: 3, Begins: map[Verb]int8{Deliver: 2, Revoke: 1, Resend: 1}, Crashes: 1, Ends: 1, Reserved: true},
			&Config{Name: "long revoke", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Revoke: 1, Resend: 1}, Crashes: 1, Losses: 1, Ends: 2, Reserved: true, Late: true},
			&Config{Name: "long reconcile", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Revoke: 1, Reconcile: 1}, Crashes: 1, Losses: 1, Ends: 2, Reserved: true, Late: true},
			&Config{Name: "long invite", Actors: 2, Begins: map[Verb]int8{Invite: 2, Deliver: 1, Revoke: 1}, Crashes: 1, Losses: 1, Ends: 2},
			&Config{Name: "long accept", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Revoke: 1, Resend: 1, Reconcile: 1, Resolve: 1}, Crashes: 1, Ends: 1, Accepts: 1, Reserved: true},
			&Config{Name: "long store", Actors: 2, Begins: map[Verb]int8{Deliver: 2, Resend: 1, Revoke: 1, Reconcile: 1}, Crashes: 1, Cuts: 1, Ends: 1, Reserved: true},
		)
	}
	return list
}

// named returns one of the explorations without a rule.
func named(name string, without Rule) *Config {
	for _, c := range configs() {
		if c.Name == name {
			c.Without = without
			return c
		}
	}
	panic("there is no exploration " + name)
}

// explored is a complete exploration and its traces to replay.
type explored struct {
	*Config
	*Found
	traces [][]Event
	shown  map[Exception][]Event
}

// exploreAll explores each Config once for all tests. With -short it explores every fourth, from a random one on.
var exploreAll = sync.OnceValue(func() []explored {
	var all []explored
	seen := map[class]bool{}
	first, step := 0, 1
	if testing.Short() {
		first, step = int(testkit.Seed()%4), 4
	}
	list := configs()
	for i := first; i < len(list); i += step {
		c := list[i]
		x := explored{Config: c, shown: map[Exception][]Event{}}
		if tally.Long() {
			seen = map[class]bool{} // once in each exploration
		}
		x.Found = c.Explore(func(f *Found, from int32, s *State, e Event, after *State) {
			if k := classOf(s, e, after); !seen[k] {
				seen[k] = true
				x.traces = append(x.traces, f.Path(c, from, []Event{e}))
			}
			for _, exception := range []Exception{LateIgnoring, LateWithdrawn} {
				if after.shown&exception != 0 && x.shown[exception] == nil {
					x.shown[exception] = f.Path(c, from, []Event{e})
				}
			}
		})
		all = append(all, x)
	}
	return all
})

// class classifies steps: two steps of a class do the same at the same places. One of
// each is replayed.
type class struct {
	event             Kind
	verbs             [maxActors]Verb
	pcs               [maxActors]pc
	verb              Verb
	pc, then          pc
	next              decision
	was, is           status
	due, named        bool
	fresh             bool
	others, left      bool
	again, moved      bool
	waiting, finished bool
	gives             bool
}

func classOf(s *State, e Event, after *State) class {
	k := class{event: e.Kind, was: s.row.status, is: after.row.status, due: s.row.due(), finished: s.user}
	if e.Kind > CrashAdrift {
		for i := range s.actors { // the position of each actor at the step
			k.verbs[i], k.pcs[i] = s.actors[i].verb, s.actors[i].pc
		}
	}
	if e.Kind > CrashAdrift {
		return k
	}
	a, b := &s.actors[e.Actor], &after.actors[e.Actor]
	if k.verb = a.verb; e.Kind == Begin {
		k.verb = b.verb
	}
	k.pc, k.then, k.next, k.gives = a.pc, b.pc, b.next, b.gives
	k.fresh, k.others, k.left, k.again, k.moved, k.waiting = a.row.version == s.row.version, b.others, b.left, b.again, b.moved, b.waits
	k.named = s.row.inv > 0 && s.row.inv == a.made
	for i := range s.actors {
		if tally.Long() && int8(i) != e.Actor && (a.pc.writes() || a.pc.revokes() || a.pc == pcCreate) {
			k.verbs[i], k.pcs[i] = s.actors[i].verb, s.actors[i].pc
		}
	}
	return k
}
