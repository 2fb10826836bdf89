package peers_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// why is what the tests with node lack, or "".
var why = sync.OnceValue(func() string {
	node, err := exec.LookPath("node")
	if err != nil {
		return "there is no node on this machine; install 20 or newer"
	}
	want, err := os.ReadFile("package-lock.json")
	if err != nil {
		return err.Error()
	}
	// The script writes this copy when the installation is complete.
	have, err := os.ReadFile("node_modules/.installed-package-lock.json")
	if err != nil || !bytes.Equal(want, have) {
		return "the JavaScript libraries to compare with are not installed; run scripts/ensure-peers.sh"
	}
	out, err := exec.CommandContext(context.Background(), node, "--version").Output()
	var major int
	if _, scanErr := fmt.Sscanf(string(out), "v%d.", &major); err != nil || scanErr != nil || major < 20 {
		return fmt.Sprintf("node is %q; install 20 or newer", bytes.TrimSpace(out))
	}
	return ""
})

// peer is a node process that answers questions, one at a time.
type peer struct {
	mu      sync.Mutex
	ctx     context.Context
	in      *os.File
	answers *bufio.Reader
	stderr  *bytes.Buffer
	done    func() error
}

// startPeer starts a program of testdata for the duration of the test, or skips the test.
func startPeer(t *testing.T, program string) *peer {
	t.Helper()
	if reason := why(); reason != "" {
		pgtest.Missing(t, "node", reason)
	}
	// A process that hangs ends before the test binary does, which can then report it.
	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok {
		early, cancel := context.WithDeadline(ctx, deadline.Add(-5*time.Second))
		t.Cleanup(cancel)
		ctx = early
	}
	cmd := exec.CommandContext(ctx, "node", filepath.Join("testdata", program))
	// Without the caller's NODE_OPTIONS and keys.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "CLERK_TELEMETRY_DISABLED=1"}
	cmd.WaitDelay = 5 * time.Second
	p := &peer{ctx: ctx, stderr: new(bytes.Buffer)}
	cmd.Stderr = p.stderr
	stdin, in, err := os.Pipe()
	require.NoError(t, err)
	out, stdout, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdin, cmd.Stdout = stdin, stdout
	p.in, p.answers = in, bufio.NewReader(out)
	require.NoError(t, cmd.Start())
	_, _ = stdin.Close(), stdout.Close()
	p.done = sync.OnceValue(func() error {
		_ = in.Close()
		return errors.Join(cmd.Wait(), out.Close())
	})
	t.Cleanup(func() { _ = p.done() })
	return p
}

// ask runs an operation and decodes its result. A library's refusal is a result; a failure is a bug
// of the test.
func (p *peer) ask(t *testing.T, operation string, args, result any) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	question, err := json.Marshal([]any{operation, args})
	require.NoError(t, err)
	// In separate goroutines, because full pipes would block both sides.
	wrote := make(chan error, 1)
	go func() {
		_, err := p.in.Write(append(question, '\n'))
		wrote <- err
	}()
	line, err := p.answers.ReadBytes('\n')
	if err := errors.Join(err, <-wrote); err != nil {
		t.Fatalf("node: %v, %v, %v\n%s", err, p.ctx.Err(), p.done(), p.stderr)
	}
	var answer struct {
		Result  json.RawMessage `json:"result"`
		Failure string          `json:"failure"`
	}
	require.NoError(t, json.Unmarshal(line, &answer))
	if answer.Failure != "" {
		t.Fatalf("node: %s: %s", operation, answer.Failure)
	}
	require.NoError(t, json.Unmarshal(answer.Result, result))
}

// The guard in lines.mjs works, so no test can reach a network by mistake.
func TestPeersReachNothingButThisMachine(t *testing.T) {
	t.Parallel()
	p := startPeer(t, "sdk.mjs")
	var why string
	p.ask(t, "reach", "http://192.0.2.1/", &why)
	require.Equal(t, "no connection to 192.0.2.1 from a test", why)
}
