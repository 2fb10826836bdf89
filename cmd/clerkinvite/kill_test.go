package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// process starts the program as a process.
func process(t *testing.T, w *world, env string, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), env, "GORACE=atexit_sleep_ms=0")
	for name, value := range w.vars {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, stdout, stderr
}

// killAt kills the process at the n-th call of a kind, before Clerk continues.
func killAt(w *world, call clerkinvitetest.Call, when clerkinvitetest.When, n int) (arm func(*exec.Cmd)) {
	armed := make(chan *exec.Cmd, 1)
	var mu sync.Mutex
	w.clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, at clerkinvitetest.When) {
		mu.Lock()
		defer mu.Unlock()
		if c != call || at != when {
			return
		}
		if n--; n == 0 {
			_ = (<-armed).Process.Kill()
		}
	})
	return func(cmd *exec.Cmd) { armed <- cmd }
}

// An import can be killed at any moment and run again: the counts are right, and there is no second email.
func TestImportKilledTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var file strings.Builder
	file.WriteString("tenant,email,role,data\n")
	lines, want := 0, make(map[outcome]int)
	emails := make(map[string]int) // expected number, by address
	states := make(map[string]clerkinvite.Status)
	add := func(o outcome, line string) {
		fmt.Fprintln(&file, line)
		want[o]++
		lines++
	}
	svc := w.service()
	for i := range 1000 {
		email := fmt.Sprintf("person%d@example.com", i)
		row := fmt.Sprintf(`acme,%s,member,"{""n"":%d}"`, email, i)
		switch i % 20 {
		case 3:
			add(invalid, []string{"acme,person" + fmt.Sprint(i) + ",member,", "acme," + email, "acme," + email + ",member,{"}[i/20%3])
			states[email] = ""
		case 7:
			add(duplicate, fmt.Sprintf("acme,PERSON%d@EXAMPLE.com,member,", i-1))
		case 9:
			w.clerk.AddVerifiedUser(email)
			add(linked, row)
			states[email] = clerkinvite.StatusActive
		case 12:
			_, err := svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
			require.NoError(t, err)
			add(alreadyInvited, row)
			states[email], emails[email] = clerkinvite.StatusPending, 1
		case 15:
			w.clerk.AddVerifiedUser(email)
			_, err := svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
			require.NoError(t, err)
			add(alreadyActive, row)
			states[email] = clerkinvite.StatusActive
		case 18:
			if i%40 == 18 {
				w.refuse(email)
			} else {
				w.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: email, Verified: true}}, Banned: true})
			}
			add(refused, row)
			states[email] = clerkinvite.StatusFailed
		default:
			add(sent, row)
			states[email], emails[email] = clerkinvite.StatusPending, 1
		}
	}
	name := filepath.Join(t.TempDir(), "people.csv")
	require.NoError(t, os.WriteFile(name, []byte(file.String()), 0o600))
	// Each run starts two hours later, when the leases of the killed one have ended, and another 86 single creates are allowed.
	start := func(run int) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
		return process(t, w, fmt.Sprintf("CLERKINVITE_TEST_AHEAD=%dh", 2*run), "import", name, "--json")
	}

	for run, at := range []struct {
		call clerkinvitetest.Call
		when clerkinvitetest.When
		n    int
	}{
		// Rows that are claimed then need single creates.
		{clerkinvitetest.CallCreateBulk, clerkinvitetest.After, 15}, // ten emails are sent, but not recorded
		{clerkinvitetest.CallFindUsers, clerkinvitetest.Before, 7},  // the last rows are claimed
	} {
		arm := killAt(w, at.call, at.when, at.n)
		cmd, stdout, stderr := start(run)
		arm(cmd)
		require.ErrorContains(t, cmd.Wait(), "killed", "the process ended: %s", stderr)
		require.Empty(t, stdout.String())
	}
	w.clerk.OnCall(nil)
	before := w.clerk.Emails()
	require.Greater(t, len(emails), before, "work remains")

	cmd, stdout, stderr := start(2)
	_ = cmd.Wait()
	require.Equal(t, exitSome, cmd.ProcessState.ExitCode(), "%s", stderr)
	report := decode[*importReport](t, result{stdout: stdout.String()})
	require.Equal(t, 1000, report.Lines)
	got := counts(t, report)
	require.Equal(t, want[sent]+want[alreadyInvited], got[sent]+got[alreadyInvited])
	require.Equal(t, want[linked]+want[alreadyActive], got[linked]+got[alreadyActive])
	require.Greater(t, got[alreadyInvited], want[alreadyInvited], "invited by the killed processes")
	for _, o := range []outcome{duplicate, invalid, refused, failed, waiting, notReached, withdrawn} {
		require.Equal(t, want[o], got[o], o)
	}

	// One row per valid address, in the right state, and the expected emails.
	require.Equal(t, len(emails), w.clerk.Emails())
	for email, n := range emails {
		require.Equal(t, n, w.clerk.EmailsTo(email), email)
		require.Len(t, w.clerk.OpenInvitations(email), 1)
	}
	rows := 0
	for m, err := range svc.All(t.Context(), clerkinvite.ListParams{TenantID: "acme", Limit: 1000}) {
		require.NoError(t, err)
		require.Equal(t, states[m.Email], m.Status, m.Email)
		rows++
	}
	for _, status := range states {
		if status == "" {
			rows++ // an invalid line has no row
		}
	}
	require.Len(t, states, rows)

	// The next run only repeats the refusals.
	cmd, stdout, _ = start(3)
	_ = cmd.Wait()
	require.Equal(t, map[outcome]int{
		alreadyInvited: want[sent] + want[alreadyInvited], alreadyActive: want[linked] + want[alreadyActive],
		duplicate: want[duplicate], invalid: want[invalid], refused: want[refused],
	}, counts(t, decode[*importReport](t, result{stdout: stdout.String()})))
	require.Equal(t, len(emails), w.clerk.Emails())
}

// Tests main, with the real clock, lease and signals.
func TestSignalStopsImportWithReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name := w.file(people(100))
	started := make(chan struct{})
	var once sync.Once
	w.clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == clerkinvitetest.CallCreateBulk && when == clerkinvitetest.Before {
			once.Do(func() { close(started) })
			<-ctx.Done() // until the program cancels
		}
	})
	cmd, stdout, stderr := process(t, w, "CLERKINVITE_TEST_MAIN=1", "import", name, "--json")
	<-started
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait()
	require.Equal(t, exitFailed, cmd.ProcessState.ExitCode(), "%s", stderr)
	require.Contains(t, stderr.String(), "interrupted")
	require.Equal(t, map[outcome]int{waiting: 100}, counts(t, decode[*importReport](t, result{stdout: stdout.String()})))
}
