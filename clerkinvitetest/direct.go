package clerkinvitetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/clerkcheck"
)

// FindUsers implements [clerkinvite.ClerkAPI]. Like the real adapter, it makes one request
// for addresses and one for IDs.
func (c *Clerk) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	if err := clerkcheck.FindUsers(q); err != nil {
		return nil, err
	}
	var found []clerkinvite.User
	seen := make(map[string]bool)
	for _, p := range []userParams{{emails: q.Emails}, {ids: q.IDs}} {
		p.limit = math.MaxInt // the real adapter reads all pages
		if len(p.emails)+len(p.ids) == 0 {
			continue
		}
		a, err := c.call(ctx, c.findUsersRequest(p))
		if err != nil {
			return nil, err
		}
		page, _ := a.value.([]wireUser)
		for _, w := range page {
			if !seen[w.ID] {
				seen[w.ID] = true
				found = append(found, w.user())
			}
		}
	}
	return found, nil
}

// GetUser implements [clerkinvite.ClerkAPI].
func (c *Clerk) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	if err := clerkcheck.GetUser(id); err != nil {
		return nil, err
	}
	a, err := c.call(ctx, c.getUserRequest(id))
	if err != nil {
		return nil, err
	}
	w, _ := a.value.(wireUser)
	u := w.user()
	return &u, nil
}

func (c *Clerk) getUserRequest(id string) request {
	return request{call: CallGetUser, run: func(time.Time) response { return c.getUser(id) }}
}

func (c *Clerk) findUsersRequest(p userParams) request {
	return request{call: CallFindUsers, emails: p.emails, run: func(time.Time) response {
		if rejected := c.rejectForm("email_address", p.emails...); rejected != nil {
			return *rejected
		}
		page, _ := c.findUsers(p)
		return success(page)
	}}
}

// CreateInvitation implements [clerkinvite.ClerkAPI].
func (c *Clerk) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	if err := clerkcheck.CreateInvitation(r); err != nil {
		return nil, err
	}
	return one(c.call(ctx, c.createRequest([]createParams{paramsOf(r)}, false)))
}

// CreateInvitations implements [clerkinvite.ClerkAPI].
func (c *Clerk) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	if err := clerkcheck.CreateInvitations(rs); err != nil {
		return nil, err
	}
	var ps []createParams
	for _, r := range rs {
		ps = append(ps, paramsOf(r))
	}
	a, err := c.call(ctx, c.createRequest(ps, true))
	if err != nil {
		return nil, err
	}
	return invitations(a), nil
}

// createRequest returns a request that creates invitations, into one organization or into the
// application.
func (c *Clerk) createRequest(ps []createParams, bulk bool) request {
	emails := make([]string, 0, len(ps))
	for _, p := range ps {
		emails = append(emails, p.email)
	}
	id := ps[0].organization
	call := createCall(id, bulk)
	if id != "" {
		return c.organizationRequest(call, id, emails, func(o *organization, now time.Time) response {
			created, refused := c.createInOrganization(o, ps, bulk, now)
			switch {
			case refused != nil:
				return *refused
			case bulk:
				return success(c.wireOrganizationInvitations(created, len(created), listParams{}, now))
			}
			return success(c.wireOrganizationInvitation(&created[0], now))
		})
	}
	return request{call: call, emails: emails, run: func(now time.Time) response {
		created, refused := c.create(ps, bulk, now)
		switch {
		case refused != nil:
			return *refused
		case bulk:
			return success(c.wireInvitations(created, now))
		}
		return success(c.wireInvitation(&created[0], now))
	}}
}

func createCall(organization string, bulk bool) Call {
	switch {
	case organization != "" && bulk:
		return CallOrganizationCreateBulk
	case organization != "":
		return CallOrganizationCreate
	case bulk:
		return CallCreateBulk
	}
	return CallCreate
}

