package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/doccheck"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// Every clerkinvite command that the documentation, a help text or an error shows can be called in this way.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	documented, err := doccheck.Commands("../..")
	require.NoError(t, err)
	all := commands()
	found := 0
	for _, d := range documented {
		args := slices.DeleteFunc(d.Args[1:], func(s string) bool { return s == "…" })
		if d.Args[0] != "clerkinvite" || len(args) == 0 || args[0] == "help" || args[0] == "COMMAND" {
			continue
		}
		found++
		i := slices.IndexFunc(all, func(c command) bool { return c.name == args[0] })
		require.GreaterOrEqual(t, i, 0, d)
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		flags.SetOutput(&strings.Builder{})
		flags.String("schema", "", "")
		flags.Bool("json", false, "")
		all[i].prepare(&tool{}, flags)
		positional, err := parse(flags, args[1:])
		if len(args) == 1 { // only the command's name
			continue
		}
		if err != flag.ErrHelp { //nolint:errorlint // not wrapped
			require.NoError(t, err, d)
			n := len(positional)
			require.True(t, all[i].min <= n && n <= all[i].max, d)
		}
	}
	require.Greater(t, found, 30)
}

// readmeBlocks returns the blocks of a section of the README, with their language.
func readmeBlocks(t *testing.T, heading string) [][]string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(readme), "\n## "+heading+"\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	return regexp.MustCompile("(?s)```(\\w+)\n(.*?)```").FindAllStringSubmatch(section, -1)
}

// terminal runs shell scripts in a directory, with this program as clerkinvite.
type terminal struct {
	t        *testing.T
	dir, bin string
	vars     []string
}

func newTerminal(t *testing.T, vars map[string]string) *terminal {
	t.Helper()
	for _, program := range []string{"bash", "curl", "psql"} {
		if _, err := exec.LookPath(program); err != nil {
			pgtest.Missing(t, "session", "install "+program)
		}
	}
	program, err := filepath.Abs(os.Args[0])
	require.NoError(t, err)
	term := &terminal{t: t, dir: t.TempDir(), bin: t.TempDir(), vars: []string{"CLERKINVITE_TEST_MAIN=1", "GORACE=atexit_sleep_ms=0"}}
	require.NoError(t, os.WriteFile(filepath.Join(term.bin, "clerkinvite"), fmt.Appendf(nil, "#!/bin/sh\nexec %s \"$@\"\n", program), 0o700))
	for name, value := range vars {
		term.vars = append(term.vars, name+"="+value)
	}
	return term
}

func (term *terminal) command(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = term.dir
	cmd.Env = slices.Concat(os.Environ(), term.vars, []string{"PATH=" + term.bin + ":" + os.Getenv("PATH")})
	return cmd
}

// split returns the commands of a session and their outputs.
func split(session string) (lines, outputs []string) {
	for _, part := range strings.Split("\n"+session, "\n$ ")[1:] {
		line, output, _ := strings.Cut(part+"\n", "\n")
		lines, outputs = append(lines, line), append(outputs, strings.TrimSpace(output))
	}
	return lines, outputs
}

