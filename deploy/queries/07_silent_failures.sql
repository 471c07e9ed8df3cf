-- Where did answers fail without anybody saying so?
--
-- An answer fails silently where nobody judged it in words, and what people did next makes it likely that it did not satisfy.
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
-- {likely:Float64} = 0.6   From which dissatisfaction on.
SELECT
    prompt_version,
    model_version,
    uniqExact(session_id, interaction_id) AS silent_failures,
    uniqExact(session_id) AS sessions,
    uniqExactIf(user_id, user_id != '') AS users,
    round(avg(dissatisfaction), 2) AS mean_dissatisfaction,
    arraySort(groupUniqArrayArray(evidence_kinds)) AS what_people_did,
    any(query) AS for_example
FROM signals
WHERE project_id = {project:String} AND kind = 'implicit' AND dissatisfaction >= {likely:Float64} AND NOT waiting
    AND occurred_at >= now() - toIntervalDay({days:UInt32})
    AND (session_id, interaction_id) NOT IN (
        SELECT session_id, interaction_id FROM signals WHERE project_id = {project:String} AND kind != 'implicit')
GROUP BY prompt_version, model_version
ORDER BY silent_failures DESC, prompt_version, model_version
LIMIT 50
