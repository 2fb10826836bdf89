package testkit

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// StatementCounter counts what goes to PostgreSQL as pgx traces it: every statement, and so every begin, commit, rollback and
// savepoint. pgx's own work is not counted: it prepares each statement once per connection, and pings a
// connection that was idle for a second.
type StatementCounter struct{ N atomic.Int64 }

// TraceQueryStart implements pgx.QueryTracer.
func (c *StatementCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.N.Add(1)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (c *StatementCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer.
func (c *StatementCounter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (c *StatementCounter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {
	c.N.Add(1)
}

// TraceBatchEnd implements pgx.BatchTracer.
func (c *StatementCounter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// Statements is a pgx tracer that records every statement.
type Statements struct {
	mu     sync.Mutex
	list   []Statement
	hook   string
	hooked func()
}

// Statement is a recorded statement.
type Statement struct {
	SQL  string
	Args []any
}

// TraceQueryStart implements pgx.QueryTracer.
func (s *Statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	s.list = append(s.list, Statement{d.SQL, d.Args})
	var hooked func()
	if s.hook != "" && strings.Contains(d.SQL, s.hook) {
		hooked, s.hook = s.hooked, ""
	}
	s.mu.Unlock()
	if hooked != nil {
		hooked()
	}
	return ctx
}

// Before makes f run once, before the next statement that contains text.
func (s *Statements) Before(text string, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook, s.hooked = text, f
}

// Kinds counts the statements since the last Take by kind.
func (s *Statements) Kinds() map[string]int {
	kinds := make(map[string]int)
	for _, st := range s.Take() {
		switch {
		case strings.Contains(st.SQL, "ON CONFLICT DO NOTHING"):
			kinds["insert"]++
		case strings.Contains(st.SQL, "LATERAL"):
			kinds["find"]++
		}
	}
	return kinds
}

// TraceQueryEnd implements pgx.QueryTracer.
func (s *Statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// Take returns the statements since the last Take.
func (s *Statements) Take() []Statement {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

// Tracing is an option of NewPgxStore.
func Tracing(s *Statements) func(*pgxpool.Config) {
	return func(c *pgxpool.Config) { c.ConnConfig.Tracer = s }
}
