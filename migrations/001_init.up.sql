-- Tables of github.com/clerkinvite/clerkinvite. PostgreSQL 14 or newer, no extensions.
--
-- Names are not qualified: the tables go to the first schema of the search_path.
-- Every unique key of member and history begins with tenant_id, so both can be declared
-- PARTITION BY HASH (tenant_id) without a change to a query.
-- Keys compare by bytes (COLLATE "C"): a new version of the system's locales cannot make
-- their indexes disagree with their rows.
-- There are no defaults and no triggers: every value is the library's, its clock included.

-- One row for one person in one tenant, from reservation to removal.
-- An optional column without a value is NULL, never an empty string.
CREATE TABLE clerkinvite_member (
    tenant_id       text COLLATE "C" NOT NULL,
    id              uuid             NOT NULL, -- version 7; public_metadata of the invitation at Clerk carries it
    email           text COLLATE "C" NOT NULL, -- normalised: lower case, the domain in its ASCII form
    status          text COLLATE "C" NOT NULL,
    clerk_user_id   text COLLATE "C",          -- pending: 'pending_' and the invitation; active: the Clerk user; otherwise NULL
    invitation_id   text COLLATE "C",          -- the current or the last invitation at Clerk
    send            integer          NOT NULL, -- number of the invitation wanted; 1 is the first
    sent            integer          NOT NULL, -- number of the last one settled; sent < send, reserved or pending: due for delivery
    url             text,                      -- SECRET: whoever has it can accept. Only while pending, only if the host mails it itself
    role            text,
    invited_by      text,
    data            jsonb,                     -- the host's own
    params          json,                      -- what goes to Clerk with the invitation; json, because it is kept byte for byte
    version         bigint           NOT NULL, -- grows by one with every change
    attempts        integer          NOT NULL, -- attempts at delivering this send
    claimed_until   timestamptz,               -- until then one attempt owns the row
    next_attempt_at timestamptz,               -- when delivery is due; NULL when nothing is due
    reason          text,                      -- why the row is in its state
    reserved_at     timestamptz      NOT NULL, -- when the row was written for this send
    invited_at      timestamptz,               -- created_at of the invitation, Clerk's clock
    expires_at      timestamptz,               -- expires_at of the invitation, Clerk's clock
    settled_at      timestamptz,               -- when the row last left reserved
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
    -- A row that is due says when, or no delivery would ever find it.
    CONSTRAINT clerkinvite_member_due_check CHECK (
        CASE status
            WHEN 'reserved' THEN sent < send AND next_attempt_at IS NOT NULL
            WHEN 'pending'  THEN sent = send OR next_attempt_at IS NOT NULL
            ELSE true
        END),
    CONSTRAINT clerkinvite_member_url_check CHECK (url IS NULL OR (status = 'pending' AND octet_length(url) BETWEEN 1 AND 16384)),
    CONSTRAINT clerkinvite_member_text_check CHECK (
        octet_length(role) BETWEEN 1 AND 1024 AND octet_length(invited_by) BETWEEN 1 AND 1024 AND octet_length(reason) BETWEEN 1 AND 1024),
    CONSTRAINT clerkinvite_member_version_check CHECK (version >= 1)
);

-- Three of the indexes below say IS NOT NULL of a column that never is. Only a query that compares the column can use the
-- index: so each look-up, page and foreign key has one index to go by, also as long as the table is so small, or its
-- statistics know of so few tenants, that PostgreSQL takes the tenant alone for as good. A connection keeps such a plan.

-- One row for one address in one tenant, however many invite it at once.
CREATE UNIQUE INDEX clerkinvite_member_email_key ON clerkinvite_member (tenant_id, email) WHERE email IS NOT NULL;
-- A user is in a tenant once. (A pending id is in here too: one invitation belongs to one row.)
CREATE UNIQUE INDEX clerkinvite_member_user_key ON clerkinvite_member (tenant_id, clerk_user_id) WHERE clerk_user_id IS NOT NULL;

-- Webhooks: who waits for this address, in any tenant?
CREATE INDEX clerkinvite_member_waiting_idx ON clerkinvite_member (email) WHERE status IN ('reserved', 'pending', 'expired');
-- Webhooks: who is active as this user, in any tenant?
CREATE INDEX clerkinvite_member_active_idx ON clerkinvite_member (clerk_user_id) WHERE status = 'active';
-- Whose row does this invitation's metadata name?
CREATE INDEX clerkinvite_member_id_idx ON clerkinvite_member (id) WHERE id IS NOT NULL;
-- A page of a tenant: who is in this state? (A page without a state is the primary key's.)
CREATE INDEX clerkinvite_member_status_idx ON clerkinvite_member (tenant_id, status, id) WHERE status IS NOT NULL;
-- Delivery: what is due?
CREATE INDEX clerkinvite_member_due_idx ON clerkinvite_member (next_attempt_at) WHERE sent < send AND status IN ('reserved', 'pending');
-- Reconcile: what has run out?
CREATE INDEX clerkinvite_member_expiring_idx ON clerkinvite_member (expires_at) WHERE status = 'pending';

-- One row for each move of a member, written by the statement that makes the move.
-- It holds no address. It goes with its member.
CREATE TABLE clerkinvite_history (
    tenant_id     text COLLATE "C" NOT NULL,
    member_id     uuid             NOT NULL,
    version       bigint           NOT NULL, -- the member's, after the move
    from_status   text COLLATE "C",          -- NULL: the member is new
    to_status     text COLLATE "C" NOT NULL,
    send          integer          NOT NULL,
    sent          integer          NOT NULL,
    clerk_user_id text COLLATE "C",
    invitation_id text COLLATE "C",
    reason        text,
    at            timestamptz      NOT NULL,

    CONSTRAINT clerkinvite_history_pkey PRIMARY KEY (tenant_id, member_id, version),
    CONSTRAINT clerkinvite_history_member_fkey FOREIGN KEY (tenant_id, member_id)
        REFERENCES clerkinvite_member (tenant_id, id) ON DELETE CASCADE
);

-- Rate limits (until when Clerk refuses an endpoint) and turns (until when one process has
-- an endpoint or Reconcile to itself), by name.
CREATE TABLE clerkinvite_limit (
    name          text COLLATE "C" NOT NULL,
    blocked_until timestamptz      NOT NULL,

    CONSTRAINT clerkinvite_limit_pkey PRIMARY KEY (name),
    CONSTRAINT clerkinvite_limit_name_check CHECK (octet_length(name) BETWEEN 1 AND 255)
);
