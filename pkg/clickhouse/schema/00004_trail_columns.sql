-- More of the trail in columns, an end for old rows, and a way to the rows of a user.
--
-- What was written before has the empty value in the new columns, until `hone replay` or a late event
-- writes it anew; payload has it all.

-- +goose Up
ALTER TABLE events_log
    COMMENT COLUMN behavior 'copied, regenerated, stopped, edited_prompt, followed_up, left, asked_for_human or custom (behavior).',
    ADD COLUMN IF NOT EXISTS tool_errors UInt32 COMMENT 'How many of the tool calls failed (interaction).',
    ADD COLUMN IF NOT EXISTS expires_on Date DEFAULT '2149-06-06' COMMENT 'Day on which retention deletes the row; 2149-06-06 where nothing does.',
    ADD INDEX IF NOT EXISTS by_user user_id TYPE bloom_filter(0.01) GRANULARITY 16,
    MODIFY TTL expires_on
-- Rows that are there stay for ever, so there is nothing to work out for them.
SETTINGS materialize_ttl_after_modify = 0;

ALTER TABLE signals_log
    COMMENT COLUMN kind 'explicit, preference or implicit: all that people did about the turn without judging it in words.',
    ADD COLUMN IF NOT EXISTS dissatisfaction Nullable(Float64) COMMENT 'How likely the answer did not satisfy, from 0 to 1: one number for the turn, the same on each of its signals; NULL while waiting.',
    ADD COLUMN IF NOT EXISTS rating_scale LowCardinality(String) COMMENT 'What the rating was given as: thumb, stars or score; empty if none was given.',
    ADD COLUMN IF NOT EXISTS rating_value Nullable(Float64) COMMENT 'The rating on its own scale; NULL if none was given.',
    ADD COLUMN IF NOT EXISTS unknown_categories Array(LowCardinality(String)) COMMENT 'Those of categories that are not in the taxonomy of the project.',
    ADD COLUMN IF NOT EXISTS evidence_kinds Array(LowCardinality(String)) COMMENT 'What was found, in the order of evidence, such as thumb, correction, reasked, regenerated.',
    ADD COLUMN IF NOT EXISTS retrieved_sources Array(String) COMMENT 'Sources of the passages in the context.',
    ADD COLUMN IF NOT EXISTS tools Array(LowCardinality(String)) COMMENT 'Tools that the model called, in order.',
    ADD COLUMN IF NOT EXISTS input_tokens UInt32 COMMENT 'Tokens that went in; 0 if not known.',
    ADD COLUMN IF NOT EXISTS output_tokens UInt32 COMMENT 'Tokens that came out; 0 if not known.',
    ADD COLUMN IF NOT EXISTS finish_reason LowCardinality(String) COMMENT 'Why generation ended, in the word of the provider.',
    ADD COLUMN IF NOT EXISTS alternative_to String COMMENT 'Turn that answers the same query another way.',
    ADD COLUMN IF NOT EXISTS expires_on Date DEFAULT '2149-06-06' COMMENT 'Day on which retention deletes the row; 2149-06-06 where nothing does.',
    ADD INDEX IF NOT EXISTS by_user user_id TYPE bloom_filter(0.01) GRANULARITY 16,
    MODIFY TTL expires_on
-- Rows that are there stay for ever, so there is nothing to work out for them.
SETTINGS materialize_ttl_after_modify = 0;

-- For the rows that are there; in the background.
ALTER TABLE events_log MATERIALIZE INDEX by_user;
ALTER TABLE signals_log MATERIALIZE INDEX by_user;

