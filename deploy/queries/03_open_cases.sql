-- Which known problems are not solved, whom do they meet, and what has been done about them?
-- {project:String} = default   The project.
SELECT
    cases.title,
    cases.state,
    cases.severity,
    cases.negatives,
    cases.users,
    cases.sessions,
    cases.category,
    cases.first_seen,
    cases.last_seen,
    done.routes,
    cases.complaints
FROM cases
LEFT JOIN
(
    SELECT case_id, sumMap(map(route, 1)) AS routes
    FROM decisions
    ARRAY JOIN decisions.routes AS route
    WHERE project_id = {project:String} AND NOT superseded
    GROUP BY case_id
) AS done ON done.case_id = cases.case_id
WHERE cases.project_id = {project:String} AND cases.state NOT IN ('solved', 'muted')
ORDER BY cases.negatives DESC, cases.title
LIMIT 50
