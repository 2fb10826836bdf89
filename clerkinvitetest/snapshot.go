package clerkinvitetest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// snapshotVersion is the form that Snapshot writes, the only one that Restore reads.
const snapshotVersion = 1

// snapshot is a Clerk's memory in JSON.
type snapshot struct {
	Version     int               `json:"version"`
	Serial      map[string]int    `json:"serial"`
	Requests    map[Call]int      `json:"requests"`
	Mail        []savedMail       `json:"mail"`
	Invitations []savedInvitation `json:"invitations"`
	Users       []savedUser       `json:"users"`
}

type savedInvitation struct {
	ID        string           `json:"id"`
	Email     string           `json:"email"`
	Status    string           `json:"status"`
	URL       string           `json:"url"`
	Metadata  json.RawMessage  `json:"metadata"`
	CreatedAt time.Time        `json:"created_at"`
	UpdatedAt time.Time        `json:"updated_at"`
	ExpiresAt time.Time        `json:"expires_at"`
	Bulk      bool             `json:"bulk,omitempty"`
	Settled   *savedInvitation `json:"settled,omitempty"` // as Behavior.Lag shows it
}

type savedUser struct {
	ID        string          `json:"id"`
	Emails    []savedEmail    `json:"emails"`
	Primary   string          `json:"primary,omitempty"`
	Banned    bool            `json:"banned,omitempty"`
	Deleted   bool            `json:"deleted,omitempty"`
	Metadata  json.RawMessage `json:"metadata"`
	CreatedAt time.Time       `json:"created_at"`
	UpdatedAt time.Time       `json:"updated_at"`
	Settled   *savedUser      `json:"settled,omitempty"`
}

