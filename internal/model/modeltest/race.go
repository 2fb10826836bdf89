//go:build race

package modeltest

// Slow reports whether the race detector is on. It makes each sequence several times as
// long and finds nothing, because only one goroutine runs at a time.
const Slow = true
