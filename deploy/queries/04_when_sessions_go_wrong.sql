-- After how many turns, and how many minutes into the session, do people become discontent?
SELECT
    environment,
    user_role,
    multiIf(turn = 0, '1st', turn = 1, '2nd', turn < 5, '3rd to 5th', turn < 10, '6th to 10th', 'later') AS at_turn,
    count() AS signals,
    countIf(polarity = 'negative') AS negative,
    round(negative / signals, 3) AS negative_share,
    round(quantileIf(0.5)(dateDiff('second', session_started_at, occurred_at) / 60, polarity = 'negative'), 1) AS median_minutes_into_session
FROM signals
WHERE kind = 'explicit' AND NOT waiting -- AND occurred_at >= now() - INTERVAL 30 DAY
GROUP BY environment, user_role, at_turn
ORDER BY environment, user_role, min(turn)
