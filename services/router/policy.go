package router

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/ext"
	"go.yaml.in/yaml/v3"

	"github.com/honeloop/hone/pkg/ids"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// The routes that a rule can name. Each has a topic of its own.
const (
	RoutePromptPatch = "prompt-patch"
	RouteFineTune    = "fine-tune"
	RouteHumanReview = "human-review"
	RouteProduct     = "product"
	// RouteAlert tells people at once, through hone.alerts.
	RouteAlert = "alert"

	// routeIgnore stands for no route at all.
	routeIgnore = "ignore"
)

// Names in a decision that are no rule's.
const (
	// RuleDefault is the rule of a decision where no rule matched.
	RuleDefault = "default"
	// RuleWithdrawn is the rule of a decision on a withdrawn signal.
	RuleWithdrawn = "withdrawn"
)

// Limits of a policy.
const (
	maxPolicySize = 256 << 10 // bytes of YAML
	maxRules      = 200
	maxName       = 100   // characters of a rule's name
	maxReason     = 1000  // characters of a reason
	maxCondition  = 4096  // characters of a condition
	maxCost       = 20000 // CEL cost units of one evaluation; about 1 ms
)

// Policy is a compiled policy. It never changes and is safe for concurrent use.
type Policy struct {
	version string
	source  string
	rules   []rule
	// otherwise is what happens where no rule matches.
	otherwise outcome
}

type outcome struct {
	routes   []string
	priority string // empty means PriorityNormal
	reason   string
}

type rule struct {
	name string
	when string
	// sample is the share of signals that the rule takes; 0 stands for all.
	sample float64
	limit  limit
	// hold is how many negative signals the case must have before the routes are
	// taken; 0 for none.
	hold int64
	// counted is whether the condition looks at facts that Counts adds.
	counted bool
	outcome
	program cel.Program
}

// limit is how many signals a rule takes in each period.
type limit struct {
	count int64 // 0 stands for no limit
	per   string
}

// start is the beginning of the period that a time is in. Periods are those of
// UTC; weeks begin on Monday.
func (l limit) start(at time.Time) time.Time { return at.UTC().Truncate(periods()[l.per]) }

func periods() map[string]time.Duration {
	return map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour}
}

// Priorities of what is routed.
const (
	PriorityLow    = "low"
	PriorityNormal = "normal"
	PriorityHigh   = "high"
	PriorityUrgent = "urgent"
)

func allPriorities() []string {
	return []string{PriorityLow, PriorityNormal, PriorityHigh, PriorityUrgent}
}

// Situation is what a policy looks at besides the facts.
type Situation struct {
	ProjectID, SignalID string
	// Taken is how many other signals the rule took in the current one's period.
	// It is asked only of rules that have a limit and match otherwise.
	Taken func(rule string) int64
}

// Verdict is what a policy says about facts.
type Verdict struct {
	// Rule that matched, or RuleDefault.
	Rule   string
	Routes []string
	// Priority is empty where there are no routes.
	Priority string
	// HoldUntil is how many negative signals the case must have before the signal
	// goes to HeldRoutes; 0 where it is not held.
	HoldUntil  uint32
	HeldRoutes []string
	Reason     string
	// Results of the rules that were looked at, in order.
	Results []Result
}

// Result is what one rule said. Err is set where its condition could not be
// evaluated; such a rule does not match.
type Result struct {
	Rule    string
	Matched bool
	// PassedOver says why a rule does not count though its condition is true:
	// notSampled, overLimit or noCase.
	PassedOver string
	// Taken is what the rule's limit was compared with; nil where it was not.
	Taken *uint32
	Err   error
}

const (
	notSampled = "not sampled"
	overLimit  = "over limit"
	noCase     = "no case"
)

// PolicyError is one thing that is wrong with a policy's text. Line and Column
// count from 1; Column counts characters.
type PolicyError struct {
	Line, Column int
	Message      string
}

// PolicyErrors are all the errors of a policy, in the order of the text.
type PolicyErrors struct {
	// Name of the file.
	Name   string
	Errors []PolicyError
}

func (e *PolicyErrors) Error() string {
	lines := make([]string, len(e.Errors))
	for i, err := range e.Errors {
		lines[i] = fmt.Sprintf("%s:%d:%d: %s", e.Name, err.Line, err.Column, err.Message)
	}
	return strings.Join(lines, "\n")
}

