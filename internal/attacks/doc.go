// Package attacks tries to break the promises of the README: by a fault at every point between two
// effects, by races, by kills, and by hostile input. It has tests only; a test that attacks a promise
// has its number in its name, as in TestPromise3_EveryFaultPoint.
package attacks
