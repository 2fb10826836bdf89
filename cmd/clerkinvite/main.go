// Command clerkinvite manages the members that the library clerkinvite stores in PostgreSQL. It creates and checks the tables,
// imports and adopts CSV files, invites, lists, shows and changes members, reconciles with Clerk, diagnoses an installation, and serves a fake
// Clerk.
//
//	go install github.com/clerkinvite/clerkinvite/cmd/clerkinvite@latest
//	clerkinvite help
//
// It reads DATABASE_URL, CLERK_SECRET_KEY, CLERK_WEBHOOK_SIGNING_SECRET and CLERK_API_URL. README.md describes the commands,
// their JSON output and the exit codes.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1 // the database, Clerk or the output failed, the call was interrupted, or a check of doctor failed
	exitUsage   = 2 // wrong arguments, a missing variable, a file that cannot be read
	exitSome    = 3 // import or adopt is complete, but some lines are invalid, failed or wait
	exitRefused = 4 // no such member, or not allowed by its state, the cooldown or Clerk
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program immediately
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, environment{getenv: os.Getenv, now: time.Now})
	stop()
	os.Exit(code)
}

// environment has the program's inputs other than arguments and files.
type environment struct {
	getenv      func(string) string
	now         func() time.Time
	databaseNow func() time.Time // only in tests
}

// tool is one run of the program.
type tool struct {
	stdin  io.Reader
	stdout *output
	stderr io.Writer
	env    environment

	schema      string
	asJSON      bool
	withoutHook *bool // nil if the command does not change members
}

// output is standard output. It keeps its first error, so that truncated output is reported, and removes characters that control a
// terminal. Each call of Write must have whole characters.
type output struct {
	w      io.Writer
	asJSON bool
	err    error
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	shown := safe
	if o.asJSON {
		shown = escaped
	}
	if _, o.err = o.w.Write(shown(b)); o.err != nil {
		return 0, o.err
	}
	return len(b), nil
}

type command struct {
	name     string
	args     string // for the usage text
	summary  string
	details  string // examples
	min, max int    // number of arguments without flags

	// prepare defines the flags, and returns the function that runs the command.
	prepare func(t *tool, flags *flag.FlagSet) func(ctx context.Context, args []string) error
}

// commands returns all commands in the order of the help.
func commands() []command {
	return slices.Concat(schemaCommands(), []command{mirrorCommand(), importCommand(), adoptCommand()}, memberCommands(),
		[]command{deliverCommand(), reconcileCommand(), doctorCommand(), fakeCommand()})
}

// run runs the program and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env environment) int {
	t := &tool{stdin: stdin, stdout: &output{w: stdout}, stderr: stderr, env: env}
	code := t.run(ctx, args)
	if err := t.stdout.err; err != nil {
		fmt.Fprintf(stderr, "clerkinvite: the output is incomplete: %s\n", err)
		if code == exitDone || code == exitSome {
			code = exitFailed
		}
	}
	return code
}

func (t *tool) run(ctx context.Context, args []string) int {
	if len(args) > 0 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		if len(args) == 1 {
			usage(t.stdout)
			return exitDone
		}
		args = []string{args[1], "--help"}
	}
	if len(args) == 0 {
		usage(t.stderr)
		return exitUsage
	}
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == args[0] })
	if i < 0 {
		fmt.Fprintf(t.stderr, "clerkinvite: unknown command %q; \"clerkinvite help\" lists all commands\n", args[0])
		return exitUsage
	}
	err := t.call(ctx, all[i], args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		t.fail(all[i].name, err)
	}
	return exitCode(err)
}

func (t *tool) call(ctx context.Context, c command, args []string) error {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // fail prints the error
	flags.StringVar(&t.schema, "schema", "", "the `schema` of the tables, if it is not on the search_path")
	flags.BoolVar(&t.asJSON, "json", false, "print one JSON document")
	do := c.prepare(t, flags)
	positional, err := parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		c.help(t.stdout, flags)
		return err
	}
	t.asJSON = t.asJSON || slices.Contains(args, "--json") // --json may follow an invalid flag
	t.stdout.asJSON = t.asJSON
	if err != nil {
		return usageError{err}
	}
	if len(positional) < c.min || len(positional) > c.max {
		return usagef("usage: clerkinvite %s %s", c.name, c.args)
	}
	return do(ctx, positional)
}

// parse accepts flags and arguments in any order. After "--" there are only arguments.
func parse(flags *flag.FlagSet, args []string) (positional []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		rest := flags.Args()
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" || len(rest) == 0 {
			return append(positional, rest...), nil
		}
		positional, args = append(positional, rest[0]), rest[1:]
	}
}

