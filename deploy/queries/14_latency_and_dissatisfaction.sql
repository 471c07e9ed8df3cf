-- Are people less content with slow answers?
--
-- Answers without any signal count as not bad: the rates compare with each other, no more.
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
WITH
    -- Wilson interval of 95 % for k of n.
    (k, n) -> 1.96 * sqrt(k * (n - k) / n + 0.9604) AS margin,
    (k, n) -> if(n = 0, (0., 1.), ((k + 1.9208 - margin(k, n)) / (n + 3.8416), (k + 1.9208 + margin(k, n)) / (n + 3.8416))) AS wilson
SELECT
    multiIf(latency_ms = 0, '(not known)', latency_ms < 500, 'under 0.5 s', latency_ms < 1000, '0.5 to 1 s', latency_ms < 2000, '1 to 2 s',
        latency_ms < 5000, '2 to 5 s', '5 s and more') AS latency,
    count() AS answers,
    countIf(bad) AS bad_ones,
    round(bad_ones / answers, 3) AS bad_rate,
    round(wilson(bad_ones, answers).1, 3) AS low,
    round(wilson(bad_ones, answers).2, 3) AS high
FROM
(
    SELECT
        latency_ms,
        (session_id, interaction_id) IN (
            SELECT session_id, interaction_id FROM signals
            WHERE project_id = {project:String} AND polarity = 'negative' AND NOT waiting AND occurred_at >= now() - toIntervalDay({days:UInt32})) AS bad
    FROM events
    WHERE project_id = {project:String} AND type = 'interaction' AND occurred_at >= now() - toIntervalDay({days:UInt32})
)
GROUP BY latency
ORDER BY min(latency_ms)
