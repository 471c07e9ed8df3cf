-- What people were told.

-- +goose Up
CREATE TABLE IF NOT EXISTS alerts_log (
    project_id  LowCardinality(String) COMMENT 'Project that owns the alert.',
    alert_id    String COMMENT 'The same from opening to resolution.',
    state       LowCardinality(String) COMMENT 'open or resolved: what this row says.',
    event_id    String COMMENT 'Id of the CloudEvent on hone.alerts.',
    name        String COMMENT 'Name of the alert in the settings of the project, or of the rule of its policy.',
    source      LowCardinality(String) COMMENT 'trend or policy.',
    severity    LowCardinality(String) COMMENT 'low, medium, high, critical, or empty.',
    summary     String COMMENT 'What happened, in a sentence.' CODEC(ZSTD),
    metric      String COMMENT 'What is watched, such as dissatisfaction (trend).',
    value       Nullable(Float64) COMMENT 'The rate (trend).',
    signal_id   String COMMENT 'Signal that the policy alerted on (policy).',
    session_id  String COMMENT 'Conversation of that signal (policy).',
    occurred_at DateTime64(3, 'UTC') COMMENT 'When it got into this state.'
)
ENGINE = ReplacingMergeTree
-- No partitions: alerts are few.
ORDER BY (project_id, alert_id, state)
SETTINGS index_granularity = 256
COMMENT 'Every event of every alert. Read the view alerts instead.';

CREATE TABLE IF NOT EXISTS alert_deliveries_log (
    project_id   LowCardinality(String) COMMENT 'Project that owns the alert.',
    alert_id     String COMMENT 'Alert that it tells of.',
    state        LowCardinality(String) COMMENT 'open or resolved: what it tells.',
    event_id     String COMMENT 'Id of the CloudEvent, which the webhook gets as webhook-id.',
    url          String COMMENT 'The webhook without its query and user.',
    delivered    Bool COMMENT 'The webhook took it.',
    attempts     UInt32 COMMENT 'How often it was posted.',
    answer       String COMMENT 'The last answer: an HTTP status or an error.',
    attempted_at DateTime64(3, 'UTC') COMMENT 'When it was posted last.'
)
-- What was taken stays so, whatever comes later.
ENGINE = ReplacingMergeTree(delivered)
ORDER BY (project_id, event_id, url)
SETTINGS index_granularity = 256
COMMENT 'What came of telling each webhook. Read the view alert_deliveries instead.';

CREATE VIEW IF NOT EXISTS alerts (
    project_id  LowCardinality(String) COMMENT 'Project that owns the alert.',
    alert_id    String COMMENT 'Derived from what it is about.',
    name        String COMMENT 'Name of the alert in the settings of the project, or of the rule of its policy.',
    source      LowCardinality(String) COMMENT 'trend or policy.',
    state       LowCardinality(String) COMMENT 'open or resolved.',
    severity    LowCardinality(String) COMMENT 'low, medium, high, critical, or empty.',
    summary     String COMMENT 'What happened when it opened, in a sentence.',
    metric      String COMMENT 'What is watched, such as dissatisfaction (trend).',
    value       Nullable(Float64) COMMENT 'The rate when it opened (trend).',
    signal_id   String COMMENT 'Signal that the policy alerted on (policy).',
    session_id  String COMMENT 'Conversation of that signal (policy).',
    opened_at   DateTime64(3, 'UTC') COMMENT 'When it opened.',
    resolved_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When it was resolved; NULL while it is open.'
) AS SELECT
    project_id, alert_id, any(alerts_log.name) AS name, any(alerts_log.source) AS source,
    if(countIf(alerts_log.state = 'resolved') > 0, 'resolved', 'open') AS state,
    any(alerts_log.severity) AS severity, argMin(alerts_log.summary, occurred_at) AS summary,
    any(alerts_log.metric) AS metric, argMin(alerts_log.value, occurred_at) AS value,
    any(alerts_log.signal_id) AS signal_id, any(alerts_log.session_id) AS session_id, min(occurred_at) AS opened_at,
    maxOrNullIf(occurred_at, alerts_log.state = 'resolved') AS resolved_at
FROM alerts_log FINAL
GROUP BY project_id, alert_id
COMMENT 'What people were told: trends that crossed a line, and alerts of the policy, each once.';

CREATE VIEW IF NOT EXISTS alert_deliveries (
    project_id   LowCardinality(String) COMMENT 'Project that owns the alert.',
    alert_id     String COMMENT 'Alert that it tells of.',
    state        LowCardinality(String) COMMENT 'open or resolved: what it tells.',
    event_id     String COMMENT 'Id of the CloudEvent, which the webhook gets as webhook-id.',
    url          String COMMENT 'The webhook without its query and user.',
    delivered    Bool COMMENT 'The webhook took it.',
    attempts     UInt32 COMMENT 'How often it was posted.',
    answer       String COMMENT 'The last answer: an HTTP status or an error.',
    attempted_at DateTime64(3, 'UTC') COMMENT 'When it was posted last.'
) AS SELECT project_id, alert_id, state, event_id, url, delivered, attempts, answer, attempted_at
FROM alert_deliveries_log FINAL
COMMENT 'What came of telling each webhook of each alert.';
