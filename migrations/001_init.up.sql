-- Tables of github.com/clerkinvite/clerkinvite. PostgreSQL 14 or newer, no extensions.
--
-- Names are not qualified: the tables go to the first schema of the search_path.
-- Every unique key of member and history begins with tenant_id, so both can be declared
-- PARTITION BY HASH (tenant_id) without changing a query.
-- Keys compare by bytes (COLLATE "C"), so a new version of the system's locales cannot corrupt
-- their indexes.
-- There are no defaults and no triggers: the library writes every value, with its own clock.

-- One row per person and tenant, from reservation to removal.
-- An optional column without a value is NULL, never an empty string.
CREATE TABLE clerkinvite_member (
    tenant_id       text COLLATE "C" NOT NULL,
    id              uuid             NOT NULL, -- version 7; public_metadata of the invitation at Clerk carries it
    email           text COLLATE "C" NOT NULL, -- normalised: lower case, the domain in its ASCII form
    status          text COLLATE "C" NOT NULL,
    clerk_user_id   text COLLATE "C",          -- pending: 'pending_' and the invitation; active: the Clerk user; otherwise NULL
    invitation_id   text COLLATE "C",          -- the current or the last invitation at Clerk
    send            integer          NOT NULL, -- number of the requested invitation; 1 is the first
    sent            integer          NOT NULL, -- number of the last completed one; a reserved or pending row with sent < send is due for delivery
    bulk            boolean          NOT NULL, -- this send was requested for many people: it is delivered after the others
    url             text,                      -- SECRET: anyone who has it can accept the invitation. Only while pending, only if the host mails it itself
    role            text,
    invited_by      text,
    changed_by      text,                      -- who made the last change in the history; NULL: the library
    data            jsonb,                     -- for the host
    params          json,                      -- parameters of the invitation; json, because it is stored byte for byte
    version         bigint           NOT NULL, -- increases by one with every change
    attempts        integer          NOT NULL, -- attempts to deliver this send
    claimed_until   timestamptz,               -- until then one delivery attempt owns the row
    next_attempt_at timestamptz,               -- when the invitation is to be delivered; NULL if there is none
    reason          text,                      -- why the row is in its state
    reserved_at     timestamptz      NOT NULL, -- when this send was requested
    invited_at      timestamptz,               -- created_at of the invitation, by Clerk's clock
    expires_at      timestamptz,               -- expires_at of the invitation, by Clerk's clock
    settled_at      timestamptz,               -- when an invitation was last completed or ended
    updated_at      timestamptz      NOT NULL,

    CONSTRAINT clerkinvite_member_pkey PRIMARY KEY (tenant_id, id),

    CONSTRAINT clerkinvite_member_tenant_id_check CHECK (octet_length(tenant_id) BETWEEN 1 AND 255),
    CONSTRAINT clerkinvite_member_email_check CHECK (octet_length(email) <= 254 AND email LIKE '_%@_%' AND email = lower(email)),
    CONSTRAINT clerkinvite_member_status_check CHECK (status IN ('reserved', 'pending', 'active', 'failed', 'revoked', 'expired', 'removed')),
    -- IS NOT NULL comes first in each branch because a CHECK lets NULL pass.
    CONSTRAINT clerkinvite_member_clerk_user_id_check CHECK (
        CASE status
            WHEN 'pending' THEN invitation_id IS NOT NULL AND clerk_user_id IS NOT NULL AND clerk_user_id = 'pending_' || invitation_id
            WHEN 'active'  THEN clerk_user_id IS NOT NULL AND left(clerk_user_id, 8) <> 'pending_' AND octet_length(clerk_user_id) BETWEEN 1 AND 255
            ELSE clerk_user_id IS NULL
        END),
    CONSTRAINT clerkinvite_member_invitation_id_check CHECK (octet_length(invitation_id) BETWEEN 1 AND 247),
    CONSTRAINT clerkinvite_member_send_check CHECK (send >= 1 AND sent BETWEEN 0 AND send AND attempts >= 0),
    -- A due row has a time, or no delivery would ever find it.
    CONSTRAINT clerkinvite_member_due_check CHECK (
        CASE status
            WHEN 'reserved' THEN sent < send AND next_attempt_at IS NOT NULL
            WHEN 'pending'  THEN sent = send OR next_attempt_at IS NOT NULL
            ELSE true
        END),
    CONSTRAINT clerkinvite_member_url_check CHECK (url IS NULL OR (status = 'pending' AND octet_length(url) BETWEEN 1 AND 16384)),
    CONSTRAINT clerkinvite_member_text_check CHECK (
        octet_length(role) BETWEEN 1 AND 1024 AND octet_length(invited_by) BETWEEN 1 AND 1024
        AND octet_length(changed_by) BETWEEN 1 AND 1024 AND octet_length(reason) BETWEEN 1 AND 1024),
    CONSTRAINT clerkinvite_member_version_check CHECK (version >= 1)
);

