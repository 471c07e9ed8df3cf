SELECT payload
FROM patches_log FINAL
WHERE project_id = @project AND NOT withdrawn
ORDER BY created_at DESC, patch_id
LIMIT @limit
