// Command clerkinvite is an operator's tool for the members that the library clerkinvite keeps in PostgreSQL: it makes and checks
// the tables, invites the people of a CSV file, lists, shows, resends and revokes, reconciles with Clerk, and tells what is wrong
// with an installation.
//
//	go install github.com/clerkinvite/clerkinvite/cmd/clerkinvite@latest
//	clerkinvite help
//
// It reads DATABASE_URL, CLERK_SECRET_KEY, CLERK_WEBHOOK_SIGNING_SECRET and CLERK_API_URL. README.md has the commands, what they
// print as JSON, and the exit codes.
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

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/clerkinvite/clerkinvite"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1 // the database, Clerk or the output failed, the call was interrupted, or doctor found something that is wrong
	exitUsage   = 2 // wrong arguments, a missing variable, a file that cannot be read
	exitSome    = 3 // an import has come to its end, and some lines are invalid, failed or wait
	exitRefused = 4 // no such member, or its state, the cooldown or Clerk does not allow it
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, environment{getenv: os.Getenv, now: time.Now})
	stop()
	os.Exit(code)
}

// environment is what the program finds around it, besides its arguments and files.
type environment struct {
	getenv func(string) string
	now    func() time.Time
}

// tool is one call of the program.
type tool struct {
	stdin  io.Reader
	stdout *printed
	stderr io.Writer
	env    environment

	schema string
	asJSON bool
}

// printed is standard output. It remembers what went wrong with it: what is cut off must not pass for complete.
type printed struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (o *printed) Write(b []byte) (n int, err error) {
	if o.err == nil {
		n, o.err = o.w.Write(b)
	}
	return n, o.err
}

// command is one of the program's commands.
type command struct {
	name     string
	args     string // what follows the name, for people
	summary  string
	details  string // examples
	min, max int    // how many arguments that are no flags

	// prepare defines the flags and returns what the command does.
	prepare func(t *tool, flags *flag.FlagSet) func(ctx context.Context, args []string) error
}

// commands are in the order of the help.
func commands() []command {
	return slices.Concat(schemaCommands(), []command{importCommand()}, memberCommands(), []command{reconcileCommand(), doctorCommand()})
}

// run is the program, and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env environment) int {
	t := &tool{stdin: stdin, stdout: &printed{w: stdout}, stderr: stderr, env: env}
	code := t.run(ctx, args)
	if err := t.stdout.err; err != nil {
		fmt.Fprintf(stderr, "clerkinvite: what was printed is not complete: %s\n", err)
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
		fmt.Fprintf(t.stderr, "clerkinvite: there is no command %q; \"clerkinvite help\" lists them\n", args[0])
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

// call runs one command.
func (t *tool) call(ctx context.Context, c command, args []string) error {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the error, once
	flags.StringVar(&t.schema, "schema", "", "the `schema` of the tables, if it is not on the search_path")
	flags.BoolVar(&t.asJSON, "json", false, "print one JSON document")
	do := c.prepare(t, flags)
	positional, err := parse(flags, args)
	t.asJSON = t.asJSON || slices.Contains(args, "--json") // it may stand behind what is wrong
	if errors.Is(err, flag.ErrHelp) {
		c.help(t.stdout, flags)
		return err
	}
	if err != nil {
		return usageError{err}
	}
	if len(positional) < c.min || len(positional) > c.max {
		return usagef("usage: clerkinvite %s %s", c.name, c.args)
	}
	return do(ctx, positional)
}

// parse takes flags and other arguments in any order. What follows "--" is no flag.
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
	fmt.Fprint(w, "clerkinvite looks after the members that the Go library clerkinvite keeps in PostgreSQL.\n\nUsage: clerkinvite COMMAND [arguments]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, `
"clerkinvite COMMAND --help" shows a command's flags and examples. Each takes --json and --schema.

Environment:
  DATABASE_URL                  the application's PostgreSQL
  CLERK_SECRET_KEY              sk_test_… or sk_live_…, for what asks Clerk
  CLERK_WEBHOOK_SIGNING_SECRET  whsec_…, for doctor
  CLERK_API_URL                 another address of Clerk's Backend API, for tests

Exit codes:
  0  done
  1  the database, Clerk or the output failed, or it was interrupted; doctor: something is wrong
  2  wrong arguments, a missing variable, a file that cannot be read
  3  import: at its end, but some lines are invalid, failed or wait
  4  no such member, or its state, the cooldown or Clerk does not allow it
`)
}

func (c command) help(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprintf(w, "%s: %s\n\nUsage: clerkinvite %s [flags]\n\n%s\n\nFlags:\n", c.name, c.summary, strings.TrimSpace(c.name+" "+c.args), c.details)
	flags.SetOutput(w)
	flags.PrintDefaults()
}

// print writes the one document, as JSON or as text for people. Its error is not that of the output, which run tells.
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

// fail tells the operator what went wrong.
func (t *tool) fail(name string, err error) {
	text := explain(err)
	fmt.Fprintf(t.stderr, "clerkinvite %s: %s\n", name, text)
	var told reportedError
	if t.asJSON && !errors.As(err, &told) {
		_ = t.print(struct {
			Error string `json:"error"`
		}{text}, nil)
	}
}

// plain returns what others wrote in one line that does nothing to a terminal but to be read.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}

// usageError is the fault of whoever called the program.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// reportedError is one that the document says already.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

// errSomeFailed is that of an import which came to its end.
var errSomeFailed = errors.New("some lines are invalid, failed or wait; see the report")

func exitCode(err error) int {
	var (
		wrong      usageError
		invalid    *clerkinvite.InvalidParamsError
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
	case errors.Is(err, clerkinvite.ErrNotFound), errors.Is(err, clerkinvite.ErrConflict), errors.As(err, &transition), errors.As(err, &cooldown):
		return exitRefused
	case errors.As(err, &clerk) && clerk.Outcome == clerkinvite.Refused:
		return exitRefused
	}
	return exitFailed
}

// explain returns the text of an error for the operator: with its cause, and with what to do where that is known.
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
	case errors.Is(err, context.Canceled):
		text = "interrupted"
	case errors.As(err, &pg) && pg.Code == "42P01": // undefined_table
		text += "; run \"clerkinvite migrate\", or name the schema of the tables with --schema"
	}
	return text
}
