package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// report writes Markdown as the figures come in.
type report struct {
	out       io.Writer
	figures   int // that could be compared
	unusable  int // that could not
	goalsMet  int
	goalsMiss int
	goalsOpen int // the rounds disagree
}

// part begins a part, with what has to be known to read its figures.
func (r *report) part(title string, notes ...string) {
	fmt.Fprintf(r.out, "\n## %s\n\n", title)
	for _, note := range notes {
		fmt.Fprintf(r.out, "- %s\n", note)
	}
	fmt.Fprint(r.out, "\n| case | this library | compared with | its figure | ratio, median (lowest to highest) | goal | |\n|-|-|-|-|-|-|-|\n")
}

// goal is a bound of a ratio, or of a figure of its own.
type goal struct {
	bound   float64
	atLeast bool
	unit    string // "" for a ratio
}

func atLeast(bound float64) *goal { return &goal{bound: bound, atLeast: true} }
func atMost(bound float64) *goal  { return &goal{bound: bound} }

func (g goal) String() string {
	sign, unit := "≤", "×"
	if g.atLeast {
		sign = "≥"
	}
	if g.unit != "" {
		unit = " " + g.unit
	}
	return fmt.Sprintf("%s %g%s", sign, g.bound, unit)
}

func (g goal) met(value float64) bool {
	if g.atLeast {
		return value >= g.bound
	}
	return value <= g.bound
}

// verdict counts and says whether a goal is met.
func (r *report) verdict(met bool) string {
	if met {
		r.goalsMet++
		return "met"
	}
	r.goalsMiss++
	return "**not met**"
}

// verdictOf is the verdict of a ratio of which the rounds must agree.
func (r *report) verdictOf(g goal, ratio spread) string {
	if g.met(ratio.low) != g.met(ratio.high) {
		r.goalsOpen++
		return "undecided"
	}
	return r.verdict(g.met(ratio.median))
}

// compare writes one comparison. of says what the ratio is of: "throughput" or "time". Without a goal g is nil.
func (r *report) compare(name, ours, other, figure, of string, ratio spread, g *goal) {
	r.figures++
	wanted, verdict := "", ""
	if g != nil {
		wanted, verdict = g.String(), r.verdictOf(*g, ratio)
	}
	r.row(name, ours, other, figure, fmt.Sprintf("%.2f× %s (%.2f to %.2f)", ratio.median, of, ratio.low, ratio.high), wanted, verdict)
}

// value writes a figure with a goal of its own.
func (r *report) value(name string, value float64, unit string, g goal) {
	r.figures++
	r.row(name, fmt.Sprintf("%.4g %s", value, unit), "", "", "", g.String(), r.verdict(g.met(value)))
}

// failed writes a line without a figure if that is what err means, and returns any other error.
func (r *report) failed(name string, err error) error {
	var bad *incomparableError
	if !errors.As(err, &bad) {
		return err
	}
	r.unusable++
	r.row(name, bad.Error(), "", "", "", "", "")
	return nil
}

func (r *report) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = strings.ReplaceAll(cell, "|", `\|`)
	}
	fmt.Fprintf(r.out, "| %s |\n", strings.Join(cells, " | "))
}

// end sums up.
func (r *report) end() {
	fmt.Fprintf(r.out, "\n%d figures, %d not comparable. Goals: %d met, %d not met, %d undecided.\n", r.figures, r.unusable, r.goalsMet, r.goalsMiss, r.goalsOpen)
}

// short writes a duration with three digits.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g ms", d.Seconds()*1e3)
	default:
		return fmt.Sprintf("%.3g µs", d.Seconds()*1e6)
	}
}

// perSecond writes a rate without a fraction.
func perSecond(rate float64) string { return fmt.Sprintf("%.0f/s", rate) }
