-- Which retrieved sources stand behind wrong answers more often than others?
--
-- lift compares with all answers that retrieved something. low is the lower end of the interval of wrong_rate: sorted by
-- it, a source that was used twice does not come first.
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
WITH
    -- Wilson interval of 95 % for k of n.
    (k, n) -> 1.96 * sqrt(k * (n - k) / n + 0.9604) AS margin,
    (k, n) -> if(n = 0, (0., 1.), ((k + 1.9208 - margin(k, n)) / (n + 3.8416), (k + 1.9208 + margin(k, n)) / (n + 3.8416))) AS wilson
SELECT
    source,
    count() AS answers,
    countIf(wrong) AS wrong_answers,
    round(wrong_answers / answers, 3) AS wrong_rate,
    round(wilson(wrong_answers, answers).1, 3) AS low,
    round(wrong_rate / any(overall), 2) AS lift
FROM
(
    SELECT retrieved_sources, wrong, avg(wrong) OVER () AS overall
    FROM
    (
        SELECT
            retrieved_sources,
            (session_id, interaction_id) IN (
                SELECT session_id, interaction_id FROM signals
                WHERE project_id = {project:String} AND polarity = 'negative' AND NOT waiting
                    AND hasAny(categories, ['factually_incorrect', 'outdated', 'incomplete']) AND occurred_at >= now() - toIntervalDay({days:UInt32})) AS wrong
        FROM events
        WHERE project_id = {project:String} AND type = 'interaction' AND notEmpty(retrieved_sources) AND occurred_at >= now() - toIntervalDay({days:UInt32})
    )
)
ARRAY JOIN arrayDistinct(retrieved_sources) AS source
GROUP BY source
HAVING wrong_answers > 0
ORDER BY low DESC, source
LIMIT 50
