-- Teams and keys that are made while the gateway runs. Settings are JSON, with the
-- keys that the configuration file has under teams. Times are microseconds since
-- 1970 in UTC.

CREATE TABLE teams (
    name       TEXT PRIMARY KEY NOT NULL,
    settings   TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE client_keys (
    id         TEXT PRIMARY KEY NOT NULL,
    team       TEXT NOT NULL, -- may be one of the configuration file
    name       TEXT NOT NULL,
    settings   TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revoked_at BIGINT         -- NULL unless it is
);
CREATE UNIQUE INDEX client_keys_name ON client_keys (team, name) WHERE revoked_at IS NULL;
CREATE INDEX client_keys_revoked_at ON client_keys (revoked_at);

-- What a key is recognised by. The secrets themselves are kept nowhere.
CREATE TABLE client_key_hashes (
    hash       TEXT PRIMARY KEY NOT NULL, -- SHA-256 of the whole secret, in hexadecimal digits
    key_id     TEXT NOT NULL REFERENCES client_keys (id),
    expires_at BIGINT                     -- end of the grace period after a rotation; NULL for none
);
CREATE INDEX client_key_hashes_key_id ON client_key_hashes (key_id);

-- One row, counted up by every change, so that gateways notice it cheaply.
CREATE TABLE teams_version (
    one     BIGINT PRIMARY KEY NOT NULL CHECK (one = 1),
    version BIGINT NOT NULL
);
INSERT INTO teams_version (one, version) VALUES (1, 0);
