package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// organization returns what the member was invited into.
func (w *world) organization(email string) clerkinvite.Organization {
	return *w.member(email).Organization()
}

func TestImportIntoOrganizations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.AddOrganization("org_a", clerkinvitetest.OrganizationSpec{})
	w.clerk.AddOrganization("org_b", clerkinvitetest.OrganizationSpec{})
	w.invite("before@example.com")

	failedLines := filepath.Join(t.TempDir(), "failed.csv")
	args := []string{"--tenant", "acme", "--organization", " org_a ", "--organization-role", "org:admin", "--errors", failedLines, "--json"}
	name := w.file("email,organization,organization_role,template\n" +
		"default@example.com,,,\n" + // 2
		"role@example.com,,org:member,\n" +
		"other@example.com,org_b,,\n" +
		"both@example.com,org_b,org:member,\n" + // 5
		"missing@example.com,org_none,,\n" +
		"path@example.com,../users,,\n" +
		"template@example.com,,,welcome\n" + // 8
		"before@example.com,org_b,,\n")
	r := w.run(append([]string{"import", name}, args...)...)
	require.Equal(t, exitSome, r.code, r.stderr)
	report := decode[*importReport](t, r)
	require.Equal(t, map[outcome]int{sent: 4, refused: 1, invalid: 2, alreadyInvited: 1}, counts(t, report))
	reasons := make(map[int]string)
	for _, p := range report.Problems {
		reasons[p.Line] = p.Reason
	}
	require.Contains(t, reasons[6], "resource_not_found")
	require.Equal(t, "organization must be the ID of an organization (org_…)", reasons[7])
	require.Contains(t, reasons[8], "template must be empty for an organization")
	require.Equal(t, "stays outside the organization: an import does not change members", reasons[9])
	for email, want := range map[string]clerkinvite.Organization{
		"default@example.com": {ID: "org_a", Role: "org:admin"}, "role@example.com": {ID: "org_a", Role: "org:member"},
		"other@example.com": {ID: "org_b", Role: "org:admin"}, "both@example.com": {ID: "org_b", Role: "org:member"},
	} {
		require.Equal(t, want, w.organization(email), email)
		require.Equal(t, want.ID, w.clerk.Invitations(email)[0].OrganizationID)
	}

	// Failed lines keep their organizations.
	text, err := os.ReadFile(failedLines)
	require.NoError(t, err)
	require.Contains(t, string(text), "email,organization,organization_role,template,reason\nmissing@example.com,org_none,,,line 6: ")
	w.clerk.AddOrganization("org_none", clerkinvitetest.OrganizationSpec{})
	again := decode[*importReport](t, w.run("import", failedLines, "--tenant", "acme", "--organization", "org_a", "--errors", failedLines+"2", "--json"))
	require.Equal(t, map[outcome]int{sent: 1, invalid: 2}, counts(t, again))
	require.Equal(t, clerkinvite.Organization{ID: "org_none", Role: "org:member"}, w.organization("missing@example.com"))

	// Existing members do not change.
	r = w.run("import", w.file("tenant,email,organization,organization_role\nacme,both@example.com,org_a,\nacme,role@example.com,org_a,org:admin\nacme,other@example.com,org_b,\n"))
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, "line 2: both@example.com already_invited: keeps the organization org_b: an import")
	require.Contains(t, r.stdout, "line 3: role@example.com already_invited: keeps the organization role org:member: an import")
	require.NotContains(t, r.stdout, "line 4")

	// A role needs an organization, in a line and as a flag.
	r = w.run("import", w.file("tenant,email,organization_role\nacme,x@example.com,org:admin\n"))
	require.Equal(t, exitSome, r.code)
	require.Contains(t, r.stdout, "line 2: x@example.com invalid: organization_role needs an organization")
	r = w.run("import", w.file("tenant,email\nacme,x@example.com\n"), "--organization-role", "org:admin")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, "--organization-role needs --organization")

	r = w.run("show", "acme", "default@example.com")
	require.Regexp(t, `(?m)^organization +org_a as org:admin$`, r.stdout)
	require.Equal(t, "org_a", decode[memberDocument](t, w.run("show", "acme", "default@example.com", "--json")).Organization.ID)
	for _, args := range [][]string{{}, {"--json"}} {
		require.NotContains(t, w.run(append([]string{"show", "acme", "before@example.com"}, args...)...).stdout, "organization")
	}
}

