-- Reports whether another member of a tenant has a Clerk user ID.
--
-- $1, $2, $3: tenant, Clerk user ID, ID of the member that wants it.
-- Output:     one boolean.
-- Plan:       a look-up in clerkinvite_member_user_key.
SELECT EXISTS (SELECT FROM clerkinvite_member WHERE tenant_id = $1::text AND clerk_user_id = $2::text AND id <> $3::text::uuid)
