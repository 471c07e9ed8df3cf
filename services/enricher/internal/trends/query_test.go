package trends

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

func TestMain(m *testing.M) { os.Exit(embeddedtest.Run(m)) }

var monday = time.Date(2026, 3, 30, 0, 0, 0, 0, time.UTC)

// turn is an interaction and what people say of it at last.
type turn struct {
	session, id string
	parts       []part // in time
	said        []opinion
}

// part is an event of an interaction, with what it knows of it.
type part struct {
	at     time.Time
	values map[Dimension]string
}

type opinion struct{ explicit, positive, negative, outdated bool }

// random is made-up history, and the rows that it came in: parts of turns in
// several events, events and signals in several revisions, and rows of sessions
// that are erased.
func random(r *rand.Rand, conn driver.Conn, t *testing.T) []turn {
	var events, signals []string
	const clock = "2006-01-02 15:04:05.000"
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }
	var out []turn
	for s := range 400 {
		session, erased := fmt.Sprintf("s-%d", s), s%20 == 7
		plan := fmt.Sprintf("plan-%d", r.IntN(70))
		began := monday.Add(time.Duration(r.IntN(20*24*60)) * time.Minute)
		for i := range 1 + r.IntN(6) {
			u := turn{session: session, id: fmt.Sprintf("i-%d", i)}
			at := began.Add(time.Duration(i) * time.Hour)
			values := map[Dimension]string{
				"model_version": []string{"1", "2", "3", `it's \4`, ""}[r.IntN(5)], "user_role": []string{"a", "b", ""}[s%3],
				"prompt_version": fmt.Sprint("v", r.IntN(15)), "tag:plan": plan,
			}
			parts := 1 + r.IntN(3)/2*r.IntN(3)
			for n := range parts {
				p := part{at.Add(time.Duration(n) * 7 * time.Hour), map[Dimension]string{}}
				for d, v := range values {
					if (len(d)+n)%parts == 0 {
						p.values[d] = v
					}
				}
				u.parts = append(u.parts, p)
				for revision := range 1 + r.IntN(3)/2 {
					events = append(events, fmt.Sprintf("('p', %s, 'e-%s-%d', %s, 'interaction', %s, %s, %s, map('plan', %s), %s, %d)",
						quote(session), u.id, n, quote(u.id), quote(p.values["model_version"]), quote(p.values["user_role"]), quote(p.values["prompt_version"]),
						quote(p.values["tag:plan"]), quote(p.at.Format(clock)), revision))
				}
			}
			events = append(events, fmt.Sprintf("('p', %s, 'f-%s', %s, 'feedback', '', '', '', map(), %s, 1)", quote(session), u.id, quote(u.id), quote(at.Format(clock))))
			for n := range r.IntN(3) {
				var last opinion
				holds := false
				for revision := range 1 + r.IntN(3) {
					polarity := []string{"positive", "negative", "neutral"}[r.IntN(3)]
					kind := []string{"explicit", "preference", "implicit"}[r.IntN(3)]
					withdrawn, waiting := r.IntN(8) == 0, r.IntN(10) == 0
					last = opinion{explicit: kind != "implicit", positive: polarity == "positive", negative: polarity == "negative"}
					category := ""
					if last.outdated = r.IntN(2) == 0; last.outdated {
						category = quote("outdated")
					}
					holds = !withdrawn && !waiting
					signals = append(signals, fmt.Sprintf("('p', %s, 'sg-%s-%d', %d, %s, %s, %s, [%s], %t, %t, %s)", quote(session), u.id, n, revision, quote(u.id),
						quote(kind), quote(polarity), category, withdrawn, waiting, quote(at.Add(time.Hour).Format(clock))))
				}
				if holds {
					u.said = append(u.said, last)
				}
			}
			if !erased {
				out = append(out, u)
			}
		}
	}
	// In parts of their own, in no order.
	r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	r.Shuffle(len(signals), func(i, j int) { signals[i], signals[j] = signals[j], signals[i] })
	insert := func(table, columns string, rows []string) {
		for part := range slices.Chunk(rows, len(rows)/3+1) {
			if err := conn.Exec(t.Context(), "INSERT INTO "+table+" ("+columns+") VALUES "+strings.Join(part, ", ")); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Exec(t.Context(), "DELETE FROM "+table+" WHERE toUInt32(substring(session_id, 3)) % 20 = 7"); err != nil {
			t.Fatal(err)
		}
	}
	insert("events_log", "project_id, session_id, event_id, interaction_id, type, model_version, user_role, prompt_version, tags, occurred_at, revision", events)
	insert("signals_log", "project_id, session_id, signal_id, revision, interaction_id, kind, polarity, categories, withdrawn, waiting, occurred_at", signals)
	return out
}

