// Nethttp is a small host application on net/http: a page on which the admins of a tenant invite people, a JSON API for the same,
// Clerk's webhooks, and the work in the background.
//
//	go run -C examples/nethttp .
//
// needs nothing but Go. Clerk is a fake then, in this process but reached over HTTP, through the adapter for the real one; what
// it knows, and the members, are kept in files and survive a restart. With DATABASE_URL, CLERK_SECRET_KEY and
// CLERK_WEBHOOK_SIGNING_SECRET it works on PostgreSQL and the real Clerk.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg, err := configure(os.Args[1:], os.Getenv)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		cfg.log = log
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
		if err = run(ctx, cfg, nil); ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil // told to stop while it was starting
		}
		stop()
	}
	if err != nil {
		log.Error("nethttp: " + err.Error())
		os.Exit(1)
	}
}

// config is what the program is told, by its flags, its environment and its tests.
type config struct {
	addr       string // where to listen
	dir        string // of the demo: its database and what its Clerk knows
	demoSignIn bool
	guard      guard // who may do what; nil for none

	// All three, or none for the demo.
	databaseURL   string
	secretKey     string
	signingSecret string
	apiURL        string // "" is Clerk's; the version at its end may be missing

	timing timing
	log    *slog.Logger
}

// timing is how patient the program is; zero values are the library's defaults.
type timing struct {
	lease    time.Duration
	cooldown time.Duration // between two invitations of one person
	interval time.Duration // of Run
}

// demoTiming lets people who try the demo wait for seconds where an application waits for minutes.
var demoTiming = timing{lease: 8 * time.Second, cooldown: 10 * time.Second, interval: 2 * time.Second}

// configure reads flags and environment.
func configure(args []string, getenv func(string) string) (config, error) {
	cfg := config{
		guard:         ownGuard,
		databaseURL:   getenv("DATABASE_URL"),
		secretKey:     getenv("CLERK_SECRET_KEY"),
		signingSecret: getenv("CLERK_WEBHOOK_SIGNING_SECRET"),
		apiURL:        getenv("CLERK_API_URL"),
	}
	flags := flag.NewFlagSet("nethttp", flag.ContinueOnError)
	flags.StringVar(&cfg.addr, "addr", "127.0.0.1:8080", "listen on this address")
	flags.StringVar(&cfg.dir, "data", "data", "keep the demo's files in this directory, which no other process uses")
	flags.BoolVar(&cfg.demoSignIn, "demo-sign-in", false, "let everybody who reaches the address in as an admin of every tenant (the demo's default)")
	if err := flags.Parse(args); err != nil {
		return config{}, err
	}
	if flags.NArg() > 0 {
		return config{}, fmt.Errorf("what is %q? There are flags only: see -help", flags.Arg(0))
	}
	return cfg.check()
}

// check refuses what cannot be meant, and completes the demo.
func (cfg config) check() (config, error) {
	set := 0
	for _, s := range []string{cfg.databaseURL, cfg.secretKey, cfg.signingSecret} {
		if s != "" {
			set++
		}
	}
	switch {
	case set == 0 && cfg.apiURL != "":
		return cfg, errors.New("CLERK_API_URL is set, but the demo has a Clerk of its own: set DATABASE_URL, CLERK_SECRET_KEY and CLERK_WEBHOOK_SIGNING_SECRET too")
	case set != 0 && set != 3:
		return cfg, errors.New("set all of DATABASE_URL, CLERK_SECRET_KEY and CLERK_WEBHOOK_SIGNING_SECRET for PostgreSQL and the real Clerk, or none for the demo")
	case set == 0 && cfg.timing == timing{}:
		cfg.timing = demoTiming
	}
	// With and without the version, as some of Clerk's SDKs have it.
	if cfg.apiURL = strings.TrimRight(cfg.apiURL, "/"); cfg.apiURL != "" && !strings.HasSuffix(cfg.apiURL, "/v1") {
		cfg.apiURL += "/v1"
	}
	if cfg.guard != nil {
		if cfg.demoSignIn {
			return cfg, errors.New("-demo-sign-in lets everybody in, and there is a guard in guard.go: use one of them")
		}
		return cfg, nil
	}
	if !cfg.demo() && !cfg.demoSignIn {
		return cfg, errors.New("nobody guards the pages: replace ownGuard in guard.go by your own sign-in, or start with -demo-sign-in to let everybody in who reaches the address")
	}
	cfg.guard, cfg.demoSignIn = demoGuard, true
	if !loopback(cfg.addr) {
		return cfg, errors.New("the demo sign-in lets everybody in who reaches the address: it listens on 127.0.0.1 or localhost only")
	}
	return cfg, nil
}

// demo reports whether Clerk and the database are the demo's own.
func (cfg config) demo() bool { return cfg.databaseURL == "" }

// run serves until ctx ends, and leaves nothing behind. ready, if set, is called when the program can be reached.
func run(ctx context.Context, cfg config, ready func(*program)) (err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	p, err := open(ctx, cfg, "http://"+listener.Addr().String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()

	// It outlives ctx until the requests under way are answered.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = p.invites.Run(background, &clerkinvite.RunOptions{Interval: cfg.timing.interval})
	}()
	defer func() {
		stop()
		<-ended
	}()

	server := &http.Server{
		Handler:           p.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(cfg.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	p.announce(cfg)
	if ready != nil {
		ready(p)
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	cfg.log.Info("stopping; answering what is under way")
	patience, cancel := context.WithTimeout(background, 10*time.Second)
	defer cancel()
	if server.Shutdown(patience) != nil {
		_ = server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// announce says where the program is and what is not real about it.
func (p *program) announce(cfg config) {
	if cfg.demo() {
		p.log.Info("Clerk is a fake in this process; everything is kept in files", "data", cfg.dir)
	}
	if cfg.demoSignIn {
		p.log.Warn("sign-in is a stub: whoever reaches this address is an admin of every tenant; see guard.go")
		if !cfg.demo() {
			p.log.Warn("Clerk and the database are real: publish /webhooks/clerk alone, by a proxy that leads nowhere else")
		}
	}
	p.log.Info("open " + p.url)
}