// organizationRequest returns a request about one organization.
func (c *Clerk) organizationRequest(call Call, id string, emails []string, run func(o *organization, now time.Time) response) request {
	return request{call: call, emails: emails, run: func(now time.Time) response {
		o, refused := c.findOrganization(id)
		if refused != nil {
			return *refused
		}
		return run(o, now)
	}}
}

// ListInvitations implements [clerkinvite.ClerkAPI].
func (c *Clerk) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	if err := clerkcheck.ListInvitations(q); err != nil {
		return nil, err
	}
	if q.Limit == 0 {
		q.Limit = maxPage
	}
	p := listParams{
		status: q.Status, query: q.Query, orderBy: "+created_at", limit: q.Limit, offset: q.Offset,
		organization: q.Organization, allOrganizations: q.AllOrganizations,
	}
	if q.NewestFirst {
		p.orderBy = "-created_at"
	}
	a, err := c.call(ctx, c.listRequest(p, func(page []wireInvitation, _ int) any { return page }))
	if err != nil {
		return nil, err
	}
	return invitations(a), nil
}

// listRequest returns the request for a list. shape is for the list of invitations into the
// application, which has two forms.
func (c *Clerk) listRequest(p listParams, shape func(page []wireInvitation, total int) any) request {
	emails := []string{p.query}
	list := func(param string, now time.Time) response {
		if rejected := c.rejectForm(param, p.query); rejected != nil {
			return *rejected
		}
		page, total := c.list(p, now)
		if p.organization != "" || p.allOrganizations {
			return success(c.wireOrganizationInvitations(page, total, p, now))
		}
		return success(shape(c.wireInvitations(page, now), total))
	}
	if p.organization != "" {
		return c.organizationRequest(CallOrganizationList, p.organization, emails, func(_ *organization, now time.Time) response {
			return list("email_address", now)
		})
	}
	if p.allOrganizations {
		return request{call: CallOrganizationListAll, emails: emails, run: func(now time.Time) response {
			if c.noOrganizations {
				return notEnabled()
			}
			return list("query", now)
		}}
	}
	return request{call: CallList, emails: emails, invitationID: p.query, run: func(now time.Time) response { return list("query", now) }}
}

// RevokeInvitation implements [clerkinvite.ClerkAPI].
func (c *Clerk) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	if err := clerkcheck.RevokeInvitation(r); err != nil {
		return nil, err
	}
	if r.Organization != "" {
		return one(c.call(ctx, c.organizationRevokeRequest(r.Organization, r.ID, "")))
	}
	return one(c.call(ctx, c.revokeRequest(r.ID)))
}

func (c *Clerk) organizationRevokeRequest(org, id, requester string) request {
	r := c.organizationRequest(CallOrganizationRevoke, org, nil, func(o *organization, now time.Time) response {
		return c.revokeInOrganization(o, id, requester, now)
	})
	r.invitationID = id
	return r
}

func (c *Clerk) revokeRequest(id string) request {
	return request{call: CallRevoke, invitationID: id, run: func(now time.Time) response { return c.revoke(id, now) }}
}

// FindMemberships implements [clerkinvite.OrganizationAPI].
func (c *Clerk) FindMemberships(ctx context.Context, q clerkinvite.MembershipQuery) ([]clerkinvite.Membership, error) {
	if err := clerkcheck.FindMemberships(q); err != nil {
		return nil, err
	}
	a, err := c.call(ctx, c.membershipsRequest(q.Organization, memberListParams{userIDs: q.UserIDs, orderBy: "-created_at", limit: maxPage}))
	if err != nil {
		return nil, err
	}
	var found []clerkinvite.Membership
	list, _ := a.value.(wireList[wireMembership])
	for _, w := range list.Data {
		found = append(found, w.membership())
	}
	return found, nil
}

func (c *Clerk) membershipsRequest(id string, p memberListParams) request {
	return c.organizationRequest(CallMemberships, id, nil, func(o *organization, now time.Time) response {
		return success(c.listMembers(o, p, now))
	})
}

