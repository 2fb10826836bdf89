-- Tables of github.com/clerkinvite/clerkinvite/sqlitestore: those of its PostgreSQL store, as SQLite writes them.
--
-- Times are whole microseconds since 1970-01-01 UTC. Texts are UTF-8 and compare by bytes. An optional
-- column without a value is NULL, never an empty string. There are no defaults and no triggers: every value is
-- the library's, its clock included.

-- One row for one person in one tenant, from reservation to removal.
CREATE TABLE clerkinvite_member (
    tenant_id       TEXT    NOT NULL,
    id              TEXT    NOT NULL, -- UUID version 7 in lower case; public_metadata of the invitation at Clerk carries it
    email           TEXT    NOT NULL, -- normalised: lower case, the domain in its ASCII form
    status          TEXT    NOT NULL,
    clerk_user_id   TEXT,             -- pending: 'pending_' and the invitation; active: the Clerk user; otherwise NULL
    invitation_id   TEXT,             -- the current or the last invitation at Clerk
    send            INTEGER NOT NULL, -- number of the invitation wanted; 1 is the first
    sent            INTEGER NOT NULL, -- number of the last one settled; sent < send, reserved or pending: due for delivery
    url             TEXT,             -- SECRET: whoever has it can accept. Only while pending, only if the host mails it itself
    role            TEXT,
    invited_by      TEXT,
    data            TEXT,             -- the host's own; JSON
    params          TEXT,             -- what goes to Clerk with the invitation; JSON
    version         INTEGER NOT NULL, -- grows by one with every change
    attempts        INTEGER NOT NULL, -- attempts at delivering this send
    claimed_until   INTEGER,          -- until then one attempt owns the row
    next_attempt_at INTEGER,          -- when delivery is due; NULL when nothing is due
    reason          TEXT,             -- why the row is in its state
    reserved_at     INTEGER NOT NULL, -- when the row was written for this send
    invited_at      INTEGER,          -- created_at of the invitation, Clerk's clock
    expires_at      INTEGER,          -- expires_at of the invitation, Clerk's clock
    settled_at      INTEGER,          -- when the row last left reserved
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
    CONSTRAINT clerkinvite_member_json_check CHECK ((data IS NULL OR json_valid(data)) AND (params IS NULL OR json_valid(params))),
    CONSTRAINT clerkinvite_member_version_check CHECK (version >= 1)
) STRICT;

-- One row for one address in one tenant, however many invite it at once.
CREATE UNIQUE INDEX clerkinvite_member_email_key ON clerkinvite_member (tenant_id, email);
-- A user is in a tenant once. (A pending id is in here too: one invitation belongs to one row.)
CREATE UNIQUE INDEX clerkinvite_member_user_key ON clerkinvite_member (tenant_id, clerk_user_id) WHERE clerk_user_id IS NOT NULL;

-- Webhooks: who waits for this address, in any tenant?
CREATE INDEX clerkinvite_member_waiting_idx ON clerkinvite_member (email) WHERE status IN ('reserved', 'pending', 'expired');
-- Webhooks: who is active as this user, in any tenant?
CREATE INDEX clerkinvite_member_active_idx ON clerkinvite_member (clerk_user_id) WHERE status = 'active';
-- Whose row does this invitation's metadata name?
CREATE INDEX clerkinvite_member_id_idx ON clerkinvite_member (id);
-- A page of a tenant: who is in this state? (A page without a state is the primary key's.)
CREATE INDEX clerkinvite_member_status_idx ON clerkinvite_member (tenant_id, status, id);
-- Delivery: what is due?
CREATE INDEX clerkinvite_member_due_idx ON clerkinvite_member (next_attempt_at) WHERE sent < send AND status IN ('reserved', 'pending');
-- Health: what has run out?
CREATE INDEX clerkinvite_member_expiring_idx ON clerkinvite_member (expires_at) WHERE status = 'pending';

-- One row for each move of a member, written in the transaction that makes the move.
-- It holds no address. It goes with its member.
CREATE TABLE clerkinvite_history (
    tenant_id     TEXT    NOT NULL,
    member_id     TEXT    NOT NULL,
    version       INTEGER NOT NULL, -- the member's, after the move
    from_status   TEXT,             -- NULL: the member is new
    to_status     TEXT    NOT NULL,
    send          INTEGER NOT NULL,
    sent          INTEGER NOT NULL,
    clerk_user_id TEXT,
    invitation_id TEXT,
    reason        TEXT,
    at            INTEGER NOT NULL,

    CONSTRAINT clerkinvite_history_pkey PRIMARY KEY (tenant_id, member_id, version),
    CONSTRAINT clerkinvite_history_member_fkey FOREIGN KEY (tenant_id, member_id)
        REFERENCES clerkinvite_member (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Rate limits (until when Clerk refuses an endpoint) and turns (until when one process has an endpoint or Reconcile to
-- itself), by name.
CREATE TABLE clerkinvite_limit (
    name          TEXT    NOT NULL,
    blocked_until INTEGER NOT NULL,

    CONSTRAINT clerkinvite_limit_pkey PRIMARY KEY (name),
    CONSTRAINT clerkinvite_limit_name_check CHECK (octet_length(name) BETWEEN 1 AND 255)
) STRICT, WITHOUT ROWID;
