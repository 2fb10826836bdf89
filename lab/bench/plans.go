package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// planModes are the settings of plan_cache_mode: a connection runs a statement with plans of both kinds.
var planModes = []string{"force_generic_plan", "force_custom_plan"}

// plan is what EXPLAIN (ANALYZE, BUFFERS) says in JSON. Rows and Removed are those of one loop.
type plan struct {
	NodeType  string  `json:"Node Type"`
	Operation string  `json:"Operation"`
	Index     string  `json:"Index Name"`
	Relation  string  `json:"Relation Name"`
	Hit       int     `json:"Shared Hit Blocks"`
	Read      int     `json:"Shared Read Blocks"`
	Rows      float64 `json:"Actual Rows"`
	Loops     float64 `json:"Actual Loops"`
	Removed   float64 `json:"Rows Removed by Filter"`
	Cost      float64 `json:"Total Cost"` // as the planner expects it
	Plans     []plan  `json:"Plans"`

	compiled bool // by JIT
}

// blocks is how many blocks it touched, in memory or not. One that is touched twice counts twice.
func (p plan) blocks() int { return p.Hit + p.Read }

// walk calls f for each node, from the outermost on.
func (p plan) walk(f func(plan)) {
	f(p)
	for _, child := range p.Plans {
		child.walk(f)
	}
}

// nodes names all nodes.
func (p plan) nodes() string {
	var all []string
	p.walk(func(p plan) {
		name := p.NodeType
		switch {
		case p.Index != "":
			name += " " + strings.TrimPrefix(p.Index, "clerkinvite_")
		case p.Relation != "":
			name += " " + strings.TrimPrefix(p.Relation, "clerkinvite_")
		}
		all = append(all, name)
	})
	return strings.Join(all, ", ")
}

// faults says what no plan of the library's shall do. page is the most that it may sort.
func (p plan) faults(page int) (list []string) {
	// It stops after a page; who does not tell the planner has it expect a share of the table, and then compile the
	// statement at each call, which takes longer than all the rest.
	if p.compiled {
		list = append(list, "compiled at each call (JIT)")
	}
	p.walk(func(p plan) {
		switch {
		case p.Relation != "" && p.Index == "" && strings.HasSuffix(p.NodeType, "Scan"): // Seq Scan, Bitmap Heap Scan
			list = append(list, p.NodeType)
		case strings.HasSuffix(p.NodeType, "Sort") && p.Plans[0].Rows*p.Plans[0].Loops > float64(page):
			list = append(list, fmt.Sprintf("%s of %.0f rows", p.NodeType, p.Plans[0].Rows*p.Plans[0].Loops))
		case p.Index != "" && p.Removed*p.Loops > 8*(p.Rows*p.Loops+1):
			list = append(list, fmt.Sprintf("%.0f rows read for %.0f", p.Removed*p.Loops, p.Rows*p.Loops))
		}
	})
	return list
}

// literal writes a parameter as EXECUTE takes it, whatever its type.
func literal(arg any) string {
	text := fmt.Sprint(arg)
	switch v := arg.(type) {
	case time.Time:
		text = v.Format(time.RFC3339Nano)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = `"` + s + `"` // none has a quote or a backslash in it
		}
		text = "{" + strings.Join(quoted, ",") + "}"
	case []int64:
		text = "{" + strings.Join(strings.Fields(strings.Trim(text, "[]")), ",") + "}"
	}
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

// explain runs a statement, in vain.
func explain(ctx context.Context, pool *pgxpool.Pool, mode, sql string, args []any) (plan, error) {
	literals := make([]string, len(args))
	for i, arg := range args {
		literals[i] = literal(arg)
	}
	execute := "EXECUTE explained"
	if len(args) > 0 {
		execute += " (" + strings.Join(literals, ", ") + ")"
	}
	return explained(ctx, pool, "SET LOCAL plan_cache_mode = "+mode, "PREPARE explained AS "+sql,
		"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "+execute, "DEALLOCATE explained")
}

// explained runs statements in a transaction that is rolled back, and returns the plan that the one of them says.
func explained(ctx context.Context, pool *pgxpool.Pool, statements ...string) (p plan, err error) {
	text := []byte(nil)
	err = pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		// Past pgx, which would want a value for $1. After an error the pool closes the connection, as it is inside of a transaction.
		for _, sql := range append(append([]string{"BEGIN"}, statements...), "ROLLBACK") {
			results, err := conn.Conn().PgConn().Exec(ctx, sql).ReadAll()
			if err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
			if strings.HasPrefix(sql, "EXPLAIN") {
				text = results[0].Rows[0][0]
			}
		}
		return nil
	})
	if err != nil {
		return plan{}, err
	}
	var list []struct {
		Plan plan            `json:"Plan"`
		JIT  json.RawMessage `json:"JIT"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return plan{}, err
	}
	if len(list) != 1 {
		return plan{}, errors.New("EXPLAIN has not said one plan")
	}
	list[0].Plan.compiled = list[0].JIT != nil
	return list[0].Plan, nil
}
