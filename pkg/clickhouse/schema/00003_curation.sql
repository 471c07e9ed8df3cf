-- What the curator keeps.
--
-- Base tables (*_log) hold revisions, the views hold the truth. None of these
-- tables is partitioned: they are small (one row for each routed signal, not
-- for each event), and no time of theirs is the same in every revision of an
-- id, so a partition key could put two revisions of one id where FINAL does
-- not bring them together.
--
-- version = 2 * signal revision + (1 where withdrawn): a later revision wins
-- over an earlier one, and a withdrawal wins over a route of the same revision.

-- +goose Up

CREATE TABLE IF NOT EXISTS reviews_log
(
    project_id         LowCardinality(String) COMMENT 'The project (tenant)',
    review_id          String COMMENT 'Derived from the signal, so that all its revisions are one item',
    revision           UInt32 COMMENT 'Revision of the signal',
    signal_id          String COMMENT 'The signal that it came from',
    session_id         String COMMENT 'The session of the signal',
    interaction_id     String COMMENT 'The interaction that the signal is about',
    user_id            String COMMENT 'The user whose feedback it is',
    case_id            String COMMENT 'The case of the signal; empty where it has none',
    decision_id        String COMMENT 'The decision that routed it',
    reason             String COMMENT 'Why it was routed, in the words of the rule',
    kind               LowCardinality(String) COMMENT 'Type of the signal: explicit, preference, or the name of an implicit one',
    polarity           LowCardinality(String) COMMENT 'positive, negative or neutral',
    category           LowCardinality(String) COMMENT 'Main category of the feedback; empty where none was given',
    severity           LowCardinality(String) COMMENT 'low, medium, high or critical',
    user_role          LowCardinality(String) COMMENT 'Role of the user',
    environment        LowCardinality(String) COMMENT 'Environment, such as production',
    model              LowCardinality(String) COMMENT 'Model that answered',
    model_version      LowCardinality(String) COMMENT 'Version of the model',
    prompt_version     LowCardinality(String) COMMENT 'Version of the prompt',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Start of the session',
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal',
    case_title         String COMMENT 'Title of the case when it was routed',
    created_at         DateTime64(3, 'UTC') COMMENT 'When this revision was routed to review',
    payload            String COMMENT 'hone.curation.v1.Review as protobuf' CODEC(ZSTD)
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (project_id, review_id)
SETTINGS index_granularity = 256
COMMENT 'Items for human review, every revision';

CREATE TABLE IF NOT EXISTS review_withdrawals_log
(
    project_id   LowCardinality(String) COMMENT 'The project (tenant)',
    review_id    String COMMENT 'The item',
    revision     UInt32 COMMENT 'Revision of the signal that withdrew it',
    reason       String COMMENT 'Why',
    withdrawn_at DateTime64(3, 'UTC') COMMENT 'When'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (project_id, review_id)
SETTINGS index_granularity = 256
COMMENT 'Items that a later revision of the signal took out of review';

CREATE TABLE IF NOT EXISTS review_decisions_log
(
    project_id    LowCardinality(String) COMMENT 'The project (tenant)',
    review_id     String COMMENT 'The item',
    priority      UInt64 COMMENT '2^64 - 1 - offset in hone.curation: the first decision in the log wins',
    curation_id   String COMMENT 'The record on hone.curation',
    signal_id     String COMMENT 'The signal that was reviewed',
    case_id       String COMMENT 'Its case',
    verdict       LowCardinality(String) COMMENT 'approve, correct or dismiss',
    answer        String COMMENT 'The right answer',
    clarification String COMMENT 'What the assistant should have understood',
    note          String COMMENT 'What the reviewer noted',
    reviewer      String COMMENT 'Who decided',
    decided_at    DateTime64(3, 'UTC') COMMENT 'When',
    payload       String COMMENT 'hone.curation.v1.ReviewDecided as protobuf' CODEC(ZSTD)
)
ENGINE = ReplacingMergeTree(priority)
ORDER BY (project_id, review_id)
SETTINGS index_granularity = 256
COMMENT 'Decisions of reviewers as they stand in hone.curation';

CREATE TABLE IF NOT EXISTS dataset_rows_log
(
    project_id         LowCardinality(String) COMMENT 'The project (tenant)',
    row_id             String COMMENT 'Derived from the signal, or from the review',
    version            UInt64 COMMENT 'As of signals for user sources; 2^64 - 1 - offset in hone.curation for reviews',
    withdrawn          Bool COMMENT 'The signal no longer calls for it',
    signal_id          String COMMENT 'The signal that it came from',
    session_id         String COMMENT 'The session of the signal',
    interaction_id     String COMMENT 'The interaction that the signal is about',
    user_id            String COMMENT 'The user whose feedback it is',
    case_id            String COMMENT 'The case of the signal; empty where it has none',
    decision_id        String COMMENT 'The decision that routed it',
    reason             String COMMENT 'Why it was routed, in the words of the rule',
    kind               LowCardinality(String) COMMENT 'Type of the signal: explicit, preference, or the name of an implicit one',
    polarity           LowCardinality(String) COMMENT 'positive, negative or neutral',
    category           LowCardinality(String) COMMENT 'Main category of the feedback; empty where none was given',
    severity           LowCardinality(String) COMMENT 'low, medium, high or critical',
    user_role          LowCardinality(String) COMMENT 'Role of the user',
    environment        LowCardinality(String) COMMENT 'Environment, such as production',
    model              LowCardinality(String) COMMENT 'Model that answered',
    model_version      LowCardinality(String) COMMENT 'Version of the model',
    prompt_version     LowCardinality(String) COMMENT 'Version of the prompt',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Start of the session',
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal',
    source             LowCardinality(String) COMMENT 'user-correction, user-edit, preference or review',
    review_id          String COMMENT 'The review that it came from; empty for other sources',
    system_context     String COMMENT 'System context of the interaction' CODEC(ZSTD),
    query              String COMMENT 'What the user asked' CODEC(ZSTD),
    chosen             String COMMENT 'The answer to learn' CODEC(ZSTD),
    rejected           String COMMENT 'The answer not to give; empty where there is none' CODEC(ZSTD),
    payload            String COMMENT 'hone.curation.v1.DatasetRow as protobuf' CODEC(ZSTD)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project_id, signal_id, row_id)
SETTINGS index_granularity = 256
COMMENT 'Examples for training, every revision';

CREATE TABLE IF NOT EXISTS patches_log
(
    project_id         LowCardinality(String) COMMENT 'The project (tenant)',
    patch_id           String COMMENT 'Derived from the signal',
    version            UInt64 COMMENT '2 * signal revision + (1 where withdrawn)',
    withdrawn          Bool COMMENT 'The signal no longer calls for it',
    signal_id          String COMMENT 'The signal that it came from',
    session_id         String COMMENT 'The session of the signal',
    interaction_id     String COMMENT 'The interaction that the signal is about',
    user_id            String COMMENT 'The user whose feedback it is',
    case_id            String COMMENT 'The case of the signal; empty where it has none',
    decision_id        String COMMENT 'The decision that routed it',
    reason             String COMMENT 'Why it was routed, in the words of the rule',
    kind               LowCardinality(String) COMMENT 'Type of the signal: explicit, preference, or the name of an implicit one',
    polarity           LowCardinality(String) COMMENT 'positive, negative or neutral',
    category           LowCardinality(String) COMMENT 'Main category of the feedback; empty where none was given',
    severity           LowCardinality(String) COMMENT 'low, medium, high or critical',
    user_role          LowCardinality(String) COMMENT 'Role of the user',
    environment        LowCardinality(String) COMMENT 'Environment, such as production',
    model              LowCardinality(String) COMMENT 'Model that answered',
    model_version      LowCardinality(String) COMMENT 'Version of the model',
    prompt_version     LowCardinality(String) COMMENT 'Version of the prompt',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Start of the session',
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal',
    state              LowCardinality(String) COMMENT 'candidate',
    text               String COMMENT 'The instruction' CODEC(ZSTD),
    created_at         DateTime64(3, 'UTC') COMMENT 'When this revision was routed',
    payload            String COMMENT 'hone.curation.v1.Patch as protobuf' CODEC(ZSTD)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project_id, patch_id)
SETTINGS index_granularity = 256
COMMENT 'Prompt patches, every revision';

CREATE TABLE IF NOT EXISTS product_issues_log
(
    project_id         LowCardinality(String) COMMENT 'The project (tenant)',
    issue_id           String COMMENT 'Derived from the signal',
    version            UInt64 COMMENT '2 * signal revision + (1 where withdrawn)',
    withdrawn          Bool COMMENT 'The signal no longer calls for it',
    signal_id          String COMMENT 'The signal that it came from',
    session_id         String COMMENT 'The session of the signal',
    interaction_id     String COMMENT 'The interaction that the signal is about',
    user_id            String COMMENT 'The user whose feedback it is',
    case_id            String COMMENT 'The case of the signal; empty where it has none',
    decision_id        String COMMENT 'The decision that routed it',
    reason             String COMMENT 'Why it was routed, in the words of the rule',
    kind               LowCardinality(String) COMMENT 'Type of the signal: explicit, preference, or the name of an implicit one',
    polarity           LowCardinality(String) COMMENT 'positive, negative or neutral',
    category           LowCardinality(String) COMMENT 'Main category of the feedback; empty where none was given',
    severity           LowCardinality(String) COMMENT 'low, medium, high or critical',
    user_role          LowCardinality(String) COMMENT 'Role of the user',
    environment        LowCardinality(String) COMMENT 'Environment, such as production',
    model              LowCardinality(String) COMMENT 'Model that answered',
    model_version      LowCardinality(String) COMMENT 'Version of the model',
    prompt_version     LowCardinality(String) COMMENT 'Version of the prompt',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Start of the session',
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal',
    title              String COMMENT 'Title of the case, or the query',
    query              String COMMENT 'What the user asked' CODEC(ZSTD),
    output             String COMMENT 'What the model answered' CODEC(ZSTD),
    comment            String COMMENT 'What the user said about it' CODEC(ZSTD),
    created_at         DateTime64(3, 'UTC') COMMENT 'When this revision was routed'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project_id, issue_id)
SETTINGS index_granularity = 256
COMMENT 'Feedback for the product team, every revision';

CREATE VIEW IF NOT EXISTS reviews
(
    project_id         LowCardinality(String) COMMENT 'The project (tenant)',
    review_id          String COMMENT 'Derived from the signal',
    state              LowCardinality(String) COMMENT 'open, approved, corrected, dismissed or withdrawn; a decision outlives a withdrawal',
    withdrawn          Bool COMMENT 'The signal no longer calls for review; so also after a decision',
    revision           UInt32 COMMENT 'Revision of the signal',
    signal_id          String COMMENT 'The signal that it came from',
    session_id         String COMMENT 'The session of the signal',
    interaction_id     String COMMENT 'The interaction that the signal is about',
    user_id            String COMMENT 'The user whose feedback it is',
    case_id            String COMMENT 'The case of the signal; empty where it has none',
    decision_id        String COMMENT 'The decision that routed it',
    reason             String COMMENT 'Why it was routed, in the words of the rule',
    kind               LowCardinality(String) COMMENT 'Type of the signal: explicit, preference, or the name of an implicit one',
    polarity           LowCardinality(String) COMMENT 'positive, negative or neutral',
    category           LowCardinality(String) COMMENT 'Main category of the feedback; empty where none was given',
    severity           LowCardinality(String) COMMENT 'low, medium, high or critical',
    user_role          LowCardinality(String) COMMENT 'Role of the user',
    environment        LowCardinality(String) COMMENT 'Environment, such as production',
    model              LowCardinality(String) COMMENT 'Model that answered',
    model_version      LowCardinality(String) COMMENT 'Version of the model',
    prompt_version     LowCardinality(String) COMMENT 'Version of the prompt',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Start of the session',
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal',
    case_title         String COMMENT 'Title of the case when it was routed',
    created_at         DateTime64(3, 'UTC') COMMENT 'When this revision was routed to review',
    verdict            LowCardinality(String) COMMENT 'approve, correct or dismiss',
    answer             String COMMENT 'The right answer',
    clarification      String COMMENT 'What the assistant should have understood',
    note               String COMMENT 'What the reviewer noted',
    reviewer           String COMMENT 'Who decided',
    decided_at         DateTime64(3, 'UTC') COMMENT 'When'
)
AS SELECT
    r.project_id AS project_id, r.review_id AS review_id,
    multiIf(d.verdict = 'approve', 'approved', d.verdict = 'correct', 'corrected', d.verdict = 'dismiss', 'dismissed',
        w.revision >= r.revision, 'withdrawn', 'open') AS state,
    w.revision >= r.revision AS withdrawn,
    r.revision AS revision,
    r.signal_id AS signal_id, r.session_id AS session_id, r.interaction_id AS interaction_id, r.user_id AS
    user_id, r.case_id AS case_id, r.decision_id AS decision_id, r.reason AS reason, r.kind AS kind,
    r.polarity AS polarity, r.category AS category, r.severity AS severity, r.user_role AS user_role,
    r.environment AS environment, r.model AS model, r.model_version AS model_version, r.prompt_version AS
    prompt_version, r.session_started_at AS session_started_at, r.occurred_at AS occurred_at,
    r.case_title AS case_title, r.created_at AS created_at,
    d.verdict AS verdict, d.answer AS answer, d.clarification AS clarification, d.note AS note, d.reviewer AS reviewer,
    d.decided_at AS decided_at
FROM reviews_log AS r FINAL
LEFT JOIN review_withdrawals_log AS w FINAL ON w.project_id = r.project_id AND w.review_id = r.review_id
LEFT JOIN review_decisions_log AS d FINAL ON d.project_id = r.project_id AND d.review_id = r.review_id
COMMENT 'Items for human review as they stand';

CREATE VIEW IF NOT EXISTS dataset_rows
(
    project_id         LowCardinality(String) COMMENT 'The project (tenant)',
    row_id             String COMMENT 'Derived from the signal, or from the review',
    review_withdrawn   Bool COMMENT 'The signal no longer calls for the review that this row came from; the reviewer decided before',
    signal_id          String COMMENT 'The signal that it came from',
    session_id         String COMMENT 'The session of the signal',
    interaction_id     String COMMENT 'The interaction that the signal is about',
    user_id            String COMMENT 'The user whose feedback it is',
    case_id            String COMMENT 'The case of the signal; empty where it has none',
    decision_id        String COMMENT 'The decision that routed it',
    reason             String COMMENT 'Why it was routed, in the words of the rule',
    kind               LowCardinality(String) COMMENT 'Type of the signal: explicit, preference, or the name of an implicit one',
    polarity           LowCardinality(String) COMMENT 'positive, negative or neutral',
    category           LowCardinality(String) COMMENT 'Main category of the feedback; empty where none was given',
    severity           LowCardinality(String) COMMENT 'low, medium, high or critical',
    user_role          LowCardinality(String) COMMENT 'Role of the user',
    environment        LowCardinality(String) COMMENT 'Environment, such as production',
    model              LowCardinality(String) COMMENT 'Model that answered',
    model_version      LowCardinality(String) COMMENT 'Version of the model',
    prompt_version     LowCardinality(String) COMMENT 'Version of the prompt',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Start of the session',
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal',
    source             LowCardinality(String) COMMENT 'user-correction, user-edit, preference or review',
    review_id          String COMMENT 'The review that it came from; empty for other sources',
    system_context     String COMMENT 'System context of the interaction',
    query              String COMMENT 'What the user asked',
    chosen             String COMMENT 'The answer to learn',
    rejected           String COMMENT 'The answer not to give; empty where there is none'
)
AS SELECT
    r.project_id AS project_id, r.row_id AS row_id,
    r.review_id != '' AND (r.project_id, r.review_id) IN (SELECT project_id, review_id FROM reviews WHERE withdrawn)
        AS review_withdrawn,
    r.signal_id AS signal_id, r.session_id AS session_id, r.interaction_id AS interaction_id, r.user_id AS
    user_id, r.case_id AS case_id, r.decision_id AS decision_id, r.reason AS reason, r.kind AS kind,
    r.polarity AS polarity, r.category AS category, r.severity AS severity, r.user_role AS user_role,
    r.environment AS environment, r.model AS model, r.model_version AS model_version, r.prompt_version AS
    prompt_version, r.session_started_at AS session_started_at, r.occurred_at AS occurred_at,
    r.source AS source, r.review_id AS review_id, r.system_context AS system_context, r.query AS query,
    r.chosen AS chosen, r.rejected AS rejected
FROM dataset_rows_log AS r FINAL
WHERE NOT r.withdrawn
COMMENT 'Examples for training as they stand';

CREATE VIEW IF NOT EXISTS patches
(
    project_id         LowCardinality(String) COMMENT 'The project (tenant)',
    patch_id           String COMMENT 'Derived from the signal',
    signal_id          String COMMENT 'The signal that it came from',
    session_id         String COMMENT 'The session of the signal',
    interaction_id     String COMMENT 'The interaction that the signal is about',
    user_id            String COMMENT 'The user whose feedback it is',
    case_id            String COMMENT 'The case of the signal; empty where it has none',
    decision_id        String COMMENT 'The decision that routed it',
    reason             String COMMENT 'Why it was routed, in the words of the rule',
    kind               LowCardinality(String) COMMENT 'Type of the signal: explicit, preference, or the name of an implicit one',
    polarity           LowCardinality(String) COMMENT 'positive, negative or neutral',
    category           LowCardinality(String) COMMENT 'Main category of the feedback; empty where none was given',
    severity           LowCardinality(String) COMMENT 'low, medium, high or critical',
    user_role          LowCardinality(String) COMMENT 'Role of the user',
    environment        LowCardinality(String) COMMENT 'Environment, such as production',
    model              LowCardinality(String) COMMENT 'Model that answered',
    model_version      LowCardinality(String) COMMENT 'Version of the model',
    prompt_version     LowCardinality(String) COMMENT 'Version of the prompt',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Start of the session',
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal',
    state              LowCardinality(String) COMMENT 'candidate',
    text               String COMMENT 'The instruction',
    created_at         DateTime64(3, 'UTC') COMMENT 'When this revision was routed'
)
AS SELECT
    project_id, patch_id,
    signal_id, session_id, interaction_id, user_id, case_id, decision_id, reason, kind, polarity, category,
    severity, user_role, environment, model, model_version, prompt_version, session_started_at, occurred_at,
    state, text, created_at
FROM patches_log FINAL
WHERE NOT withdrawn
COMMENT 'Prompt patches as they stand';

CREATE VIEW IF NOT EXISTS product_issues
(
    project_id         LowCardinality(String) COMMENT 'The project (tenant)',
    issue_id           String COMMENT 'Derived from the signal',
    signal_id          String COMMENT 'The signal that it came from',
    session_id         String COMMENT 'The session of the signal',
    interaction_id     String COMMENT 'The interaction that the signal is about',
    user_id            String COMMENT 'The user whose feedback it is',
    case_id            String COMMENT 'The case of the signal; empty where it has none',
    decision_id        String COMMENT 'The decision that routed it',
    reason             String COMMENT 'Why it was routed, in the words of the rule',
    kind               LowCardinality(String) COMMENT 'Type of the signal: explicit, preference, or the name of an implicit one',
    polarity           LowCardinality(String) COMMENT 'positive, negative or neutral',
    category           LowCardinality(String) COMMENT 'Main category of the feedback; empty where none was given',
    severity           LowCardinality(String) COMMENT 'low, medium, high or critical',
    user_role          LowCardinality(String) COMMENT 'Role of the user',
    environment        LowCardinality(String) COMMENT 'Environment, such as production',
    model              LowCardinality(String) COMMENT 'Model that answered',
    model_version      LowCardinality(String) COMMENT 'Version of the model',
    prompt_version     LowCardinality(String) COMMENT 'Version of the prompt',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Start of the session',
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal',
    title              String COMMENT 'Title of the case, or the query',
    query              String COMMENT 'What the user asked',
    output             String COMMENT 'What the model answered',
    comment            String COMMENT 'What the user said about it',
    created_at         DateTime64(3, 'UTC') COMMENT 'When this revision was routed'
)
AS SELECT
    project_id, issue_id,
    signal_id, session_id, interaction_id, user_id, case_id, decision_id, reason, kind, polarity, category,
    severity, user_role, environment, model, model_version, prompt_version, session_started_at, occurred_at,
    title, query, output, comment, created_at
FROM product_issues_log FINAL
WHERE NOT withdrawn
COMMENT 'Feedback for the product team as it stands';
