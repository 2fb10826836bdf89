package protocol

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Found is the result of an exploration.
type Found struct {
	States int    // different states, not counting the order of the actors
	Steps  int    // between them
	Bad    string // what is wrong in the first bad trace, which is the shortest, because the search is breadth first
	Trace  []Event

	nodes []node
}

// node is how a state was first reached.
type node struct {
	parent int32
	event  Event
}

// Visit is called for each step once. The step's state and event are from the
// exploration, in which actors change places; Found.Path gives an order of events that can
// be replayed.
type Visit func(found *Found, from int32, s *State, e Event, after *State)

// Explore follows every order of events from the start, breadth first, to the end or to
// the first bad trace. It checks every state and, in states without actors, what
// follows if nothing goes wrong any more.
func (c *Config) Explore(visit Visit) *Found {
	found := &Found{}
	start := c.Start()
	start, _ = c.canonical(&start)
	known := map[State]int32{start: 0}
	found.nodes = []node{{parent: -1}}
	level, ids := []State{start}, []int32{0}
	recovered := make(map[State]string)
	for len(level) > 0 {
		var next []State
		var nextIDs []int32
		for i := range level {
			s, id := &level[i], ids[i]
			if bad := c.atRest(s, recovered); bad != "" {
				return found.end(c, id, bad)
			}
			for _, e := range c.Events(s) {
				raw, bad := c.Next(s, e)
				found.Steps++
				if visit != nil {
					visit(found, id, s, e, &raw)
				}
				if bad != "" {
					found.nodes = append(found.nodes, node{id, e})
					return found.end(c, int32(len(found.nodes)-1), bad)
				}
				after, _ := c.canonical(&raw)
				if _, there := known[after]; there {
					continue
				}
				n := int32(len(found.nodes))
				known[after] = n
				found.nodes = append(found.nodes, node{id, e})
				next, nextIDs = append(next, after), append(nextIDs, n)
			}
		}
		level, ids = next, nextIDs
	}
	found.States = len(known)
	return found
}

func (f *Found) end(c *Config, id int32, bad string) *Found {
	f.States, f.Bad = len(f.nodes), bad
	f.Trace = f.Path(c, id, nil)
	return f
}

// Path returns the events that lead to a state, and then more.
func (f *Found) Path(c *Config, id int32, more []Event) []Event {
	path := slices.Clone(more)
	for ; f.nodes[id].parent >= 0; id = f.nodes[id].parent {
		path = append([]Event{f.nodes[id].event}, path...)
	}
	s := c.Start()
	for i := range path {
		path[i] = c.original(&s, path[i])
		s, _ = c.Next(&s, path[i])
	}
	return path
}

// original returns the event in s that corresponds to an event in the canonical state.
func (c *Config) original(s *State, e Event) Event {
	if e.Kind <= CrashAdrift {
		_, places := c.canonical(s)
		e.Actor = places[e.Actor]
	}
	return e
}

// canonical returns the representative of s and all states from which the same can
// follow: versions are only compared with the row's, actors can be in any order, and
// unused fields are forgotten. It also returns each actor's place.
func (c *Config) canonical(s *State) (canon State, places [maxActors]int8) {
	canon = *s
	for i := range canon.actors {
		a := &canon.actors[i]
		switch {
		case a.verb == NoVerb || a.pc.forgets() && c.has(ClerkThenRows):
			a.row = row{}
		case a.row.version == s.row.version:
			a.row.version = 1
		default:
			a.row.version = 0
		}
		if a.next != isPostponed && a.next != isLetGo {
			a.at = 0
		}
		places[i] = int8(i)
	}
	if canon.row.version > 1 {
		canon.row.version = 1
	}
	var keys [maxActors][]byte
	var space [maxActors * 40]byte
	for i := range canon.actors {
		keys[i] = canon.actors[i].appendKey(space[i*40 : i*40 : i*40+40])
	}
	slices.SortStableFunc(places[:], func(a, b int8) int { return -bytes.Compare(keys[a], keys[b]) })
	actors := canon.actors
	for i, from := range places {
		canon.actors[i] = actors[from]
	}
	return canon, places
}

// forgets reports whether the row that was read no longer matters.
func (p pc) forgets() bool {
	switch p {
	case pcFindDue, pcRevokeMine, pcSweepList, pcSweepFind, pcSweepRevoke, pcInsert, pcResendGet, pcRevokeGet, pcRevokeUsers, pcRevokeEnd,
		pcResolveUser, pcResolveFind, pcCheck, pcCheckIDs, pcScan, pcScanUsers, pcScanIDs, pcScanMembers,
		pcApplicationOpen, pcApplicationRevoked, pcApplicationAccepted, pcApplicationExpired, pcOpenList, pcOpenFind, pcOpenRevoke,
		pcRevokedList, pcRevokedFind, pcAcceptedList, pcAcceptedFind, pcAcceptedUsers, pcExpiredList:
		return true
	default:
		return false
	}
}

func (a *actor) appendKey(b []byte) []byte {
	flag := func(v bool) byte {
		if v {
			return 1
		}
		return 0
	}
	r := a.row
	b = append(b, byte(a.verb), byte(a.pc), byte(r.status), byte(r.send), byte(r.sent), byte(r.inv), byte(r.attempts), byte(r.held), byte(r.next), byte(r.version),
		byte(a.lease), byte(a.began), byte(a.round), byte(a.made), byte(a.previous), byte(a.next), byte(a.at), a.todo,
		flag(a.others), flag(a.again), flag(a.left), flag(a.stale), flag(a.moved), flag(a.waits), flag(a.second), flag(a.looked), flag(a.failed), flag(a.knows), a.open,
		flag(a.older), flag(a.accepted), flag(a.proved))
	for _, s := range a.seen {
		b = append(b, byte(s))
	}
	return b
}

// Tell describes a trace: each event with its call.
func (c *Config) Tell(trace []Event) string {
	var b strings.Builder
	s := c.Start()
	for i, e := range trace {
		what := ""
		if e.Kind > Begin && e.Kind <= CrashAdrift {
			call, inv, ignore := s.Call(int(e.Actor))
			if inv > 0 {
				call = fmt.Sprintf("%s %d", call, inv)
			}
			if ignore {
				call += " with ignore_existing"
			}
			what = " (" + call + ")"
		}
		next, bad := c.Next(&s, e)
		s = next
		fmt.Fprintf(&b, "%3d  %s%s: %s\n", i+1, e, what, &s)
		if bad != "" {
			fmt.Fprintf(&b, "     %s\n", bad)
		}
	}
	return b.String()
}

// String returns the row and Clerk's invitations.
func (s *State) String() string {
	r := s.row
	var b strings.Builder
	fmt.Fprintf(&b, "%v %d/%d", r.status, r.sent, r.send)
	if r.inv > 0 {
		fmt.Fprintf(&b, " on %d", r.inv)
	}
	if r.held > s.epoch {
		b.WriteString(" held")
	}
	for i, inv := range s.invitations {
		if inv.status != none {
			fmt.Fprintf(&b, ", %d:%v(%d)", i+1, inv.status, inv.send)
		}
	}
	return b.String()
}
