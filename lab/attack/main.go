// The command attack runs the long mode of every test that tries to break the library. It prints what was attacked, how
// often, what was lost and how long it took. "make attack" runs it from the repository's root.
//
//	attack [-root directory] [-rows directory] [part ...]
//
// Without arguments it runs all parts, one after the other, in about four hours. Each part that passes keeps its rows in a
// file of the directory. The table has the rows of all such parts, so parts may run on different days or side by side.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite/internal/tally"
)

// part is a command that appends rows to the file CLERKINVITE_ATTACK_ROWS. rows is how many it must
// write; otherwise a renamed test would drop out unnoticed.
type part struct {
	name    string
	rows    int
	command string
}

// In the order of the table.
var parts = []part{
	{"points", 9, "scripts/ensure-postgres.sh && go test -timeout 90m -count 1 -run 'TestPromise3_EveryFaultPoint|TestPromise3_KilledAtAnyMoment|TestPromise1_ConcurrentInvitesFromManyProcesses|TestPromise1_AdoptKilledAtAnyMoment|TestNoStringBecomesSQL|TestHostileBodiesAreBounded' ./internal/attacks"},
	{"protocol", 2, "scripts/ensure-postgres.sh && go test -timeout 90m -count 1 ./internal/model/protocol"},
	{"random", 3, "scripts/ensure-postgres.sh && " +
		"CLERKINVITE_MODEL_SEQUENCES=50000 go test -timeout 90m -count 1 -run 'TestModel$|TestPromise3_Interleavings$' ./internal/attacks ./internal/model/modeltest && " +
		"CLERKINVITE_MODEL_SEQUENCES=3000 go test -timeout 90m -count 1 -run 'TestModelPostgres$' ./internal/model/modeltest"},
	{"postgres", 9, "scripts/ensure-postgres.sh && scripts/ensure-pgbouncer.sh && " +
		"go test -timeout 90m -count 1 -run 'TestPgxStorePlansAtScale|TestPgxStoreDuePlans' ./internal/attacks/cost -rows 1000000 && " +
		"for v in 14 15 16 17 18; do bins=${bins:+$bins:}$v=$(scripts/fetch-postgres.sh $v) || exit; done && " +
		"export CLERKINVITE_TEST_PGBINS=$bins && cd lab && go test -timeout 90m -count 1 ./attack/postgres"},
	{"peers", 11, "scripts/ensure-peers.sh && cd lab && go test -timeout 90m -count 1 ./attack/peers"},
	{"fuzz", 10, "scripts/fuzz.sh 10m"},
	{"soak", 1, "scripts/ensure-postgres.sh && cd lab && go test -timeout 90m -count 1 ./attack/soak"},
}

func main() {
	rows := flag.String("rows", "lab/attack/rows", "directory for the rows of each part")
	root := flag.String("root", ".", "the repository's root")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := os.Chdir(*root)
	if err == nil {
		err = run(ctx, *rows, flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1) //nolint:gocritic // there is nothing left to give back
	}
}

func run(ctx context.Context, dir string, names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("unknown part %q", name)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var failed []string
	for _, p := range parts {
		if len(names) > 0 && !slices.Contains(names, p.name) {
			continue
		}
		if err := p.run(ctx, dir); err != nil {
			failed = append(failed, p.name)
			fmt.Fprintf(os.Stderr, "attack: %s: %v\n", p.name, err)
		}
	}
	if err := table(os.Stdout, dir); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

// run runs the part and replaces its rows if it passes.
func (p part) run(ctx context.Context, dir string) error {
	fmt.Fprintf(os.Stderr, "\n=== %s: %s\n", p.name, p.command)
	file := filepath.Join(dir, p.name+".jsonl")
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	start := time.Now()
	cmd := exec.CommandContext(ctx, "bash", "-c", p.command) // #nosec G204 -- one of the above
	cmd.Env = append(os.Environ(), tally.EnvLong+"=1", tally.EnvFile+"="+file,
		"CLERKINVITE_REQUIRE=postgres,postgres-versions,pgbouncer,node")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		// The table must not show the counts of a part that failed.
		return errors.Join(err, os.Remove(file))
	}
	if rows, err := p.kept(dir); err != nil || len(rows) != p.rows {
		return fmt.Errorf("%d rows instead of %d: %w", len(rows), p.rows, errors.Join(err, os.Remove(file)))
	}
	fmt.Fprintf(os.Stderr, "=== %s: passed after %v\n", p.name, time.Since(start).Round(time.Second))
	return nil
}

// table prints all rows as Markdown.
func table(w io.Writer, dir string) error {
	fmt.Fprintln(w, "| part | what was attacked | how often | lost | took |\n|-|-|-|-|-|")
	var figures []string
	for _, p := range parts {
		rows, err := p.kept(dir)
		if errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(w, "| %s | not run | | | |\n", p.name)
			continue
		}
		if err != nil {
			return err
		}
		for _, r := range rows {
			fmt.Fprintf(w, "| %s | %s | %s | %s | %v |\n", p.name, r.What, r.Times, r.Lost, time.Duration(r.Seconds*float64(time.Second)).Round(time.Second))
			for _, f := range r.Figures {
				figures = append(figures, r.What+": "+f)
			}
		}
	}
	if len(figures) > 0 {
		fmt.Fprint(w, "\nMeasured on the way:\n\n")
		for _, f := range figures {
			fmt.Fprintln(w, "-", f)
		}
	}
	return nil
}

func (p part) kept(dir string) (rows []tally.Row, err error) {
	f, err := os.Open(filepath.Join(dir, p.name+".jsonl"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r tally.Row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}
