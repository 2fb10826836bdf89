//go:build race

package modeltest

// Slow is whether the race detector is at work. It makes each sequence several times as
// long and finds nothing in it, since only one goroutine runs at a time.
const Slow = true
