-- Ids of a page of reviews, oldest first, after the last one of the page before.
SELECT review_id, created_at
FROM reviews
WHERE project_id = @project
    AND (@state = 'all' OR state = @state)
    AND (created_at, review_id) > (fromUnixTimestamp64Milli(toInt64(@after_ms), 'UTC'), @after_id)
ORDER BY created_at, review_id
LIMIT @limit