CREATE OR REPLACE VIEW events (
    project_id               LowCardinality(String) COMMENT 'Project that owns the event.',
    session_id               String COMMENT 'Conversation that the event belongs to.',
    event_id                 String COMMENT 'Identifies the event within its session.',
    interaction_id           String COMMENT 'Turn that the event is or is about; empty for the whole session.',
    type                     LowCardinality(String) COMMENT 'interaction, feedback, behavior or timer.',
    user_id                  String COMMENT 'Who did it, in the words of the emitter; may be empty.',
    user_role                LowCardinality(String) COMMENT 'Role of that user, such as customer; may be empty.',
    environment              LowCardinality(String) COMMENT 'Where it ran, such as production; may be empty.',
    tags                     Map(LowCardinality(String), String) COMMENT 'Free dimensions of the emitter.',
    occurred_at              DateTime64(3, 'UTC') COMMENT 'When it happened, by the clock of the emitter.',
    received_at              DateTime64(3, 'UTC') COMMENT 'When the collector took it.',
    session_started_at       DateTime64(3, 'UTC') COMMENT 'Time of the first event of the session.',
    source                   LowCardinality(String) COMMENT 'Way it came: http, grpc, otlp or import.',
    query                    String COMMENT 'What the user asked (interaction).',
    system_context           String COMMENT 'System prompt that the model had (interaction).',
    output                   String COMMENT 'What the model answered (interaction).',
    model                    LowCardinality(String) COMMENT 'Model that answered (interaction).',
    model_version            LowCardinality(String) COMMENT 'Version of the model (interaction).',
    prompt_version           LowCardinality(String) COMMENT 'Version of the prompt (interaction).',
    applied_patches          Array(LowCardinality(String)) COMMENT 'Patches in the prompt, as id@version (interaction).',
    retrieved_sources        Array(String) COMMENT 'Sources of the passages in the context (interaction).',
    tools                    Array(LowCardinality(String)) COMMENT 'Tools that the model called, in order (interaction).',
    latency_ms               UInt32 COMMENT 'Time to the whole answer in milliseconds; 0 if not known (interaction).',
    input_tokens             UInt32 COMMENT 'Tokens that went in; 0 if not known (interaction).',
    output_tokens            UInt32 COMMENT 'Tokens that came out; 0 if not known (interaction).',
    finish_reason            LowCardinality(String) COMMENT 'Why generation ended, in the word of the provider (interaction).',
    language                 LowCardinality(String) COMMENT 'BCP 47 tag of the language of the query; may be empty (interaction).',
    alternative_to           String COMMENT 'Turn that answers the same query another way (interaction).',
    thumb                    LowCardinality(String) COMMENT 'up, down or empty (feedback).',
    stars                    UInt8 COMMENT '1 to 5; 0 if not given (feedback).',
    score                    Nullable(Float64) COMMENT 'Score within its range (feedback).',
    score_min                Nullable(Float64) COMMENT 'Lowest possible score (feedback).',
    score_max                Nullable(Float64) COMMENT 'Highest possible score (feedback).',
    categories               Array(LowCardinality(String)) COMMENT 'What was wrong, such as factually_incorrect (feedback).',
    comment                  String COMMENT 'What the person wrote (feedback).',
    correction               String COMMENT 'Better answer that the person gave (feedback).',
    edits                    UInt32 COMMENT 'How many ranges of the output were marked (feedback).',
    retract                  Bool COMMENT 'Withdraws the earlier feedback of the user on the turn (feedback).',
    preferred_interaction_id String COMMENT 'Turn that was preferred to this one (feedback).',
    behavior                 LowCardinality(String) COMMENT 'copied, regenerated, stopped, edited_prompt, followed_up, left, asked_for_human or custom (behavior).',
    behavior_name            LowCardinality(String) COMMENT 'Name of a custom behavior (behavior).',
    behavior_text            String COMMENT 'What was copied, or the edited prompt (behavior).',
    timer                    LowCardinality(String) COMMENT 'wait_expired or session_ended (timer).',
    tool_errors              UInt32 COMMENT 'How many of the tool calls failed (interaction).',
    expires_on               Date COMMENT 'Day on which retention deletes the row; 2149-06-06 where nothing does.'
) AS SELECT
    project_id, session_id, event_id, interaction_id, type, user_id, user_role, environment, tags,
    occurred_at, received_at, session_started_at, source, query, system_context, output, model,
    model_version, prompt_version, applied_patches, retrieved_sources, tools, latency_ms,
    input_tokens, output_tokens, finish_reason, language, alternative_to, thumb, stars, score,
    score_min, score_max, categories, comment, correction, edits, retract, preferred_interaction_id,
    behavior, behavior_name, behavior_text, timer, tool_errors, expires_on
FROM events_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'What happened, each event once: interactions, feedback, behaviors and timers.';

