// Package trends counts interactions and what people made of them.
package trends

import (
	"fmt"
	"regexp"
	"slices"
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

// column is SQL: the dimension d of an event.
func (p parameters) column(d Dimension) string {
	if tag, ok := strings.CutPrefix(string(d), "tag:"); ok {
		return "tags[" + p.add(tag) + "]"
	}
	return string(d)
}

// events is SQL: the project's events of interactions in the query's time.
//
// Rows of an event that was written twice are of one interaction, as are the
// parts that came in several events, so that events need no FINAL.
func (q Query) events(p parameters) string {
	p["project"], p["from_ms"], p["to_ms"] = q.Project, q.From.UnixMilli(), q.To.UnixMilli()
	return `FROM events_log
    WHERE project_id = {project:String} AND type = 'interaction'
        AND occurred_at >= fromUnixTimestamp64Milli({from_ms:Int64}, 'UTC') AND occurred_at < fromUnixTimestamp64Milli({to_ms:Int64}, 'UTC')`
}

// interaction is SQL: sessions and interactions go by a hash of 64 bits. With ten
// million of them two are taken for one once in some 300,000 projects, and
// grouping is five times faster than by their ids.
const interaction = "cityHash64(session_id, interaction_id) AS interaction"

// having is SQL: the interactions that the filter and Values let through. Of
// the values of its parts, an interaction has the greatest: the one that is not
// empty.
func (q Query) having(p parameters, by codes) string {
	all := []string{"true"}
	if len(q.Values) > 0 {
		all = append(all, fmt.Sprintf("%s != %d", by.told(by.sql(p)), codeOther))
	}
	for _, c := range q.Filter {
		column, value := p.column(c.Dimension), p.add(c.Value)
		// The greatest is the value: a byte to each interaction, not a string.
		all = append(all, fmt.Sprintf("max((%[1]s >= %[2]s) + (%[1]s > %[2]s)) = 1", column, value))
	}
	return strings.Join(all, " AND ")
}

// some is a query for at most so many of the values that d has in the query's
// time, whatever the filter.
func (q Query) some(d Dimension, limit int) (string, parameters) {
	p := parameters{}
	return line(fmt.Sprintf("SELECT DISTINCT %s AS value %s LIMIT %d", p.column(d), q.events(p), limit)), p
}

// top is a query for the values of d with the most interactions.
func (q Query) top(by codes, d Dimension, limit int) (string, parameters) {
	p := parameters{}
	return line(fmt.Sprintf(`SELECT value
FROM (SELECT %s, max(toString(%s)) AS value %s GROUP BY interaction HAVING %s)
GROUP BY value
ORDER BY count() DESC, value
LIMIT %d`, interaction, p.column(d), q.events(p), q.having(p, by), limit)), p
}

// codes are the values of a dimension that are told apart, as numbers: a number
// to each interaction is faster than a string, and takes less memory.
type codes struct {
	dimension Dimension
	values    []string // in order, without the empty one
	empty     bool     // the empty value is told apart too
}

// The empty value is the lowest, and the others are in their order, so that the
// greatest of the parts of an interaction is the same as among strings. Where
// parts contradict each other, values that are told apart go before others.
const (
	codeEmpty = iota
	codeOther
	codeFirst
)

func newCodes(d Dimension, values []string) codes {
	c := codes{dimension: d, values: slices.Compact(slices.Sorted(slices.Values(values)))}
	if len(c.values) > 0 && c.values[0] == "" {
		c.values, c.empty = c.values[1:], true
	}
	return c
}

// sql is the code of an interaction, from all its events.
func (c codes) sql(p parameters) string {
	if c.dimension == "" {
		return "toUInt8(0)"
	}
	values, numbers := []string{"''"}, []string{fmt.Sprint(codeEmpty)}
	for i, v := range c.values {
		values, numbers = append(values, p.add(v)), append(numbers, fmt.Sprint(codeFirst+i))
	}
	return fmt.Sprintf("max(toUInt8(transform(%s, [%s], [%s], %d)))", p.column(c.dimension), strings.Join(values, ", "), strings.Join(numbers, ", "), codeOther)
}

// told is SQL: the code in a column, but codeOther where it is not told apart.
func (c codes) told(column string) string {
	if c.empty {
		return column
	}
	return fmt.Sprintf("greatest(%s, toUInt8(%d))", column, codeOther)
}

func (c codes) value(code uint8) string {
	switch {
	case code == codeEmpty:
		return ""
	case code == codeOther || int(code-codeFirst) >= len(c.values):
		return Other
	}
	return c.values[code-codeFirst]
}

var spaces = regexp.MustCompile(`\s+`)

func line(sql string) string { return spaces.ReplaceAllString(sql, " ") }

// sql counts by one dimension, and within each value of each of the strata on
// its own. A row of its answer is a Cell, after the number of its stratum's
// dimension, from 1.
//
// Only sessions with something that the share is of are clusters. All the rest
// is one group, so that the second grouping is much smaller than the first.
func (q Query) sql(by codes, strata []codes) (string, parameters) {
	p := parameters{"category": q.Metric.category()}
	events, having := q.events(p), q.having(p, by)
	var columns, told []string
	for i, c := range strata {
		name := fmt.Sprintf("stratum_%d", i)
		columns, told = append(columns, c.sql(p)+" AS "+name), append(told, c.told(name))
	}
	of, hit := q.Metric.counts()
	return line(fmt.Sprintf(`
WITH asked AS
(
    SELECT %[1]s, any(cityHash64(session_id)) AS session, min(occurred_at) AS at, %[2]s AS by_value, %[3]s
    %[4]s
    GROUP BY interaction
    HAVING %[5]s
),
said AS
(
    SELECT %[1]s,
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
    SELECT dimension, bucket, by_value, stratum, cluster,
        count() AS interactions, sum(responded) AS responses, countIf(%[6]s) AS n, countIf((%[6]s) AND (%[7]s)) AS x
    FROM
    (
        SELECT if(%[6]s, session, 0) AS cluster, %[8]s AS bucket, %[9]s AS by_value, [%[10]s] AS strata, responded, good, bad, in_category, implicit
        FROM asked LEFT JOIN said USING (interaction)
    )
    ARRAY JOIN strata AS stratum, arrayEnumerate(strata) AS dimension
    GROUP BY dimension, bucket, by_value, stratum, cluster
)
SELECT dimension, bucket, by_value, stratum, sum(interactions), sum(responses),
    toFloat64(countIf(n > 0)), toFloat64(sum(x)), toFloat64(sum(n)), toFloat64(sum(x * x)), toFloat64(sum(x * n)), toFloat64(sum(n * n))
FROM counted
GROUP BY dimension, bucket, by_value, stratum
ORDER BY dimension, bucket, by_value, stratum`,
		interaction, by.sql(p), strings.Join(columns, ", "), events, having, of, hit, q.Bucket.sql(), by.told("by_value"), strings.Join(told, ", "))), p
}
