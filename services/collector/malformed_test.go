package collector

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// wholeEvent is an event that has every kind of field.
const wholeEvent = `{"type":"interaction","event_id":"01J","session_id":"s-1","interaction_id":"i-1","user_id":"u","tags":{"plan":"pro"},"occurred_at":"2026-01-02T03:04:05Z",` +
	`"interaction":{"query":"Can I return \"worn\" shoes? é","retrieved":[{"source":"faq","text":"t","score":0.5}],"latency_ms":840,"applied_patches":["p@2"]}}`

// malformed is a request and what its refusal must say.
type malformed struct {
	name, body string
	status     int
	field      string // that the error names; "*" for any but empty, "" for no matter
}

// malformedRequests makes about 1,500 requests, none of which is good.
func malformedRequests() []malformed {
	var out []malformed
	add := func(name, body string, field string) {
		out = append(out, malformed{name, body, http.StatusBadRequest, field})
	}
	batch := `{"events":[` + good + `,` + wholeEvent + `]}`
	for i := range len(wholeEvent) {
		add(fmt.Sprintf("truncated at %d", i), wholeEvent[:i], "")
	}
	for i := 11; i < len(batch); i++ {
		add(fmt.Sprintf("batch truncated at %d", i), batch[:i], "")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		b := []byte(wholeEvent)
		at := rng.IntN(len(b))
		if b[at] >= 0x80 {
			continue // another character might come out
		}
		b[at] = byte(0x80 + rng.IntN(0x80))
		add(fmt.Sprintf("bad UTF-8 at %d (%d)", at, i), string(b), "")
	}

	values := map[string]string{
		"null in list": `[null]`, "string": `"x"`, "number": `5`, "fraction": `1.5`, "negative": `-1`, "huge": `1e999`, "big": `99999999999999999999`,
		"true": `true`, "list": `[]`, "object": `{}`, "deep": strings.Repeat("[", 200) + strings.Repeat("]", 200),
	}
	// Every field of every message of an event, with a value of every wrong kind.
	eachField((&eventv1.Event{}).ProtoReflect().Descriptor(), "", func(path string, fd protoreflect.FieldDescriptor, wrap func(string) string) {
		for kind, value := range values {
			if fits(fd, kind) {
				continue
			}
			add(path+" is "+kind, wrap(value), "*")
		}
		add(path+" twice", wrap("null,"+`"`+string(fd.Name())+`":null`), path)
		add("unknown beside "+path, wrap(`null,"no_such_field_here":1`), "*")
	})
	for _, id := range []string{"type", "session_id", "interaction_id"} {
		add("no "+id, strings.Replace(wholeEvent, `"`+id+`"`, `"user_role"`, 1), id)
	}
	return out
}

// eachField calls fn for each field, with a function that makes an event in
// which it has a value.
func eachField(md protoreflect.MessageDescriptor, path string, fn func(string, protoreflect.FieldDescriptor, func(string) string)) {
	var walk func(md protoreflect.MessageDescriptor, path string, wrap func(string) string)
	walk = func(md protoreflect.MessageDescriptor, path string, wrap func(string) string) {
		fields := md.Fields()
		for i := range fields.Len() {
			fd := fields.Get(i)
			name := string(fd.Name())
			inner := func(v string) string { return wrap(`{"` + name + `":` + v + `}`) }
			fn(path+name, fd, inner)
			switch {
			case fd.IsMap() || fd.Message() == nil || fd.Message().FullName() == "google.protobuf.Timestamp":
			case fd.IsList():
				walk(fd.Message(), path+name+"[0].", func(v string) string { return inner("[" + v + "]") })
			default:
				walk(fd.Message(), path+name+".", inner)
			}
		}
	}
	walk(md, path, func(v string) string { return v })
}

// fits says whether a value of a kind may be in a field.
func fits(fd protoreflect.FieldDescriptor, kind string) bool {
	switch {
	case fd.IsMap():
		return kind == "object"
	case fd.IsList():
		return kind == "list"
	case fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Timestamp":
		return false
	case fd.Kind() == protoreflect.MessageKind:
		return kind == "object"
	case fd.Kind() == protoreflect.StringKind:
		return kind == "string"
	case fd.Kind() == protoreflect.BoolKind:
		return kind == "true"
	case fd.Kind() == protoreflect.DoubleKind:
		return kind == "number" || kind == "fraction" || kind == "negative" || kind == "big"
	default:
		return kind == "number"
	}
}

