-- How often do people ask for another answer, by model and prompt version?
--
-- Said by the interface (behavior regenerated), or seen from an answer to the same query.
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
WITH
    -- Wilson interval of 95 % for k of n.
    (k, n) -> 1.96 * sqrt(k * (n - k) / n + 0.9604) AS margin,
    (k, n) -> if(n = 0, (0., 1.), ((k + 1.9208 - margin(k, n)) / (n + 3.8416), (k + 1.9208 + margin(k, n)) / (n + 3.8416))) AS wilson
SELECT
    model_version,
    prompt_version,
    count() AS answers,
    countIf(again) AS regenerated,
    round(regenerated / answers, 3) AS rate,
    round(wilson(regenerated, answers).1, 3) AS low,
    round(wilson(regenerated, answers).2, 3) AS high
FROM
(
    SELECT
        model_version, prompt_version,
        (session_id, interaction_id) IN (
            SELECT session_id, if(type = 'behavior', interaction_id, alternative_to) FROM events
            WHERE project_id = {project:String} AND (behavior = 'regenerated' OR alternative_to != '') AND occurred_at >= now() - toIntervalDay({days:UInt32})) AS again
    FROM events
    WHERE project_id = {project:String} AND type = 'interaction' AND occurred_at >= now() - toIntervalDay({days:UInt32})
)
GROUP BY model_version, prompt_version
ORDER BY rate DESC, model_version, prompt_version
LIMIT 100