// CompilePolicy checks and compiles a policy. name is what errors call the
// file. The error is a *PolicyErrors where the text is at fault.
func CompilePolicy(name string, source []byte) (*Policy, error) {
	env, err := newEnv()
	if err != nil {
		return nil, err
	}
	c := &compiler{env: env, lines: strings.Split(string(source), "\n")}
	p := c.policy(source)
	if len(c.errs) > 0 {
		slices.SortStableFunc(c.errs, func(a, b PolicyError) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return nil, &PolicyErrors{Name: name, Errors: slices.Compact(c.errs)}
	}
	p.source = string(source)
	p.version = p.hash()
	return p, nil
}

// Version is "pv_" and a hash of what the policy says. Comments, layout and
// quoting do not change it.
func (p *Policy) Version() string { return p.version }

// Source is the YAML that the policy was compiled from.
func (p *Policy) Source() string { return p.source }

// Decide applies the rules in order; the first one that matches decides. Equal
// facts in equal situations always give an equal verdict.
func (p *Policy) Decide(f *Facts, sit Situation) Verdict {
	v := Verdict{Rule: RuleDefault}
	out, hold := p.otherwise, int64(0)
	vars := map[string]any{
		"signal": f.Signal, "interaction": f.Interaction, "session": f.Session,
		"case": f.Case, "user": f.User, "similarity": f.Similarity,
	}
	for i := range p.rules {
		r := &p.rules[i]
		res := r.look(vars, f.Case.ID, sit)
		v.Results = append(v.Results, res)
		if res.Matched {
			v.Rule, out, hold = r.name, r.outcome, r.hold
			break
		}
	}
	v.Routes, v.Reason = out.routes, out.reason+passedOver(v.Results)
	if f.Case.Negatives < hold {
		v.Routes, v.HeldRoutes, v.HoldUntil = nil, out.routes, uint32(hold)
		v.Reason += fmt.Sprintf(" It is held until its case has %d negative signals; it had %d.", hold, f.Case.Negatives)
	}
	if len(v.Routes) > 0 || len(v.HeldRoutes) > 0 {
		v.Priority = cmp.Or(out.priority, PriorityNormal)
	}
	return v
}

// look says whether the rule takes the signal.
func (r *rule) look(vars map[string]any, caseID string, sit Situation) Result {
	res := Result{Rule: r.name}
	if res.Matched, res.Err = r.eval(vars); !res.Matched {
		return res
	}
	if r.sample > 0 && share(r.name, sit.ProjectID, sit.SignalID) >= r.sample {
		res.Matched, res.PassedOver = false, notSampled
		return res
	}
	if r.hold > 0 && caseID == "" {
		res.Matched, res.PassedOver = false, noCase
		return res
	}
	if r.limit.count > 0 {
		n := sit.Taken(r.name)
		taken := uint32(min(n, math.MaxUint32))
		res.Taken = &taken
		if n >= r.limit.count {
			res.Matched, res.PassedOver = false, overLimit
		}
	}
	return res
}

// share is a number in [0, 1) that is always the same for a signal and a rule.
func share(parts ...string) float64 {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return float64(binary.BigEndian.Uint64(h.Sum(nil))>>11) / (1 << 53)
}

// maxTold is how many failed rules a reason tells of.
const maxTold = 5

// passedOver is the sentence about the rules that could not be evaluated; empty
// where there is none.
func passedOver(results []Result) string {
	var told []string
	n := 0
	for _, res := range results {
		if res.Err == nil {
			continue
		}
		if n++; n <= maxTold {
			told = append(told, fmt.Sprintf("%s (%s)", res.Rule, res.message()))
		}
	}
	if n == 0 {
		return ""
	}
	if n > maxTold {
		told = append(told, fmt.Sprintf("and %d more", n-maxTold))
	}
	return " Passed over, as they could not be evaluated: " + strings.Join(told, ", ") + "."
}

// maxMessage bounds an error that is kept with a decision, in characters.
const maxMessage = 200

func (r Result) message() string {
	if r.Err == nil {
		return ""
	}
	msg := []rune(oneLine(r.Err.Error()))
	if len(msg) > maxMessage {
		return string(msg[:maxMessage]) + " (cut)"
	}
	return string(msg)
}

// proto is the result as a decision keeps it.
func (r Result) proto() *policyv1.RuleResult {
	out := &policyv1.RuleResult{Rule: r.Rule, Result: "not matched", Error: r.message(), Taken: r.Taken}
	switch {
	case r.PassedOver != "":
		out.Result = r.PassedOver
	case r.Err != nil:
		out.Result = "error"
	case r.Matched:
		out.Result = "matched"
	}
	return out
}

func (r *rule) eval(vars map[string]any) (bool, error) {
	val, _, err := r.program.Eval(vars)
	if err != nil {
		return false, err
	}
	matched, ok := val.Value().(bool)
	if !ok {
		return false, fmt.Errorf("condition gave a %T, want a bool", val.Value())
	}
	return matched, nil
}

// hash depends on all that the policy says, and on nothing else.
func (p *Policy) hash() string {
	parts := []string{"1"}
	add := func(o outcome) {
		parts = append(parts, strconv.Itoa(len(o.routes)))
		parts = append(parts, o.routes...)
		parts = append(parts, o.reason)
		if o.priority != "" {
			parts = append(parts, "priority", o.priority)
		}
	}
	for _, r := range p.rules {
		parts = append(parts, r.name, r.when)
		if r.sample > 0 {
			parts = append(parts, "sample", strconv.FormatFloat(r.sample, 'g', -1, 64))
		}
		if r.limit.count > 0 {
			parts = append(parts, "limit", strconv.FormatInt(r.limit.count, 10), r.limit.per)
		}
		if r.hold > 0 {
			parts = append(parts, "hold", strconv.FormatInt(r.hold, 10))
		}
		add(r.outcome)
	}
	add(p.otherwise)
	return ids.Derive("pv", parts...)
}

// newEnv declares the facts to CEL, with their types.
func newEnv() (*cel.Env, error) {
	facts := reflect.TypeFor[Facts]()
	opts := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxCondition),
		// So that `case.negatives / case.users > 1.5` means what it says.
		cel.CrossTypeNumericComparisons(true),
		ext.Strings(),
		// So that tags[?"plan"].orValue("") reads a key that may be missing.
		cel.OptionalTypes(),
	}
	native := []any{ext.ParseStructTag("json")}
	for f := range facts.Fields() {
		t := cel.DoubleType
		if f.Type.Kind() == reflect.Struct {
			native = append(native, f.Type)
			t = cel.ObjectType(f.Type.String())
		}
		opts = append(opts, cel.Variable(f.Tag.Get("json"), t))
	}
	env, err := cel.NewEnv(append([]cel.EnvOption{ext.NativeTypes(native...)}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("declare facts to CEL: %w", err)
	}
	return env, nil
}

