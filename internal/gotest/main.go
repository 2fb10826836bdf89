// Command gotest runs go test and shows its progress. It prints failures in full, and a summary of skipped tests at the end,
// because go test itself prints "ok" for a package that skips everything.
//
//	gotest [-C directory,…] [flags and packages of go test]
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	dirs, args := []string{"."}, os.Args[1:]
	if len(args) > 1 && args[0] == "-C" {
		dirs, args = strings.Split(args[1], ","), args[2:]
	}
	if !slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "-parallel") }) {
		args = append([]string{fmt.Sprintf("-parallel=%d", 2*runtime.NumCPU())}, args...) // tests often wait for PostgreSQL and for each other
	}
	signal.Notify(make(chan os.Signal, 1), os.Interrupt) // go test also gets the signal, and ends
	r := &run{out: os.Stdout, start: time.Now(), packages: make(map[string]*pkg), skips: make(map[string]int)}
	if !r.all(dirs, args) {
		os.Exit(1)
	}
}

// event is a line of go test -json.
type event struct {
	Action     string  `json:"Action"`
	Package    string  `json:"Package"`
	Test       string  `json:"Test"`
	Output     string  `json:"Output"`
	ImportPath string  `json:"ImportPath"`
	Elapsed    float64 `json:"Elapsed"`
}

// run is the state of the run.
type run struct {
	mu       sync.Mutex
	out      io.Writer
	start    time.Time
	total    int // top-level tests
	packages map[string]*pkg
	skips    map[string]int // by reason
	failed   []string
}

type pkg struct {
	race     bool // a report of the race detector is being printed
	name     string
	running  bool
	done     bool
	tests    int                  // top-level tests that have ended
	began    map[string]time.Time // running top-level tests
	output   map[string][]string  // by test, until the test ends
	finished map[string]bool
}

func newPkg(name string) *pkg {
	return &pkg{name: name, began: make(map[string]time.Time), output: make(map[string][]string), finished: make(map[string]bool)}
}

// here returns a directory relative to the working directory.
func here(dir string) string {
	wd, err := os.Getwd()
	if err != nil {
		return ""
	}
	rel, err := filepath.Rel(wd, dir)
	if err != nil || rel == "." {
		return rel
	}
	return "./" + rel
}

// all tests the modules in dirs in this order, two at a time, and reports whether all tests have passed.
func (r *run) all(dirs, args []string) bool {
	for _, dir := range dirs {
		if err := r.list(dir, args); err != nil {
			r.sayf("%v", err)
			return false
		}
	}
	r.sayf("%d packages, about %d tests", len(r.packages), r.total)
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	go func() {
		for range tick.C {
			r.progress()
		}
	}()
	passed := make(chan bool, len(dirs))
	slots := make(chan struct{}, 2)
	for _, dir := range dirs {
		slots <- struct{}{}
		go func() {
			passed <- r.test(dir, args)
			<-slots
		}()
	}
	ok := true
	for range dirs {
		ok = <-passed && ok
	}
	r.summary(ok)
	return ok
}

var topLevel = regexp.MustCompile(`(?m)^func (?:(?:Test|Fuzz)[A-Z_]\w*\(\w+ \*testing\.[TF]\)|Example\w*\(\))`)

// list counts the packages with tests, and their tests.
func (r *run) list(dir string, args []string) error {
	patterns := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.HasPrefix(arg, "-") })
	cmd := exec.Command("go", append([]string{"list", "-f", `{{.ImportPath}} {{.Dir}}{{range .TestGoFiles}} {{.}}{{end}}{{range .XTestGoFiles}} {{.}}{{end}}`}, patterns...)...) // #nosec G204 -- as the caller says
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go list in %s: %w", dir, err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		for _, file := range fields[2:] {
			source, err := os.ReadFile(filepath.Join(fields[1], file))
			if err != nil {
				return err
			}
			r.total += len(topLevel.FindAll(source, -1))
		}
		if len(fields) > 2 {
			r.packages[fields[0]] = newPkg(cmp.Or(here(fields[1]), fields[0]))
		}
	}
	return nil
}

// test runs go test in dir.
func (r *run) test(dir string, args []string) bool {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...) // #nosec G204 -- as the caller says
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.sayf("%v", err)
		return false
	}
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err != nil {
			if err := cmd.Wait(); err != nil {
				r.sayf("go test in %s: %v", dir, err)
				return false
			}
			return true
		}
	}
}

