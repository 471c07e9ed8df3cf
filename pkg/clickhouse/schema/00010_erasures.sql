-- Who was erased, without saying who.

-- +goose Up
CREATE TABLE IF NOT EXISTS erased_subjects_log (
    project_id  LowCardinality(String) COMMENT 'Project of the erased user or session.',
    subject     String COMMENT 'A keyed hash of the user or session. Events of it are refused.',
    erasure_id  String COMMENT 'Erasure that it belongs to.',
    created_at  DateTime64(3, 'UTC') COMMENT 'When it was written.'
)
ENGINE = ReplacingMergeTree
ORDER BY (project_id, subject, erasure_id)
COMMENT 'Whose events are refused.';

CREATE TABLE IF NOT EXISTS erasures_log (
    project_id   LowCardinality(String) COMMENT 'Project of the erased user or session.',
    erasure_id   String COMMENT 'Derived from the keyed hash of the subject.',
    revision     UInt64 COMMENT 'Decides between rows of one erasure.',
    kind         LowCardinality(String) COMMENT 'user or session.',
    state        LowCardinality(String) COMMENT 'running, or done: read back, and nothing was there.',
    subject      String COMMENT 'The id that is erased, while it runs; empty once it is done.',
    requested_at DateTime64(3, 'UTC') COMMENT 'When it was asked for.',
    finished_at  Nullable(DateTime64(3, 'UTC')) COMMENT 'When it was done; NULL while it runs.',
    removed      Map(LowCardinality(String), UInt64) COMMENT 'Rows that were removed, by place.',
    payload      String COMMENT 'The protobuf message hone.erasure.v1.Erasure.'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (project_id, erasure_id)
COMMENT 'Every revision of every receipt. Read the view erasures instead.';

CREATE VIEW IF NOT EXISTS erasures (
    project_id   LowCardinality(String) COMMENT 'Project of the erased user or session.',
    erasure_id   String COMMENT 'Derived from the keyed hash of the subject.',
    kind         LowCardinality(String) COMMENT 'user or session.',
    state        LowCardinality(String) COMMENT 'running, or done: read back, and nothing was there.',
    requested_at DateTime64(3, 'UTC') COMMENT 'When it was asked for.',
    finished_at  Nullable(DateTime64(3, 'UTC')) COMMENT 'When it was done; NULL while it runs.',
    removed      Map(LowCardinality(String), UInt64) COMMENT 'Rows that were removed, by place.'
) AS SELECT project_id, erasure_id, kind, state, requested_at, finished_at, removed
FROM erasures_log FINAL
COMMENT 'The receipts of erasures, each once.';
