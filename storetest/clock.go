package storetest

import "time"

// The clock runs as fast as this machine's, or the store has no clock.
func clockRuns(s *suite) {
	read := func() time.Time {
		at, err := s.store.Clock(s.Context())
		if err != nil || at.Location() != time.UTC {
			s.Fatalf("Clock() = %v, %v; want a time in UTC", at, err)
		}
		return at
	}
	before := time.Now()
	first := read()
	if first.IsZero() {
		if at := read(); !at.IsZero() {
			s.Errorf("Clock() = %v, and before that the zero time, which means that there is no clock", at)
		}
		return
	}
	after := time.Now()
	for last := first; time.Since(after) < 20*time.Millisecond; {
		at := read()
		if at.Before(last) {
			s.Errorf("the clock went back from %v to %v", last, at)
		}
		last = at
	}
	const tolerance = 10 * time.Millisecond // either clock may be corrected in the meantime
	least := time.Since(after) - tolerance
	passed := read().Sub(first)
	if most := time.Since(before) + tolerance; passed < least || passed > most {
		s.Errorf("the clock moved by %v while %v to %v passed", passed, least, most)
	}
}