func (r *run) line(line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e event
	if json.Unmarshal(line, &e) != nil {
		fmt.Fprintf(r.out, "%s\n", bytes.TrimSpace(line))
		return
	}
	if e.Action == "build-output" {
		fmt.Fprint(r.out, e.Output)
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		return // without tests
	}
	if e.Test == "" {
		r.ofPackage(p, e)
		return
	}
	top := !strings.Contains(e.Test, "/")
	// The detector's report appears in the output of any running test, even of one that passes.
	if p.race = p.race || strings.Contains(e.Output, "WARNING: DATA RACE"); p.race {
		fmt.Fprint(r.out, e.Output)
		p.race = !strings.HasPrefix(e.Output, "=====")
	}
	switch e.Action {
	case "run", "cont":
		if top {
			p.began[e.Test] = time.Now()
		}
	case "pause":
		delete(p.began, e.Test)
	case "output":
		p.keep(e)
	case "pass", "fail", "skip":
		delete(p.began, e.Test)
		p.finished[e.Test] = true
		if top {
			p.tests++
		}
		switch e.Action {
		case "fail":
			r.failed = append(r.failed, p.name+" "+e.Test)
			r.print(p, e.Test)
		case "skip":
			r.skips[reason(p.output[e.Test])]++
		}
		delete(p.output, e.Test)
	}
}

// ofPackage handles an event of a package: its start, its end, or output outside of its tests.
func (r *run) ofPackage(p *pkg, e event) {
	switch e.Action {
	case "start":
		p.running = true
	case "output":
		p.keep(e)
	case "pass", "fail", "skip":
		p.running, p.done = false, true
		if e.Action == "fail" {
			// After a panic or a timeout, the unfinished tests have the output.
			for _, test := range slices.Sorted(maps.Keys(p.output)) {
				if test != "" {
					r.failed = append(r.failed, p.name+" "+test+" (not finished)")
				}
				r.print(p, test)
			}
		}
		verdict := map[string]string{"pass": "ok", "fail": "FAILED", "skip": "ok"}[e.Action]
		fmt.Fprintf(r.out, "%6s  %-7s %s: %d tests, %.1f s\n", r.elapsed(), verdict, p.name, p.tests, e.Elapsed)
		p.output = nil
	}
}

func (p *pkg) keep(e event) {
	if strings.HasPrefix(e.Output, "=== ") || p.finished[e.Test] {
		return
	}
	p.output[e.Test] = append(p.output[e.Test], e.Output)
}

func (r *run) print(p *pkg, test string) {
	if len(p.output[test]) > 0 {
		fmt.Fprintf(r.out, "\n=== %s %s\n%s\n", p.name, test, strings.TrimRight(strings.Join(p.output[test], ""), "\n"))
	}
}

var position = regexp.MustCompile(`^\s*\S+\.go:\d+: `)

// reason returns the last output of a test before it was skipped.
func reason(output []string) string {
	said := ""
	for _, line := range output {
		if !strings.HasPrefix(strings.TrimSpace(line), "---") {
			said = strings.TrimSpace(position.ReplaceAllString(line, ""))
		}
	}
	return cmp.Or(said, "no reason given")
}

func (r *run) elapsed() string {
	d := time.Since(r.start)
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

func (r *run) sayf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "%6s  %s\n", r.elapsed(), fmt.Sprintf(format, args...))
}

// progress returns the progress of the run, and the longest-running test of each package.
func (r *run) progress() {
	r.mu.Lock()
	done, tests := r.count()
	var now []string
	for _, name := range slices.Sorted(maps.Keys(r.packages)) {
		p := r.packages[name]
		if !p.running {
			continue
		}
		what := p.name
		if len(p.began) > 0 {
			test := slices.MinFunc(slices.Collect(maps.Keys(p.began)), func(a, b string) int { return p.began[a].Compare(p.began[b]) })
			what += fmt.Sprintf(" %s (%.0f s)", test, time.Since(p.began[test]).Seconds())
		}
		now = append(now, what)
	}
	total := r.total
	r.mu.Unlock()
	r.sayf("%d of %d packages, %d of %d tests; now %s", done, len(r.packages), tests, total, cmp.Or(strings.Join(now, ", "), "compiling"))
}

func (r *run) count() (done, tests int) {
	for _, p := range r.packages {
		if p.done {
			done++
		}
		tests += p.tests
	}
	return done, tests
}

func (r *run) summary(ok bool) {
	r.mu.Lock()
	done, tests := r.count()
	if len(r.skips) > 0 {
		fmt.Fprintln(r.out, "\nNOT TESTED: these were skipped (count, reason)")
		for _, reason := range slices.Sorted(maps.Keys(r.skips)) {
			fmt.Fprintf(r.out, "%6d  %s\n", r.skips[reason], reason)
		}
	}
	for _, p := range r.packages {
		if !ok && !p.done {
			r.failed = append(r.failed, p.name+" (not finished)")
		}
	}
	if len(r.failed) > 0 {
		fmt.Fprintln(r.out, "\nFAILED:")
		for _, name := range r.failed {
			fmt.Fprintln(r.out, "  "+name)
		}
	}
	r.mu.Unlock()
	r.sayf("%s: %d tests in %d packages", map[bool]string{true: "passed", false: "FAILED"}[ok], tests, done)
}