// plain counts as Cells does, in the plainest way.
func plain(q Query, turns []turn) []Cell {
	value := func(u turn, d Dimension) (greatest string) {
		for _, p := range u.parts {
			greatest = max(greatest, p.values[d])
		}
		return greatest
	}
	var asked []turn
	for _, u := range turns {
		u.parts = slices.DeleteFunc(slices.Clone(u.parts), func(p part) bool { return p.at.Before(q.From) || !p.at.Before(q.To) })
		ok := len(u.parts) > 0 && (len(q.Values) == 0 || slices.Contains(q.Values, value(u, q.By)))
		for _, c := range q.Filter {
			ok = ok && value(u, c.Dimension) == c.Value
		}
		if ok {
			asked = append(asked, u)
		}
	}
	top := func(d Dimension, limit int) func(turn) string {
		count := map[string]int{}
		for _, u := range asked {
			count[value(u, d)]++
		}
		told := slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
		told = told[:min(limit, len(told))]
		return func(u turn) string {
			if v := value(u, d); d == "" || slices.Contains(told, v) {
				return v
			}
			return Other
		}
	}
	by, stratum := top(q.By, q.Limit), top(q.Stratum, maxStrata)
	if len(q.Values) > 0 {
		by = func(u turn) string { return value(u, q.By) }
	}
	type cell struct {
		bucket         int64
		value, stratum string
	}
	cells := map[cell]*Cell{}
	type sums struct{ x, n float64 }
	clusters := map[cell]map[string]sums{}
	for _, u := range asked {
		start := q.Bucket.Start(u.parts[0].at)
		key := cell{start.Unix(), by(u), stratum(u)}
		c := cells[key]
		if c == nil {
			c = &Cell{Bucket: start, Value: key.value, Stratum: key.stratum}
			cells[key], clusters[key] = c, map[string]sums{}
		}
		var responded, good, bad, inCategory, implicit bool
		for _, o := range u.said {
			responded = responded || o.explicit
			good = good || o.explicit && o.positive
			bad = bad || o.explicit && o.negative
			inCategory = inCategory || o.explicit && o.negative && o.outdated && q.Metric == "category:outdated"
			implicit = implicit || !o.explicit && o.negative
		}
		of, hit := good || bad, good && !bad
		switch q.Metric {
		case Dissatisfaction:
			hit = bad
		case Response:
			of, hit = true, responded
		case Implicit:
			of, hit = true, implicit
		case Satisfaction:
		default:
			of, hit = responded, inCategory
		}
		c.Interactions++
		if responded {
			c.Responses++
		}
		s := clusters[key][u.session]
		if of {
			s.n++
			if hit {
				s.x++
			}
		}
		clusters[key][u.session] = s
	}
	var out []Cell
	for key, c := range cells {
		for _, s := range clusters[key] {
			if s.n > 0 {
				c.Clusters.Clusters++
			}
			c.X, c.N, c.XX, c.XN, c.NN = c.X+s.x, c.N+s.n, c.XX+s.x*s.x, c.XN+s.x*s.n, c.NN+s.n*s.n
		}
		out = append(out, *c)
	}
	return out
}

// TestCellsCountAsPlainly compares with a count in plain loops, on histories
// with parts, revisions, withdrawals and erasures.
func TestCellsCountAsPlainly(t *testing.T) {
	conn := trailtest.Conn(t)
	r := rand.New(rand.NewPCG(1, 2))
	turns := random(r, conn, t)
	store := NewStore(conn)
	text := func(cells []Cell) []string {
		out := make([]string, len(cells))
		for i, c := range cells {
			out[i] = fmt.Sprintf("%s value=%q stratum=%q %d interactions, %d responses, %v", c.Bucket.UTC().Format(time.DateTime), c.Value, c.Stratum, c.Interactions, c.Responses, c.Clusters)
		}
		slices.Sort(out)
		return out
	}
	all := Query{Project: "p", Metric: Satisfaction, Bucket: Day, From: monday.AddDate(0, 0, -1), To: monday.AddDate(0, 0, 30)}
	for name, change := range map[string]func(*Query){
		"all":                   func(*Query) {},
		"a part of the time":    func(q *Query) { q.From, q.To = monday.AddDate(0, 0, 5), monday.AddDate(0, 0, 9) },
		"few values":            func(q *Query) { q.By, q.Limit, q.Bucket = "model_version", 10, Week },
		"more values than told": func(q *Query) { q.By, q.Limit, q.Bucket = "model_version", 2, Week },
		"a tag with many":       func(q *Query) { q.By, q.Limit, q.Bucket = "tag:plan", 10, Whole },
		"re-weighted":           func(q *Query) { q.By, q.Limit, q.Stratum, q.Bucket = "prompt_version", 5, "user_role", Month },
		"many strata":           func(q *Query) { q.Stratum, q.Bucket = "tag:plan", Whole },
		"filters": func(q *Query) {
			q.Filter = []Condition{{"model_version", `it's \4`}, {"user_role", ""}}
			q.By, q.Limit = "prompt_version", 3
		},
		"two values": func(q *Query) {
			q.By, q.Values, q.Limit, q.Stratum, q.Bucket = "model_version", []string{"2", ""}, 2, "tag:plan", Whole
		},
	} {
		for _, metric := range []Metric{Satisfaction, Dissatisfaction, Response, Implicit, "category:outdated"} {
			t.Run(name+" "+string(metric), func(t *testing.T) {
				q := all
				q.Metric = metric
				change(&q)
				cells, err := store.Cells(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := text(cells), text(plain(q, turns)); !slices.Equal(got, want) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			})
		}
	}
}
