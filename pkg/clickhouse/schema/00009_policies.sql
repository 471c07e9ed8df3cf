-- The policies that were published, for each project.

-- +goose Up
CREATE TABLE IF NOT EXISTS policies_log (
    project_id     LowCardinality(String) COMMENT 'Project whose policy it is.',
    number         UInt32 COMMENT 'Counts the versions of the project from 1.',
    earliness      UInt64 COMMENT 'The greater, the earlier in hone.curation; of two with one number the earliest counts.',
    policy_version LowCardinality(String) COMMENT 'Hash of what it says, as in decisions; empty if the project went back to the policy of the routers.',
    yaml           String COMMENT 'Its text; empty if the project went back to the policy of the routers.' CODEC(ZSTD),
    author         String COMMENT 'Who published it.',
    note           String COMMENT 'Why, in the words of the author; may be empty.',
    rollback_of    UInt32 COMMENT 'Version whose text it is, if it is a rollback; else 0.',
    published_at   DateTime64(3, 'UTC') COMMENT 'When it was published.'
)
ENGINE = ReplacingMergeTree(earliness)
ORDER BY (project_id, number)
COMMENT 'Every version of every policy. Read the view policies instead.';

CREATE VIEW IF NOT EXISTS policies (
    project_id     LowCardinality(String) COMMENT 'Project whose policy it is.',
    number         UInt32 COMMENT 'Counts the versions of the project from 1; the highest is in force.',
    policy_version LowCardinality(String) COMMENT 'Hash of what it says, as in decisions; empty if the project went back to the policy of the routers.',
    yaml           String COMMENT 'Its text; empty if the project went back to the policy of the routers.',
    author         String COMMENT 'Who published it.',
    note           String COMMENT 'Why, in the words of the author; may be empty.',
    rollback_of    UInt32 COMMENT 'Version whose text it is, if it is a rollback; else 0.',
    published_at   DateTime64(3, 'UTC') COMMENT 'When it was published.'
) AS SELECT project_id, number, policy_version, yaml, author, note, rollback_of, published_at
FROM policies_log FINAL
COMMENT 'Versions of the policy of each project that published one.';

CREATE TABLE IF NOT EXISTS shadow_decisions_log (
    project_id      LowCardinality(String) COMMENT 'Project of the signal.',
    shadow_id       String COMMENT 'Which shadow decided.',
    session_id      String COMMENT 'Conversation of the signal.',
    signal_id       String COMMENT 'Signal that was decided on.',
    signal_revision UInt32 COMMENT 'Revision of the signal that was decided on.',
    policy_version  LowCardinality(String) COMMENT 'Hash of what the policy of the shadow says.',
    rule            LowCardinality(String) COMMENT 'Rule that matched; default if none did.',
    routes          Array(LowCardinality(String)) COMMENT 'Where it would have gone; empty for nowhere. Nothing went there by this.',
    priority        LowCardinality(String) COMMENT 'low, normal, high or urgent; empty if nothing would be done.',
    hold_until      UInt32 COMMENT 'It would be held until its case has so many negative signals; 0 if not.',
    occurred_at     DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal.' CODEC(Delta, ZSTD),
    decided_at      DateTime64(3, 'UTC') COMMENT 'When the router decided.' CODEC(Delta, ZSTD),
    payload         String COMMENT 'The protobuf message hone.policy.v1.Decision, without facts.' CODEC(ZSTD)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (project_id, shadow_id, session_id, signal_id, signal_revision)
COMMENT 'What policies that run beside the live one decided. Nothing is done by it.';

-- What a decision is counted by: case and user beside the session, which is in the order.
ALTER TABLE decisions_log ADD COLUMN IF NOT EXISTS priority LowCardinality(String)
    COMMENT 'low, normal, high or urgent; empty if nothing is done.' AFTER routes;

ALTER TABLE decisions_log ADD COLUMN IF NOT EXISTS hold_until UInt32
    COMMENT 'The signal is held until its case has so many negative signals; 0 if it is not held.' AFTER priority;

ALTER TABLE decisions_log ADD INDEX IF NOT EXISTS by_case case_id TYPE bloom_filter(0.01) GRANULARITY 4;

ALTER TABLE decisions_log ADD INDEX IF NOT EXISTS by_user user_id TYPE bloom_filter(0.01) GRANULARITY 4;

CREATE OR REPLACE VIEW decisions (
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
    routes             Array(LowCardinality(String)) COMMENT 'prompt-patch, fine-tune, human-review, product, alert; empty if nothing is done.',
    priority           LowCardinality(String) COMMENT 'low, normal, high or urgent; empty if nothing is done.',
    hold_until         UInt32 COMMENT 'The signal is held until its case has so many negative signals; 0 if it is not held.',
    reason             String COMMENT 'Why, in the words of the rule.',
    rule_errors        Array(LowCardinality(String)) COMMENT 'Rules whose condition could not be evaluated, so that they were passed over.',
    session_started_at DateTime64(3, 'UTC') COMMENT 'Time of the first event of the session.',
    occurred_at        DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence of the signal.',
    decided_at         DateTime64(3, 'UTC') COMMENT 'When the router decided.'
) AS SELECT
    project_id, session_id, signal_id, decision_id, signal_revision, superseded_by > 0 AS superseded,
    superseded_by, interaction_id, user_id, user_role, environment, model, model_version,
    prompt_version, kind, polarity, category, severity, case_id, policy_version, rule, routes, priority, hold_until, reason,
    rule_errors, session_started_at, occurred_at, decided_at
FROM decisions_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'What was done with each revision of each signal, by which rule, and why.';
