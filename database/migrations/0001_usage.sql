-- Usage. Times are microseconds since 1970 in UTC, money is billionths of a US dollar.

-- One row for each finished request.
CREATE TABLE usage_rows (
    request_id         TEXT PRIMARY KEY NOT NULL,
    began_at           BIGINT NOT NULL, -- when the request came; the day and budget window in which it counts
    team               TEXT NOT NULL,
    key_name           TEXT NOT NULL,
    model              TEXT NOT NULL,   -- as the client asked for it
    label              TEXT NOT NULL,   -- the bounded name under which it is reported
    upstream           TEXT NOT NULL,
    operation          TEXT NOT NULL,
    class              TEXT NOT NULL,
    status             BIGINT NOT NULL,
    outcome            TEXT NOT NULL,
    attempts           BIGINT NOT NULL,
    stream             BIGINT NOT NULL, -- 1 or 0
    queue_us           BIGINT NOT NULL,
    ttft_us            BIGINT NOT NULL,
    duration_us        BIGINT NOT NULL,
    input_tokens       BIGINT NOT NULL,
    output_tokens      BIGINT NOT NULL,
    cached_tokens      BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    reasoning_tokens   BIGINT NOT NULL,
    source             TEXT NOT NULL,   -- provider, estimated, or empty without tokens
    cost_nano          BIGINT NOT NULL,
    unpriced           BIGINT NOT NULL  -- 1 when no price was known for what was used
);
CREATE INDEX usage_rows_began_at ON usage_rows (began_at);

-- Their sums by day, written in the same transaction. Budgets and reports read
-- these; they outlive the rows.
CREATE TABLE usage_days (
    day                BIGINT NOT NULL, -- days since 1970-01-01
    team               TEXT NOT NULL,
    key_name           TEXT NOT NULL,
    label              TEXT NOT NULL,
    upstream           TEXT NOT NULL,
    requests           BIGINT NOT NULL,
    failed             BIGINT NOT NULL, -- of these, the ones whose outcome was not ok
    input_tokens       BIGINT NOT NULL,
    output_tokens      BIGINT NOT NULL,
    cached_tokens      BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    reasoning_tokens   BIGINT NOT NULL,
    cost_nano          BIGINT NOT NULL,
    unpriced           BIGINT NOT NULL, -- requests without a price
    PRIMARY KEY (day, team, key_name, label, upstream)
);
