-- The data of one month: {events:UInt64} events from number {first:UInt64} on, eight to a session.
--
-- Everything is drawn from hashes of the numbers, so that the same sizes give the same rows, but for their time, which {month:Date} sets.

INSERT INTO events_log (project_id, session_id, event_id, interaction_id, type, user_id, user_role, environment, tags, occurred_at, received_at,
    session_started_at, source, query, system_context, output, model, model_version, prompt_version, applied_patches, retrieved_sources,
    latency_ms, input_tokens, output_tokens, finish_reason, language, alternative_to, thumb, categories, comment, behavior, revision, payload)
WITH
    splitByChar(' ', 'the a return shoes order of customer within days please worn size refund price can I my when delivery store online card receipt policy changed not received email address coupon account yes no exchange damaged warranty colour blue black leather shipping free over total paid invoice number contact support how long does it take until which one is better than') AS words,
    (seed, n) -> arrayStringConcat(arrayMap(x -> words[1 + cityHash64(seed, x) % length(words)], range(n)), ' ') AS text,
    -- A message with an unknown field, so that who reads payloads can.
    s -> concat(unhex('C2A907'), char(bitOr(bitAnd(length(s), 127), 128), intDiv(length(s), 128)), s) AS message,
    intDiv(number, 8) AS session,
    number % 8 AS place,
    cityHash64(session) AS h,
    cityHash64(number, 1) AS g,
    place < 5 AS asked,
    toDateTime64(toDate({month:Date}), 3, 'UTC') + toIntervalSecond(h % 2400000) AS began,
    'v' || toString(1 + h % 20) AS prompt,
    if(asked, text(g, 8 + g % 12), '') AS asks,
    if(asked, text(g + 1, 40 + g % 80), '') AS answers,
    if(place = 5, text(g, 12), '') AS says
SELECT
    'default', 's-' || hex(h), 'e-' || hex(g), 'i-' || hex(cityHash64(session, if(asked, place, 4))), multiIf(asked, 'interaction', place = 5, 'feedback', 'behavior'),
    'u-' || toString(h % 50000), ['customer', 'agent', 'admin', ''][1 + h % 4], if(h % 10 = 0, 'staging', 'production'), map('plan', ['free', 'pro', 'team'][1 + h % 3]),
    began + toIntervalSecond(place * 40), began + toIntervalSecond(place * 40), began, 'http', asks,
    if(asked, repeat('You are the assistant of a shop. Answer from the passages only. ', 5) || prompt, ''), answers,
    if(asked, 'm-large', ''), if(asked, toString(1 + (toYYYYMM(began) + h % 2) % 6), ''), if(asked, prompt, ''),
    if(asked AND h % 20 = 0, ['p-' || toString(h % 5) || '@1'], []), if(asked, arrayMap(x -> 'faq/' || toString(cityHash64(g, x) % 2000), range(3)), []),
    if(asked, 200 + g % 5000, 0), if(asked, 300 + g % 900, 0), if(asked, 40 + g % 200, 0), if(asked, 'stop', ''), if(asked, ['en', 'de', 'fr', 'ja', ''][1 + h % 5], ''),
    if(place = 3 AND h % 10 = 0, 'i-' || hex(cityHash64(session, 2)), ''), if(place = 5, if(g % 3 = 0, 'up', 'down'), ''),
    if(place = 5 AND g % 3 = 1, [['factually_incorrect', 'wrong_tone', 'outdated', 'incomplete', 'too_long'][1 + g % 5]], []), says,
    if(place > 5, ['copied', 'regenerated', 'left'][1 + g % 3], ''), 1, message(concat(asks, answers, says))
FROM numbers({first:UInt64}, {events:UInt64})
SETTINGS max_block_size = 16384, max_insert_threads = 1;

-- A signal for each feedback, and for what people did in one session of four.
INSERT INTO signals_log (project_id, session_id, signal_id, revision, interaction_id, user_id, kind, polarity, rating, category, categories, severity,
    confidence, evidence, evidence_kinds, comment, user_role, environment, tags, turn, query, output, model, model_version, prompt_version,
    language, latency_ms, input_tokens, output_tokens, occurred_at, session_started_at, dissatisfaction, waiting, payload)
WITH
    splitByChar(' ', 'the a return shoes order of customer within days please worn size refund price can I my when delivery store online card receipt') AS words,
    (seed, n) -> arrayStringConcat(arrayMap(x -> words[1 + cityHash64(seed, x) % length(words)], range(n)), ' ') AS text,
    s -> concat(unhex('C2A907'), char(bitOr(bitAnd(length(s), 127), 128), intDiv(length(s), 128)), s) AS message,
    intDiv(number, 8) AS session,
    cityHash64(session) AS h,
    cityHash64(number, 1) AS g,
    number % 8 = 5 AS said,
    toDateTime64(toDate({month:Date}), 3, 'UTC') + toIntervalSecond(h % 2400000) AS began,
    if(said AND g % 3 = 1, [['factually_incorrect', 'wrong_tone', 'outdated', 'incomplete', 'too_long'][1 + g % 5]], []) AS about,
    if(said, g % 3 != 0, g % 2 = 0) AS bad
SELECT
    'default', 's-' || hex(h), 'sg-' || hex(g), 1, 'i-' || hex(cityHash64(session, 4)), 'u-' || toString(h % 50000), if(said, 'explicit', 'implicit'),
    if(bad, 'negative', 'positive'), if(said, if(bad, -1, 1), NULL), about[1], about, ['low', 'medium', 'high'][1 + g % 3], 0.9,
    if(said, ['thumb'], ['behavior']), if(said, if(empty(about), ['thumb'], ['thumb', 'category']), [['copied', 'regenerated', 'left'][1 + g % 3]]),
    text(g, 12), ['customer', 'agent', 'admin', ''][1 + h % 4], if(h % 10 = 0, 'staging', 'production'), map('plan', ['free', 'pro', 'team'][1 + h % 3]), 4,
    text(g, 14), text(g + 1, 60), 'm-large', toString(1 + (toYYYYMM(began) + h % 2) % 6), 'v' || toString(1 + h % 20), ['en', 'de', 'fr', 'ja', ''][1 + h % 5],
    200 + g % 5000, 300 + g % 900, 40 + g % 200, began + toIntervalSecond((number % 8) * 40), began, if(bad, 0.7 + g % 25 / 100, 0.1), g % 200 = 0, message(text(g, 80))
FROM numbers({first:UInt64}, {events:UInt64})
WHERE said OR (number % 8 = 6 AND h % 4 = 0)
SETTINGS max_block_size = 16384, max_insert_threads = 1;