// Parts of output that differ between runs.
var unsteady = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|PostgreSQL \d.*|clock is .*|a key of a development instance.*| +\n`)

func steady(output string) string {
	return strings.Trim(unsteady.ReplaceAllStringFunc(output, func(s string) string {
		if strings.HasSuffix(s, "\n") {
			return "\n"
		}
		return "…"
	}), "\n ")
}

// replay runs the commands of a session, and compares their outputs.
func (term *terminal) replay(session string) {
	term.t.Helper()
	lines, want := split(session)
	const end = "--- end of a command"
	got, _ := term.command(term.t.Context(), "exec 2>&1\n"+strings.Join(lines, "\necho '"+end+"'\n")).Output() // the last command may fail
	outputs := strings.Split(string(got), end+"\n")
	require.Len(term.t, outputs, len(lines))
	for i, output := range outputs {
		require.Equal(term.t, steady(want[i]), steady(output), lines[i])
	}
}

// The example in the README works as shown.
func TestReadmeExample(t *testing.T) {
	t.Parallel()
	blocks := readmeBlocks(t, "Example")
	require.Len(t, blocks, 2)
	w := newWorld(t)
	w.clerk.AddVerifiedUser("grace@example.com")
	w.refuse("mallory@example.com")
	term := newTerminal(t, w.vars)
	require.NoError(t, os.WriteFile(filepath.Join(term.dir, "people.csv"), []byte(blocks[0][2]), 0o600))
	people, doctor, ok := strings.Cut(blocks[1][2], "$ clerkinvite doctor")
	require.True(t, ok)
	term.replay(people)
	_, err := w.clerk.Accept("ada@example.com")
	require.NoError(t, err)
	term.replay("$ clerkinvite doctor" + doctor)
}

// The commands for many members work, also for an address with a quote.
func TestReadmeManyMembers(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("jq"); err != nil {
		pgtest.Missing(t, "session", "install jq")
	}
	blocks := readmeBlocks(t, "Many members")
	require.Len(t, blocks, 2)
	w := newWorld(t)
	svc, err := clerkinvite.New(clerkinvite.Config{API: w.clerk, Store: w.store})
	require.NoError(t, err)
	w.clerk.AddVerifiedUser("active@example.com")
	term := newTerminal(t, w.vars)
	statuses := func() string {
		out, _ := term.command(t.Context(), `clerkinvite list acme --all --json | jq -r '[.members[].status] | group_by(.) | map("\(length) \(.[0])") | join(", ")'`).Output()
		return strings.TrimSpace(string(out))
	}
	for _, email := range []string{"active@example.com", "o'neil@example.com"} {
		require.Zero(t, w.run("invite", "acme", email).code)
	}
	for _, email := range []string{"o'brien@example.com", "refused@example.com"} {
		_, err := svc.Reserve(t.Context(), testkit.Params("acme", email))
		require.NoError(t, err)
	}
	require.Equal(t, "1 active, 1 pending, 2 reserved", statuses())
	_, _ = term.command(t.Context(), blocks[0][2]).Output()
	require.Equal(t, "1 active, 1 pending, 2 revoked", statuses())
	_, _ = term.command(t.Context(), blocks[1][2]).Output() // xargs reports that revoked members stay
	require.Equal(t, "2 removed, 2 revoked", statuses())
}

// The session in the README works as shown.
func TestReadmeSession(t *testing.T) {
	t.Parallel()
	blocks := readmeBlocks(t, "Try it without an account")
	require.Len(t, blocks, 4)
	w := newWorld(t)
	term := newTerminal(t, map[string]string{"DATABASE_URL": w.vars["DATABASE_URL"]})
	for _, address := range []string{"localhost:4010", ":8080"} {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			pgtest.Missing(t, "session", "the session uses "+address)
		}
		require.NoError(t, listener.Close())
	}
	background := func(script string) *locked {
		ctx, stop := context.WithCancel(t.Context())
		cmd := term.command(ctx, script)
		errs := new(locked)
		cmd.Stderr = errs
		require.NoError(t, cmd.Start())
		t.Cleanup(func() {
			stop()
			_ = cmd.Wait()
		})
		return errs
	}

	lines, outputs := split(blocks[0][2])
	require.Len(t, lines, 1)
	fake := background("exec " + lines[0])
	testkit.Await(t, "the fake is ready", func() bool { return strings.Contains(fake.String(), "for tests only") })
	term.replay(blocks[1][2])
	require.Equal(t, outputs[0], strings.TrimSpace(fake.String()), "the first terminal")

	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	lines, _ = split(blocks[2][2])
	require.Len(t, lines, 1)
	// Build first, because a signal to "go run" would not end the program.
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(term.bin, "signin"), "./examples/signin")
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	background(". ./fake.env; " + strings.Replace(lines[0], " go run ./examples/signin", " exec signin", 1))
	testkit.Await(t, "the application is ready", func() bool {
		conn, err := net.Dial("tcp", "localhost:8080")
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	term.replay(blocks[3][2])
}

// The commands in the README that adopt a table work.
func TestReadmeAdopt(t *testing.T) {
	t.Parallel()
	blocks := readmeBlocks(t, "Adopt")
	require.Len(t, blocks, 1)
	w := newWorld(t)
	ada := w.clerk.CreateForeign("ada@example.com", nil)
	grace := w.clerk.AddVerifiedUser("grace@example.com")
	_, err := w.db.Pool(t).Exec(t.Context(), `CREATE TABLE admin_user (tenant_id text, email text, clerk_user_id text);
		INSERT INTO admin_user VALUES ('acme', 'grace@example.com', 'pending_inv_gone'), ('acme', 'ada@example.com', 'pending_`+ada.ID+`'), ('acme', 'grace@example.com', '`+grace.ID+`')`)
	require.NoError(t, err)
	term := newTerminal(t, w.vars)
	out, err := term.command(t.Context(), blocks[0][2]).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, grace.ID, w.member("grace@example.com").ClerkUserID, "%s", out)
	require.Equal(t, ada.ID, w.member("ada@example.com").InvitationID)
}
