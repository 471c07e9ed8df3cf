-- Which people met problems in several sessions, and do they still come?
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
-- {sessions:UInt32} = 2   In how many sessions at least.
SELECT
    user_id,
    any(user_role) AS role,
    uniqExact(session_id) AS sessions_with_problems,
    count() AS complaints,
    arraySort(groupUniqArrayIf(category, category != '')) AS about,
    max(occurred_at) AS last_complaint,
    max(last_seen) AS last_seen_at
FROM signals
INNER JOIN
(
    SELECT user_id, max(occurred_at) AS last_seen
    FROM events
    WHERE project_id = {project:String} AND user_id != '' AND occurred_at >= now() - toIntervalDay({days:UInt32})
    GROUP BY user_id
) AS active USING (user_id)
WHERE project_id = {project:String} AND polarity = 'negative' AND NOT waiting AND occurred_at >= now() - toIntervalDay({days:UInt32})
GROUP BY user_id
HAVING sessions_with_problems >= {sessions:UInt32}
ORDER BY sessions_with_problems DESC, complaints DESC, user_id
LIMIT 100
