// Package trends counts interactions and what people made of them.
package trends

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/honeloop/hone/pkg/projects"
)

// Dimension is a property of interactions: a column, or "tag:NAME".
type Dimension string

// Validate says what dimensions there are.
func (d Dimension) Validate() error { return projects.CheckDimension(string(d)) }

// maxBuckets bounds a series.
const maxBuckets = 1000

// Metric is a share of interactions.
type Metric string

// The metrics. A category's is "category:NAME".
const (
	Satisfaction    Metric = "satisfaction"
	Dissatisfaction Metric = "dissatisfaction"
	Response        Metric = "response"
	Implicit        Metric = "implicit"
	categoryPrefix         = "category:"
)

// Validate says what metrics there are.
func (m Metric) Validate() error { return projects.CheckMetric(string(m)) }

func (m Metric) category() string {
	c, ok := strings.CutPrefix(string(m), categoryPrefix)
	if !ok {
		return ""
	}
	return c
}

// counts are SQL: whether an interaction is one of those that the share is of,
// and whether it is a hit.
func (m Metric) counts() (of, hit string) {
	switch m {
	case Dissatisfaction:
		return "good OR bad", "bad"
	case Response:
		return "true", "responded"
	case Implicit:
		return "true", "implicit"
	case Satisfaction:
		return "good OR bad", "good AND NOT bad"
	default:
		return "responded", "in_category"
	}
}

// Condition is a value that a dimension must have.
type Condition struct {
	Dimension Dimension
	Value     string
}

// ParseCondition reads "dimension=value".
func ParseCondition(s string) (Condition, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return Condition{}, fmt.Errorf("%q: want dimension=value", s)
	}
	c := Condition{Dimension(name), value}
	return c, c.Dimension.Validate()
}

// Bucket is the length of a piece of time.
type Bucket string

// Buckets. Weeks begin on Monday; all is in UTC.
const (
	Whole Bucket = "" // no pieces
	Hour  Bucket = "hour"
	Day   Bucket = "day"
	Week  Bucket = "week"
	Month Bucket = "month"
)

// Fitting is the longest bucket that makes at least ten of a span, or hours.
func Fitting(span time.Duration) Bucket {
	const day = 24 * time.Hour
	switch {
	case span >= 300*day:
		return Month
	case span >= 70*day:
		return Week
	case span >= 10*day:
		return Day
	default:
		return Hour
	}
}

// Start is the start of the bucket that t is in.
func (b Bucket) Start(t time.Time) time.Time {
	t = t.UTC()
	y, m, d := t.Date()
	switch b {
	case Hour:
		return t.Truncate(time.Hour)
	case Day:
		return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	case Week:
		return time.Date(y, m, d-(int(t.Weekday())+6)%7, 0, 0, 0, 0, time.UTC)
	case Month:
		return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
	}
	return time.Unix(0, 0).UTC()
}

// Next is the start of the bucket after the one that starts at t.
func (b Bucket) Next(t time.Time) time.Time {
	switch b {
	case Hour:
		return t.Add(time.Hour)
	case Day:
		return t.AddDate(0, 0, 1)
	case Week:
		return t.AddDate(0, 0, 7)
	case Month:
		return t.AddDate(0, 1, 0)
	}
	return t
}

// Starts are those of all buckets that have a part of [from, to).
func (b Bucket) Starts(from, to time.Time) ([]time.Time, error) {
	var out []time.Time
	for t := b.Start(from); t.Before(to); t = b.Next(t) {
		if len(out) == maxBuckets {
			return nil, fmt.Errorf("%s: more than %d from %s to %s: take longer ones", b, maxBuckets, from.Format(time.DateOnly), to.Format(time.DateOnly))
		}
		if out = append(out, t); b == Whole {
			break
		}
	}
	return out, nil
}

// sql is the start of the bucket of the time at.
func (b Bucket) sql() string {
	switch b {
	case Hour:
		return "toDateTime(toStartOfHour(at, 'UTC'), 'UTC')"
	case Day:
		return "toDateTime(toStartOfDay(at, 'UTC'), 'UTC')"
	case Week:
		return "toDateTime(toStartOfWeek(at, 1, 'UTC'), 'UTC')"
	case Month:
		return "toDateTime(toStartOfMonth(at, 'UTC'), 'UTC')"
	}
	return "toDateTime(0, 'UTC')"
}

// Query is what to count.
type Query struct {
	Project  string
	Metric   Metric
	Bucket   Bucket
	From, To time.Time
	Filter   []Condition
	// Dimensions to count by; empty for none. Of each, the Limit (and
	// maxStrata) values with the most interactions are told apart.
	By, Stratum Dimension
	Limit       int
	// Only these values of By, where there are any.
	Values []string
}

