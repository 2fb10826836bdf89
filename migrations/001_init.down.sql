-- DESTROYS all members, their history and the rate limits. Invitations that are still open at
-- Clerk stay open there, and nothing knows of them any more.
DROP TABLE IF EXISTS clerkinvite_history;
DROP TABLE IF EXISTS clerkinvite_member;
DROP TABLE IF EXISTS clerkinvite_limit;
