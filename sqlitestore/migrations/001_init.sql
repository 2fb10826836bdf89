-- Tables of github.com/clerkinvite/clerkinvite/sqlitestore: those of the PostgreSQL store, for SQLite.
--
-- Times are whole microseconds since 1970-01-01 UTC. Texts are UTF-8 and compare by bytes. An optional
-- column without a value is NULL, never an empty string. There are no defaults and no triggers: the library
-- writes every value, with its own clock.

-- One row per person and tenant, from reservation to removal.
CREATE TABLE clerkinvite_member (
    tenant_id       TEXT    NOT NULL,
    id              TEXT    NOT NULL, -- UUID version 7 in lower case; public_metadata of the invitation at Clerk carries it
    email           TEXT    NOT NULL, -- normalised: lower case, the domain in its ASCII form
    status          TEXT    NOT NULL,
    clerk_user_id   TEXT,             -- pending: 'pending_' and the invitation; active: the Clerk user; otherwise NULL
    invitation_id   TEXT,             -- the current or the last invitation at Clerk
    send            INTEGER NOT NULL, -- number of the requested invitation; 1 is the first
    sent            INTEGER NOT NULL, -- number of the last completed one; a reserved or pending row with sent < send is due for delivery
    bulk            INTEGER NOT NULL, -- 1: this send was requested for many people; it is delivered after the others
    url             TEXT,             -- SECRET: anyone who has it can accept the invitation. Only while pending, only if the host mails it itself
    role            TEXT,
    invited_by      TEXT,
    changed_by      TEXT,             -- who made the last change in the history; NULL: the library
    data            TEXT,             -- for the host; JSON
    params          TEXT,             -- parameters of the invitation; JSON
    version         INTEGER NOT NULL, -- increases by one with every change
    attempts        INTEGER NOT NULL, -- attempts to deliver this send
    claimed_until   INTEGER,          -- until then one delivery attempt owns the row
    next_attempt_at INTEGER,          -- when the invitation is to be delivered; NULL if there is none
    reason          TEXT,             -- why the row is in its state
    reserved_at     INTEGER NOT NULL, -- when this send was requested
    invited_at      INTEGER,          -- created_at of the invitation, by Clerk's clock
    expires_at      INTEGER,          -- expires_at of the invitation, by Clerk's clock
    settled_at      INTEGER,          -- when an invitation was last completed or ended
    updated_at      INTEGER NOT NULL,

    CONSTRAINT clerkinvite_member_pkey PRIMARY KEY (tenant_id, id),

    CONSTRAINT clerkinvite_member_tenant_id_check CHECK (octet_length(tenant_id) BETWEEN 1 AND 255),
    CONSTRAINT clerkinvite_member_id_check CHECK (
        octet_length(id) = 36 AND id GLOB '????????-????-????-????-????????????'
        AND octet_length(replace(id, '-', '')) = 32 AND replace(id, '-', '') NOT GLOB '*[^0-9a-f]*'),
    CONSTRAINT clerkinvite_member_email_check CHECK (octet_length(email) <= 254 AND email GLOB '?*@?*' AND email = lower(email)),
    CONSTRAINT clerkinvite_member_status_check CHECK (status IN ('reserved', 'pending', 'active', 'failed', 'revoked', 'expired', 'removed')),
    -- IS NOT NULL comes first in each branch because a CHECK lets NULL pass.
    CONSTRAINT clerkinvite_member_clerk_user_id_check CHECK (
        CASE status
            WHEN 'pending' THEN invitation_id IS NOT NULL AND clerk_user_id IS NOT NULL AND clerk_user_id = 'pending_' || invitation_id
            WHEN 'active'  THEN clerk_user_id IS NOT NULL AND substr(clerk_user_id, 1, 8) <> 'pending_' AND octet_length(clerk_user_id) BETWEEN 1 AND 255
            ELSE clerk_user_id IS NULL
        END),
    CONSTRAINT clerkinvite_member_invitation_id_check CHECK (octet_length(invitation_id) BETWEEN 1 AND 247),
    CONSTRAINT clerkinvite_member_send_check CHECK (send >= 1 AND sent BETWEEN 0 AND send AND attempts >= 0 AND bulk IN (0, 1)),
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
    CONSTRAINT clerkinvite_member_json_check CHECK ((data IS NULL OR json_valid(data)) AND (params IS NULL OR json_valid(params))),
    CONSTRAINT clerkinvite_member_version_check CHECK (version >= 1)
) STRICT;

