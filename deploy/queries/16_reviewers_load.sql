-- How much waits for review, since when, and what does each reviewer get done?
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
SELECT
    if(state = 'open', '(waiting)', reviewer) AS who,
    count() AS items,
    countIf(severity IN ('high', 'critical')) AS severe,
    countIf(verdict = 'approve') AS approved,
    countIf(verdict = 'correct') AS corrected,
    countIf(verdict = 'dismiss') AS dismissed,
    min(created_at) AS oldest,
    round(quantileOrNullIf(0.5)(dateDiff('second', created_at, decided_at) / 3600, state != 'open'), 1) AS median_hours
FROM reviews
WHERE project_id = {project:String} AND (state = 'open' OR verdict != '' AND decided_at >= now() - toIntervalDay({days:UInt32}))
GROUP BY who
ORDER BY items DESC, who
