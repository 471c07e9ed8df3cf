-- After an answer went wrong, how long until the same session goes well again, and how often does it never?
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
SELECT
    if(first_category = '', '(none)', first_category) AS category,
    count() AS sessions,
    countIf(better_at > worse_at) AS recovered,
    round(recovered / sessions, 3) AS recovered_share,
    round(quantileOrNullIf(0.5)(dateDiff('second', worse_at, better_at) / 60, better_at > worse_at), 1) AS median_minutes,
    round(quantileOrNullIf(0.9)(dateDiff('second', worse_at, better_at) / 60, better_at > worse_at), 1) AS p90_minutes
FROM
(
    SELECT
        minIf(occurred_at, polarity = 'negative') AS worse_at,
        arrayMin(arrayFilter(t -> t > worse_at, groupArrayIf(occurred_at, polarity = 'positive'))) AS better_at,
        argMinIf(signals.category, occurred_at, polarity = 'negative') AS first_category
    FROM signals
    WHERE project_id = {project:String} AND NOT waiting AND occurred_at >= now() - toIntervalDay({days:UInt32})
    GROUP BY session_id
    HAVING countIf(polarity = 'negative') > 0
)
GROUP BY category
ORDER BY sessions DESC, category
