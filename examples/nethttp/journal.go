package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// journal is a file with everything that has changed the fake Clerk, one JSON line per
// change. Repeated on a new fake, each change at its own time, the lines give the same
// users, invitations and IDs. A change is on disk before its response is sent and
// before any other request can read it.
type journal struct {
	clerk *clerkinvitetest.Clerk
	file  *os.File
	sync  func() error

	mu sync.RWMutex              // held for writing from a change until it is on disk
	at atomic.Pointer[time.Time] // the time of the change under way, for the fake's clock
}

// change is a line of the journal: a request to Clerk, or a person who accepts an
// invitation.
type change struct {
	At       time.Time `json:"at"`
	Method   string    `json:"method,omitempty"`
	Path     string    `json:"path,omitempty"`
	Body     string    `json:"body,omitempty"`
	Accepted string    `json:"accepted,omitempty"`
}

// openJournal repeats the journal at path, if there is one, and continues it.
func openJournal(path string, clerk *clerkinvitetest.Clerk, secretKey string) (*journal, error) {
	j := &journal{clerk: clerk}
	clerk.SetSecretKey(secretKey)
	clerk.SetNow(func() time.Time {
		if at := j.at.Load(); at != nil {
			return *at
		}
		return time.Now()
	})
	saved, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// The program was killed while it wrote an unfinished last line, so no response was sent.
	saved = saved[:bytes.LastIndexByte(saved, '\n')+1]
	for line := range bytes.Lines(saved) {
		if err := j.repeat(line, secretKey); err != nil {
			return nil, fmt.Errorf("%s is damaged: %w (to start again, remove the directory)", path, err)
		}
	}
	clerk.OrganizationEvents() // they were delivered or lost
	if j.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	j.sync = j.file.Sync
	if err := j.file.Truncate(int64(len(saved))); err != nil {
		return nil, errors.Join(err, j.file.Close())
	}
	return j, nil
}

// repeat makes the change that line describes.
func (j *journal) repeat(line []byte, secretKey string) error {
	var c change
	if err := json.Unmarshal(line, &c); err != nil {
		return errors.New("a line is not a change") // err may contain an address
	}
	j.at.Store(&c.At)
	defer j.at.Store(nil)
	if c.Accepted != "" {
		_, err := j.clerk.AcceptInvitation(c.Accepted)
		return err
	}
	r := httptest.NewRequestWithContext(context.Background(), c.Method, c.Path, bytes.NewReader([]byte(c.Body)))
	r.Header.Set("Authorization", "Bearer "+secretKey)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if j.clerk.Handler().ServeHTTP(w, r); w.Code != http.StatusOK {
		return fmt.Errorf("a replayed request failed with %d", w.Code)
	}
	return nil
}

// make makes a change with f and writes it down, unless f reports that it failed.
func (j *journal) make(c change, f func() (ok bool)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	c.At = time.Now()
	j.at.Store(&c.At)
	defer j.at.Store(nil)
	if !f() {
		return nil
	}
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = j.file.Write(append(line, '\n'))
	return errors.Join(err, j.sync())
}

// accept follows the link of an invitation.
func (j *journal) accept(invitation string) (webhook clerkinvitetest.Webhook, err error) {
	saved := j.make(change{Accepted: invitation}, func() bool {
		webhook, err = j.clerk.AcceptInvitation(invitation)
		return err == nil
	})
	return webhook, errors.Join(err, saved)
}

// handler is the fake Clerk over HTTP.
func (j *journal) handler() http.Handler {
	clerk := j.clerk.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			j.mu.RLock()
			defer j.mu.RUnlock()
			clerk.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		response := httptest.NewRecorder()
		if err := j.make(change{Method: r.Method, Path: r.URL.Path, Body: string(body)}, func() bool {
			clerk.ServeHTTP(response, r)
			return response.Code == http.StatusOK
		}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		maps.Copy(w.Header(), response.Header())
		w.WriteHeader(response.Code)
		_, _ = w.Write(response.Body.Bytes())
	})
}
