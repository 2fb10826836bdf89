package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The output of go test -json for a pass, a failure with a subtest, a skip, and a panic.
func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := &run{out: &out, start: time.Now(), total: 4, skips: make(map[string]int), packages: map[string]*pkg{"example.com/a": newPkg("./a")}}
	for line := range strings.Lines(`
{"Action":"start","Package":"example.com/a"}
{"Action":"run","Package":"example.com/a","Test":"TestPasses"}
{"Action":"output","Package":"example.com/a","Test":"TestPasses","Output":"    a_test.go:1: of no interest\n"}
{"Action":"pass","Package":"example.com/a","Test":"TestPasses"}
{"Action":"run","Package":"example.com/a","Test":"TestFails"}
{"Action":"output","Package":"example.com/a","Test":"TestFails","Output":"=== RUN   TestFails\n"}
{"Action":"output","Package":"example.com/a","Test":"TestFails/sub","Output":"    a_test.go:2: want <1>\n"}
{"Action":"fail","Package":"example.com/a","Test":"TestFails/sub"}
{"Action":"fail","Package":"example.com/a","Test":"TestFails"}
{"Action":"output","Package":"example.com/a","Test":"TestSkips","Output":"    a_test.go:3: SKIPPED: no PostgreSQL\n"}
{"Action":"output","Package":"example.com/a","Test":"TestSkips","Output":"--- SKIP: TestSkips (0.00s)\n"}
{"Action":"skip","Package":"example.com/a","Test":"TestSkips"}
{"Action":"run","Package":"example.com/a","Test":"TestPanics"}
{"Action":"output","Package":"example.com/a","Test":"TestPanics","Output":"panic: why\n"}
`[1:]) {
		r.line([]byte(line))
	}
	r.progress()
	r.line([]byte(`{"Action":"fail","Package":"example.com/a","Elapsed":1.5}`))
	r.summary(false)
	require.Equal(t, `
  0:00  0 of 1 packages, 3 of 4 tests; now ./a TestPanics (0 s)

=== ./a TestPanics
panic: why
  0:00  FAILED  ./a: 3 tests, 1.5 s

NOT TESTED: these were skipped (count, reason)
     1  SKIPPED: no PostgreSQL

FAILED:
  ./a TestFails/sub
  ./a TestFails
  ./a TestPanics (not finished)
  0:00  FAILED: 3 tests in 1 packages
`, strings.Replace(out.String(), "\n=== ./a TestFails/sub\n    a_test.go:2: want <1>\n", "\n", 1))
}
