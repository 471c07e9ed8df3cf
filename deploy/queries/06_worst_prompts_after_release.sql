-- Which prompt versions do worse since a release of the model, compared with all that ran before it?
--
-- z is the difference in standard errors: beyond 2 it is hardly chance, where few prompts are looked at.
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
-- {release:String} = 2   The model version that was released.
SELECT
    prompt_version,
    countIf(model_version = {release:String}) AS interactions,
    countIf(model_version != {release:String}) AS interactions_before,
    countIf(bad AND model_version = {release:String}) AS bad_ones,
    round(bad_ones / interactions, 3) AS bad_rate,
    round(countIf(bad AND model_version != {release:String}) / interactions_before, 3) AS bad_rate_before,
    round((bad_rate - bad_rate_before) / sqrt(avg(bad) * (1 - avg(bad)) * (1 / interactions + 1 / interactions_before)), 2) AS z,
    anyIf(query, bad AND model_version = {release:String}) AS for_example
FROM
(
    SELECT
        prompt_version, model_version, query,
        (session_id, interaction_id) IN (
            SELECT session_id, interaction_id FROM signals
            WHERE project_id = {project:String} AND polarity = 'negative' AND NOT waiting AND occurred_at >= now() - toIntervalDay({days:UInt32})) AS bad
    FROM events
    WHERE project_id = {project:String} AND type = 'interaction' AND occurred_at >= now() - toIntervalDay({days:UInt32})
)
GROUP BY prompt_version
HAVING interactions > 0 AND interactions_before > 0
ORDER BY z DESC, prompt_version
LIMIT 50