CREATE OR REPLACE VIEW signals (
    project_id               LowCardinality(String) COMMENT 'Project that owns the signal.',
    session_id               String COMMENT 'Conversation that it was read from.',
    signal_id                String COMMENT 'Derived from project, session, interaction, kind and user.',
    revision                 UInt32 COMMENT 'Grows with every change of content; the newest holds.',
    interaction_id           String COMMENT 'Turn that it is about.',
    user_id                  String COMMENT 'Whose feedback it is; may be empty.',
    kind                     LowCardinality(String) COMMENT 'explicit, preference or implicit: all that people did about the turn without judging it in words.',
    waiting                  Bool COMMENT 'Its interaction has not arrived; it was not passed on.',
    polarity                 LowCardinality(String) COMMENT 'positive, negative or neutral.',
    rating                   Nullable(Float64) COMMENT 'Rating from -1 to 1; NULL if none was given.',
    category                 LowCardinality(String) COMMENT 'Main category; empty if none was given.',
    categories               Array(LowCardinality(String)) COMMENT 'All categories.',
    severity                 LowCardinality(String) COMMENT 'low, medium, high or critical.',
    confidence               Float64 COMMENT 'How sure the polarity is, from 0 to 1.',
    evidence                 Array(String) COMMENT 'What it rests on, in words.',
    comment                  String COMMENT 'What the person wrote.',
    correction               String COMMENT 'Better answer that the person gave.',
    edits                    UInt32 COMMENT 'How many ranges of the output were marked.',
    preferred_interaction_id String COMMENT 'Turn that was preferred to this one (preference).',
    user_role                LowCardinality(String) COMMENT 'Role of the user; may be empty.',
    environment              LowCardinality(String) COMMENT 'Where the interaction ran; may be empty.',
    tags                     Map(LowCardinality(String), String) COMMENT 'Tags of the interaction and of the feedback.',
    turn                     UInt32 COMMENT 'Position of the interaction in its session, from 0.',
    query                    String COMMENT 'What the user asked.',
    output                   String COMMENT 'What the model answered.',
    model                    LowCardinality(String) COMMENT 'Model that answered.',
    model_version            LowCardinality(String) COMMENT 'Version of the model.',
    prompt_version           LowCardinality(String) COMMENT 'Version of the prompt.',
    applied_patches          Array(LowCardinality(String)) COMMENT 'Patches in the prompt, as id@version.',
    language                 LowCardinality(String) COMMENT 'BCP 47 tag of the language of the query; may be empty.',
    latency_ms               UInt32 COMMENT 'Time to the whole answer in milliseconds; 0 if not known.',
    occurred_at              DateTime64(3, 'UTC') COMMENT 'Time of the newest evidence.',
    session_started_at       DateTime64(3, 'UTC') COMMENT 'Time of the first event of the session.',
    dissatisfaction          Nullable(Float64) COMMENT 'How likely the answer did not satisfy, from 0 to 1: one number for the turn, the same on each of its signals; NULL while waiting.',
    rating_scale             LowCardinality(String) COMMENT 'What the rating was given as: thumb, stars or score; empty if none was given.',
    rating_value             Nullable(Float64) COMMENT 'The rating on its own scale; NULL if none was given.',
    unknown_categories       Array(LowCardinality(String)) COMMENT 'Those of categories that are not in the taxonomy of the project.',
    evidence_kinds           Array(LowCardinality(String)) COMMENT 'What was found, in the order of evidence, such as thumb, correction, reasked, regenerated.',
    retrieved_sources        Array(String) COMMENT 'Sources of the passages in the context.',
    tools                    Array(LowCardinality(String)) COMMENT 'Tools that the model called, in order.',
    input_tokens             UInt32 COMMENT 'Tokens that went in; 0 if not known.',
    output_tokens            UInt32 COMMENT 'Tokens that came out; 0 if not known.',
    finish_reason            LowCardinality(String) COMMENT 'Why generation ended, in the word of the provider.',
    alternative_to           String COMMENT 'Turn that answers the same query another way.',
    expires_on               Date COMMENT 'Day on which retention deletes the row; 2149-06-06 where nothing does.'
) AS SELECT
    project_id, session_id, signal_id, revision, interaction_id, user_id, kind, waiting, polarity,
    rating, category, categories, severity, confidence, evidence, comment, correction, edits,
    preferred_interaction_id, user_role, environment, tags, turn, query, output, model,
    model_version, prompt_version, applied_patches, language, latency_ms, occurred_at,
    session_started_at, dissatisfaction, rating_scale, rating_value, unknown_categories,
    evidence_kinds, retrieved_sources, tools, input_tokens, output_tokens, finish_reason,
    alternative_to, expires_on
FROM signals_log FINAL
WHERE NOT withdrawn
COMMENT 'Judged feedback that holds now: one row per signal. Withdrawn ones are in signals_log.';
