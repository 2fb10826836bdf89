// Nethttp is a small application on net/http: a page on which a tenant's admins invite people, a JSON API, Clerk's webhooks,
// and the background work.
//
//	go run -C examples/nethttp .
//
// It needs only Go: a fake Clerk runs in the same process, and the application calls it over HTTP, through the adapter for the real
// Clerk. Members and the fake's state are stored in files and survive a restart. With DATABASE_URL, CLERK_SECRET_KEY and
// CLERK_WEBHOOK_SIGNING_SECRET, it uses PostgreSQL and the real Clerk.
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
			err = nil // stopped during the start
		}
		stop()
	}
	if err != nil {
		log.Error("nethttp: " + err.Error())
		os.Exit(1)
	}
}

// config is the configuration from flags, environment and tests.
type config struct {
	addr       string // to listen on
	dir        string // for the demo's files
	demoSignIn bool
	guard      guard // nil means none

	// All three, or none for the demo.
	databaseURL   string
	secretKey     string
	signingSecret string
	apiURL        string // "" means Clerk's

	timing timing
	log    *slog.Logger
}

// timing has intervals; zero values mean the library's defaults.
type timing struct {
	lease    time.Duration
	cooldown time.Duration // between two invitations of one person
	interval time.Duration // of Run
}

// demoTiming is in seconds where the defaults are in minutes.
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
	flags.StringVar(&cfg.dir, "data", "data", "directory for the demo's files; only one process can use it")
	flags.BoolVar(&cfg.demoSignIn, "demo-sign-in", false, "make everyone who reaches the address an admin of every tenant (the demo's default)")
	if err := flags.Parse(args); err != nil {
		return config{}, err
	}
	if flags.NArg() > 0 {
		return config{}, fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	}
	return cfg.check()
}

// check validates the configuration and sets the demo's defaults.
func (cfg config) check() (config, error) {
	set := 0
	for _, s := range []string{cfg.databaseURL, cfg.secretKey, cfg.signingSecret} {
		if s != "" {
			set++
		}
	}
	switch {
	case set == 0 && cfg.apiURL != "":
		return cfg, errors.New("CLERK_API_URL is set, but the demo uses its own fake Clerk: set DATABASE_URL, CLERK_SECRET_KEY and CLERK_WEBHOOK_SIGNING_SECRET, too")
	case set != 0 && set != 3:
		return cfg, errors.New("set all of DATABASE_URL, CLERK_SECRET_KEY and CLERK_WEBHOOK_SIGNING_SECRET for PostgreSQL and the real Clerk, or none for the demo")
	case set == 0 && cfg.timing == timing{}:
		cfg.timing = demoTiming
	}
	if cfg.guard != nil {
		if cfg.demoSignIn {
			return cfg, errors.New("-demo-sign-in lets everyone in, but guard.go has a guard: use one of them")
		}
		return cfg, nil
	}
	if !cfg.demo() && !cfg.demoSignIn {
		return cfg, errors.New("the pages have no guard: set ownGuard in guard.go to your own sign-in, or use -demo-sign-in to make everyone who reaches the address an admin")
	}
	cfg.guard, cfg.demoSignIn = demoGuard, true
	if !loopback(cfg.addr) {
		return cfg, errors.New("the demo sign-in makes everyone who reaches the address an admin, so -addr must be 127.0.0.1 or localhost")
	}
	return cfg, nil
}

// demo reports whether the fake Clerk and the demo's database are used.
func (cfg config) demo() bool { return cfg.databaseURL == "" }

// run serves until ctx ends. ready, if not nil, is called when the program accepts requests.
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

	// It continues after ctx ends, until all requests are finished.
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
	cfg.log.Info("stopping; finishing open requests")
	shutdown, cancel := context.WithTimeout(background, 10*time.Second)
	defer cancel()
	if server.Shutdown(shutdown) != nil {
		_ = server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// announce logs the address, and what is fake.
func (p *program) announce(cfg config) {
	if cfg.demo() {
		p.log.Info("using a fake Clerk; state is stored in files", "data", cfg.dir)
	}
	if cfg.demoSignIn {
		p.log.Warn("sign-in is a stub: everyone who reaches this address is an admin of every tenant; see guard.go")
		if !cfg.demo() {
			p.log.Warn("Clerk and the database are real: publish only /webhooks/clerk, with a proxy that passes nothing else")
		}
	}
	p.log.Info("open " + p.url)
}
