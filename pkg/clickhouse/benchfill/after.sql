-- What followed from the signals: a decision for each negative one, 2,000 cases, reviews and training rows.

INSERT INTO decisions_log (project_id, session_id, signal_id, decision_id, signal_revision, polarity, category, severity, user_id, case_id, policy_version,
    rule, routes, reason, occurred_at, session_started_at, decided_at)
SELECT 'default', session_id, signal_id, 'd-' || signal_id, 1, polarity, category, severity, user_id, 'c-' || toString(cityHash64(signal_id) % 2000), 'pv', 'r-' || toString(cityHash64(signal_id) % 6),
    [['human-review'], ['product'], ['prompt-patch', 'human-review'], []][1 + cityHash64(signal_id, 2) % 4], 'The rule says so.', occurred_at, session_started_at,
    occurred_at + toIntervalSecond(2)
FROM signals_log WHERE polarity = 'negative';

INSERT INTO cases_log (project_id, case_id, version, title, state, severity, category, negatives, users, sessions, first_seen, last_seen)
SELECT 'default', case_id, 1, 'Case ' || case_id, if(cityHash64(case_id) % 3 = 0, 'solved', 'new'), 'medium', any(category), count(), uniqExact(user_id), uniqExact(session_id),
    min(occurred_at), max(occurred_at)
FROM decisions_log GROUP BY case_id;

INSERT INTO reviews_log (project_id, review_id, revision, signal_id, severity, created_at)
SELECT 'default', 'rv-' || signal_id, 1, signal_id, severity, decided_at FROM decisions_log WHERE has(routes, 'human-review') AND cityHash64(signal_id, 3) % 10 = 0;

INSERT INTO review_decisions_log (project_id, review_id, priority, verdict, reviewer, decided_at)
SELECT 'default', review_id, 1, ['approve', 'correct', 'dismiss'][1 + cityHash64(review_id) % 3], 'r' || toString(cityHash64(review_id) % 12), created_at + toIntervalHour(cityHash64(review_id) % 90)
FROM reviews_log WHERE cityHash64(review_id, 1) % 5 != 0;

INSERT INTO dataset_rows_log (project_id, row_id, version, signal_id, source, case_id, occurred_at)
SELECT 'default', 'dr-' || signal_id, 2, signal_id, ['user-correction', 'review', 'preference'][1 + cityHash64(signal_id, 4) % 3], case_id, occurred_at
FROM decisions_log WHERE cityHash64(signal_id, 5) % 20 = 0;
