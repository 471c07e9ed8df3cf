-- Reviews have the priority that the policy gave the signal. Those from before are normal.

-- +goose Up
ALTER TABLE reviews_log ADD COLUMN IF NOT EXISTS priority LowCardinality(String) DEFAULT 'normal'
    COMMENT 'low, normal, high or urgent, by the rule' AFTER revision;

CREATE OR REPLACE VIEW reviews
(
    project_id         LowCardinality(String) COMMENT 'The project (tenant)',
    review_id          String COMMENT 'Derived from the signal',
    state              LowCardinality(String) COMMENT 'open, approved, corrected, dismissed or withdrawn; a decision outlives a withdrawal',
    withdrawn          Bool COMMENT 'The signal no longer calls for review; so also after a decision',
    priority           LowCardinality(String) COMMENT 'low, normal, high or urgent, by the rule',
    turn               UInt8 COMMENT 'Place of the priority in the queue: 0 urgent, 1 high, 2 normal, 3 low. ORDER BY turn, created_at',
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
    r.priority AS priority, transform(toString(r.priority), ['urgent', 'high', 'low'], [0, 1, 3], 2) AS turn,
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
