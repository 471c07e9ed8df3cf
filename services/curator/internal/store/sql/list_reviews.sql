-- Ids of a page of reviews, highest priority first, then oldest, after the last one of the page before.
SELECT review_id, created_at, turn
FROM reviews
WHERE project_id = @project
    AND (@state = 'all' OR state = @state)
    AND (turn, created_at, review_id) > (@after_turn, fromUnixTimestamp64Milli(toInt64(@after_ms), 'UTC'), @after_id)
ORDER BY turn, created_at, review_id
LIMIT @limit