// Other stands for the values that are not told apart.
const Other = "(other)"

// maxStrata bounds the values of a Stratum.
const maxStrata = 50

// parameters are the values of a query: what users wrote is never SQL.
type parameters map[string]any

func (p parameters) add(value string) string {
	name := fmt.Sprintf("p%d", len(p))
	p[name] = value
	return "{" + name + ":String}"
}

// dimension is SQL: an interaction's value of d. Of the parts of an interaction
// that came in several events it is the one that is not empty.
func (p parameters) dimension(d Dimension) string {
	if d == "" {
		return "''"
	}
	if tag, ok := strings.CutPrefix(string(d), "tag:"); ok {
		return "max(tags[" + p.add(tag) + "])"
	}
	return "max(toString(" + string(d) + "))"
}

var spaces = regexp.MustCompile(`\s+`)

// sql is the query and its parameters. Each row of its answer is a Cell.
//
// Sessions and interactions go by a hash of 64 bits: with ten million of them two
// are taken for one once in some 300,000 projects, and grouping is five times
// faster than by their ids. Rows of an event that was written twice are one
// interaction, so that events need no FINAL.
func (q Query) sql() (string, parameters) {
	p := parameters{"project": q.Project, "from_ms": q.From.UnixMilli(), "to_ms": q.To.UnixMilli(), "category": q.Metric.category()}
	having := []string{"true"}
	for _, c := range q.Filter {
		having = append(having, p.dimension(c.Dimension)+" = "+p.add(c.Value))
	}
	by, stratum := p.dimension(q.By), p.dimension(q.Stratum)
	if len(q.Values) > 0 {
		var values []string
		for _, v := range q.Values {
			values = append(values, p.add(v))
		}
		having = append(having, "by_value IN ("+strings.Join(values, ", ")+")")
	}
	top := func(column string, d Dimension, limit int) string {
		if d == "" {
			return column
		}
		return fmt.Sprintf("if(%[1]s IN (SELECT %[1]s FROM asked GROUP BY %[1]s ORDER BY count() DESC, %[1]s LIMIT %[2]d), %[1]s, '%[3]s')", column, limit, Other)
	}
	of, hit := q.Metric.counts()
	text := fmt.Sprintf(`
WITH asked AS
(
    SELECT cityHash64(session_id, interaction_id) AS interaction, any(cityHash64(session_id)) AS session,
        min(occurred_at) AS at, %[1]s AS by_value, %[2]s AS stratum
    FROM events_log
    WHERE project_id = {project:String} AND type = 'interaction'
        AND occurred_at >= fromUnixTimestamp64Milli({from_ms:Int64}, 'UTC') AND occurred_at < fromUnixTimestamp64Milli({to_ms:Int64}, 'UTC')
    GROUP BY interaction
    HAVING %[3]s
),
said AS
(
    SELECT cityHash64(session_id, interaction_id) AS interaction,
        max(kind IN ('explicit', 'preference')) AS responded,
        max(kind IN ('explicit', 'preference') AND polarity = 'positive') AS good,
        max(kind IN ('explicit', 'preference') AND polarity = 'negative') AS bad,
        max(kind IN ('explicit', 'preference') AND polarity = 'negative' AND has(categories, {category:String})) AS in_category,
        max(kind NOT IN ('explicit', 'preference') AND polarity = 'negative') AS implicit
    FROM signals
    WHERE project_id = {project:String} AND NOT waiting
        AND occurred_at >= fromUnixTimestamp64Milli({from_ms:Int64}, 'UTC') - INTERVAL 1 DAY
    GROUP BY interaction
),
counted AS
(
    SELECT bucket, by_value, stratum, session,
        count() AS interactions, sum(responded) AS responses, countIf(%[4]s) AS n, countIf((%[4]s) AND (%[5]s)) AS x
    FROM
    (
        SELECT session, %[6]s AS bucket, %[7]s AS by_value, %[8]s AS stratum, responded, good, bad, in_category, implicit
        FROM asked LEFT JOIN said USING (interaction)
    )
    GROUP BY bucket, by_value, stratum, session
)
SELECT bucket, by_value, stratum, sum(interactions), sum(responses),
    toFloat64(countIf(n > 0)), toFloat64(sum(x)), toFloat64(sum(n)), toFloat64(sum(x * x)), toFloat64(sum(x * n)), toFloat64(sum(n * n))
FROM counted
GROUP BY bucket, by_value, stratum
ORDER BY bucket, by_value, stratum`,
		by, stratum, strings.Join(having, " AND "), of, hit, q.Bucket.sql(), top("by_value", q.By, q.Limit), top("stratum", q.Stratum, maxStrata))
	return spaces.ReplaceAllString(text, " "), p
}
