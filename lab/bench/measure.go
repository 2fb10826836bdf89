package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sample is one timed run of one variant.
type sample struct {
	ops       int
	elapsed   time.Duration
	latencies []time.Duration // of each operation, where callers wait for them
}

// rate is operations per second.
func (s sample) rate() float64 { return float64(s.ops) / s.elapsed.Seconds() }

// series is the samples of one variant, one for each round.
type series []sample

// rate is the median of the rounds.
func (s series) rate() float64 { return s.median(sample.rate) }

// each is the median time of one operation.
func (s series) each() time.Duration {
	return time.Duration(s.median(func(r sample) float64 { return r.elapsed.Seconds() / float64(r.ops) }) * 1e9)
}

// percentile is the median over the rounds of a percentile of the latencies.
func (s series) percentile(p float64) time.Duration {
	return time.Duration(s.median(func(r sample) float64 {
		sorted := slices.Sorted(slices.Values(r.latencies))
		return float64(sorted[int(p*float64(len(sorted)-1))])
	}))
}

func (s series) median(of func(sample) float64) float64 {
	values := make([]float64, len(s))
	for i, r := range s {
		values[i] = of(r)
	}
	return spreadOf(values).median
}

// spread is what the rounds say together.
type spread struct{ median, low, high float64 }

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]}
}

// ratio compares the two samples of each round, which were taken one after the other, and not the medians:
// what else the machine does falls on both.
func ratio(ours, other series, of func(sample) float64) spread {
	values := make([]float64, len(ours))
	for i := range ours {
		values[i] = of(ours[i]) / of(other[i])
	}
	return spreadOf(values)
}

// throughput is for ratios of which more is better.
func throughput(s sample) float64 { return s.rate() }

// duration is for ratios of which less is better.
func duration(s sample) float64 { return s.elapsed.Seconds() / float64(s.ops) }

// incomparableError says that a variant did not do the work that it was timed for. It gets no figure.
type incomparableError struct{ reason string }

func (e *incomparableError) Error() string { return "not comparable: " + e.reason }

func incomparable(format string, args ...any) error {
	return &incomparableError{fmt.Sprintf(format, args...)}
}

// variant is one way to do the work. run prepares, does it once timed, and checks what it has left.
type variant struct {
	name string
	run  func(ctx context.Context) (sample, error)
}

// interleave runs the variants in turn, A B A B …, after a round that does not count and opens connections,
// prepares statements and fills caches. The series are in the order of the variants.
func interleave(ctx context.Context, rounds int, variants ...variant) ([]series, error) {
	all := make([]series, len(variants))
	for round := range rounds + 1 {
		for i, v := range variants {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			runtime.GC() // nobody pays for another's garbage
			s, err := v.run(ctx)
			var bad *incomparableError
			switch {
			case errors.As(err, &bad):
				return nil, &incomparableError{v.name + ": " + bad.reason}
			case err != nil:
				return nil, fmt.Errorf("%s: %w", v.name, err)
			}
			if round > 0 {
				all[i] = append(all[i], s)
			}
		}
	}
	return all, nil
}

// timed calls f for 0 to n-1 from so many goroutines and measures each call. It ends with the first error.
func timed(ctx context.Context, callers, n int, f func(ctx context.Context, i int) error) (sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	latencies := make([]time.Duration, n)
	var next atomic.Int64
	var group sync.WaitGroup
	began := time.Now()
	for range callers {
		group.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				start := time.Now()
				if err := f(ctx, i); err != nil {
					cancel(err)
					return
				}
				latencies[i] = time.Since(start)
			}
		})
	}
	group.Wait()
	return sample{n, time.Since(began), latencies}, context.Cause(ctx)
}