-- Three of the indexes below have the condition IS NOT NULL for a column that is never NULL. So only a query that compares
-- the column can use the index, and each look-up, page and foreign key has exactly one index. Without the condition,
-- PostgreSQL could prefer an index by the tenant alone while the table is small or its statistics show few tenants, and a
-- connection keeps such a plan.

-- One row per address in a tenant, no matter how many callers invite it at the same time.
CREATE UNIQUE INDEX clerkinvite_member_email_key ON clerkinvite_member (tenant_id, email) WHERE email IS NOT NULL;
-- One row per user in a tenant. (Pending IDs are included: an invitation belongs to one row.)
CREATE UNIQUE INDEX clerkinvite_member_user_key ON clerkinvite_member (tenant_id, clerk_user_id) WHERE clerk_user_id IS NOT NULL;

-- Webhooks: members of any tenant that wait for an address.
CREATE INDEX clerkinvite_member_waiting_idx ON clerkinvite_member (email) WHERE status IN ('reserved', 'pending', 'expired');
-- Webhooks: active members of any tenant with a Clerk user.
CREATE INDEX clerkinvite_member_active_idx ON clerkinvite_member (clerk_user_id) WHERE status = 'active';
-- The member that the metadata of an invitation names.
CREATE INDEX clerkinvite_member_id_idx ON clerkinvite_member (id) WHERE id IS NOT NULL;
-- Pages of a tenant by state. (Pages without a state use the primary key.)
CREATE INDEX clerkinvite_member_status_idx ON clerkinvite_member (tenant_id, status, id) WHERE status IS NOT NULL;
-- Delivery: due members, and the tenants that have any.
CREATE INDEX clerkinvite_member_due_idx ON clerkinvite_member (next_attempt_at) WHERE sent < send AND status IN ('reserved', 'pending');
CREATE INDEX clerkinvite_member_turns_idx ON clerkinvite_member (bulk, tenant_id, next_attempt_at, id) WHERE sent < send AND status IN ('reserved', 'pending');
-- Backlog: members whose invitation has expired.
CREATE INDEX clerkinvite_member_expiring_idx ON clerkinvite_member (expires_at) WHERE status = 'pending';

-- One row per change of a member's state, invitation, user, role or address, written by the statement
-- that makes the change. It contains no address. It is deleted with its member.
CREATE TABLE clerkinvite_history (
    tenant_id     text COLLATE "C" NOT NULL,
    member_id     uuid             NOT NULL,
    version       bigint           NOT NULL, -- of the member, after the change
    from_status   text COLLATE "C",          -- NULL: the member is new
    to_status     text COLLATE "C" NOT NULL,
    send          integer          NOT NULL,
    sent          integer          NOT NULL,
    clerk_user_id text COLLATE "C",
    invitation_id text COLLATE "C",
    role          text,                      -- after the change
    reason        text,
    actor         text,                      -- who made the change; NULL: the library
    at            timestamptz      NOT NULL,

    CONSTRAINT clerkinvite_history_pkey PRIMARY KEY (tenant_id, member_id, version),
    CONSTRAINT clerkinvite_history_member_fkey FOREIGN KEY (tenant_id, member_id)
        REFERENCES clerkinvite_member (tenant_id, id) ON DELETE CASCADE
);

-- Times that all processes share, by name: rate limits (until when Clerk refuses an endpoint), turns
-- (until when one process delivers or reconciles), and others; see Store.SwapTime.
CREATE TABLE clerkinvite_limit (
    name          text COLLATE "C" NOT NULL,
    blocked_until timestamptz      NOT NULL,

    CONSTRAINT clerkinvite_limit_pkey PRIMARY KEY (name),
    CONSTRAINT clerkinvite_limit_name_check CHECK (octet_length(name) BETWEEN 1 AND 255)
);

-- Anyone who can write these tables can make members.
REVOKE ALL ON clerkinvite_member, clerkinvite_history, clerkinvite_limit FROM PUBLIC;
