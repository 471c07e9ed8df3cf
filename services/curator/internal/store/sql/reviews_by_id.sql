-- Reviews with what was decided about them. The state is put together by the
-- reader, as the view reviews does it.
SELECT r.review_id, r.payload, w.revision >= r.revision AS withdrawn, d.curation_id, d.payload
FROM (
    SELECT review_id, revision, payload FROM reviews_log FINAL
    WHERE project_id = @project AND review_id IN @ids
) AS r
LEFT JOIN (
    SELECT review_id, revision FROM review_withdrawals_log FINAL
    WHERE project_id = @project AND review_id IN @ids
) AS w ON w.review_id = r.review_id
LEFT JOIN (
    SELECT review_id, curation_id, payload FROM review_decisions_log FINAL
    WHERE project_id = @project AND review_id IN @ids
) AS d ON d.review_id = r.review_id
