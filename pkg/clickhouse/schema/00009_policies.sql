-- The policies that were published, for each project.

-- +goose Up
CREATE TABLE IF NOT EXISTS policies_log (
    project_id     LowCardinality(String) COMMENT 'Project whose policy it is.',
    number         UInt32 COMMENT 'Counts the versions of the project from 1.',
    earliness      UInt64 COMMENT 'The greater, the earlier in hone.curation; of two with one number the earliest counts.',
    policy_version LowCardinality(String) COMMENT 'Hash of what it says, as in decisions; empty if the project went back to the policy of the routers.',
    yaml           String COMMENT 'Its text; empty if the project went back to the policy of the routers.' CODEC(ZSTD),
    author         String COMMENT 'Who published it.',
    note           String COMMENT 'Why, in the words of the author; may be empty.',
    rollback_of    UInt32 COMMENT 'Version whose text it is, if it is a rollback; else 0.',
    published_at   DateTime64(3, 'UTC') COMMENT 'When it was published.'
)
ENGINE = ReplacingMergeTree(earliness)
ORDER BY (project_id, number)
COMMENT 'Every version of every policy. Read the view policies instead.';

CREATE VIEW IF NOT EXISTS policies (
    project_id     LowCardinality(String) COMMENT 'Project whose policy it is.',
    number         UInt32 COMMENT 'Counts the versions of the project from 1; the highest is in force.',
    policy_version LowCardinality(String) COMMENT 'Hash of what it says, as in decisions; empty if the project went back to the policy of the routers.',
    yaml           String COMMENT 'Its text; empty if the project went back to the policy of the routers.',
    author         String COMMENT 'Who published it.',
    note           String COMMENT 'Why, in the words of the author; may be empty.',
    rollback_of    UInt32 COMMENT 'Version whose text it is, if it is a rollback; else 0.',
    published_at   DateTime64(3, 'UTC') COMMENT 'When it was published.'
) AS SELECT project_id, number, policy_version, yaml, author, note, rollback_of, published_at
FROM policies_log FINAL
COMMENT 'Versions of the policy of each project that published one.';