type savedEmail struct {
	Spec      savedSpec `json:"spec"`
	ID        string    `json:"id"`
	Ticket    bool      `json:"ticket,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// savedMail is a Mail and savedSpec an EmailSpec, with names in JSON.
type (
	savedMail struct {
		InvitationID string    `json:"invitation_id"`
		To           string    `json:"to"`
		URL          string    `json:"url"`
		Template     string    `json:"template"`
		At           time.Time `json:"at"`
	}
	savedSpec struct {
		Address          string `json:"address"`
		Verified         bool   `json:"verified,omitempty"`
		Reserved         bool   `json:"reserved,omitempty"`
		NullVerification bool   `json:"null_verification,omitempty"`
	}
)

// Snapshot returns all that c remembers, as JSON: users, invitations, the emails that
// it sent, the requests that it counted, and which ids are given out. It holds
// addresses and links. What was set on c is not in it: clock, [Behavior], key, time
// limit, hook, faults, and limits with what they have counted.
//
// It is for a demo or a development server, which goes on with [Clerk.Restore] after a
// restart. A snapshot taken in the hook of [Clerk.OnCall], after a request has taken
// effect, holds what it did before anybody is told of it.
// Errors are those of encoding/json.
func (c *Clerk) Snapshot() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := snapshot{
		Version: snapshotVersion, Serial: c.serial, Requests: c.counts, Mail: make([]savedMail, 0, len(c.mail)),
		Invitations: make([]savedInvitation, 0, len(c.invitations)), Users: make([]savedUser, 0, len(c.users)),
	}
	for _, m := range c.mail {
		s.Mail = append(s.Mail, savedMail(m))
	}
	for _, r := range c.invitations {
		i := saveInvitation(r.invitation)
		if r.settled != nil {
			settled := saveInvitation(*r.settled)
			i.Settled = &settled
		}
		s.Invitations = append(s.Invitations, i)
	}
	for _, r := range c.users {
		u := saveUser(&r.user)
		if r.settled != nil {
			settled := saveUser(r.settled)
			u.Settled = &settled
		}
		s.Users = append(s.Users, u)
	}
	return json.Marshal(s)
}

// Restore makes c remember what [Clerk.Snapshot] returned, and nothing else. What was
// set on c stays. It fails if the snapshot is damaged or of another version of this
// package: c is as it was then. Its errors hold no address.
func (c *Clerk) Restore(saved []byte) error {
	var s snapshot
	d := json.NewDecoder(bytes.NewReader(saved))
	d.DisallowUnknownFields() // of a newer version: rather than to forget it
	if err := d.Decode(&s); err != nil {
		return damaged("it is no JSON of this version")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return damaged("something follows it")
	}
	if s.Version != snapshotVersion {
		return damaged(fmt.Sprintf("it is of version %d, not %d", s.Version, snapshotVersion))
	}
	n, err := s.clerk()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial, c.counts, c.mail, c.mailTo = n.serial, n.counts, n.mail, n.mailTo
	c.invitations, c.byID, c.byEmail = n.invitations, n.byID, n.byEmail
	c.users, c.userByID, c.userByEmail = n.users, n.userByID, n.userByEmail
	return nil
}

func damaged(why string) error {
	return errors.New("clerkinvitetest: this snapshot cannot be restored: " + why)
}

// clerk returns a Clerk with this memory.
func (s *snapshot) clerk() (*Clerk, error) {
	c := NewClerk()
	maps.Copy(c.serial, s.Serial)
	maps.Copy(c.counts, s.Requests)
	for _, m := range s.Mail {
		c.mail = append(c.mail, Mail(m))
		c.mailTo[m.To]++
	}
	for _, saved := range s.Invitations {
		i, ok := saved.invitation()
		if !ok || c.byID[i.id] != nil {
			return nil, damaged("an invitation is wrong or there twice")
		}
		r := &invitationRecord{invitation: i}
		if saved.Settled != nil {
			settled, ok := saved.Settled.invitation()
			if !ok || settled.id != i.id || settled.email != i.email {
				return nil, damaged("an invitation is shown wrongly")
			}
			r.settled = &settled
		}
		c.invitations = append(c.invitations, r)
		c.byID[i.id] = r
		c.byEmail[i.email] = append(c.byEmail[i.email], r)
	}
	type holding struct {
		email, id string
		user      *userRecord
	}
	var holdings []holding
	for _, saved := range s.Users {
		u, ok := saved.user()
		if !ok || c.userByID[u.id] != nil {
			return nil, damaged("a user is wrong or there twice")
		}
		r := &userRecord{user: u}
		if saved.Settled != nil {
			settled, ok := saved.Settled.user()
			if !ok || settled.id != u.id {
				return nil, damaged("a user is shown wrongly")
			}
			r.settled = &settled
		}
		c.users = append(c.users, r)
		c.userByID[u.id] = r
		for _, e := range u.emails {
			holdings = append(holdings, holding{fold(e.Address), e.id, r})
		}
	}
	// Who held an address first comes first. That entry has the lower id: idn_999999, idn_1000000.
	slices.SortStableFunc(holdings, func(a, b holding) int {
		return cmp.Or(cmp.Compare(len(a.id), len(b.id)), strings.Compare(a.id, b.id))
	})
	for _, h := range holdings {
		if !slices.Contains(c.userByEmail[h.email], h.user) {
			c.userByEmail[h.email] = append(c.userByEmail[h.email], h.user)
		}
	}
	return c, nil
}

func saveInvitation(i invitation) savedInvitation {
	return savedInvitation{
		ID: i.id, Email: i.email, Status: i.status, URL: i.url, Metadata: i.metadata,
		CreatedAt: i.createdAt, UpdatedAt: i.updatedAt, ExpiresAt: i.expiresAt, Bulk: i.bulk,
	}
}

func (s *savedInvitation) invitation() (invitation, bool) {
	metadata, ok := object(s.Metadata)
	return invitation{
		id: s.ID, email: s.Email, status: s.Status, url: s.URL, metadata: metadata,
		createdAt: s.CreatedAt, updatedAt: s.UpdatedAt, expiresAt: s.ExpiresAt, bulk: s.Bulk,
	}, ok && validID(s.ID) && s.Email == fold(s.Email) && validStatus(s.Status)
}

func saveUser(u *user) savedUser {
	s := savedUser{
		ID: u.id, Primary: u.primary, Banned: u.banned, Deleted: u.deleted, Metadata: u.metadata,
		CreatedAt: u.createdAt, UpdatedAt: u.updatedAt,
	}
	for _, e := range u.emails {
		s.Emails = append(s.Emails, savedEmail{Spec: savedSpec(e.EmailSpec), ID: e.id, Ticket: e.ticket, CreatedAt: e.createdAt})
	}
	return s
}

func (s *savedUser) user() (user, bool) {
	metadata, ok := object(s.Metadata)
	u := user{
		id: s.ID, primary: s.Primary, banned: s.Banned, deleted: s.Deleted, metadata: metadata,
		createdAt: s.CreatedAt, updatedAt: s.UpdatedAt,
	}
	for _, e := range s.Emails {
		ok = ok && validID(e.ID)
		u.emails = append(u.emails, userEmail{EmailSpec: EmailSpec(e.Spec), id: e.ID, ticket: e.Ticket, createdAt: e.CreatedAt})
	}
	return u, ok && s.ID != ""
}
