package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/clerkinvite/clerkinvite"
)

// maxOrganizations is the number of organizations that doctor checks, with at most two requests each.
const maxOrganizations = 50

// organizationsSQL returns the organizations of waiting and active members, the largest first, with their roles and up to 100 of their
// users. $1 is the number of organizations.
const organizationsSQL = `
SELECT params->'organization'->>'id', array_agg(DISTINCT coalesce(params->'organization'->>'role', '')),
	coalesce((array_agg(clerk_user_id) FILTER (WHERE status = 'active'))[1:100], '{}')
FROM %s
WHERE status IN ('reserved', 'pending', 'active') AND params->'organization'->>'id' <> ''
GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT $1`

// usedOrganization is an organization that members are invited into.
type usedOrganization struct {
	id    string
	roles []string
	users []string // some of its active members
}

func (d *diagnosis) usedOrganizations(ctx context.Context) (used []usedOrganization, err error) {
	table := pgx.Identifier{"clerkinvite_member"}
	if d.t.schema != "" {
		table = append(pgx.Identifier{d.t.schema}, table...)
	}
	rows, err := d.pool.Query(ctx, fmt.Sprintf(organizationsSQL, table.Sanitize()), maxOrganizations+1)
	if err != nil {
		return nil, err
	}
	var o usedOrganization
	_, err = pgx.ForEachRow(rows, []any{&o.id, &o.roles, &o.users}, func() error {
		used = append(used, o)
		o = usedOrganization{}
		return nil
	})
	if d.organization != "" && !slices.ContainsFunc(used, func(o usedOrganization) bool { return o.id == d.organization }) {
		used = slices.Insert(used, 0, usedOrganization{id: d.organization})
	}
	return used, err
}

// organizationEvents are the events that the endpoint for webhooks needs for organizations.
var organizationEvents = []string{
	clerkinvite.EventOrganizationInvitationAccepted, clerkinvite.EventOrganizationInvitationRevoked, clerkinvite.EventOrganizationMembershipCreated,
	clerkinvite.EventOrganizationMembershipUpdated, clerkinvite.EventOrganizationMembershipDeleted,
}

// organizations checks that the organizations of members exist at Clerk, and their roles as far as Clerk shows them: in memberships.
func (d *diagnosis) organizations(ctx context.Context) check {
	used, err := d.usedOrganizations(ctx)
	if err != nil {
		return check{"", checkFail, explain(err), "try again"}
	}
	if len(used) == 0 {
		return good("no member is invited into a Clerk organization")
	}
	more := ""
	if len(used) > maxOrganizations {
		used, more = used[:maxOrganizations], " (only the largest)"
	}
	var missing, roles []string
	for _, o := range used {
		shown, err := d.shownRoles(ctx, o)
		var failure *clerkinvite.APIError
		var wrong *clerkinvite.InvalidParamsError
		switch {
		case err == nil:
			for _, role := range o.roles {
				if !slices.Contains(shown, role) {
					roles = append(roles, role+" in "+o.id)
				}
			}
		case errors.As(err, &failure) && failure.Code == "organization_not_enabled_in_instance":
			return check{"", checkFail, "the Clerk instance has no organizations", "enable organizations in Clerk's dashboard, or check that CLERK_SECRET_KEY belongs to the application's instance"}
		case errors.As(err, &failure) && failure.StatusCode == http.StatusNotFound, errors.As(err, &wrong):
			missing = append(missing, o.id)
		default:
			return check{"", checkWarn, explain(err), "try again later"}
		}
	}
	checked := fmt.Sprintf("%d %s checked%s", len(used), plural(len(used), "organization"), more)
	switch {
	case len(missing) > 0:
		return check{"", checkFail, checked + "; Clerk does not have " + strings.Join(missing, ", "),
			"check that CLERK_SECRET_KEY belongs to the application's Clerk instance; if an organization was deleted, remove its members"}
	case len(roles) > 0:
		return check{"", checkWarn, checked + "; no user has these roles yet, so Clerk does not show whether they exist: " + strings.Join(roles, ", "),
			"compare them with the roles in Clerk's dashboard, because Clerk refuses an invitation with an unknown role"}
	}
	return good("%s. Clerk does not show which events the webhook endpoint receives: subscribe it to %s, in addition to user.created, user.updated and user.deleted",
		checked, strings.Join(organizationEvents, ", "))
}

// defaultRoles exist in every instance that has not changed them.
var defaultRoles = []string{"org:admin", "org:member"}

// shownRoles returns the default roles and those that Clerk shows in memberships of the organization's users. Its error is a 404 if the
// organization does not exist.
func (d *diagnosis) shownRoles(ctx context.Context, o usedOrganization) ([]string, error) {
	if _, err := d.api.ListInvitations(ctx, clerkinvite.InvitationQuery{Organization: o.id, Limit: 1}); err != nil {
		return nil, err
	}
	roles := slices.Clone(defaultRoles)
	if len(o.users) == 0 {
		return roles, nil
	}
	members, err := d.api.FindMemberships(ctx, clerkinvite.MembershipQuery{Organization: o.id, UserIDs: o.users})
	for _, m := range members {
		roles = append(roles, m.Role)
	}
	return roles, err
}