// Commands for members end memberships and invitations of organizations, too.
func TestChangeMembersOfOrganizations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.AddOrganization("org_a", clerkinvitetest.OrganizationSpec{})
	require.Zero(t, w.run("import", w.file("tenant,email\nacme,ada@example.com\nacme,bob@example.com\n"), "--organization", "org_a").code)
	_, err := w.clerk.Accept("ada@example.com")
	require.NoError(t, err)
	r := w.run("reconcile")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, clerkinvite.StatusActive, w.member("ada@example.com").Status)
	require.Zero(t, w.run("invite", "acme", "joan@example.com", "--organization", "org_a", "--organization-role", "org:admin").code)
	require.Equal(t, clerkinvite.Organization{ID: "org_a", Role: "org:admin"}, w.organization("joan@example.com"))
	require.Equal(t, exitUsage, w.run("invite", "acme", "eve@example.com", "--organization-role", "org:admin").code, "a role without an organization")
	require.Zero(t, w.run("revoke", "acme", "joan@example.com").code)
	require.Zero(t, w.run("invite", "acme", "joan@example.com", "--organization-role", "org:member").code)
	require.Equal(t, clerkinvite.Organization{ID: "org_a", Role: "org:member"}, w.organization("joan@example.com"))
	w.pass(2 * time.Minute)
	require.Zero(t, w.run("resend", "acme", "bob@example.com").code)
	require.Len(t, w.clerk.OpenInvitations("bob@example.com"), 1)
	require.Zero(t, w.run("revoke", "acme", "bob@example.com").code)
	require.Empty(t, w.clerk.OpenInvitations("bob@example.com"))
	require.Zero(t, w.run("remove", "acme", "ada@example.com").code)
	require.Empty(t, w.clerk.Members("org_a"))

	// Adopted members remember their organization.
	grace := w.clerk.AddVerifiedUser("grace@example.com")
	w.clerk.JoinOrganization("org_a", grace.ID, "org:admin")
	r = w.run("adopt", w.file("tenant,email,clerk_user_id,organization,organization_role\nacme,grace@example.com,"+grace.ID+",org_a,org:admin\n"))
	require.Zero(t, r.code, r.stdout)
	require.Equal(t, clerkinvite.Organization{ID: "org_a", Role: "org:admin"}, w.organization("grace@example.com"))
	r = w.run("remove", "acme", "grace@example.com")
	require.Equal(t, exitRefused, r.code)
	require.Contains(t, r.stderr, "the organization needs another admin first")
}

// An instance without organizations works as before.
func TestInstanceWithoutOrganizations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.DisableOrganizations()
	w.invite("ada@example.com")
	_, err := w.clerk.Accept("ada@example.com")
	require.NoError(t, err)
	r := w.run("reconcile", "--json")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, 1, decode[reconcileDocument](t, r).Activated)
	require.Empty(t, w.diagnose(exitDone))
}