-- One row per address in a tenant, no matter how many callers invite it at the same time.
CREATE UNIQUE INDEX clerkinvite_member_email_key ON clerkinvite_member (tenant_id, email);
-- One row per user in a tenant. (Pending IDs are included: an invitation belongs to one row.)
CREATE UNIQUE INDEX clerkinvite_member_user_key ON clerkinvite_member (tenant_id, clerk_user_id) WHERE clerk_user_id IS NOT NULL;

-- Webhooks: members of any tenant that wait for an address.
CREATE INDEX clerkinvite_member_waiting_idx ON clerkinvite_member (email) WHERE status IN ('reserved', 'pending', 'expired');
-- Webhooks: active members of any tenant with a Clerk user.
CREATE INDEX clerkinvite_member_active_idx ON clerkinvite_member (clerk_user_id) WHERE status = 'active';
-- The member that the metadata of an invitation names.
CREATE INDEX clerkinvite_member_id_idx ON clerkinvite_member (id);
-- Pages of a tenant by state. (Pages without a state use the primary key.)
CREATE INDEX clerkinvite_member_status_idx ON clerkinvite_member (tenant_id, status, id);
-- Delivery: due members, and the tenants that have any.
CREATE INDEX clerkinvite_member_due_idx ON clerkinvite_member (next_attempt_at) WHERE sent < send AND status IN ('reserved', 'pending');
CREATE INDEX clerkinvite_member_turns_idx ON clerkinvite_member (bulk, tenant_id, next_attempt_at, id) WHERE sent < send AND status IN ('reserved', 'pending');
-- Backlog: members whose invitation has expired.
CREATE INDEX clerkinvite_member_expiring_idx ON clerkinvite_member (expires_at) WHERE status = 'pending';

-- One row per change of a member's state, invitation, user, role or address, written in the transaction
-- that makes the change. It contains no address. It is deleted with its member.
CREATE TABLE clerkinvite_history (
    tenant_id     TEXT    NOT NULL,
    member_id     TEXT    NOT NULL,
    version       INTEGER NOT NULL, -- of the member, after the change
    from_status   TEXT,             -- NULL: the member is new
    to_status     TEXT    NOT NULL,
    send          INTEGER NOT NULL,
    sent          INTEGER NOT NULL,
    clerk_user_id TEXT,
    invitation_id TEXT,
    role          TEXT,             -- after the change
    reason        TEXT,
    actor         TEXT,             -- who made the change; NULL: the library
    at            INTEGER NOT NULL,

    CONSTRAINT clerkinvite_history_pkey PRIMARY KEY (tenant_id, member_id, version),
    CONSTRAINT clerkinvite_history_member_fkey FOREIGN KEY (tenant_id, member_id)
        REFERENCES clerkinvite_member (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Times that all processes share, by name: rate limits (until when Clerk refuses an endpoint), turns
-- (until when one process delivers or reconciles), and others; see Store.SwapTime.
CREATE TABLE clerkinvite_limit (
    name          TEXT    NOT NULL,
    blocked_until INTEGER NOT NULL,

    CONSTRAINT clerkinvite_limit_pkey PRIMARY KEY (name),
    CONSTRAINT clerkinvite_limit_name_check CHECK (octet_length(name) BETWEEN 1 AND 255)
) STRICT, WITHOUT ROWID;
