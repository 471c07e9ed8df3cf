-- A small shop, for the test of the sample queries: two weeks, with model version 1 in the first and 2 in the second.

INSERT INTO events_log (project_id, session_id, event_id, interaction_id, type, user_id, user_role, language, model, model_version, prompt_version,
    session_started_at, occurred_at, latency_ms, input_tokens, output_tokens, retrieved_sources, applied_patches, alternative_to, query, environment)
SELECT 'shop', s, i, i, 'interaction', u, if(u = 'u3', 'agent', 'customer'), if(u = 'u2', 'de', 'en'), 'm', v, p,
    toDateTime64(started, 3, 'UTC'), toDateTime64(at, 3, 'UTC'), if(v = '1', 400, 3000), 1000, 100,
    if(i IN ('i01', 'i06', 'i08'), ['faq/1', 'faq/2'], ['faq/2']), if(i IN ('i09', 'i11'), ['p-1@1'], []), if(i = 'i07', 'i06', ''), 'Question ' || i, 'production'
FROM VALUES('s String, i String, u String, v String, p String, started String, at String',
    ('s1', 'i01', 'u1', '1', 'v1', '2026-03-02 10:00:00', '2026-03-02 10:00:00'),
    ('s1', 'i02', 'u1', '1', 'v1', '2026-03-02 10:00:00', '2026-03-02 10:05:00'),
    ('s2', 'i03', 'u2', '1', 'v1', '2026-03-02 11:00:00', '2026-03-02 11:00:00'),
    ('s2', 'i04', 'u2', '1', 'v1', '2026-03-02 11:00:00', '2026-03-02 11:05:00'),
    ('s3', 'i05', 'u3', '1', 'v2', '2026-03-02 12:00:00', '2026-03-02 12:00:00'),
    ('s4', 'i06', 'u1', '2', 'v1', '2026-03-09 10:00:00', '2026-03-09 10:00:00'),
    ('s4', 'i07', 'u1', '2', 'v1', '2026-03-09 10:00:00', '2026-03-09 10:05:00'),
    ('s5', 'i08', 'u2', '2', 'v1', '2026-03-09 11:00:00', '2026-03-09 11:00:00'),
    ('s5', 'i09', 'u2', '2', 'v1', '2026-03-09 11:00:00', '2026-03-09 11:05:00'),
    ('s6', 'i10', 'u3', '2', 'v2', '2026-03-09 12:00:00', '2026-03-09 12:00:00'),
    ('s6', 'i11', 'u3', '2', 'v2', '2026-03-09 12:00:00', '2026-03-09 12:05:00'));

-- Another project, which no answer may count.
INSERT INTO events_log (project_id, session_id, event_id, interaction_id, type, user_id, user_role, model, model_version, session_started_at, occurred_at)
VALUES ('other', 's1', 'i01', 'i01', 'interaction', 'u1', 'customer', 'm', '1', '2026-03-02 10:00:00', '2026-03-02 10:00:00');

INSERT INTO events_log (project_id, session_id, event_id, interaction_id, type, behavior, user_id, session_started_at, occurred_at)
VALUES ('shop', 's4', 'b1', 'i06', 'behavior', 'regenerated', 'u1', '2026-03-09 10:00:00', '2026-03-09 10:04:00'),
    ('shop', 's1', 'b2', 'i01', 'behavior', 'copied', 'u1', '2026-03-02 10:00:00', '2026-03-02 10:01:00');

-- The signal on i01 was withdrawn in its second revision.
INSERT INTO signals_log (project_id, session_id, signal_id, revision, interaction_id, user_id, kind, withdrawn, waiting, polarity, rating, categories,
    category, severity, evidence_kinds, comment, correction, turn, occurred_at, session_started_at, dissatisfaction,
    user_role, language, model, model_version, prompt_version, query, latency_ms, input_tokens, output_tokens, environment)
SELECT 'shop', s, g, r, i, u, k, w, z, polarity, if(k = 'explicit', if(polarity = 'negative', -1, 1), NULL), categories, categories[1], severity, evidence,
    if(has(evidence, 'comment'), 'No.', ''), if(has(evidence, 'correction'), 'Yes.', ''), turn, toDateTime64(at, 3, 'UTC'), toDateTime64(started, 3, 'UTC'),
    if(z, NULL, dis), if(u = 'u3', 'agent', 'customer'), if(u = 'u2', 'de', 'en'), if(z, '', 'm'),
    if(z, '', if(at < '2026-03-09', '1', '2')), if(z, '', if(u = 'u3', 'v2', 'v1')), if(z, '', 'Question ' || i),
    if(at < '2026-03-09', 400, 3000), 1000, 100, 'production'
