package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// variant is one way to do the work. run prepares it, does it once, checks what it
// left behind, and returns operations per second.
type variant struct {
	name string
	run  func(ctx context.Context) (rate float64, err error)
}

// compare runs the variants in turn and writes a row for the first one against each of
// the others. One round before the others does not count: it opens connections,
// prepares statements and fills caches.
func compare(ctx context.Context, out io.Writer, what string, rounds int, variants ...variant) error {
	rates := make([][]float64, len(variants))
	for round := range rounds + 1 {
		for i, v := range variants {
			runtime.GC() // so that no variant pays for the garbage of another
			rate, err := v.run(ctx)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", what, v.name, err)
			}
			if round > 0 {
				rates[i] = append(rates[i], rate)
			}
		}
	}
	for i, other := range rates[1:] {
		// Ratios within a round, because other load on the machine affects its variants alike.
		ratios := make([]float64, rounds)
		for round := range ratios {
			ratios[round] = rates[0][round] / other[round]
		}
		fmt.Fprintf(out, "| %s | %.0f/s | %s | %.0f/s | %.2f (%.2f to %.2f) |\n",
			what, median(rates[0]), variants[i+1].name, median(other), median(ratios), slices.Min(ratios), slices.Max(ratios))
	}
	return nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// timed calls f for 0 to n-1 from several goroutines and returns calls per second. It
// ends with the first error.
func timed(ctx context.Context, callers, n int, f func(ctx context.Context, i int) error) (rate float64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var group sync.WaitGroup
	start := time.Now()
	for range callers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return float64(n) / time.Since(start).Seconds(), context.Cause(ctx)
}
