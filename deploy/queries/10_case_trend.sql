-- Which known problems grow, week by week?
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
SELECT
    cases.title,
    cases.state,
    week,
    complaints,
    sum(complaints) OVER (PARTITION BY counted.case_id ORDER BY week RANGE BETWEEN 7 PRECEDING AND 7 PRECEDING) AS the_week_before,
    complaints - the_week_before AS change
FROM
(
    SELECT case_id, toStartOfWeek(occurred_at, 1) AS week, toInt64(uniqExact(signal_id)) AS complaints
    FROM decisions
    WHERE project_id = {project:String} AND polarity = 'negative' AND case_id != '' AND NOT superseded AND occurred_at >= now() - toIntervalDay({days:UInt32})
    GROUP BY case_id, week
) AS counted
INNER JOIN cases ON cases.case_id = counted.case_id AND cases.project_id = {project:String}
ORDER BY week DESC, change DESC, title
LIMIT 100