FROM VALUES('g String, r UInt32, w Bool, z Bool, s String, i String, u String, k String, polarity String, categories Array(String), severity String,
    evidence Array(String), turn UInt32, started String, at String, dis Float64',
    ('g0', 1, false, false, 's1', 'i01', 'u1', 'explicit', 'negative', [], 'low', ['thumb'], 0, '2026-03-02 10:00:00', '2026-03-02 10:02:00', 0.9),
    ('g1', 1, false, false, 's1', 'i02', 'u1', 'explicit', 'positive', [], 'low', ['thumb'], 1, '2026-03-02 10:00:00', '2026-03-02 10:06:00', 0.05),
    ('g2', 1, false, false, 's2', 'i03', 'u2', 'explicit', 'negative', ['factually_incorrect'], 'high', ['thumb', 'category', 'comment'], 0, '2026-03-02 11:00:00', '2026-03-02 11:01:00', 0.9),
    ('g3', 1, false, false, 's4', 'i06', 'u1', 'explicit', 'negative', ['factually_incorrect', 'wrong_tone'], 'high', ['thumb', 'category', 'correction'], 0, '2026-03-09 10:00:00', '2026-03-09 10:01:00', 0.95),
    ('g4', 1, false, false, 's4', 'i06', 'u1', 'implicit', 'negative', [], 'medium', ['regenerated', 'reasked'], 0, '2026-03-09 10:00:00', '2026-03-09 10:05:00', 0.95),
    ('g5', 1, false, false, 's4', 'i07', 'u1', 'explicit', 'positive', [], 'low', ['thumb'], 1, '2026-03-09 10:00:00', '2026-03-09 10:08:00', 0.04),
    ('g6', 1, false, false, 's5', 'i08', 'u2', 'explicit', 'negative', ['wrong_tone'], 'medium', ['thumb', 'category'], 0, '2026-03-09 11:00:00', '2026-03-09 11:02:00', 0.8),
    ('g7', 1, false, false, 's6', 'i10', 'u3', 'implicit', 'negative', [], 'medium', ['reasked'], 0, '2026-03-09 12:00:00', '2026-03-09 12:05:00', 0.7),
    ('g8', 1, false, true, 's7', 'i99', 'u4', 'explicit', 'negative', [], 'medium', ['thumb'], 0, '2026-03-09 13:00:00', '2026-03-09 13:00:00', 0));

INSERT INTO signals_log (project_id, session_id, signal_id, revision, interaction_id, kind, withdrawn, polarity, occurred_at)
VALUES ('shop', 's1', 'g0', 2, 'i01', 'explicit', true, 'negative', '2026-03-02 10:03:00');

INSERT INTO cases_log (project_id, case_id, version, title, state, severity, category, negatives, users, sessions, complaints, first_seen, last_seen)
VALUES ('shop', 'c1', 1, 'Returns', 'new', 'high', 'factually_incorrect', 1, 1, 1, ['No.'], '2026-03-02 11:01:00', '2026-03-02 11:01:00'),
    ('shop', 'c1', 2, 'Returns', 'new', 'high', 'factually_incorrect', 2, 2, 2, ['No.'], '2026-03-02 11:01:00', '2026-03-09 10:01:00'),
    ('shop', 'c2', 1, 'Tone', 'solved', 'medium', 'wrong_tone', 1, 1, 1, [], '2026-03-09 11:02:00', '2026-03-09 11:02:00');

INSERT INTO decisions_log (project_id, session_id, signal_id, decision_id, signal_revision, superseded_by, polarity, category, case_id, policy_version, rule, routes, reason, occurred_at, decided_at)
VALUES ('shop', 's1', 'g0', 'd0', 1, 2, 'negative', '', '', 'pv', 'review', ['human-review'], 'Negative.', '2026-03-02 10:02:00', '2026-03-02 10:02:01'),
    ('shop', 's2', 'g2', 'd2', 1, 0, 'negative', 'factually_incorrect', 'c1', 'pv', 'review', ['human-review'], 'Negative.', '2026-03-02 11:01:00', '2026-03-02 11:01:02'),
    ('shop', 's4', 'g3', 'd3', 1, 0, 'negative', 'factually_incorrect', 'c1', 'pv', 'corrected', ['prompt-patch', 'human-review'], 'Corrected.', '2026-03-09 10:01:00', '2026-03-09 10:01:04'),
    ('shop', 's5', 'g6', 'd6', 1, 0, 'negative', 'wrong_tone', 'c2', 'pv', 'tone', ['product'], 'Tone.', '2026-03-09 11:02:00', '2026-03-09 11:02:06');

INSERT INTO reviews_log (project_id, review_id, revision, signal_id, severity, created_at)
VALUES ('shop', 'rv2', 1, 'g2', 'high', '2026-03-02 11:05:00'), ('shop', 'rv3', 1, 'g3', 'high', '2026-03-09 10:10:00');

INSERT INTO review_decisions_log (project_id, review_id, priority, verdict, reviewer, decided_at)
VALUES ('shop', 'rv3', 1, 'approve', 'ann', '2026-03-09 11:40:00');

INSERT INTO dataset_rows_log (project_id, row_id, version, signal_id, source, case_id, occurred_at)
VALUES ('shop', 'r1', 2, 'g2', 'user-correction', 'c1', '2026-03-02 11:01:00'), ('shop', 'r2', 2, 'g3', 'user-correction', 'c1', '2026-03-09 10:01:00'),
    ('shop', 'r3', 2, 'g3', 'review', 'c1', '2026-03-09 10:01:00');
