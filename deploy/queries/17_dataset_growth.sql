-- How do the training data grow, and where do they come from?
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
SELECT
    week,
    source,
    new_rows,
    sum(new_rows) OVER (PARTITION BY source ORDER BY week) AS rows_of_source,
    cases
FROM
(
    SELECT toStartOfWeek(occurred_at, 1) AS week, source, count() AS new_rows, uniqExactIf(case_id, case_id != '') AS cases
    FROM dataset_rows
    WHERE project_id = {project:String} AND NOT review_withdrawn AND occurred_at >= now() - toIntervalDay({days:UInt32})
    GROUP BY week, source
)
ORDER BY week DESC, source
LIMIT 200
