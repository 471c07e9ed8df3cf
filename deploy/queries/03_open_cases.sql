-- Which known problems are not solved, whom do they meet, and what has been done about them?
SELECT
    cases.title,
    cases.severity,
    cases.negatives,
    cases.users,
    cases.sessions,
    cases.category,
    cases.model_versions,
    cases.first_seen,
    cases.last_seen,
    done.routes,
    cases.complaints
FROM cases
LEFT JOIN
(
    SELECT project_id, case_id, sumMap(map(route, 1)) AS routes
    FROM decisions
    ARRAY JOIN decisions.routes AS route
    WHERE NOT superseded
    GROUP BY project_id, case_id
) AS done ON done.project_id = cases.project_id AND done.case_id = cases.case_id
WHERE cases.state != 'solved'
ORDER BY cases.negatives DESC
LIMIT 50
