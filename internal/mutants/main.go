// Command mutants injects bugs into the library, one at a time, and runs the test that must detect each. "make mutants"
// calls it. It runs in the repository's root and does not change the files there (go test -overlay).
//
//	mutants [number or part of a name ...]
//
// It fails if a mutant does not apply, does not compile or survives its test, and if a test fails without a mutant.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1) //nolint:gocritic // there is nothing left to give back
	}
}

func run(ctx context.Context, wanted []string) error {
	dir, err := os.MkdirTemp("", "clerkinvite-mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	chosen := make(map[int]mutant)
	for i, m := range mutants {
		if len(wanted) == 0 || slices.ContainsFunc(wanted, func(w string) bool { return w == strconv.Itoa(i+1) || strings.Contains(m.name, w) }) {
			chosen[i+1] = m
		}
	}
	if out, err := healthy(ctx, chosen); err != nil {
		return fmt.Errorf("the tests must pass without a mutant: %w\n%s", err, end(out))
	}
	survived := 0
	for i := range len(mutants) + 1 {
		m, ok := chosen[i]
		if !ok {
			continue
		}
		start := time.Now()
		verdict, out := m.try(ctx, dir)
		fmt.Printf("%3d  %-8s %4.0f s  %s (%s)\n", i, verdict, time.Since(start).Seconds(), m.name, m.test)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if verdict != caught {
			survived++
			fmt.Printf("%s\n", end(out))
		}
	}
	fmt.Printf("%d mutants, %d caught\n", len(chosen), len(chosen)-survived)
	if survived > 0 {
		return fmt.Errorf("%d mutants were not caught", survived)
	}
	return nil
}

// healthy runs all needed tests on the unchanged library.
func healthy(ctx context.Context, chosen map[int]mutant) ([]byte, error) {
	tests := make(map[string][]string)
	for _, m := range chosen {
		if !slices.Contains(tests[m.in()], m.top()) {
			tests[m.in()] = append(tests[m.in()], m.top())
		}
	}
	for pkg, names := range tests {
		slices.Sort(names)
		out, err := test(ctx, "", pkg, "^("+strings.Join(names, "|")+")$")
		for _, name := range names {
			if err == nil && !bytes.Contains(out, []byte("--- PASS: "+name+" ")) {
				err = fmt.Errorf("%s has not run", name)
			}
		}
		if err != nil {
			return out, err
		}
	}
	return nil, nil
}

// A verdict on a mutant.
const (
	caught   = "caught"
	survived = "SURVIVED"
	broken   = "BROKEN"
	hung     = "HUNG"
)

// try injects the bug and runs the test.
func (m mutant) try(ctx context.Context, dir string) (verdict string, output []byte) {
	overlay, err := m.overlay(dir)
	if err != nil {
		return broken, []byte(err.Error())
	}
	if out, err := command(ctx, "go", "vet", "-overlay", overlay, m.in()); err != nil {
		return broken, out
	}
	out, err := test(ctx, overlay, m.in(), m.pattern())
	switch {
	case err == nil:
		return survived, out
	case bytes.Contains(out, []byte("panic: test timed out")):
		return hung, out
	case bytes.Contains(out, []byte("--- FAIL: "+m.top()+" ")), bytes.Contains(out, []byte("panic: ")):
		return caught, out
	default: // the test did not run
		return broken, out
	}
}

// overlay writes the changed files, and the overlay that makes Go read them instead.
func (m mutant) overlay(dir string) (string, error) {
	files := make(map[string]string)
	for _, e := range m.edits {
		text, ok := files[e.file]
		if !ok {
			b, err := os.ReadFile(e.file)
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("%s has this %d times instead of once:\n%s", e.file, n, e.old)
		}
		files[e.file] = strings.Replace(text, e.old, e.now, 1)
	}
	replace := make(map[string]string)
	for name, text := range files {
		path, err := filepath.Abs(name)
		if err != nil {
			return "", err
		}
		replace[path] = filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, b, 0o600)
}

func test(ctx context.Context, overlay, pkg, pattern string) ([]byte, error) {
	// A mutant can make a test loop forever.
	args := []string{"test", "-count", "1", "-v", "-timeout", "4m", "-parallel", "16", "-run", pattern, pkg}
	if overlay != "" {
		args = slices.Insert(args, 1, "-overlay", overlay)
	}
	return command(ctx, "go", args...)
}

func command(ctx context.Context, name string, args ...string) ([]byte, error) {
	return exec.CommandContext(ctx, name, args...).CombinedOutput() // #nosec G204 -- go
}

// end returns the names of the failed tests, and the last lines of an output.
func end(out []byte) []byte {
	failed := bytes.Join(failedTest.FindAll(out, -1), []byte("\n"))
	return slices.Concat(failed, []byte("\n"), out[max(0, len(out)-4000):])
}

var failedTest = regexp.MustCompile(`(?m)^ *--- FAIL: .*$`)
