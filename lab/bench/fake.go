package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// fakeEnv makes this program the fake of Clerk. It is a process of its own, so that neither its work nor its
// garbage is measured as anybody's.
const fakeEnv = "CLERKINVITE_BENCH_FAKE"

// serveFake is the fake's process. It says its address on out, and ends with its standard input: with whoever started it.
func serveFake(ctx context.Context, out io.Writer, in io.Reader) error {
	var clerk atomic.Pointer[clerkinvitetest.Clerk]
	var handler atomic.Pointer[http.Handler]
	reset := func() {
		c := clerkinvitetest.NewClerk()
		h := c.Handler()
		clerk.Store(c)
		handler.Store(&h)
	}
	reset()
	mux := http.NewServeMux()
	var latency atomic.Int64
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Duration(latency.Load()))
		(*handler.Load()).ServeHTTP(w, r)
	})
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, r *http.Request) {
		var d time.Duration
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		latency.Store(int64(d))
		reset()
	})
	mux.HandleFunc("GET /mail", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(clerk.Load().SentMail()) })
	mux.HandleFunc("POST /users", func(w http.ResponseWriter, r *http.Request) {
		var emails []string
		if err := json.NewDecoder(r.Body).Decode(&emails); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		events := make([]clerkinvitetest.Webhook, len(emails))
		for i, email := range emails {
			events[i] = clerk.Load().SignUp(email, true)
		}
		_ = json.NewEncoder(w).Encode(events)
	})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		_ = server.Close()
	}()
	fmt.Fprintln(out, "http://"+listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// fake is the fake of Clerk in its process. Everybody who is compared uses the same connections to it.
type fake struct {
	url       string
	transport *http.Transport
	stop      func()
}

// startFake starts this program once more.
func startFake(ctx context.Context) (*fake, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), fakeEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// net/http keeps two connections to a host by default: with 64 callers all would measure little but the making of them.
	f := &fake{transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	f.stop = func() {
		f.transport.CloseIdleConnections()
		_ = in.Close()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		f.stop()
		return nil, fmt.Errorf("the fake of Clerk did not start: %w", err)
	}
	f.url = strings.TrimSpace(line)
	return f, nil
}

// reset makes it a Clerk that knows nobody, and that waits so long before it answers.
func (f *fake) reset(ctx context.Context, latency time.Duration) error {
	return f.control(ctx, http.MethodPost, "/reset", latency, nil)
}

// mail returns the invitations that were mailed, by address.
func (f *fake) mail(ctx context.Context) (map[string][]string, error) {
	var sent []clerkinvitetest.Mail
	if err := f.control(ctx, http.MethodGet, "/mail", nil, &sent); err != nil {
		return nil, err
	}
	invitations := make(map[string][]string, len(sent))
	for _, m := range sent {
		invitations[m.To] = append(invitations[m.To], m.InvitationID)
	}
	return invitations, nil
}

// signUp makes a user for each address, and returns the webhooks that say so.
func (f *fake) signUp(ctx context.Context, emails []string) (events []clerkinvitetest.Webhook, err error) {
	err = f.control(ctx, http.MethodPost, "/users", emails, &events)
	return events, err
}

// control asks for what is no part of Clerk.
func (f *fake) control(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, f.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: f.transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("the fake of Clerk: " + resp.Status)
	}
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// exchange is one request that the library has sent.
type exchange struct {
	method, path string
	header       http.Header
	body         string
}

// exchanges is a transport that keeps what is sent. It is for one caller.
type exchanges struct {
	base http.RoundTripper
	list []exchange
}

// RoundTrip implements http.RoundTripper.
func (e *exchanges) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchange{method: req.Method, path: req.URL.RequestURI(), header: req.Header.Clone()}
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		x.body = string(body)
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(strings.NewReader(x.body))
	}
	e.list = append(e.list, x)
	return e.base.RoundTrip(req)
}

// replay sends a request with other values in it, and returns the body of its answer.
func (x exchange) replay(ctx context.Context, f *fake, values *strings.Replacer) ([]byte, error) {
	var body io.Reader
	if x.body != "" {
		body = strings.NewReader(values.Replace(x.body))
	}
	req, err := http.NewRequestWithContext(ctx, x.method, f.url+values.Replace(x.path), body)
	if err != nil {
		return nil, err
	}
	req.Header = x.header // which no transport changes
	resp, err := f.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New("the fake of Clerk: " + resp.Status)
	}
	return io.ReadAll(resp.Body)
}