// AddMember implements [clerkinvite.OrganizationAPI].
func (c *Clerk) AddMember(ctx context.Context, m clerkinvite.Membership) error {
	if err := clerkcheck.AddMember(m); err != nil {
		return err
	}
	_, err := c.call(ctx, c.addMemberRequest(m.Organization, memberParams{
		userID: m.UserID, role: m.Role, metadata: json.RawMessage("{}"), privateMetadata: json.RawMessage("{}"),
	}))
	return err
}

func (c *Clerk) addMemberRequest(id string, p memberParams) request {
	return c.organizationRequest(CallAddMember, id, nil, func(o *organization, now time.Time) response { return c.addMember(o, p, now) })
}

// RemoveMember implements [clerkinvite.OrganizationAPI].
func (c *Clerk) RemoveMember(ctx context.Context, m clerkinvite.Membership) error {
	if err := clerkcheck.RemoveMember(m); err != nil {
		return err
	}
	_, err := c.call(ctx, c.removeMemberRequest(m.Organization, m.UserID))
	return err
}

func (c *Clerk) removeMemberRequest(id, userID string) request {
	return c.organizationRequest(CallRemoveMember, id, nil, func(o *organization, now time.Time) response { return c.removeMember(o, userID, now) })
}

// call performs a request of a direct call. Its errors are those of the real adapter.
func (c *Clerk) call(ctx context.Context, r request) (response, error) {
	if err := ended(ctx); err != nil {
		return response{}, &clerkinvite.APIError{NotSent: true, Err: err}
	}
	c.mu.Lock()
	timeout, hooked := c.timeout, c.onCall != nil
	c.mu.Unlock()
	var timedOut <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		timedOut = timer.C
	}
	silent := &clerkinvite.APIError{Err: silentError{}}

	var a response
	if !hooked {
		a = c.exchange(ctx, r)
	} else {
		// The hook may block. The caller does not wait for it longer than for a response,
		// and the request is finished anyway.
		responses := make(chan response, 1)
		go func() {
			a := response{form: asReset} // if the hook ends the goroutine
			defer func() { responses <- a }()
			a = c.exchange(ctx, r)
		}()
		select {
		case a = <-responses:
		case <-ctx.Done():
			a.form = asSilence
		case <-timedOut:
			return response{}, silent
		}
	}
	if a.form != asSilence {
		return a, a.apiError()
	}
	if ctx.Done() == nil && timedOut == nil {
		return response{}, silent // instead of waiting forever
	}
	select {
	case <-ctx.Done():
		return response{}, &clerkinvite.APIError{Err: ended(ctx)}
	case <-timedOut:
		return response{}, silent
	}
}

// silentError is like the timeout error of the real adapter.
type silentError struct{}

func (silentError) Error() string { return "clerkinvitetest: no response in time" }

// Timeout returns true, as in net.Error.
func (silentError) Timeout() bool { return true }

// ended returns nil, or ctx.Err with its cause if ctx has ended.
func ended(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return fmt.Errorf("the caller's context ended: %w: %w", err, cause)
	}
	return fmt.Errorf("the caller's context ended: %w", err)
}

// one returns the invitation in a response.
func one(a response, err error) (*clerkinvite.Invitation, error) {
	if err != nil {
		return nil, err
	}
	w, _ := a.value.(interface {
		invitation() clerkinvite.Invitation
	})
	i := w.invitation()
	return &i, nil
}

// paramsOf returns the parameters that the real adapter sends for r.
func paramsOf(r clerkinvite.InvitationRequest) createParams {
	p := createParams{
		email: r.Email, redirectURL: r.RedirectURL, template: r.Template, days: r.ExpiresInDays,
		notify: !r.SkipEmail, ignoreExisting: r.IgnoreExisting, metadata: json.RawMessage("{}"),
		organization: r.Organization, role: r.Role, inviter: r.Inviter, privateMetadata: json.RawMessage("{}"),
	}
	if r.PublicMetadata != nil {
		p.metadata, _ = object(r.PublicMetadata)
	}
	if p.days == 0 {
		p.days = defaultDays
	}
	if p.template == "" {
		p.template = defaultTemplate
	}
	return p
}
