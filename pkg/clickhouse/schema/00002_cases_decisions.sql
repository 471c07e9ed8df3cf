-- What is known, and what was decided.

-- +goose Up
CREATE TABLE IF NOT EXISTS cases_log (
    project_id          LowCardinality(String) COMMENT 'Project that owns the case.',
    case_id             String COMMENT 'Derived from the signal that founded it.',
    version             UInt64 COMMENT 'Grows with every change of the case; the highest holds.',
    title               String COMMENT 'The founding query, shortened.' CODEC(ZSTD),
    state               LowCardinality(String) COMMENT 'new, solved, or withdrawn: all its signals were.',
    severity            LowCardinality(String) COMMENT 'Highest severity among its signals: low, medium, high or critical.',
    category            LowCardinality(String) COMMENT 'Most frequent category; empty if none was given.',
    categories          Map(LowCardinality(String), UInt32) COMMENT 'Signals per category.',
    model_versions      Map(LowCardinality(String), UInt32) COMMENT 'Signals per version of the model.',
    negatives           UInt32 COMMENT 'Negative signals in it.',
    positives           UInt32 COMMENT 'Positive signals in it.',
    users               UInt32 COMMENT 'Distinct users among its signals.',
    sessions            UInt32 COMMENT 'Distinct sessions among its signals.',
    complaints          Array(String) COMMENT 'What people said went wrong, newest first, at most five.' CODEC(ZSTD),
    examples            Array(String) COMMENT 'Queries of its members, at most five.' CODEC(ZSTD),
    has_approved_answer Bool COMMENT 'A reviewer approved an answer.',
    approved_answer     String COMMENT 'The answer that a reviewer approved; may be empty.' CODEC(ZSTD),
    clarification       String COMMENT 'What the assistant should have understood; may be empty.' CODEC(ZSTD),
    approved_by         String COMMENT 'Who approved it; may be empty.',
    approved_at         Nullable(DateTime64(3, 'UTC')) COMMENT 'When it was approved; NULL if it was not.',
    review_id           String COMMENT 'Review that the answer came from; may be empty.',
    first_seen          DateTime64(3, 'UTC') COMMENT 'Time of its earliest signal.',
    last_seen           DateTime64(3, 'UTC') COMMENT 'Time of its latest signal.',
    payload             String COMMENT 'The protobuf message hone.cases.v1.Case.' CODEC(ZSTD)
)
ENGINE = ReplacingMergeTree(version)
-- No partitions: each time of a case can move, cases are few, and two versions of one in two
-- partitions would both be shown.
ORDER BY (project_id, case_id)
SETTINGS index_granularity = 256
COMMENT 'Snapshots of cases. Read the view cases instead.';

CREATE TABLE IF NOT EXISTS decisions_log (
    project_id         LowCardinality(String) COMMENT 'Project that owns the decision.',
    session_id         String COMMENT 'Conversation of the signal.',
    signal_id          String COMMENT 'Signal that was decided on.',
    decision_id        String COMMENT 'Derived from signal, revision and policy version.',
    signal_revision    UInt32 COMMENT 'Revision of the signal that was decided on.',
    superseded_by      UInt32 COMMENT 'Revision of the signal that replaced the decision; 0 while it holds.',
    interaction_id     String COMMENT 'Turn that the signal is about.',
    user_id            String COMMENT 'Whose feedback it is; may be empty.',
    user_role          LowCardinality(String) COMMENT 'Role of the user; may be empty.',
    environment        LowCardinality(String) COMMENT 'Where the interaction ran; may be empty.',
    model              LowCardinality(String) COMMENT 'Model that answered; may be empty.',
    model_version      LowCardinality(String) COMMENT 'Version of the model; may be empty.',
    prompt_version     LowCardinality(String) COMMENT 'Version of the prompt; may be empty.',
    kind               LowCardinality(String) COMMENT 'Type of the signal: explicit, preference, or the name of an implicit one.',
    polarity           LowCardinality(String) COMMENT 'positive, negative or neutral.',
    category           LowCardinality(String) COMMENT 'Main category of the signal; empty if none was given.',
    severity           LowCardinality(String) COMMENT 'low, medium, high or critical.',
    case_id            String COMMENT 'Case of the signal; empty if it has none.',
    policy_version     LowCardinality(String) COMMENT 'Hash of what the policy said.',
    rule               LowCardinality(String) COMMENT 'Rule that matched; default if none did, withdrawn if the signal no longer holds.',
    routes             Array(LowCardinality(String)) COMMENT 'prompt-patch, fine-tune, human-review, product; empty if nothing is done.',
    reason             String COMMENT 'Why, in the words of the rule.' CODEC(ZSTD),
    rule_errors        Array(LowCardinality(String)) COMMENT 'Rules whose condition could not be evaluated, so that they were passed over.',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Time of the first event of the session.' CODEC(Delta, ZSTD),
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal.' CODEC(Delta, ZSTD),
    decided_at         DateTime64(3, 'UTC') COMMENT 'When the router decided.' CODEC(Delta, ZSTD),
    payload            String COMMENT 'The protobuf message hone.policy.v1.Decision.' CODEC(ZSTD),
    -- For Explain, which knows the signal but not its session.
    INDEX by_signal signal_id TYPE bloom_filter(0.01) GRANULARITY 4
)
-- A decision never changes, except that it is superseded, once.
ENGINE = ReplacingMergeTree(superseded_by)
-- One revision of a signal has one time, so all rows of one decision are in one partition.
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (project_id, session_id, signal_id, decision_id)
SETTINGS
    -- Read by session and by signal, as the trail is.
    index_granularity = 256,
    -- A past month becomes one part, on which FINAL costs nothing.
    min_age_to_force_merge_seconds = 86400,
    min_age_to_force_merge_on_partition_only = 1