// compiler turns YAML into a Policy and collects what is wrong.
type compiler struct {
	env   *cel.Env
	lines []string // of the source
	errs  []PolicyError
}

func (c *compiler) fail(n *yaml.Node, format string, args ...any) {
	c.failAt(n.Line, n.Column, format, args...)
}

func (c *compiler) failAt(line, column int, format string, args ...any) {
	c.errs = append(c.errs, PolicyError{max(1, line), max(1, column), fmt.Sprintf(format, args...)})
}

func (c *compiler) policy(source []byte) *Policy {
	if len(source) > maxPolicySize {
		c.failAt(1, 1, "the policy has %d bytes, more than the %d allowed", len(source), maxPolicySize)
		return nil
	}
	dec := yaml.NewDecoder(strings.NewReader(string(source)))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil || len(doc.Content) == 0 {
		c.yamlError(err)
		return nil
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		c.failAt(more.Line, 1, "a second YAML document: a policy is one document")
		return nil
	}

	fields := c.mapping(doc.Content[0], "the policy", "version", "rules", "default")
	p := &Policy{otherwise: outcome{reason: "No rule of the policy matched."}}
	c.formatVersion(doc.Content[0], fields["version"])
	if n := fields["default"]; n != nil {
		d := c.mapping(n, "default", "routes", "priority", "reason")
		p.otherwise = c.outcome(n, "default", d)
	}
	n := fields["rules"]
	switch {
	case n == nil && len(c.errs) == 0:
		c.fail(doc.Content[0], "rules: missing, want a list of rules")
	case n == nil:
	case n.Kind != yaml.SequenceNode:
		c.fail(n, "rules: want a list of rules")
	case len(n.Content) > maxRules:
		c.fail(n, "rules: %d rules, more than the %d allowed", len(n.Content), maxRules)
	default:
		lines := map[string]int{}
		for _, item := range n.Content {
			if r, ok := c.rule(resolve(item), lines); ok {
				p.rules = append(p.rules, r)
			}
		}
	}
	return p
}