func usage(w io.Writer) {
	fmt.Fprint(w, "clerkinvite manages members that the Go library clerkinvite stores in PostgreSQL.\n\nUsage: clerkinvite COMMAND [arguments]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, `
"clerkinvite COMMAND --help" shows flags and examples. All commands accept --json and --schema.

Environment:
  DATABASE_URL                  the application's PostgreSQL
  CLERK_SECRET_KEY              sk_test_… or sk_live_…, for commands that call Clerk
  CLERK_WEBHOOK_SIGNING_SECRET  whsec_…, for doctor
  CLERK_API_URL                 another URL for Clerk's Backend API, for tests

Exit codes:
  0  done
  1  the database, Clerk or the output failed, or the command was interrupted; doctor: a check failed
  2  an argument is wrong, a variable is missing, or a file cannot be read
  3  import, adopt: complete, but some lines are invalid, failed or wait
  4  the member does not exist, or its state, the cooldown, Clerk or the application's OnChange does not allow the command
`)
}

func (c command) help(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprintf(w, "%s: %s\n\nUsage: clerkinvite %s [flags]\n\n%s\n\nFlags:\n", c.name, c.summary, strings.TrimSpace(c.name+" "+c.args), c.details)
	flags.SetOutput(w)
	flags.PrintDefaults()
}

// print writes a document as JSON, or calls text. It does not return errors of the output; run reports them.
func (t *tool) print(document any, text func(w io.Writer)) error {
	if !t.asJSON {
		text(t.stdout)
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(document); err != nil {
		return err
	}
	_, _ = t.stdout.Write(b.Bytes())
	return nil
}

func (t *tool) fail(name string, err error) {
	text := strings.TrimPrefix(explain(err), name+": ") // the operation of a *clerkinvite.ClerkInvitationError
	_, _ = t.stderr.Write(safe(fmt.Appendf(nil, "clerkinvite %s: %s\n", name, text)))
	var reported reportedError
	if t.asJSON && !errors.As(err, &reported) {
		_ = t.print(struct {
			Error string `json:"error"`
		}{text}, nil)
	}
}

// plural returns the noun for n things.
func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// plain returns foreign text on one line, safe for a terminal.
func plain(s string) string { return scrub.Plain(s) }

// safe returns text without characters that control a terminal or change the direction of text, except line breaks and tabs.
func safe(b []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || scrub.Invisible(r)) {
			return ' '
		}
		return r
	}, b)
}

// escaped returns JSON with such characters as escapes.
func escaped(b []byte) []byte {
	var out bytes.Buffer
	for _, r := range string(b) {
		switch {
		case r < ' ' || r != 0x7f && !unicode.IsControl(r) && !scrub.Invisible(r):
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.Bytes()
}

// usageError is caused by the caller.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// reportedError is an error that the printed document contains.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

// errSomeFailed is the error of a complete import or adopt.
var errSomeFailed = errors.New("some lines are invalid, failed or wait; see the report")

func exitCode(err error) int {
	var (
		wrong      usageError
		invalid    *clerkinvite.InvalidParamsError
		exists     *clerkinvite.DuplicateEmailError
		transition *clerkinvite.TransitionError
		cooldown   *clerkinvite.CooldownError
		clerk      *clerkinvite.ClerkInvitationError
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &wrong), errors.As(err, &invalid):
		return exitUsage
	case errors.Is(err, errSomeFailed):
		return exitSome
	case errors.Is(err, errHook), errors.Is(err, clerkinvite.ErrNotFound), errors.Is(err, clerkinvite.ErrConflict), errors.Is(err, clerkinvite.ErrLastAdmin), errors.Is(err, clerkinvite.ErrNoLink), errors.As(err, &exists), errors.As(err, &transition), errors.As(err, &cooldown):
		return exitRefused
	case errors.As(err, &clerk) && clerk.Outcome == clerkinvite.OutcomeRefused:
		return exitRefused
	}
	return exitFailed
}

// explain returns the text of an error, its cause, and what to do if that is known.
func explain(err error) string {
	var clerk *clerkinvite.ClerkInvitationError
	var pg *pgconn.PgError
	text := err.Error()
	switch {
	case errors.As(err, &clerk):
		if clerk.Err != nil { // the report names the member
			text = clerk.Op + ": " + clerk.Err.Error()
		}
		if wait, ok := clerkinvite.RetryAfter(err); ok {
			text += fmt.Sprintf("; Clerk's rate limit, try again in %s", wait.Round(time.Second))
		}
		if clerk.Queued() {
			text += "; the invitation is saved and will be retried"
		}
	case errors.Is(err, context.Canceled):
		text = "interrupted"
	case errors.As(err, new(noMirrorTableError)):
		text += ": " + noMirrorTableRemedy
	case errors.As(err, &pg) && pg.Code == "42P01": // undefined_table
		text += "; run \"clerkinvite migrate\", or set --schema to the schema of the tables"
	}
	return text
}