COMMENT 'Every decision, one row or more per decision. Read the view decisions instead.';

CREATE VIEW IF NOT EXISTS cases (
    project_id          LowCardinality(String) COMMENT 'Project that owns the case.',
    case_id             String COMMENT 'Derived from the signal that founded it.',
    title               String COMMENT 'The founding query, shortened.',
    state               LowCardinality(String) COMMENT 'new or solved.',
    severity            LowCardinality(String) COMMENT 'Highest severity among its signals: low, medium, high or critical.',
    category            LowCardinality(String) COMMENT 'Most frequent category; empty if none was given.',
    categories          Map(LowCardinality(String), UInt32) COMMENT 'Signals per category.',
    model_versions      Map(LowCardinality(String), UInt32) COMMENT 'Signals per version of the model.',
    negatives           UInt32 COMMENT 'Negative signals in it.',
    positives           UInt32 COMMENT 'Positive signals in it.',
    users               UInt32 COMMENT 'Distinct users among its signals.',
    sessions            UInt32 COMMENT 'Distinct sessions among its signals.',
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
    project_id, case_id, title, state, severity, category, categories, model_versions, negatives,
    positives, users, sessions, complaints, examples, has_approved_answer, approved_answer,
    clarification, approved_by, approved_at, review_id, first_seen, last_seen
FROM cases_log FINAL
-- All its signals were withdrawn.
WHERE state != 'withdrawn'
COMMENT 'Known problems as they stand, one row each.';

CREATE VIEW IF NOT EXISTS decisions (
    project_id         LowCardinality(String) COMMENT 'Project that owns the decision.',
    session_id         String COMMENT 'Conversation of the signal.',
    signal_id          String COMMENT 'Signal that was decided on.',
    decision_id        String COMMENT 'Derived from signal, revision and policy version.',
    signal_revision    UInt32 COMMENT 'Revision of the signal that was decided on.',
    superseded         Bool COMMENT 'A later revision of the signal replaced the decision. Leave such rows out to count signals.',
    superseded_by      UInt32 COMMENT 'Revision of the signal that replaced the decision; 0 while it holds.',
    interaction_id     String COMMENT 'Turn that the signal is about.',
    user_id            String COMMENT 'Whose feedback it is; may be empty.',
    user_role          LowCardinality(String) COMMENT 'Role of the user; may be empty.',
    environment        LowCardinality(String) COMMENT 'Where the interaction ran; may be empty.',
    model              LowCardinality(String) COMMENT 'Model that answered; may be empty.',
    model_version      LowCardinality(String) COMMENT 'Version of the model; may be empty.',
    prompt_version     LowCardinality(String) COMMENT 'Version of the prompt; may be empty.',
    kind               LowCardinality(String) COMMENT 'Type of the signal: explicit, preference, or the name of an implicit one.',
    polarity           LowCardinality(String) COMMENT 'positive, negative or neutral.',
    category           LowCardinality(String) COMMENT 'Main category of the signal; empty if none was given.',
    severity           LowCardinality(String) COMMENT 'low, medium, high or critical.',
    case_id            String COMMENT 'Case of the signal; empty if it has none.',
    policy_version     LowCardinality(String) COMMENT 'Hash of what the policy said.',
    rule               LowCardinality(String) COMMENT 'Rule that matched; default if none did, withdrawn if the signal no longer holds.',
    routes             Array(LowCardinality(String)) COMMENT 'prompt-patch, fine-tune, human-review, product; empty if nothing is done.',
    reason             String COMMENT 'Why, in the words of the rule.',
    rule_errors        Array(LowCardinality(String)) COMMENT 'Rules whose condition could not be evaluated, so that they were passed over.',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Time of the first event of the session.',
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal.',
    decided_at         DateTime64(3, 'UTC') COMMENT 'When the router decided.'
) AS SELECT
    project_id, session_id, signal_id, decision_id, signal_revision, superseded_by > 0 AS superseded,
    superseded_by, interaction_id, user_id, user_role, environment, model, model_version,
    prompt_version, kind, polarity, category, severity, case_id, policy_version, rule, routes, reason,
    rule_errors, session_started_at, occurred_at, decided_at
FROM decisions_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'What was done with each revision of each signal, by which rule, and why.';
