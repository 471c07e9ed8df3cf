-- What do people of each role complain about, how bad is it, and how many of them are there?
--
-- A signal with two categories counts in both. Without one it counts as "(none)".
SELECT
    user_role,
    arrayJoin(if(empty(categories), ['(none)'], categories)) AS complaint,
    count() AS signals,
    uniqExact(session_id) AS sessions,
    uniqExactIf(user_id, user_id != '') AS users,
    countIf(severity IN ('high', 'critical')) AS severe,
    countIf(correction != '') AS with_a_better_answer,
    anyIf(comment, comment != '') AS for_example
FROM signals
WHERE polarity = 'negative' -- AND occurred_at >= now() - INTERVAL 30 DAY
GROUP BY user_role, complaint
ORDER BY signals DESC
LIMIT 50
