-- What did the policy do with each kind of complaint, by which rule, and how long did it take?
SELECT
    toStartOfMonth(decided_at) AS month,
    policy_version,
    rule,
    if(empty(routes), 'nothing', arrayStringConcat(arraySort(routes), ' + ')) AS done,
    count() AS decisions,
    uniqExactIf(case_id, case_id != '') AS cases,
    topK(3)(category) AS categories,
    round(quantile(0.5)(dateDiff('second', occurred_at, decided_at)), 1) AS median_seconds_to_decide,
    any(reason) AS for_example
FROM decisions
WHERE polarity = 'negative' AND NOT superseded
GROUP BY ALL
ORDER BY month DESC, decisions DESC
LIMIT 100
