-- Finds active members by Clerk user ID, in any tenant.
--
-- $1:     a JSON object; "users" is an array of Clerk user IDs.
-- Output: members.
-- Plan:   one look-up per value in clerkinvite_member_active_idx; OFFSET 0 forbids any other plan.
SELECT {{member}}
FROM json_array_elements_text($1::text::json -> 'users') AS x (user_id)
CROSS JOIN LATERAL (SELECT * FROM clerkinvite_member WHERE clerk_user_id = x.user_id AND status = 'active' OFFSET 0) m
