-- What placeholders stand for, encrypted, for projects that keep it.

-- +goose Up
CREATE TABLE IF NOT EXISTS originals_log (
    project_id  LowCardinality(String) COMMENT 'Project that owns it.',
    session_id  String COMMENT 'Conversation that the placeholder belongs to.',
    placeholder String COMMENT 'As it stands in the texts of the session.',
    original_id String COMMENT 'Tells originals under one placeholder apart: the nonce, in hex.',
    type        LowCardinality(String) COMMENT 'Type of personal data, such as email.',
    key_id      LowCardinality(String) COMMENT 'Names the key that it is encrypted with; derived from the key.',
    ciphertext  String COMMENT 'Nonce (12 bytes), ciphertext and tag of AES-256-GCM.' CODEC(NONE),
    occurred_at DateTime64(3, 'UTC') COMMENT 'When it was said last.',
    expires_on  Date DEFAULT '2149-06-06' COMMENT 'Day on which retention deletes the row; 2149-06-06 where nothing does.'
)
ENGINE = ReplacingMergeTree(occurred_at)
-- No partitions: one original may be said in several months, and is one row.
ORDER BY (project_id, session_id, placeholder, original_id)
TTL expires_on
SETTINGS index_granularity = 1024
COMMENT 'What placeholders stand for, encrypted. Read it with hone originals.';

CREATE VIEW IF NOT EXISTS originals (
    project_id  LowCardinality(String) COMMENT 'Project that owns it.',
    session_id  String COMMENT 'Conversation that the placeholder belongs to.',
    placeholder String COMMENT 'As it stands in the texts of the session.',
    original_id String COMMENT 'Tells originals under one placeholder apart.',
    type        LowCardinality(String) COMMENT 'Type of personal data, such as email.',
    key_id      LowCardinality(String) COMMENT 'Names the key that it is encrypted with.',
    occurred_at DateTime64(3, 'UTC') COMMENT 'When it was said last.',
    expires_on  Date COMMENT 'Day on which retention deletes it; 2149-06-06 where nothing does.'
) AS SELECT project_id, session_id, placeholder, original_id, type, key_id, occurred_at, expires_on
FROM originals_log FINAL
COMMENT 'Which originals are kept, and until when. They are encrypted; hone originals reads them.';
