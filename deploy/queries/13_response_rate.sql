-- Who says anything about answers, and how?
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
WITH
    -- Wilson interval of 95 % for k of n.
    (k, n) -> 1.96 * sqrt(k * (n - k) / n + 0.9604) AS margin,
    (k, n) -> if(n = 0, (0., 1.), ((k + 1.9208 - margin(k, n)) / (n + 3.8416), (k + 1.9208 + margin(k, n)) / (n + 3.8416))) AS wilson
SELECT
    user_role,
    language,
    count() AS answers,
    countIf(notEmpty(how)) AS with_feedback,
    round(with_feedback / answers, 3) AS response_rate,
    round(wilson(with_feedback, answers).1, 3) AS low,
    round(wilson(with_feedback, answers).2, 3) AS high,
    countIf(has(how, 'comment')) AS with_comment,
    countIf(has(how, 'correction')) AS with_correction
FROM
(
    SELECT session_id, interaction_id, user_role, language
    FROM events
    WHERE project_id = {project:String} AND type = 'interaction' AND occurred_at >= now() - toIntervalDay({days:UInt32})
) AS asked
LEFT JOIN
(
    SELECT session_id, interaction_id, groupUniqArrayArray(evidence_kinds) AS how
    FROM signals
    WHERE project_id = {project:String} AND kind = 'explicit' AND NOT waiting AND occurred_at >= now() - toIntervalDay({days:UInt32})
    GROUP BY session_id, interaction_id
) AS said USING (session_id, interaction_id)
GROUP BY user_role, language
ORDER BY answers DESC, user_role, language
LIMIT 100
