-- Do answers get better where a prompt patch was applied?
--
-- Compared with answers of the same prompt version and the same days without that patch: not with those of before, which
-- had other questions. z is the difference in standard errors, negative where the patch helps.
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
WITH
    -- Wilson interval of 95 % for k of n.
    (k, n) -> 1.96 * sqrt(k * (n - k) / n + 0.9604) AS margin,
    (k, n) -> if(n = 0, (0., 1.), ((k + 1.9208 - margin(k, n)) / (n + 3.8416), (k + 1.9208 + margin(k, n)) / (n + 3.8416))) AS wilson
SELECT
    patch,
    prompt_version,
    countIf(with_it) AS answers,
    countIf(NOT with_it) AS answers_without,
    countIf(bad AND with_it) AS bad_ones,
    round(bad_ones / answers, 3) AS bad_rate,
    round(wilson(bad_ones, answers).1, 3) AS low,
    round(wilson(bad_ones, answers).2, 3) AS high,
    round(countIf(bad AND NOT with_it) / answers_without, 3) AS bad_rate_without,
    round((bad_rate - bad_rate_without) / sqrt(avg(bad) * (1 - avg(bad)) * (1 / answers + 1 / answers_without)), 2) AS z
FROM
(
    SELECT
        patch, prompt_version, has(applied_patches, patch) AS with_it,
        (session_id, interaction_id) IN (
            SELECT session_id, interaction_id FROM signals
            WHERE project_id = {project:String} AND polarity = 'negative' AND NOT waiting AND occurred_at >= now() - toIntervalDay({days:UInt32})) AS bad
    FROM events
    INNER JOIN
    (
        SELECT arrayJoin(applied_patches) AS patch, prompt_version, min(occurred_at) AS since, max(occurred_at) AS until
        FROM events
        WHERE project_id = {project:String} AND type = 'interaction' AND occurred_at >= now() - toIntervalDay({days:UInt32})
        GROUP BY patch, prompt_version
    ) AS patched USING (prompt_version)
    WHERE project_id = {project:String} AND type = 'interaction' AND occurred_at >= now() - toIntervalDay({days:UInt32})
        AND toDate(occurred_at) BETWEEN toDate(since) AND toDate(until)
)
GROUP BY patch, prompt_version
HAVING answers_without > 0
ORDER BY z, patch, prompt_version
LIMIT 100