// yamlError reports what the YAML parser said. Its message carries the line.
func (c *compiler) yamlError(err error) {
	if err == nil || errors.Is(err, io.EOF) {
		c.failAt(1, 1, "the policy is empty, want version and rules")
		return
	}
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		line, _ = strconv.Atoi(m[1])
		msg = strings.TrimPrefix(msg, m[0])
	}
	column := 1
	if line <= len(c.lines) {
		text := strings.TrimRight(c.lines[line-1], " \r")
		column = len([]rune(text)) - len([]rune(strings.TrimLeft(text, " "))) + 1
	}
	c.failAt(line, column, "not YAML: %s", msg)
}

func (c *compiler) formatVersion(root, n *yaml.Node) {
	switch {
	case n == nil && len(c.errs) == 0:
		c.fail(root, "version: missing, want version: 1")
	case n != nil && (n.Kind != yaml.ScalarNode || n.Value != "1"):
		c.fail(n, "version: want 1, the only format there is")
	}
}

func (c *compiler) rule(n *yaml.Node, lines map[string]int) (rule, bool) {
	before := len(c.errs)
	fields := c.mapping(n, "a rule", "name", "when", "sample", "limit", "hold", "routes", "priority", "reason")
	if len(c.errs) > before {
		return rule{}, false
	}
	r := rule{name: c.name(n, fields["name"], lines)}
	label := fmt.Sprintf("rule %q", r.name)
	r.outcome = c.outcome(n, label, fields)
	r.sample = c.sample(fields["sample"], label)
	r.limit = c.limit(fields["limit"], label)
	r.hold = c.hold(fields["hold"], r.outcome, label)
	if when := fields["when"]; when == nil {
		c.fail(n, "%s: when is missing, want a condition; true matches always", label)
	} else {
		r.when, r.program, r.counted = c.condition(when, label)
	}
	return r, len(c.errs) == before
}

func (c *compiler) name(parent, n *yaml.Node, lines map[string]int) string {
	if n == nil {
		c.fail(parent, "a rule has no name")
		return ""
	}
	name := c.text(n, "name", maxName)
	switch {
	case name == "":
	case !ruleName.MatchString(name):
		c.fail(n, "name %q: want lower-case letters, digits, '-' and '_', a letter first", name)
	case name == RuleDefault || name == RuleWithdrawn:
		c.fail(n, "name %q is taken: Hone uses it in decisions", name)
	case lines[name] > 0:
		c.fail(n, "name %q is taken by the rule on line %d", name, lines[name])
	default:
		lines[name] = n.Line
	}
	return name
}

// outcome reads routes and reason.
func (c *compiler) outcome(parent *yaml.Node, label string, fields map[string]*yaml.Node) outcome {
	o := outcome{routes: []string{}}
	if n := fields["reason"]; n == nil {
		c.fail(parent, "%s: reason is missing, want a sentence for the people who read the decision", label)
	} else {
		o.reason = c.text(n, "reason", maxReason)
	}
	if n := fields["priority"]; n != nil {
		if o.priority = n.Value; !slices.Contains(allPriorities(), o.priority) {
			c.fail(n, "%s: priority %q is not known%s", label, o.priority, didYouMean(o.priority, allPriorities()))
		}
	}
	n := fields["routes"]
	if n == nil {
		c.fail(parent, "%s: routes is missing, want a list of %s, or [] for none", label, strings.Join(allRoutes(), ", "))
		return o
	}
	items := n.Content
	if n.Kind == yaml.ScalarNode {
		items = []*yaml.Node{n} // routes: ignore
	} else if n.Kind != yaml.SequenceNode {
		c.fail(n, "%s: routes: want a list", label)
		return o
	}
	for _, item := range items {
		item = resolve(item)
		name := item.Value
		switch {
		case item.Kind != yaml.ScalarNode:
			c.fail(item, "%s: routes: want names of routes", label)
		case name == routeIgnore:
			if len(items) > 1 {
				c.fail(item, "%s: ignore stands alone", label)
			}
		case !slices.Contains(allRoutes(), name):
			c.fail(item, "%s: route %q is not known%s", label, name, didYouMean(name, append(allRoutes(), routeIgnore)))
		case slices.Contains(o.routes, name):
			c.fail(item, "%s: route %q is named twice", label, name)
		default:
			o.routes = append(o.routes, name)
		}
	}
	return o
}

// sample reads the share of signals that a rule takes, such as 0.1.
func (c *compiler) sample(n *yaml.Node, label string) float64 {
	if n == nil {
		return 0
	}
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || err != nil || !(v > 0 && v <= 1) {
		c.fail(n, "%s: sample: want the share of signals to take, more than 0 and at most 1, such as 0.1", label)
		return 0
	}
	if v == 1 {
		return 0
	}
	return v
}

