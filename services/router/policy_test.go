package router

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/auth"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

func compile(t *testing.T, source string) *Policy {
	t.Helper()
	p, err := CompilePolicy("policy.yaml", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func defaultPolicy(t testing.TB) *Policy {
	t.Helper()
	p, err := DefaultPolicy()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// one is a policy of one rule with this condition.
func one(when string) string {
	return "version: 1\nrules:\n  - name: a\n    when: " + when + "\n    routes: [product]\n    reason: because\n"
}

func TestCompileErrorsNameThePlaceAndTheRemedy(t *testing.T) {
	tests := []struct{ name, source, want string }{
		{"empty", "", "policy.yaml:1:1: the policy is empty"},
		{"only a comment", "# nothing\n", "policy.yaml:1:1: the policy is empty"},
		{"a list", "- a\n", "policy.yaml:1:1: the policy: want version, rules, default"},
		{"no version", "rules: []\n", "1:1: version: missing"},
		{"future version", "version: 2\nrules: []\n", "1:10: version: want 1"},
		{"no rules", "version: 1\n", "1:1: rules: missing"},
		{"rules is a text", "version: 1\nrules: all\n", "2:8: rules: want a list"},
		{"not YAML", "version: 1\nrules:\n  - name: a\n   when: b\n", "not YAML: did not find expected"},
		{"two documents", one("true") + "---\nversion: 1\n", "a second YAML document"},
		{"misspelt key", "version: 1\nruls: []\n", `2:1: the policy: key "ruls" is not known: did you mean "rules"?`},
		{"misspelt rule key", "version: 1\nrules:\n  - name: a\n    wen: 'true'\n", `4:5: a rule: key "wen" is not known: did you mean "when"?`},
		{"doubled key", "version: 1\nversion: 1\nrules: []\n", `2:1: the policy: key "version" stands twice`},
		{"misspelt route", strings.Replace(one("true"), "[product]", "[fine-tun]", 1), `5:14: rule "a": route "fine-tun" is not known: did you mean "fine-tune"?`},
		{"unknown route", strings.Replace(one("true"), "[product]", "[product, xyzxyzxyz]", 1), `5:23: rule "a": route "xyzxyzxyz" is not known: want one of prompt-patch`},
		{"doubled route", strings.Replace(one("true"), "[product]", "[product, product]", 1), `5:23: rule "a": route "product" is named twice`},
		{"ignore and more", strings.Replace(one("true"), "[product]", "[product, ignore]", 1), `5:23: rule "a": ignore stands alone`},
		{"routes is a mapping", strings.Replace(one("true"), "[product]", "{a: b}", 1), `5:13: rule "a": routes: want a list`},
		{"no routes", strings.Replace(one("true"), "    routes: [product]\n", "", 1), `3:5: rule "a": routes is missing`},
		{"no reason", strings.Replace(one("true"), "    reason: because\n", "", 1), `3:5: rule "a": reason is missing`},
		{"no when", strings.Replace(one("true"), "    when: true\n", "", 1), `3:5: rule "a": when is missing`},
		{"no name", strings.Replace(one("true"), "- name: a", "- routes: []", 1), `key "routes" stands twice`},
		{"name taken by Hone", strings.Replace(one("true"), "name: a", "name: default", 1), `3:11: name "default" is taken`},
		{"bad name", strings.Replace(one("true"), "name: a", "name: A b", 1), `3:11: name "A b": want lower-case`},
		{"name taken", one("true") + strings.TrimPrefix(one("true"), "version: 1\nrules:\n"), `7:11: name "a" is taken by the rule on line 3`},
		{"not a bool", one("case.negatives + 1"), `4:11: rule "a": when is a int, want a bool`},
		{"misspelt field", one("case.negativs > 3"), `4:15: rule "a": undefined field 'negativs': did you mean "negatives"?`},
		{"misspelt fact", one("sginal.kind == ''"), `4:11: rule "a": undeclared reference to 'sginal': did you mean "signal"?`},
		{"type mismatch", one("case.negatives == 'three'"), `4:26: rule "a": found no matching overload`},
		{"syntax", one("case.negatives >"), `4:27: rule "a": Syntax error: mismatched input '<EOF>'`},
		{"quoted", one(`'case.state == "new" && case.negativs > 3'`), "4:39: "},
		{"quoted with escapes", one(`'case.state == ''new'' && case.negativs > 3'`), "4:41: "},
		{"literal block", one("|\n      case.state == 'new'\n        && case.negativs > 3"), "6:16: "},
		{"folded block", one(">-\n      case.state == 'new'\n      && case.negativs > 3"), "6:14: "},
		{"plain over two lines", one("case.state == 'new'\n      && case.negativs > 3"), "5:14: "},
		{"value outside its set", one("signal.polarity == 'negativ'"), `4:30: rule "a": signal.polarity is never "negativ": did you mean "negative"?`},
		{"value outside its set, in a list", one("signal.severity in ['high', 'sever']"), `signal.severity is never "sever"`},
		{"sample", strings.Replace(one("true"), "    routes", "    sample: 2\n    routes", 1), `5:13: rule "a": sample: want the share`},
		{"sample is a text", strings.Replace(one("true"), "    routes", "    sample: few\n    routes", 1), `5:13: rule "a": sample: want the share`},
		{"limit is a number", strings.Replace(one("true"), "    routes", "    limit: 5\n    routes", 1), `5:12: rule "a": limit: want count, per`},
		{"limit without per", strings.Replace(one("true"), "    routes", "    limit: {count: 5}\n    routes", 1), `5:12: rule "a": limit: per is missing`},
		{"limit of none", strings.Replace(one("true"), "    routes", "    limit: {count: 0, per: day}\n    routes", 1), `5:20: rule "a": limit: count: want a whole number`},
		{"misspelt period", strings.Replace(one("true"), "    routes", "    limit: {count: 5, per: dya}\n    routes", 1), `5:28: rule "a": limit: per "dya" is not known: did you mean "day"?`},
		{"hold for one", strings.Replace(one("true"), "    routes", "    hold: 1\n    routes", 1), `5:11: rule "a": hold: want how many`},
		{"hold nothing", strings.Replace(one("true"), "    routes: [product]", "    hold: 3\n    routes: []", 1), `5:11: rule "a": hold: without routes`},
		{"misspelt priority", strings.Replace(one("true"), "    routes", "    priority: hihg\n    routes", 1), `5:15: rule "a": priority "hihg" is not known: did you mean "high"?`},
		{"too long", one("'" + strings.Repeat("true || ", 600) + "true'"), "more than the 4096 allowed"},
		{"alias of itself", "version: 1\nrules: &a\n  - *a\n", "a rule: want name, when, sample, limit, hold, routes, priority, reason"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := CompilePolicy("policy.yaml", []byte(tt.source))
			if _, ok := errors.AsType[*PolicyErrors](err); !ok {
				t.Fatalf("got %v, want PolicyErrors", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestCompileReportsAllErrorsInOrder(t *testing.T) {
	_, err := CompilePolicy("p.yaml", []byte("version: 1\nrules:\n"+
		"  - {name: a, when: 'nope', routes: [x], reason: r}\n"+
		"  - {name: b, when: 'true', routes: [], reason: ''}\n"))
	perr, ok := errors.AsType[*PolicyErrors](err)
	if !ok || len(perr.Errors) != 3 {
		t.Fatalf("got %v, want 3 errors", err)
	}
	if !slices.IsSortedFunc(perr.Errors, func(a, b PolicyError) int { return a.Line - b.Line }) {
		t.Errorf("not in order: %v", err)
	}
}

func TestVersionFollowsMeaningNotLayout(t *testing.T) {
	base := compile(t, one("true"))
	same := compile(t, "# a comment\nversion: 1\nrules:\n- reason: 'because'\n  name: \"a\"\n  routes:\n  - product\n  when: >-\n    true\n")
	if base.Version() != same.Version() {
		t.Error("layout changed the version")
	}
	if !strings.HasPrefix(base.Version(), "pv_") {
		t.Errorf("version %q, want pv_...", base.Version())
	}
	for _, other := range []string{
		one("false"),
		strings.Replace(one("true"), "because", "why not", 1),
		strings.Replace(one("true"), "[product]", "[]", 1),
		strings.Replace(one("true"), "name: a", "name: b", 1),
		one("true") + "default: {routes: [product], reason: r}\n",
	} {
		if compile(t, other).Version() == base.Version() {
			t.Errorf("the same version for another policy:\n%s", other)
		}
	}
}

func TestFirstMatchDecidesAndErrorsAreTold(t *testing.T) {
	p := compile(t, `
version: 1
rules:
  - {name: no, when: 'case.negatives > 100', routes: [product], reason: never}
  - {name: broken, when: 'case.categories["absent"] > 1', routes: [product], reason: never}
  - {name: costly, when: '[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, a+b+c+d > 0))))', routes: [product], reason: never}
  - {name: yes, when: 'true', routes: [fine-tune], reason: Sure.}
  - {name: later, when: 'true', routes: [product], reason: never}
`)
	v := p.Decide(NewFacts(&casesv1.CaseSignal{Signal: &signalv1.Signal{}}), Situation{})
	if v.Rule != "yes" || !slices.Equal(v.Routes, []string{RouteFineTune}) {
		t.Fatalf("got %+v, want rule yes", v)
	}
	if len(v.Results) != 4 || v.Results[0].Err != nil || v.Results[1].Err == nil || v.Results[2].Err == nil || !v.Results[3].Matched {
		t.Errorf("results %+v, want not, error, error, matched", v.Results)
	}
	for _, want := range []string{"Sure. Passed over", "broken (no such key: absent)", "costly (operation cancelled: actual cost limit exceeded)"} {
		if !strings.Contains(v.Reason, want) {
			t.Errorf("reason %q does not say %s", v.Reason, want)
		}
	}
}

func TestNoRuleMeansDefault(t *testing.T) {
	f := NewFacts(&casesv1.CaseSignal{Signal: &signalv1.Signal{}})
	if v := compile(t, one("false")).Decide(f, Situation{}); v.Rule != RuleDefault || len(v.Routes) != 0 || v.Reason == "" {
		t.Errorf("got %+v, want the built-in default", v)
	}
	v := compile(t, one("false")+"default: {routes: [human-review], reason: Somebody looks.}\n").Decide(f, Situation{})
	if v.Rule != RuleDefault || !slices.Equal(v.Routes, []string{RouteHumanReview}) || v.Reason != "Somebody looks." {
		t.Errorf("got %+v, want the policy's default", v)
	}
}

// TestEveryFactIsUsable compiles a condition over each field of each fact.
func TestEveryFactIsUsable(t *testing.T) {
	for _, when := range []string{
		`signal.kind == "explicit" && signal.rating < 0 && signal.has_rating && signal.confidence > 0.5 && signal.revision == 1`,
		`signal.categories.exists(c, c.startsWith("fact")) && signal.category in signal.categories && signal.severity == "high"`,
		`signal.has_comment && signal.has_correction && signal.has_edits && signal.polarity == "negative"`,
		`interaction.known && interaction.model == "m" && interaction.model_version.startsWith("2026") && interaction.prompt_version == "v1"`,
		`interaction.tags["plan"] == "pro" && "plan" in interaction.tags && interaction.user_role == "agent" && interaction.environment == "production"`,
		`interaction.latency_ms > 1000 && interaction.input_tokens + interaction.output_tokens > 5 && interaction.turn > 2`,
		`interaction.has_retrieved && interaction.has_tools && interaction.has_tool_error && interaction.has_system_context`,
		`interaction.applied_patches.size() > 0 && interaction.language == "en" && interaction.finish_reason == "length"`,
		`session.id != "" && session.age_seconds > 60.0 && session.age_seconds > 60`,
		`case.id != "" && case.state == "solved" && case.negatives > 3 && case.positives == 0 && case.users > 1 && case.sessions > 1`,
		`case.categories["factually_incorrect"] > 2 && case.model_versions.size() > 1 && case.severity == "high" && case.founded`,
		`interaction.tags[?"plan"].orValue("") == "pro"`,
		`user.known && user.negatives_24h > 1 && user.negatives_7d * 2 > user.signals_7d && session.negatives > 1`,
		`case.negatives_24h > 3 && case.negatives_7d > 10 && case.negative_share > 0.5 && signal.dissatisfaction > 0.8 && "regenerated" in signal.findings`,
		`case.has_approved_answer && case.age_days < 7 && similarity > 0.9`,
	} {
		compile(t, one("'"+when+"'"))
	}
}

func ptr[T any](v T) *T { return &v }

// negative is an explicit complaint about a known interaction in a new case.
func negative(change func(*casesv1.CaseSignal)) *casesv1.CaseSignal {
	cs := &casesv1.CaseSignal{
		Signal: &signalv1.Signal{
			SignalId: "sg_1", ProjectId: "p", SessionId: "s", InteractionId: "i", Kind: "explicit", Revision: 1,
			Polarity: "negative", Rating: ptr(-1.0), Severity: "medium", Confidence: 1,
			Interaction: &eventv1.Interaction{Query: "q", Output: "o", Model: "m", ModelVersion: "1"},
		},
		Case:       &casesv1.Case{CaseId: "cs_1", ProjectId: "p", State: "new", Negatives: 1, Users: 1, Sessions: 1, Version: 1},
		Similarity: 1, Founded: true,
	}
	if change != nil {
		change(cs)
	}
	return cs
}

func category(names ...string) func(*casesv1.CaseSignal) {
	return func(cs *casesv1.CaseSignal) {
		cs.Signal.Category, cs.Signal.Categories = names[0], names
	}
}

func TestDefaultPolicy(t *testing.T) {
	all := func(changes ...func(*casesv1.CaseSignal)) *casesv1.CaseSignal {
		cs := negative(nil)
		for _, change := range changes {
			change(cs)
		}
		return cs
	}
	corrected := func(cs *casesv1.CaseSignal) { cs.Signal.Correction = "better" }
	recurring := func(cs *casesv1.CaseSignal) { cs.Case.Negatives, cs.Case.Sessions, cs.Case.Users = 3, 3, 3 }
	disputed := func(cs *casesv1.CaseSignal) { cs.Case.Negatives, cs.Case.Positives = 4, 1 }
	severity := func(s string) func(*casesv1.CaseSignal) {
		return func(cs *casesv1.CaseSignal) { cs.Signal.Severity = s }
	}
	polarity := func(s string) func(*casesv1.CaseSignal) {
		return func(cs *casesv1.CaseSignal) { cs.Signal.Polarity = s }
	}
	kind := func(s string, confidence float64) func(*casesv1.CaseSignal) {
		return func(cs *casesv1.CaseSignal) { cs.Signal.Kind, cs.Signal.Confidence = s, confidence }
	}
	tests := []struct {
		name   string
		in     *casesv1.CaseSignal
		rule   string
		routes []string
	}{
		{"thumb up", all(polarity("positive")), "positive", nil},
		{"thumb up without a case", &casesv1.CaseSignal{Signal: &signalv1.Signal{Kind: "explicit", Polarity: "positive"}}, "positive", nil},
		{"neither", all(polarity("neutral")), "neutral", nil},
		{"preference", all(kind("preference", 1), polarity("positive")), "preference", []string{RouteFineTune}},
		{"wrong, with the right answer", all(category("factually_incorrect"), corrected), "knowledge-gap-corrected", []string{RouteFineTune, RouteHumanReview}},
		{"wrong, the first time", all(category("factually_incorrect")), "knowledge-gap-new", []string{RouteHumanReview}},
		{"wrong, again and again", all(category("outdated"), recurring), "knowledge-gap-recurring", []string{RouteFineTune}},
		{"incomplete as second category", all(category("too_short", "incomplete"), recurring), "knowledge-gap-recurring", []string{RouteFineTune}},
		{"one session complains thrice", all(category("outdated"), recurring, func(cs *casesv1.CaseSignal) { cs.Case.Sessions = 1 }), "knowledge-gap-new", []string{RouteHumanReview}},
		{"tone", all(category("wrong_tone")), "manner", []string{RoutePromptPatch}},
		{"length", all(category("too_long")), "manner", []string{RoutePromptPatch}},
		{"format, with a better answer", all(category("formatting"), corrected), "manner-corrected", []string{RoutePromptPatch, RouteHumanReview}},
		{"unsafe", all(category("unsafe"), corrected, recurring), "unsafe", []string{RouteHumanReview}},
		{"critical", all(category("wrong_tone"), severity("critical")), "unsafe", []string{RouteHumanReview}},
		{"severe", all(category("misunderstood_intent"), severity("high"), recurring), "severe-without-answer", []string{RouteHumanReview}},
		{"severe and recurring gap", all(category("factually_incorrect"), severity("high"), recurring), "knowledge-gap-recurring", []string{RouteFineTune}},
		{"content, but knows better", all(polarity("positive"), corrected), "corrected", []string{RouteHumanReview}},
		{"severe, with the right answer", all(category("factually_incorrect"), severity("high"), corrected), "knowledge-gap-corrected", []string{RouteFineTune, RouteHumanReview}},
		{"disputed", all(category("factually_incorrect"), disputed, corrected), "disputed", []string{RouteHumanReview}},
		{"one content user among many is no dispute", all(category("outdated"), recurring, func(cs *casesv1.CaseSignal) { cs.Case.Negatives, cs.Case.Positives = 50, 1 }), "knowledge-gap-recurring", []string{RouteFineTune}},
		{"the product", all(category("bug")), "product-trouble", []string{RouteProduct}},
		{"the interface", all(category("interface_problem"), recurring), "product-trouble", []string{RouteProduct}},
		{"thumb down alone", all(), "unclear", []string{RouteHumanReview}},
		{"a category of one's own", all(category("smells_funny")), "unclear", []string{RouteHumanReview}},
		{"a correction alone", all(corrected), "corrected", []string{RouteHumanReview}},
		{"regenerated once", all(kind("implicit", 0.4)), "weak-sign", nil},
		{"surely unhappy, but alone: held", all(kind("implicit", 0.9)), "silent-failure", nil},
		{"surely unhappy, without a case", all(kind("implicit", 0.9), func(cs *casesv1.CaseSignal) { cs.Case = nil }), RuleDefault, nil},
		{"surely unhappy, like others", all(kind("implicit", 0.9), recurring), "silent-failure", []string{RouteHumanReview}},
	}
	p := defaultPolicy(t)
	used := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := p.Decide(NewFacts(tt.in), Situation{})
			used[v.Rule] = true
			if v.Rule != tt.rule || !slices.Equal(v.Routes, tt.routes) {
				t.Errorf("got %s %v, want %s %v", v.Rule, v.Routes, tt.rule, tt.routes)
			}
			for _, r := range v.Results {
				if r.Err != nil {
					t.Errorf("rule %s: %v", r.Rule, r.Err)
				}
			}
		})
	}
	for _, r := range p.rules {
		if !used[r.name] {
			t.Errorf("no case of this test reaches rule %s", r.name)
		}
	}
}

func TestMutationsOfAPolicyAreValidOrClearErrors(t *testing.T) {
	live := newPolicies(defaultPolicy(t), nil)
	service := &api{policies: live, caughtUp: func() error { return nil }}
	asProject := auth.WithKey(t.Context(), auth.Key{ProjectID: "p", Kind: auth.Secret})
	source := strings.Replace(string(defaultPolicyYAML), "\ndefault:", `
  - {name: more, when: 'user.negatives_7d > 3 && "thumb" in signal.findings', sample: 0.25, limit: {count: 20, per: day}, hold: 5, routes: [alert, product], priority: high, reason: More.}

default:`, 1)
	compile(t, source)
	facts := NewFacts(negative(category("outdated")))
	bits := []string{"", " ", "\n", "\t", ":", "-", "[", "]", "{", "}", "'", "\"", "&a ", "*a", "!!int ", "|", ">", "#", "%", "(", ")", "&&", "||", ".", "\x00", "\xff", "é", "case", "when:", "rules:", "- name: x", "0", "<<: *a", "---\n", "\u2028"}
	r := rand.New(rand.NewPCG(1, 2))
	valid := 0
	for i := range 500 {
		s := []byte(source)
		for range 1 + r.IntN(3) {
			at := r.IntN(len(s))
			end := min(len(s), at+r.IntN(12))
			switch r.IntN(4) {
			case 0: // delete
				s = slices.Delete(s, at, end)
			case 1: // replace
				s = slices.Replace(s, at, end, []byte(bits[r.IntN(len(bits))])...)
			case 2: // insert
				s = slices.Insert(s, at, []byte(bits[r.IntN(len(bits))])...)
			case 3: // double
				s = slices.Insert(s, at, s[at:end]...)
			}
			if len(s) == 0 {
				break
			}
		}
		p, err := CompilePolicy("p.yaml", s)
		if err == nil {
			valid++
			p.Decide(facts, Situation{Taken: func(string) int64 { return 1 }})
			continue
		}
		perr, ok := errors.AsType[*PolicyErrors](err)
		if !ok {
			t.Fatalf("mutation %d: got %v, want PolicyErrors", i, err)
		}
		if _, err := service.PublishPolicy(asProject, &policyv1.PublishPolicyRequest{Yaml: string(s)}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("mutation %d: published with %v", i, err)
		}
		if now := live.of("p"); now != live.own {
			t.Fatalf("mutation %d changed the live policy", i)
		}
		lines := strings.Count(string(s), "\n") + 1
		for _, e := range perr.Errors {
			if e.Line < 1 || e.Line > lines || e.Column < 1 || e.Message == "" {
				t.Errorf("mutation %d: error %+v is outside of %d lines", i, e, lines)
			}
		}
	}
	t.Logf("%d of 500 mutations are valid policies", valid)
}

func TestDecideIsDeterministic(t *testing.T) {
	in := negative(category("factually_incorrect"))
	in.Signal.Tags = map[string]string{"a": "1", "b": "2", "c": "3"}
	in.Case.Categories = map[string]uint32{"x": 1, "y": 2, "z": 3}
	var first string
	for range 100 {
		f := NewFacts(in)
		facts, err := f.JSON()
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(defaultPolicy(t).Decide(f, Situation{}), facts)
		if first == "" {
			first = got
		}
		if got != first {
			t.Fatalf("got  %s\nthen %s", first, got)
		}
	}
}

func TestFactsAreBoundedAndSayWhatIsOmitted(t *testing.T) {
	in := negative(nil)
	in.Signal.Tags = map[string]string{"long": strings.Repeat("x", 2*maxFacts)}
	facts, err := NewFacts(in).JSON()
	if err != nil {
		t.Fatal(err)
	}
	if len(facts) > maxFacts || !strings.Contains(facts, `"omitted":["interaction.tags"]`) {
		t.Errorf("%d bytes: %.200s", len(facts), facts)
	}
	in.Signal.SessionId = strings.Repeat("s", 2*maxFacts)
	in.Signal.Kind = strings.Repeat("k", 2*maxFacts)
	in.Case.State = strings.Repeat("k", 2*maxFacts)
	if facts, err = NewFacts(in).JSON(); err != nil || len(facts) > maxFacts {
		t.Errorf("%d bytes, %v", len(facts), err)
	}
}

func BenchmarkDecide(b *testing.B) {
	p, f := defaultPolicy(b), NewFacts(negative(nil))
	for b.Loop() {
		p.Decide(f, Situation{})
	}
}

func TestSamplesAreAlwaysTheSameAndOfTheirShare(t *testing.T) {
	p := compile(t, strings.Replace(one("true"), "    routes", "    sample: 0.2\n    priority: high\n    routes", 1))
	f := NewFacts(negative(nil))
	taken := 0
	for i := range 2000 {
		sit := Situation{ProjectID: "p", SignalID: fmt.Sprint("sg_", i)}
		v := p.Decide(f, sit)
		if again := p.Decide(f, sit); v.Rule != again.Rule {
			t.Fatalf("%s, then %s", v.Rule, again.Rule)
		}
		switch {
		case v.Rule == "a" && v.Priority == PriorityHigh:
			taken++
		case v.Rule != RuleDefault || v.Results[0].PassedOver != notSampled || v.Priority != "":
			t.Fatalf("got %+v", v)
		}
	}
	if taken < 340 || taken > 460 {
		t.Errorf("%d of 2000, want about 400", taken)
	}
}

func TestAboveItsLimitARuleIsPassedOver(t *testing.T) {
	p := compile(t, strings.Replace(one("true"), "    routes", "    limit: {count: 3, per: day}\n    routes", 1))
	f := NewFacts(negative(nil))
	for taken, want := range []string{"a", "a", "a", RuleDefault, RuleDefault} {
		v := p.Decide(f, Situation{Taken: func(string) int64 { return int64(taken) }})
		if res := v.Results[0].proto(); v.Rule != want || res.GetTaken() != uint32(taken) || (want == RuleDefault) != (res.Result == overLimit) {
			t.Errorf("after %d: %s, %v, want %s", taken, v.Rule, res, want)
		}
	}
	monday := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for per, want := range map[string]time.Time{"week": monday, "day": monday.AddDate(0, 0, 6), "hour": monday.Add(167 * time.Hour), "minute": monday.Add(168*time.Hour - time.Minute)} {
		if got := (limit{per: per}).start(monday.Add(168*time.Hour - time.Second)); !got.Equal(want) {
			t.Errorf("%s begins %s, want %s", per, got, want)
		}
	}
}
