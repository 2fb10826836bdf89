-- The application's table of admins: an ID, an address and a Clerk user ID, each unique per
-- tenant, and the other fields of a member. COLLATE "C" compares by bytes, as the contract of
-- a Store requires. An empty text means none.
CREATE TABLE admin_user (
    tenant_id       text COLLATE "C" NOT NULL,
    id              text COLLATE "C" NOT NULL,
    email           text COLLATE "C" NOT NULL,
    clerk_user_id   text COLLATE "C" NOT NULL, -- 'pending_…' until the person accepts; '' if there is neither
    created_at      timestamptz      NOT NULL DEFAULT now(), -- for the host; the Store does not use it

    status          text             NOT NULL,
    invitation_id   text             NOT NULL,
    url             text             NOT NULL, -- secret
    role            text             NOT NULL,
    invited_by      text             NOT NULL,
    changed_by      text             NOT NULL,
    data            json,
    params          text,                      -- JSON, stored byte for byte
    send            integer          NOT NULL,
    sent            integer          NOT NULL,
    bulk            boolean          NOT NULL,
    attempts        integer          NOT NULL,
    reason          text             NOT NULL,
    version         bigint           NOT NULL,
    reserved_at     timestamptz      NOT NULL,
    invited_at      timestamptz,
    expires_at      timestamptz,
    settled_at      timestamptz,
    claimed_until   timestamptz,
    next_attempt_at timestamptz,
    updated_at      timestamptz      NOT NULL,

    PRIMARY KEY (tenant_id, id),
    CONSTRAINT admin_user_email_key UNIQUE (tenant_id, email)
);
CREATE UNIQUE INDEX admin_user_clerk_user_id_key ON admin_user (tenant_id, clerk_user_id) WHERE clerk_user_id <> '';

-- Webhooks search all tenants by address and by user, the library searches by ID, and delivery
-- searches for due members.
CREATE INDEX admin_user_email_idx ON admin_user (email);
CREATE INDEX admin_user_clerk_user_id_idx ON admin_user (clerk_user_id);
CREATE INDEX admin_user_id_idx ON admin_user (id);
CREATE INDEX admin_user_due_idx ON admin_user (next_attempt_at) WHERE sent < send AND status IN ('reserved', 'pending');

CREATE TABLE admin_user_history (
    tenant_id     text COLLATE "C" NOT NULL,
    member_id     text COLLATE "C" NOT NULL,
    version       bigint           NOT NULL,
    from_status   text             NOT NULL,
    to_status     text             NOT NULL,
    send          integer          NOT NULL,
    sent          integer          NOT NULL,
    clerk_user_id text             NOT NULL,
    invitation_id text             NOT NULL,
    role          text             NOT NULL,
    reason        text             NOT NULL,
    actor         text             NOT NULL,
    at            timestamptz      NOT NULL,

    PRIMARY KEY (tenant_id, member_id, version),
    FOREIGN KEY (tenant_id, member_id) REFERENCES admin_user (tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE admin_limit (
    name  text COLLATE "C" PRIMARY KEY,
    until timestamptz NOT NULL
);
