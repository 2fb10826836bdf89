package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgres is the server that is measured on.
type postgres struct {
	dsn  string
	stop func()
}

// about says which server it is, and the settings that decide what a commit costs.
func (p *postgres) about(ctx context.Context) (string, error) {
	conn, err := pgx.Connect(ctx, p.dsn)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	about := ""
	for _, name := range []string{"server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "autovacuum"} {
		value := ""
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
			return "", err
		}
		if about != "" {
			about += ", " + name + " "
		}
		about += value
	}
	return about, nil
}

// database is a database of one part's own.
type database struct {
	config *pgxpool.Config
	pools  []*pgxpool.Pool
	drop   func() error
}

// database makes an empty database. Its user may create some, as the server's tests need it too.
func (p *postgres) database(ctx context.Context) (*database, error) {
	config, err := pgxpool.ParseConfig(p.dsn)
	if err != nil {
		return nil, err
	}
	name := "clerkinvite_bench_" + strings.ToLower(rand.Text()[:12])
	admin := config.ConnConfig.Copy()
	run := func(ctx context.Context, sql string) error {
		conn, err := pgx.ConnectConfig(ctx, admin)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, sql)
		return errors.Join(err, conn.Close(ctx))
	}
	if err := run(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, err
	}
	config.ConnConfig.Database = name
	// It is dropped after an interrupt too.
	return &database{config: config, drop: func() error {
		return run(context.WithoutCancel(ctx), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
	}}, nil
}

// pool connects with at most so many connections. The tracer may be nil.
func (d *database) pool(ctx context.Context, conns int32, tracer pgx.QueryTracer) (*pgxpool.Pool, error) {
	config := d.config.Copy()
	config.MaxConns, config.ConnConfig.Tracer = conns, tracer
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err == nil {
		d.pools = append(d.pools, pool)
	}
	return pool, err
}

// close ends the pools and drops the database.
func (d *database) close() error {
	for _, pool := range d.pools {
		pool.Close()
	}
	return d.drop()
}

// statement is one that the library has sent. All of its parameters are texts.
type statement struct {
	sql  string
	args []string
}

// statements is a tracer that keeps what is sent.
type statements struct {
	mu   sync.Mutex
	list []statement
}

// TraceQueryStart implements pgx.QueryTracer.
func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if !strings.Contains(data.SQL, "clerkinvite_") {
		return ctx // begin, commit
	}
	st := statement{sql: data.SQL}
	for _, arg := range data.Args {
		st.args = append(st.args, fmt.Sprint(arg))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, st)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// take returns what was kept, and forgets it.
func (s *statements) take() []statement {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

// replay sends a statement of one parameter with other values in it, and reads what it returns to the end, undecoded.
func (st statement) replay(ctx context.Context, pool *pgxpool.Pool, values *strings.Replacer) error {
	rows, err := pool.Query(ctx, st.sql, values.Replace(st.args[0]))
	if err != nil {
		return err
	}
	rows.Close() // reads them
	return rows.Err()
}
