-- Who is affected by what: what do people of each role complain about, how badly, and how many of them are there?
--
-- A signal with two categories counts in both. Without one it counts as "(none)". share is that of the users of the
-- role who complained about it.
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
SELECT
    user_role,
    complaint,
    signals,
    sessions,
    users,
    round(users / active, 3) AS share,
    severe,
    for_example
FROM
(
    SELECT
        user_role,
        arrayJoin(if(empty(categories), ['(none)'], categories)) AS complaint,
        count() AS signals,
        uniqExact(session_id) AS sessions,
        uniqExactIf(user_id, user_id != '') AS users,
        countIf(severity IN ('high', 'critical')) AS severe,
        anyIf(comment, comment != '') AS for_example
    FROM signals
    WHERE project_id = {project:String} AND polarity = 'negative' AND NOT waiting AND occurred_at >= now() - toIntervalDay({days:UInt32})
    GROUP BY user_role, complaint
) AS complained
LEFT JOIN
(
    SELECT user_role, uniqExactIf(user_id, user_id != '') AS active
    FROM events
    WHERE project_id = {project:String} AND type = 'interaction' AND occurred_at >= now() - toIntervalDay({days:UInt32})
    GROUP BY user_role
) AS everybody USING (user_role)
ORDER BY signals DESC, user_role, complaint
LIMIT 50
