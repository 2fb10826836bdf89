-- Says which key of a member is taken: another member of the tenant has its Clerk user ID or address.
--
-- $1, $2, $3, $4: tenant, Clerk user ID, address, ID of the member that wants them.
-- Output:         'user', 'email' or an empty text.
-- Plan:           look-ups in clerkinvite_member_user_key and clerkinvite_member_email_key.
SELECT CASE
	WHEN EXISTS (SELECT FROM clerkinvite_member WHERE tenant_id = $1::text AND clerk_user_id = $2::text AND id <> $4::text::uuid) THEN 'user'
	WHEN EXISTS (SELECT FROM clerkinvite_member WHERE tenant_id = $1::text AND email = $3::text AND id <> $4::text::uuid) THEN 'email'
	ELSE '' END