func TestMalformedRequestsAreRefusedAndNamed(t *testing.T) {
	f := newFixture(t, nil)
	server := httptest.NewServer(f.handler)
	defer server.Close()
	send := func(m malformed) *answerOf {
		req, err := http.NewRequest(http.MethodPost, server.URL+"/v1/events", strings.NewReader(m.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+f.secret)
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		return parse(resp.StatusCode, resp.Header, body)
	}
	requests := malformedRequests()
	if len(requests) < 1000 {
		t.Fatalf("only %d requests", len(requests))
	}
	var before uint64
	for round := range 2 {
		for _, m := range requests {
			a := send(m)
			if a.status != m.status || a.broken != nil || a.Error == nil || a.Error.Message == "" {
				t.Errorf("%s: got %d %s\n%.200s", m.name, a.status, a.raw, m.body)
				continue
			}
			if m.field == "*" && a.Error.Field == "" || m.field != "*" && m.field != "" && a.Error.Field != m.field {
				t.Errorf("%s: the error names %q, want %q: %s\n%.200s", m.name, a.Error.Field, m.field, a.raw, m.body)
			}
		}
		if heap := heapInUse(); round == 0 {
			before = heap
		} else if heap > before+8<<20 {
			t.Errorf("the heap grew from %d to %d bytes", before, heap)
		}
	}
	if len(f.memory.recs) != 0 {
		t.Errorf("%d records were published", len(f.memory.recs))
	}
	if a := send(malformed{name: "a good one", body: good}); a.status != http.StatusAccepted {
		t.Errorf("a good request afterwards: %d %s", a.status, a.raw)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// endless is a JSON string that does not end before n bytes.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n := min(e.n, len(p))
	for i := range p[:n] {
		p[i] = 'x'
	}
	e.n -= n
	return n, nil
}

func TestLargeBodiesAreRefusedInBoundedMemory(t *testing.T) {
	f := newFixture(t, nil)
	server := httptest.NewServer(drain(f.handler))
	defer server.Close()
	const size = 50 << 20
	post := func(chunked bool) {
		body := io.MultiReader(strings.NewReader(`{"type":"`), &endless{size})
		req, err := http.NewRequest(http.MethodPost, server.URL+"/v1/events", body)
		if err != nil {
			t.Fatal(err)
		}
		if !chunked {
			req.ContentLength = size + 9
		}
		req.Header.Set("Authorization", "Bearer "+f.secret)
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		parse(resp.StatusCode, resp.Header, raw).wantError(t, 413, "invalid_argument", "", "at most 16777216 bytes")
	}
	before := heapInUse()
	for i := range 20 {
		post(i%2 == 0)
	}
	if heap := heapInUse(); heap > before+16<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, heap)
	}
	if !f.handler.bodies.TryAcquire(int64(f.cfg.MaxBodies)) {
		t.Error("bodies were not given back")
	}
}

func TestManySmallThingsDoNotBecomeLarge(t *testing.T) {
	f := newFixture(t, nil)
	many := func(open, one, shut string, n int) string {
		return open + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + shut
	}
	f.send(many(`{"events":[`, `{}`, `]}`, 1_000_000)).wantError(t, 400, "invalid_argument", "events", "at most 1000 events")
	f.send(many(`{"interaction":{"retrieved":[`, `{}`, `]}}`, 1_000_000)).wantError(t, 400, "invalid_argument", "interaction.retrieved", "at most 256 elements")
	var tags bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&tags, `"%d":"",`, i)
	}
	f.send(`{"tags":{`+tags.String()+`"x":""}}`).wantError(t, 400, "invalid_argument", "tags", "at most 256 entries")
	f.send(strings.Repeat(`{"tags":`, 100_000)).wantError(t, 400, "invalid_argument", "tags.tags", "exceeded max depth")
}
