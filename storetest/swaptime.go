package storetest

import (
	"sync/atomic"
	"time"
)

// wantTime checks what a call returns.
func (s *suite) wantTime(name string, old, next, want time.Time) {
	s.Helper()
	got, err := s.store.SwapTime(s.Context(), name, old, next)
	if err != nil || !got.Equal(want) || got.Location() != time.UTC {
		s.Errorf("SwapTime(%q, %v, %v) = %v, %v; want %v", name, old, next, got, err, want)
	}
}

func swapTimeTable(s *suite) {
	var zero time.Time
	at := now.Add
	for _, step := range []struct {
		what            string
		old, next, want time.Time
	}{
		{"read", zero, zero, zero},
		{"read again: nothing was written", zero, zero, zero},
		{"wrong old time: none is stored", now, at(1), zero},
		{"read with equal times: nothing is written", now, now, zero},
		{"set", zero, now, now},
		{"set again, because the response was lost", zero, now, now},
		{"too late", zero, at(time.Hour), now},
		{"read", zero, zero, now},
		{"read with equal times", at(time.Hour), at(time.Hour), now},
		{"read with equal times", now, now, now},
		{"wrong old time, by a microsecond", at(time.Microsecond), at(time.Hour), now},
		{"wrong old time, by a microsecond", at(-time.Microsecond), at(time.Hour), now},
		{"forward, from other zones", now.In(time.FixedZone("", -3600)), at(time.Hour).In(time.FixedZone("", 7200)), at(time.Hour)},
		{"forward again, because the response was lost", now, at(time.Hour), at(time.Hour)},
		{"back", at(time.Hour), at(-time.Hour), at(-time.Hour)},
		{"the first swap again, later", zero, now, at(-time.Hour)},
		{"the second swap again, later", now, at(time.Hour), at(-time.Hour)},
		{"read", zero, zero, at(-time.Hour)},
	} {
		s.Log(step.what)
		s.wantTime("create", step.old, step.next, step.want)
	}
}

// Each name has its own time.
func swapTimeNames(s *suite) {
	var zero time.Time
	names := []string{"create", "Create", "create ", `odd '"\%_$1 name`, "POST /invitations/bulk", "é", "e\u0301", "漢字"}
	for i, name := range names {
		s.wantTime(name, zero, zero, zero)
		s.wantTime(name, zero, now.Add(time.Duration(i)*time.Second), now.Add(time.Duration(i)*time.Second))
	}
	for i, name := range names {
		s.wantTime(name, zero, zero, now.Add(time.Duration(i)*time.Second))
	}
}

// Times are compared to the microsecond.
func swapTimeMicroseconds(s *suite) {
	for _, old := range []time.Time{now.Add(789), time.Date(1969, 12, 31, 23, 59, 59, 999999999, time.UTC)} {
		name := old.String()
		got, err := s.store.SwapTime(s.Context(), name, time.Time{}, old)
		if err != nil || got.Sub(old).Abs() >= time.Microsecond || got.Nanosecond()%1000 != 0 {
			s.Errorf("%v came back as %v, %v", old, got, err)
		}
		s.wantTime(name, time.Time{}, time.Time{}, got)
		s.wantTime(name, old, got, got) // the same time
		s.wantTime(name, old, old.Add(time.Microsecond), got.Add(time.Microsecond))
		s.wantTime(name, old, old.Add(time.Hour), got.Add(time.Microsecond))
	}
}

// If any number of callers swap the same old time, exactly one succeeds, and the others get its time.
func swapTimeRace(s *suite) {
	var known time.Time
	for round := range 20 {
		var winner atomic.Pointer[time.Time]
		returned := make([]time.Time, 32)
		together(len(returned), func(i int) {
			mine := now.Add(time.Duration(round)*time.Hour + time.Duration(i)*time.Microsecond)
			got, err := s.store.SwapTime(s.Context(), "create", known, mine)
			if err != nil {
				s.Errorf("SwapTime: %v", err)
			}
			returned[i] = got
			if got.Equal(mine) && !winner.CompareAndSwap(nil, &mine) {
				s.Errorf("two callers swapped the same time")
			}
		})
		if winner.Load() == nil {
			s.Fatal("no caller swapped the time")
		}
		for _, got := range returned {
			if !got.Equal(*winner.Load()) {
				s.Errorf("the time became %v, and another caller got %v", *winner.Load(), got)
			}
		}
		known = *winner.Load()
		s.wantTime("create", time.Time{}, time.Time{}, known)
	}
}
