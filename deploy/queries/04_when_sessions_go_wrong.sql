-- After how many turns, and how many minutes into the session, do people become discontent?
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
SELECT
    user_role,
    multiIf(turn = 0, '1st', turn = 1, '2nd', turn < 5, '3rd to 5th', turn < 10, '6th to 10th', 'later') AS at_turn,
    count() AS signals,
    countIf(polarity = 'negative') AS negative,
    round(negative / signals, 3) AS negative_share,
    round(quantileOrNullIf(0.5)(dateDiff('second', session_started_at, occurred_at) / 60, polarity = 'negative'), 1) AS median_minutes_into_session
FROM signals
WHERE project_id = {project:String} AND kind = 'explicit' AND NOT waiting AND occurred_at >= now() - toIntervalDay({days:UInt32})
GROUP BY user_role, at_turn
ORDER BY user_role, min(turn)
