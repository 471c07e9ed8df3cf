-- Which feedback waits for an interaction that has not arrived, and for how long?
--
-- Much of it means that an emitter sends no interactions, or under other ids.
-- {project:String} = default   The project.
SELECT
    environment,
    toStartOfDay(occurred_at) AS day,
    count() AS waiting_signals,
    uniqExact(session_id) AS sessions,
    countIf(polarity = 'negative') AS negative,
    countIf(session_id IN (
        SELECT session_id FROM events
        WHERE project_id = {project:String} AND type = 'interaction'
            -- The trail is in the order of sessions: only these are read.
            AND session_id IN (SELECT session_id FROM signals WHERE project_id = {project:String} AND waiting))) AS session_known,
    any(session_id) AS for_example
FROM signals
WHERE project_id = {project:String} AND waiting
GROUP BY environment, day
ORDER BY day DESC, environment
LIMIT 100
