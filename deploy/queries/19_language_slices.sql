-- Is the assistant worse in some languages?
--
-- z is the difference from all other languages in standard errors. Of many languages some are beyond 2 by chance:
-- GET /v1/trends/compare takes that into account.
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
WITH
    -- Wilson interval of 95 % for k of n.
    (k, n) -> 1.96 * sqrt(k * (n - k) / n + 0.9604) AS margin,
    (k, n) -> if(n = 0, (0., 1.), ((k + 1.9208 - margin(k, n)) / (n + 3.8416), (k + 1.9208 + margin(k, n)) / (n + 3.8416))) AS wilson
SELECT
    language,
    count() AS answers,
    countIf(bad) AS bad_ones,
    round(bad_ones / answers, 3) AS bad_rate,
    round(wilson(bad_ones, answers).1, 3) AS low,
    round(wilson(bad_ones, answers).2, 3) AS high,
    any(all_answers) - answers AS answers_in_others,
    round((any(all_bad) - bad_ones) / answers_in_others, 3) AS bad_rate_in_others,
    round((bad_rate - bad_rate_in_others) / sqrt(any(overall) * (1 - any(overall)) * (1 / answers + 1 / answers_in_others)), 2) AS z
FROM
(
    SELECT language, bad, sum(bad) OVER () AS all_bad, count() OVER () AS all_answers, all_bad / all_answers AS overall
    FROM
    (
        SELECT
            if(language = '', '(not known)', language) AS language,
            (session_id, interaction_id) IN (
                SELECT session_id, interaction_id FROM signals
                WHERE project_id = {project:String} AND polarity = 'negative' AND NOT waiting AND occurred_at >= now() - toIntervalDay({days:UInt32})) AS bad
        FROM events
        WHERE project_id = {project:String} AND type = 'interaction' AND occurred_at >= now() - toIntervalDay({days:UInt32})
    )
)
GROUP BY language
ORDER BY bad_rate DESC, language
LIMIT 100
