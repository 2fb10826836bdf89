package clerkinvite

import (
	"sync"
	"time"
)

// gates is this process's memory of endpoints that a rate limit has closed. The
// store has the memory of all processes; it is asked by background delivery only,
// so that an Invite does not pay a statement for it.
type gates struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (g *gates) close(endpoint string, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until.After(g.until[endpoint]) {
		if g.until == nil {
			g.until = make(map[string]time.Time)
		}
		g.until[endpoint] = until
	}
}

func (g *gates) wait(endpoint string, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until[endpoint].Sub(now)
}
