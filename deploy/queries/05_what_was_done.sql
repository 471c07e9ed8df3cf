-- What did the policy do with each kind of complaint, by which rule, and how long did it take?
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
SELECT
    toStartOfMonth(decided_at) AS month,
    policy_version,
    rule,
    if(empty(routes), 'nothing', arrayStringConcat(arraySort(routes), ' + ')) AS done,
    count() AS decisions,
    uniqExactIf(case_id, case_id != '') AS cases,
    arraySort(groupUniqArray(10)(category)) AS categories,
    round(quantile(0.5)(dateDiff('second', occurred_at, decided_at)), 1) AS median_seconds_to_decide,
    any(reason) AS for_example
FROM decisions
WHERE project_id = {project:String} AND polarity = 'negative' AND NOT superseded AND occurred_at >= now() - toIntervalDay({days:UInt32})
GROUP BY ALL
ORDER BY month DESC, decisions DESC, rule, done
LIMIT 100
