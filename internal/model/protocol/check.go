package protocol

import "fmt"

// atRest checks a state without actors: what is wrong now, and what would be wrong
// after Deliver and Reconcile.
func (c *Config) atRest(s *State, known map[State]string) string {
	for i := range s.actors {
		if s.actors[i].verb != NoVerb {
			return ""
		}
	}
	if !s.disordered && s.flights[0].send == 0 {
		if bad := c.calm(s); bad != "" {
			return bad
		}
	}
	// A create under way may never arrive; if it does, that is another trace.
	world := State{row: s.row, invitations: s.invitations, user: s.user, member: s.member, withdrawn: s.withdrawn}
	world.row.held, world.row.next, world.row.version = 0, 0, 1
	bad, there := known[world]
	if !there {
		bad = c.recover(world)
		known[world] = bad
	}
	return bad
}

// calm checks a state before any repair, if nothing went wrong.
func (c *Config) calm(s *State) string {
	for i, inv := range s.invitations {
		named := s.row.status == pending && s.row.inv == int8(i+1)
		if inv.status == pending && inv.send > 0 && !named && !s.row.due() {
			return "an older invitation is left over although nothing went wrong"
		}
	}
	return ""
}

// recover lets time pass, runs Deliver and Reconcile one after the other and
// without faults, and returns what is wrong then.
func (c *Config) recover(s State) string {
	for range 3 {
		s.epoch = 1
		if s.row.due() {
			s.row.held, s.row.next = 0, 0
		}
		for _, v := range []Verb{Deliver, Reconcile} {
			var bad string
			if s, bad = c.alone(s, v); bad != "" {
				return bad
			}
		}
	}
	return c.settledWell(&s)
}

// alone runs one verb without other actors.
func (c *Config) alone(s State, v Verb) (State, string) {
	s.begins[v] = 1
	s, bad := c.Next(&s, Event{Kind: Begin, Arg: int8(v)})
	for n := 0; bad == "" && s.actors[0].verb != NoVerb; n++ {
		if n > 200 {
			return s, fmt.Sprintf("%v does not end", v)
		}
		s, bad = c.Next(&s, Event{Kind: GoOn})
	}
	if bad != "" {
		bad = "recovering: " + bad
	}
	return s, bad
}

// settledWell checks a final state.
func (c *Config) settledWell(s *State) string {
	r := s.row
	for i, inv := range s.invitations {
		named := r.status == pending && r.inv == int8(i+1)
		switch {
		case inv.send == 0 && !named:
		case named && inv.send > 0 && inv.send < r.send && !r.due() && !c.Once:
			return "a send without an email"
		case named && inv.status == accepted && !c.joined(s): // Reconcile reports it
		case named && inv.status != pending:
			return "the row names an invitation that is " + inv.status.String()
		case !named && inv.status == pending:
			return "an invitation is left over for good"
		}
	}
	switch {
	case r.due():
		return "due for ever"
	case r.status == reserved, r.status == pending && c.joined(s):
		return "never decided"
	case r.status == revoked && !s.withdrawn:
		return "revoked without a caller"
	case r.status == failed && !c.Once:
		return "failed without a refusal"
	case r.status == pending && r.inv == 0:
		return "pending on nothing"
	}
	return ""
}
