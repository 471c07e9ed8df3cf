-- What does each kind of complaint cost: in tokens for answers that were no use, in money, and in time that people waited?
--
-- An answer with two categories counts in both.
-- {project:String} = default   The project.
-- {days:UInt32} = 30   How many days back from now.
-- {input_price:Float64} = 3   Price of a million tokens that go in.
-- {output_price:Float64} = 15   Price of a million tokens that come out.
SELECT
    arrayJoin(if(empty(about), ['(none)'], about)) AS category,
    count() AS answers,
    sum(tokens_in) AS input_tokens,
    sum(tokens_out) AS output_tokens,
    round((input_tokens * {input_price:Float64} + output_tokens * {output_price:Float64}) / 1e6, 4) AS money,
    round(sum(waited) / 60000, 2) AS minutes_waited
FROM
(
    -- An answer about which two people complain was paid for once.
    SELECT
        groupUniqArrayArray(categories) AS about,
        any(input_tokens) AS tokens_in, any(output_tokens) AS tokens_out, any(latency_ms) AS waited
    FROM signals
    WHERE project_id = {project:String} AND polarity = 'negative' AND NOT waiting AND occurred_at >= now() - toIntervalDay({days:UInt32})
    GROUP BY session_id, interaction_id
)
GROUP BY category
ORDER BY money DESC, category