func TestDoctorChecksOrganizations(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		arrange func(w *world)
		args    []string
		status  checkStatus
		message string
	}{
		"none":              {func(*world) {}, nil, checkOK, "no member is invited into a Clerk organization"},
		"asked for":         {func(*world) {}, []string{"--organization", "org_a"}, checkOK, "1 organization checked. Clerk does not show which events"},
		"unknown":           {func(*world) {}, []string{"--organization", "org_other"}, checkFail, "Clerk does not have org_other"},
		"an ID with a path": {func(*world) {}, []string{"--organization", "org_a/../x"}, checkFail, "Clerk does not have org_a/../x"},
		"events": {func(w *world) { w.inviteInto("org_a", "") }, nil, checkOK,
			"organizationInvitation.accepted, organizationInvitation.revoked, organizationMembership.created, organizationMembership.updated, organizationMembership.deleted, in addition to user.created"},
		"deleted":            {func(w *world) { w.inviteInto("org_a", ""); w.clerk.DeleteOrganization("org_a") }, nil, checkFail, "Clerk does not have org_a"},
		"no organizations":   {func(w *world) { w.inviteInto("org_a", ""); w.clerk.DisableOrganizations() }, nil, checkFail, "the Clerk instance has no organizations"},
		"an unused role":     {func(w *world) { w.inviteInto("org_a", "org:editor") }, nil, checkOK, "1 organization checked"},
		"a role of a member": {func(w *world) { w.join("org_a", "org:editor") }, nil, checkOK, "1 organization checked"},
		"a deleted role": {func(w *world) {
			w.inviteInto("org_a", "org:editor")
			w.clerk.DeleteOrganization("org_a")
			w.clerk.AddOrganization("org_a", clerkinvitetest.OrganizationSpec{})
		}, nil, checkFail, "Clerk does not have these roles: org:editor in org_a"},
		"Clerk hides the roles": {func(w *world) {
			w.inviteInto("org_a", "")
			w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationRoles, Kind: clerkinvitetest.JSON500, Times: -1})
		}, nil, checkWarn, "internal_clerk_error"},
		"Clerk fails for it":    {func(w *world) { w.inviteInto("org_a", ""); w.failList() }, nil, checkWarn, "too_many_requests"},
		"another schema's rows": {func(w *world) { w.inviteInto("org_a", "") }, []string{"--schema", "public"}, checkOK, "1 organization checked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.clerk.AddOrganization("org_a", clerkinvitetest.OrganizationSpec{Roles: []string{"org:admin", "org:member", "org:editor"}})
			test.arrange(w)
			r := w.run(append([]string{"doctor", "--json"}, test.args...)...)
			for _, c := range decode[doctorDocument](t, r).Checks {
				if c.Name == "organizations" {
					require.Equal(t, test.status, c.Status, c.Message)
					require.Contains(t, c.Message, test.message)
					require.Equal(t, c.Status != checkOK, c.Remedy != "")
					return
				}
			}
			t.Fatal("no such check")
		})
	}
}

// Pending members of organizations have their invitations in the organizations' lists.
func TestDoctorFindsInvitationsIntoOrganizations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.AddOrganization("org_hooli", clerkinvitetest.OrganizationSpec{})
	w.inviteInto("org_hooli", "org:admin")
	require.Empty(t, w.diagnose(exitDone))

	empty := httptest.NewServer(clerkinvitetest.NewClerk().Handler())
	defer empty.Close()
	w.vars["CLERK_API_URL"] = empty.URL
	require.Equal(t, map[string]checkStatus{"organizations": checkFail, "agreement": checkFail}, w.diagnose(exitFailed))
	require.Contains(t, w.run("doctor").stdout, "CLERK_SECRET_KEY probably belongs to another instance: Clerk knows none of the members' invitations")
}

// A user who has left an organization still exists, so doctor does not blame the key.
func TestDoctorFindsLeavers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.AddOrganization("org_acme", clerkinvitetest.OrganizationSpec{})
	w.join("org_acme", "org:member")
	grace := w.clerk.AddVerifiedUser("grace@example.com")
	w.clerk.JoinOrganization("org_acme", grace.ID, "org:member")
	_, err := w.service().Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "grace@example.com", Organization: &clerkinvite.Organization{ID: "org_acme"}})
	require.NoError(t, err)
	w.exec("UPDATE clerkinvite_member SET settled_at = settled_at - interval '1 hour'")
	w.clerk.LeaveOrganization("org_acme", grace.ID)
	c := w.doctorCheck("agreement")
	require.Equal(t, checkWarn, c.Status)
	require.Contains(t, c.Message, "1 no longer have a user or membership, or have another row")
	require.NotContains(t, c.Remedy, "CLERK_SECRET_KEY")
}

// inviteInto invites a person into an organization.
func (w *world) inviteInto(organization, role string) {
	_, err := w.service().Invite(w.t.Context(), clerkinvite.InviteParams{
		TenantID: "acme", Email: "ada@example.com", Organization: &clerkinvite.Organization{ID: organization, Role: role},
	})
	require.NoError(w.t, err)
}

// join invites a person into an organization, and the person accepts.
func (w *world) join(organization, role string) {
	w.inviteInto(organization, role)
	_, err := w.clerk.Accept("ada@example.com")
	require.NoError(w.t, err)
	require.Zero(w.t, w.run("reconcile").code)
	require.Equal(w.t, clerkinvite.StatusActive, w.member("ada@example.com").Status)
}

// failList makes Clerk limit the lists of an organization's invitations.
func (w *world) failList() {
	limit := clerkinvitetest.RateLimited(time.Minute)
	limit.Call = clerkinvitetest.CallOrganizationList
	w.clerk.Fail(limit)
}
