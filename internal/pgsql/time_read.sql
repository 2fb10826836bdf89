-- Reads a named time.
--
-- $1:     the name.
-- Output: the time; no row if the name was never set.
-- Plan:   a look-up in clerkinvite_limit_pkey.
SELECT blocked_until FROM clerkinvite_limit WHERE name = $1::text
