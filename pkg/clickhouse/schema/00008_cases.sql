-- What people and the periodic pass say about cases.

-- +goose Up
ALTER TABLE cases_log
    COMMENT COLUMN title 'What people called it, or its most typical query, shortened.',
    COMMENT COLUMN state 'new, triaged, in_progress, solved, muted, regressed (solved, and complained about since), withdrawn (all its signals were) or merged.',
    ADD COLUMN IF NOT EXISTS summary String COMMENT 'What its most typical members say; empty while it is small.' CODEC(ZSTD) AFTER title,
    ADD COLUMN IF NOT EXISTS assignee String COMMENT 'Who works on it; may be empty.' AFTER state,
    ADD COLUMN IF NOT EXISTS merged_into String COMMENT 'Case that its signals went to; empty if it stands for itself.' AFTER assignee,
    ADD COLUMN IF NOT EXISTS trend LowCardinality(String) COMMENT 'Negative signals in the week up to last_seen against the week before: rising, steady or falling.' AFTER sessions;

CREATE OR REPLACE VIEW cases (
    project_id          LowCardinality(String) COMMENT 'Project that owns the case.',
    case_id             String COMMENT 'Derived from the signal that founded it.',
    title               String COMMENT 'What people called it, or its most typical query, shortened.',
    summary             String COMMENT 'What its most typical members say; empty while it is small.',
    state               LowCardinality(String) COMMENT 'new, triaged, in_progress, solved, muted or regressed (solved, and complained about since).',
    assignee            String COMMENT 'Who works on it; may be empty.',
    severity            LowCardinality(String) COMMENT 'Highest severity among its signals: low, medium, high or critical.',
    category            LowCardinality(String) COMMENT 'Most frequent category; empty if none was given.',
    categories          Map(LowCardinality(String), UInt32) COMMENT 'Signals per category.',
    model_versions      Map(LowCardinality(String), UInt32) COMMENT 'Signals per version of the model.',
    negatives           UInt32 COMMENT 'Negative signals in it.',
    positives           UInt32 COMMENT 'Positive signals in it.',
    users               UInt32 COMMENT 'Distinct users among its signals.',
    sessions            UInt32 COMMENT 'Distinct sessions among its signals.',
    trend               LowCardinality(String) COMMENT 'Negative signals in the week up to last_seen against the week before: rising, steady or falling.',
    complaints          Array(String) COMMENT 'What people said went wrong, newest first, at most five.',
    examples            Array(String) COMMENT 'Queries of its members, at most five.',
    has_approved_answer Bool COMMENT 'A reviewer approved an answer.',
    approved_answer     String COMMENT 'The answer that a reviewer approved; may be empty.',
    clarification       String COMMENT 'What the assistant should have understood; may be empty.',
    approved_by         String COMMENT 'Who approved it; may be empty.',
    approved_at         Nullable(DateTime64(3, 'UTC')) COMMENT 'When it was approved; NULL if it was not.',
    review_id           String COMMENT 'Review that the answer came from; may be empty.',
    first_seen          DateTime64(3, 'UTC') COMMENT 'Time of its earliest signal.',
    last_seen           DateTime64(3, 'UTC') COMMENT 'Time of its latest signal.'
) AS SELECT
    project_id, case_id, title, summary, state, assignee, severity, category, categories, model_versions, negatives,
    positives, users, sessions, trend, complaints, examples, has_approved_answer, approved_answer,
    clarification, approved_by, approved_at, review_id, first_seen, last_seen
FROM cases_log FINAL
-- All its signals were withdrawn, or went to another case.
WHERE state NOT IN ('withdrawn', 'merged')
COMMENT 'Known problems as they stand, one row each.';

CREATE VIEW IF NOT EXISTS merged_cases (
    project_id  LowCardinality(String) COMMENT 'Project that owns the case.',
    case_id     String COMMENT 'Case that is no more; decisions from before still name it.',
    merged_into String COMMENT 'Case that its signals went to; may itself be merged.'
) AS SELECT project_id, case_id, merged_into
FROM cases_log FINAL
WHERE state = 'merged'
COMMENT 'Cases whose signals went to another one, one row each.';
