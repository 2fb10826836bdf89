package testkit

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Patience is how long a test waits for an event that must happen. It is longer than any busy machine needs.
const Patience = 3 * time.Minute

// Await waits until the event has happened. Otherwise the test fails, but does not end, so Await may run in any goroutine.
func Await(t testing.TB, event string, come func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !come(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("waited %v for: %s", Patience, event)
			return
		}
	}
}

// InBubble runs a case of OnBoth. In memory the time of the fake's time limits is synctest's.
func InBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if strings.Contains(t.Name(), "/memory") {
		synctest.Test(t, test)
		return
	}
	test(t)
}