// limit reads how many signals a rule takes in a period.
func (c *compiler) limit(n *yaml.Node, label string) limit {
	if n == nil {
		return limit{}
	}
	label += ": limit"
	before := len(c.errs)
	fields := c.mapping(n, label, "count", "per")
	for _, key := range []string{"count", "per"} {
		if fields[key] == nil && len(c.errs) == before {
			c.fail(n, "%s: %s is missing, want such as {count: 50, per: day}", label, key)
		}
	}
	if len(c.errs) > before {
		return limit{}
	}
	l := limit{per: fields["per"].Value}
	var err error
	if l.count, err = strconv.ParseInt(fields["count"].Value, 10, 32); err != nil || l.count < 1 {
		c.fail(fields["count"], "%s: count: want a whole number from 1 on", label)
	}
	if _, ok := periods()[l.per]; !ok {
		c.fail(fields["per"], "%s: per %q is not known%s", label, l.per, didYouMean(l.per, []string{"minute", "hour", "day", "week"}))
	}
	return l
}

// maxHold is as many members as a case can have.
const maxHold = 10_000

// hold reads how many negative signals a case must have.
func (c *compiler) hold(n *yaml.Node, o outcome, label string) int64 {
	if n == nil {
		return 0
	}
	v, err := strconv.ParseInt(n.Value, 10, 32)
	if n.Kind != yaml.ScalarNode || err != nil || v < 2 || v > maxHold {
		c.fail(n, "%s: hold: want how many negative signals the case must have, from 2 to %d", label, maxHold)
	} else if len(o.routes) == 0 {
		c.fail(n, "%s: hold: without routes there is nothing to hold", label)
	}
	return v
}

// condition compiles a CEL expression of type bool.
func (c *compiler) condition(n *yaml.Node, label string) (text string, program cel.Program, counted bool) {
	text = c.text(n, "when", maxCondition)
	if text == "" {
		return "", nil, false
	}
	// n.Value, not text: positions count from the value's own beginning.
	ast, issues := c.env.CompileSource(common.NewStringSource(n.Value, label))
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			line, column := c.position(n, runeOffset(n.Value, e.Location.Line(), e.Location.Column()))
			c.failAt(line, column, "%s: %s%s", label, celNoise.ReplaceAllString(oneLine(e.Message), ""), c.suggest(e.Message))
		}
		return text, nil, false
	}
	if ast.OutputType() != cel.BoolType {
		c.fail(n, "%s: when is a %s, want a bool", label, ast.OutputType())
		return text, nil, false
	}
	before := len(c.errs)
	c.closedSets(n, label, ast)
	if len(c.errs) > before {
		return text, nil, false
	}
	program, err := c.env.Program(ast, cel.CostLimit(maxCost))
	if err != nil {
		c.fail(n, "%s: %s", label, oneLine(err.Error()))
	}
	return text, program, usesCounts(ast)
}

// mapping reads a mapping with the given keys, each at most once.
func (c *compiler) mapping(n *yaml.Node, label string, keys ...string) map[string]*yaml.Node {
	fields := map[string]*yaml.Node{}
	if n.Kind != yaml.MappingNode {
		c.fail(n, "%s: want %s", label, strings.Join(keys, ", "))
		return fields
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], resolve(n.Content[i+1])
		switch {
		case !slices.Contains(keys, k.Value):
			c.fail(k, "%s: key %q is not known%s", label, k.Value, didYouMean(k.Value, keys))
		case fields[k.Value] != nil:
			c.fail(k, "%s: key %q stands twice", label, k.Value)
		default:
			fields[k.Value] = v
		}
	}
	return fields
}

// text reads a scalar that has something in it.
func (c *compiler) text(n *yaml.Node, key string, limit int) string {
	if n.Kind != yaml.ScalarNode {
		c.fail(n, "%s: want a text", key)
		return ""
	}
	text := strings.TrimSpace(n.Value)
	if text == "" {
		c.fail(n, "%s: is empty", key)
	}
	if size := len([]rune(text)); size > limit {
		c.fail(n, "%s: %d characters, more than the %d allowed", key, size, limit)
		return ""
	}
	return text
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func allRoutes() []string {
	return []string{RoutePromptPatch, RouteFineTune, RouteHumanReview, RouteProduct, RouteAlert}
}

var (
	ruleName = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)
	yamlLine = regexp.MustCompile(`^line (\d+): `)
	// What CEL's messages carry that helps nobody who writes a policy.
	celNoise = regexp.MustCompile(` \(in container ''\)| expecting \{.*\}`)
)

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
