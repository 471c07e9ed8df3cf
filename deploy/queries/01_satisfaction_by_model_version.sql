-- How content are people with each version of the model, week by week, and how many said anything?
--
-- Few people answer, and not the average ones: read response_rate before satisfaction.
SELECT
    week,
    environment,
    model,
    model_version,
    interactions,
    rated,
    round(rated / interactions, 4) AS response_rate,
    round(positive / rated, 3) AS satisfaction
FROM
(
    SELECT toStartOfWeek(occurred_at) AS week, environment, model, model_version, count() AS interactions
    FROM events
    WHERE type = 'interaction' -- AND occurred_at >= now() - INTERVAL 90 DAY
    GROUP BY ALL
) AS asked
INNER JOIN
(
    SELECT
        toStartOfWeek(occurred_at) AS week, environment, model, model_version,
        uniqExact(session_id, interaction_id) AS rated,
        uniqExactIf((session_id, interaction_id), polarity = 'positive') AS positive
    FROM signals
    WHERE kind = 'explicit' AND NOT waiting AND rating IS NOT NULL
    GROUP BY ALL
) AS said USING (week, environment, model, model_version)
ORDER BY week DESC, interactions DESC
LIMIT 100
