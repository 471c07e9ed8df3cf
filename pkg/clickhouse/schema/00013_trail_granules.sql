-- Smaller granules of the trail, so that a session is read back at less than half the cost: of a
-- granule all payloads are read, and a session has a few of them. (DECISIONS.md 41)
--
-- What is there is copied, which takes about a minute for ten million events and needs their size
-- again on disk meanwhile. Run again after it was cut off, it copies again: rows replace themselves.

-- +goose Up
CREATE TABLE IF NOT EXISTS events_log_new AS events_log
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (project_id, session_id, event_id)
TTL expires_on
SETTINGS
    index_granularity = 64,
    -- A past month becomes one part, on which FINAL costs nothing. Up to 150 GB.
    min_age_to_force_merge_seconds = 86400,
    min_age_to_force_merge_on_partition_only = 1
COMMENT 'Every event, one row or more per event. Read the view events instead.';

ALTER TABLE events_log_new MODIFY COLUMN payload MODIFY SETTING min_compress_block_size = 16384;

INSERT INTO events_log_new SELECT * FROM events_log
SETTINGS max_partitions_per_insert_block = 0, min_insert_block_size_bytes = 67108864;

EXCHANGE TABLES events_log_new AND events_log;

DROP TABLE events_log_new SYNC;

CREATE TABLE IF NOT EXISTS signals_log_new AS signals_log
ENGINE = ReplacingMergeTree(revision)
-- No partitions: a late event can move each of its times, and two revisions in two partitions
-- would both be shown (DECISIONS.md 8).
ORDER BY (project_id, session_id, signal_id)
TTL expires_on
SETTINGS index_granularity = 64
COMMENT 'Every revision of every signal. Read the view signals instead.';

ALTER TABLE signals_log_new MODIFY COLUMN payload MODIFY SETTING min_compress_block_size = 16384;

INSERT INTO signals_log_new SELECT * FROM signals_log
SETTINGS min_insert_block_size_bytes = 67108864;

EXCHANGE TABLES signals_log_new AND signals_log;

DROP TABLE signals_log_new SYNC;
