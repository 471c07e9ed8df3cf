-- How content are people with each version of the model, week by week, and how sure is that?
--
-- Few people answer, and not the average ones: read response_rate before satisfaction. low and high are the
-- interval in which the satisfaction of those who answer lies.
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
WITH
    -- Wilson interval of 95 % for k of n.
    (k, n) -> 1.96 * sqrt(k * (n - k) / n + 0.9604) AS margin,
    (k, n) -> if(n = 0, (0., 1.), ((k + 1.9208 - margin(k, n)) / (n + 3.8416), (k + 1.9208 + margin(k, n)) / (n + 3.8416))) AS wilson
SELECT
    week,
    model,
    model_version,
    interactions,
    rated,
    round(rated / interactions, 3) AS response_rate,
    round(positive / rated, 3) AS satisfaction,
    round(wilson(positive, rated).1, 3) AS low,
    round(wilson(positive, rated).2, 3) AS high
FROM
(
    SELECT toStartOfWeek(session_started_at, 1) AS week, model, model_version, count() AS interactions
    FROM events
    WHERE project_id = {project:String} AND type = 'interaction' AND occurred_at >= now() - toIntervalDay({days:UInt32})
    GROUP BY ALL
) AS asked
INNER JOIN
(
    SELECT
        toStartOfWeek(session_started_at, 1) AS week, model, model_version,
        uniqExact(session_id, interaction_id) AS rated,
        uniqExactIf((session_id, interaction_id), polarity = 'positive') AS positive
    FROM signals
    WHERE project_id = {project:String} AND kind = 'explicit' AND NOT waiting AND rating IS NOT NULL AND occurred_at >= now() - toIntervalDay({days:UInt32})
    GROUP BY ALL
) AS said USING (week, model, model_version)
ORDER BY week DESC, interactions DESC, model_version
LIMIT 100
