// The command bench compares the library with what people would write by hand, and with the least that the same work can
// cost, and prints a table in Markdown.
//
//	go run . [-run regexp] [-quick] [-n rounds] [-database url] [-huge]
//
// A figure alone says little: another machine, or the same one an hour later, has another. So the variants that are
// compared run in turn, A B A B …, and the table has the median of the ratios of neighbours. A variant that does not leave
// the same rows, and the same emails at the fake of Clerk, gets no figure.
//
// It starts a throw-away PostgreSQL with the settings that it comes with, so a commit waits for the disk of the
// directory for temporary files. With -database it measures on another server, whose user must be allowed to create
// databases; they are dropped at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bench is how much is measured, and where.
type bench struct {
	server *postgres

	rounds    int    // that count, for each comparison
	loads     []load // of Invite
	reserve   int    // rows of ReserveMany
	verify    int    // webhooks that are verified in one run
	events    int    // webhooks that are verified and handled in one run
	members   []int  // sizes of the table
	tenants   int    // at most, of the table with many
	queries   int    // of a kind in one run
	benchtime string // of testing.Benchmark
	disk      int    // members of whom it is measured what they take on disk
}

// load is so many calls by so many callers, with a Clerk that takes so long for an answer.
type load struct {
	callers, calls int
	latency        time.Duration
}

// internet is a latency that no request over the internet is far below.
const internet = 20 * time.Millisecond

var (
	full = bench{
		rounds: 9, loads: []load{
			{1, 400, 0}, {16, 1600, 0}, {64, 3200, 0}, {1, 20, internet}, {16, 320, internet}, {64, 1280, internet},
		}, reserve: 10_000, verify: 3000, events: 300,
		members: []int{10_000, 1_000_000}, tenants: 100_000, queries: 50, benchtime: "500ms", disk: 200_000,
	}
	quick = bench{
		rounds: 3, loads: []load{{1, 50, 0}, {16, 160, 0}, {64, 256, 0}, {16, 64, internet}}, reserve: 2000, verify: 300, events: 50,
		members: []int{10_000, 30_000}, tenants: 3_000, queries: 10, benchtime: "50ms", disk: 5_000,
	}
)

// part is one part of the measuring.
type part struct {
	name string
	run  func(ctx context.Context, b *bench, r *report) error
}

var parts = []part{
	{"invite", partInvite}, {"reserve", partReserve}, {"webhook", partWebhook}, {"scale", partScale}, {"own", partOwn}, {"disk", partDisk},
}

func main() {
	if os.Getenv(fakeEnv) != "" {
		if err := serveFake(context.Background(), os.Stdout, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "bench: the fake of Clerk:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the program.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	var (
		only    = flags.String("run", "", "run the parts whose name matches this `regexp`: invite, reserve, webhook, scale, own, disk")
		isQuick = flags.Bool("quick", false, "seconds for each part: to see that it works, not for the figures")
		rounds  = flags.Int("n", 0, "`rounds` for each comparison")
		huge    = flags.Bool("huge", false, "also with 10 million members, which takes long and much of the disk")
		dsn     = flags.String("database", "", "connection `URL` of the server to measure on, instead of a throw-away one")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	b := full
	if *isQuick {
		b = quick
	}
	if *rounds > 0 {
		b.rounds = *rounds
	}
	if *huge {
		b.members = append(slices.Clip(b.members), 10_000_000)
	}
	if *dsn != "" {
		b.server = &postgres{dsn: *dsn}
	} else {
		if b.server, err = startServer(ctx); err != nil {
			return err
		}
		defer b.server.stop()
	}
	command := strings.Join(append([]string{"go run -C lab ./bench"}, withoutPassword(args, *dsn)...), " ")
	return b.measure(ctx, command, match, out)
}

// withoutPassword returns the arguments without the connection string, which may hold a password.
func withoutPassword(args []string, dsn string) []string {
	shown := make([]string, len(args))
	for i, arg := range args {
		if shown[i] = arg; dsn != "" {
			shown[i] = strings.ReplaceAll(arg, dsn, "…")
		}
	}
	return shown
}

// measure runs the parts that match and prints the report.
func (b *bench) measure(ctx context.Context, command string, match *regexp.Regexp, out io.Writer) error {
	about, err := b.server.about(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "# Measured %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	for _, line := range []string{
		"`" + command + "`, rounds: " + fmt.Sprint(b.rounds),
		fmt.Sprintf("%s %s/%s, CPUs: %d, load average at the beginning: %s", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), loadAverage()),
		"PostgreSQL " + about,
	} {
		fmt.Fprintln(out, "- "+line)
	}
	if busy() {
		fmt.Fprintln(out, "- **More wants to run on this machine than it has CPUs: the figures are of no use, and the ratios are doubtful.**")
	}
	r := &report{out: out}
	ran := 0
	for _, p := range parts {
		if !match.MatchString(p.name) {
			continue
		}
		ran++
		if err := p.run(ctx, b, r); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if ran == 0 {
		return fmt.Errorf("no part matches %q", match)
	}
	r.end()
	fmt.Fprintf(out, "Load average at the end: %s.\n", loadAverage())
	return nil
}

// loadAverage is that of the last one, five and fifteen minutes, where the system tells.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}

// busy reports whether the machine has had more to do in the last minute than it can.
func busy() bool {
	first, _, _ := strings.Cut(loadAverage(), " ")
	load, err := strconv.ParseFloat(first, 64)
	return err == nil && load > float64(runtime.NumCPU())
}
