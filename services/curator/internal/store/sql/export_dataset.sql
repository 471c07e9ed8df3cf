-- All examples of a project in the order of the table, so that nothing is sorted, in small
-- blocks, so that a reader holds few rows.
SELECT payload
FROM dataset_rows_log FINAL
WHERE project_id = @project AND NOT withdrawn AND (@source = '' OR source = @source)
ORDER BY project_id, signal_id, row_id
SETTINGS optimize_read_in_order = 1, max_block_size = 256
