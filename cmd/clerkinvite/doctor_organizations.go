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

// maxOrganizations is the number of organizations that doctor checks, with one request each.
const maxOrganizations = 50

// organizationsSQL returns the organizations of waiting and active members, the largest first, with their roles. $1 is the number of
// organizations.
const organizationsSQL = `
SELECT params->'organization'->>'id', array_agg(DISTINCT coalesce(nullif(params->'organization'->>'role', ''), 'org:member'))
FROM %s
WHERE status IN ('reserved', 'pending', 'active') AND params->'organization'->>'id' <> ''
GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT $1`

// usedOrganization is an organization that members are invited into.
type usedOrganization struct {
	id    string
	roles []string
}

func (d *diagnosis) usedOrganizations(ctx context.Context) (used []usedOrganization, err error) {
	rows, err := d.pool.Query(ctx, fmt.Sprintf(organizationsSQL, d.t.table("clerkinvite_member").Sanitize()), maxOrganizations+1)
	if err != nil {
		return nil, err
	}
	var o usedOrganization
	_, err = pgx.ForEachRow(rows, []any{&o.id, &o.roles}, func() error {
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

// organizations checks that the organizations of members exist at Clerk, and that the instance has their roles. It does not check the
// role sets, which can restrict the roles of an organization.
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
	known, err := d.api.OrganizationRoles(ctx)
	var failure *clerkinvite.APIError
	if errors.As(err, &failure) && failure.Code == "organization_not_enabled_in_instance" {
		return check{"", checkFail, "the Clerk instance has no organizations", "enable organizations in Clerk's dashboard, or check that CLERK_SECRET_KEY belongs to the application's instance"}
	}
	var missing, roles []string
	for _, o := range used {
		if err != nil {
			break
		}
		_, err = d.api.ListInvitations(ctx, clerkinvite.InvitationQuery{OrganizationID: o.id, Limit: 1})
		var wrong *clerkinvite.InvalidParamsError
		if errors.As(err, &wrong) || lacksOrganization(err) {
			missing, err = append(missing, o.id), nil
			continue
		}
		for _, role := range o.roles {
			if !slices.Contains(known, role) {
				roles = append(roles, role+" in "+o.id)
			}
		}
	}
	checked := fmt.Sprintf("%d %s checked%s", len(used), plural(len(used), "organization"), more)
	switch {
	case err != nil:
		return check{"", checkWarn, explain(err), "try again later"}
	case len(missing) > 0:
		return check{"", checkFail, checked + "; Clerk does not have " + strings.Join(missing, ", "),
			"check that CLERK_SECRET_KEY belongs to the application's Clerk instance; if an organization was deleted, remove its members"}
	case len(roles) > 0:
		return check{"", checkFail, checked + "; Clerk does not have these roles: " + strings.Join(roles, ", "),
			"create the roles in Clerk's dashboard, because Clerk refuses an invitation with an unknown role"}
	}
	return good("%s. Clerk does not show which events the webhook endpoint receives: subscribe it to %s, in addition to user.created, user.updated and user.deleted",
		checked, strings.Join(organizationEvents, ", "))
}

// lacksOrganization reports whether Clerk's instance does not have an organization.
func lacksOrganization(err error) bool {
	var failure *clerkinvite.APIError
	return errors.As(err, &failure) && (failure.StatusCode == http.StatusNotFound || failure.Code == "organization_not_enabled_in_instance")
}
