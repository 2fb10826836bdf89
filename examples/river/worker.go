package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

// workerVariable is the environment variable with a worker's workerConfig in JSON.
const workerVariable = "CLERKINVITE_EXAMPLE_RIVER_WORKER"

// keyPrefix and the worker's name are the worker's Clerk key, so that the fake can distinguish workers.
const keyPrefix = "sk_test_"

// workerConfig configures a worker.
type workerConfig struct {
	Client   clientConfig `json:"client"`
	Database string       `json:"database"`
	Schema   string       `json:"schema"`
	ClerkURL string       `json:"clerk_url"`
	ClerkKey string       `json:"clerk_key"`
}

// isWorker reports whether this process is a worker. If it is, isWorker works until standard input ends.
func isWorker() bool {
	text := os.Getenv(workerVariable)
	if text == "" {
		return false
	}
	if err := work(context.Background(), text, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
	return true
}

// work is the main function of a worker. Your program would wait for SIGTERM instead of the end of
// its input.
func work(ctx context.Context, text string, stdin io.Reader) error {
	var cfg workerConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	pool, err := connect(ctx, cfg.Database, cfg.Schema)
	if err != nil {
		return err
	}
	defer pool.Close()
	api, err := clerkapi.New(cfg.ClerkKey, &clerkapi.Options{BaseURL: cfg.ClerkURL})
	if err != nil {
		return err
	}
	invites, err := clerkinvite.New(clerkinvite.Config{API: api, Store: clerkinvite.NewPgxStore(pool, nil), Lease: cfg.Client.Lease, Logger: log})
	if err != nil {
		return err
	}
	client, err := newClient(pool, invites, cfg.Client, log)
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	// Stop waits for running jobs, at most for their Timeout.
	return errors.Join(err, client.Stop(ctx))
}

// connect opens a pool whose tables are in the schema.
func connect(ctx context.Context, database, schema string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(database)
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig.RuntimeParams["search_path"] = schema
	return pgxpool.NewWithConfig(ctx, cfg)
}

// process is a running worker.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// startWorker starts this program again as a worker. It ends with this process, or with ctx.
func startWorker(ctx context.Context, cfg workerConfig) (*process, error) {
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), workerVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, stdin}, cmd.Start()
}

// stop lets the worker finish its jobs.
func (p *process) stop() error { return errors.Join(p.stdin.Close(), p.cmd.Wait()) }

// kill ends the worker with SIGKILL.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // "signal: killed"
	return err
}
