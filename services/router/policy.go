package router

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

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
	routes []string
	reason string
}

type rule struct {
	name string
	when string
	outcome
	program cel.Program
}

// Verdict is what a policy says about facts.
type Verdict struct {
	// Rule that matched, or RuleDefault.
	Rule   string
	Routes []string
	Reason string
	// Results of the rules that were looked at, in order.
	Results []Result
}

// Result is what one rule's condition said. Err is set where it could not be
// evaluated; such a rule does not match.
type Result struct {
	Rule    string
	Matched bool
	Err     error
}

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

// Decide applies the rules in order; the first one whose condition is true
// decides. Equal facts always give an equal verdict.
func (p *Policy) Decide(f *Facts) Verdict {
	v := Verdict{Rule: RuleDefault, Routes: p.otherwise.routes, Reason: p.otherwise.reason}
	vars := map[string]any{
		"signal": f.Signal, "interaction": f.Interaction, "session": f.Session,
		"case": f.Case, "similarity": f.Similarity,
	}
	for i := range p.rules {
		r := &p.rules[i]
		matched, err := r.eval(vars)
		v.Results = append(v.Results, Result{Rule: r.name, Matched: matched, Err: err})
		if matched {
			v.Rule, v.Routes, v.Reason = r.name, r.routes, r.reason
			break
		}
	}
	v.Reason += passedOver(v.Results)
	return v
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
	out := &policyv1.RuleResult{Rule: r.Rule, Result: "not matched", Error: r.message()}
	switch {
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
	}
	for _, r := range p.rules {
		parts = append(parts, r.name, r.when)
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
		d := c.mapping(n, "default", "routes", "reason")
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
	fields := c.mapping(n, "a rule", "name", "when", "routes", "reason")
	if len(c.errs) > before {
		return rule{}, false
	}
	r := rule{name: c.name(n, fields["name"], lines)}
	label := fmt.Sprintf("rule %q", r.name)
	r.outcome = c.outcome(n, label, fields)
	if when := fields["when"]; when == nil {
		c.fail(n, "%s: when is missing, want a condition; true matches always", label)
	} else {
		r.when, r.program = c.condition(when, label)
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

// condition compiles a CEL expression of type bool.
func (c *compiler) condition(n *yaml.Node, label string) (string, cel.Program) {
	text := c.text(n, "when", maxCondition)
	if text == "" {
		return "", nil
	}
	// n.Value, not text: positions count from the value's own beginning.
	ast, issues := c.env.CompileSource(common.NewStringSource(n.Value, label))
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			line, column := c.position(n, runeOffset(n.Value, e.Location.Line(), e.Location.Column()))
			c.failAt(line, column, "%s: %s%s", label, celNoise.ReplaceAllString(oneLine(e.Message), ""), c.suggest(e.Message))
		}
		return text, nil
	}
	if ast.OutputType() != cel.BoolType {
		c.fail(n, "%s: when is a %s, want a bool", label, ast.OutputType())
		return text, nil
	}
	before := len(c.errs)
	c.closedSets(n, label, ast)
	if len(c.errs) > before {
		return text, nil
	}
	program, err := c.env.Program(ast, cel.CostLimit(maxCost))
	if err != nil {
		c.fail(n, "%s: %s", label, oneLine(err.Error()))
	}
	return text, program
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
	return []string{RoutePromptPatch, RouteFineTune, RouteHumanReview, RouteProduct}
}

var (
	ruleName = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)
	yamlLine = regexp.MustCompile(`^line (\d+): `)
	// What CEL's messages carry that helps nobody who writes a policy.
	celNoise = regexp.MustCompile(` \(in container ''\)| expecting \{.*\}`)
)

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
