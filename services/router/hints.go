package router

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"go.yaml.in/yaml/v3"
)

// position is the line and column in the file of a character of a scalar's
// value. YAML folds and indents, so a value's offsets are not the file's; but
// the characters that are no white space come in the same order in both. Exact
// for every style of scalar, except after \x and \u escapes.
func (c *compiler) position(n *yaml.Node, offset int) (line, column int) {
	value := []rune(n.Value)
	// At the end of the value, the place is the one behind its last character.
	end := len([]rune(strings.TrimRightFunc(n.Value, unicode.IsSpace)))
	atEnd := end > 0 && offset >= end
	if atEnd {
		offset = end - 1
	}
	skip := 0
	for _, r := range value[:offset] {
		if !unicode.IsSpace(r) {
			skip++
		}
	}
	line, column = n.Line, n.Column
	switch n.Style & (yaml.LiteralStyle | yaml.FoldedStyle | yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle) {
	case yaml.LiteralStyle, yaml.FoldedStyle:
		line, column = n.Line+1, 1 // behind the header, such as ">-"
	case yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle:
		column++ // behind the quote
	}
	for ; line <= len(c.lines); line, column = line+1, 1 {
		text := []rune(c.lines[line-1])
		for ; column <= len(text); column++ {
			r := text[column-1]
			if unicode.IsSpace(r) {
				continue
			}
			if skip == 0 && atEnd {
				return line, column + 1
			}
			if skip == 0 {
				return line, column
			}
			skip--
			escaped := r == '\'' && n.Style&yaml.SingleQuotedStyle != 0 || r == '\\' && n.Style&yaml.DoubleQuotedStyle != 0
			if escaped {
				column++ // two characters in the file, one in the value
			}
		}
	}
	return n.Line, n.Column
}

// runeOffset is the offset of a CEL location: a line from 1, a column from 0.
func runeOffset(s string, line, column int) int {
	offset := 0
	for i, l := range strings.SplitAfter(s, "\n") {
		if i == line-1 {
			break
		}
		offset += len([]rune(l))
	}
	return offset + column
}

var notKnown = regexp.MustCompile(`^(undefined field|undeclared reference to) '([^']+)'`)

// suggest adds the name that a wrong one was probably meant to be.
func (c *compiler) suggest(message string) string {
	m := notKnown.FindStringSubmatch(message)
	if m == nil {
		return ""
	}
	return didYouMean(m[2], factNames(m[1] == "undefined field"))
}

// factNames are the names of all facts' fields, or of the facts themselves.
func factNames(fields bool) []string {
	var names []string
	for f := range reflect.TypeFor[Facts]().Fields() {
		if !fields {
			names = append(names, f.Tag.Get("json"))
			continue
		}
		if f.Type.Kind() == reflect.Struct {
			for g := range f.Type.Fields() {
				names = append(names, g.Tag.Get("json"))
			}
		}
	}
	return names
}

// closedSets reports comparisons that can never hold, such as
// signal.polarity == "negativ".
func (c *compiler) closedSets(n *yaml.Node, label string, checked *cel.Ast) {
	sets := map[string][]string{
		"signal.polarity": {"positive", "negative", "neutral"},
		"signal.severity": {"low", "medium", "high", "critical", ""},
		"case.severity":   {"low", "medium", "high", "critical", ""},
	}
	native := checked.NativeRep()
	ast.PreOrderVisit(native.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || len(e.AsCall().Args()) != 2 {
			return
		}
		fn, args := e.AsCall().FunctionName(), e.AsCall().Args()
		if fn != operators.Equals && fn != operators.NotEquals && fn != operators.In {
			return
		}
		for i, arg := range args {
			allowed, ok := sets[path(arg)]
			if !ok {
				continue
			}
			others := []ast.Expr{args[1-i]}
			if others[0].Kind() == ast.ListKind {
				others = others[0].AsList().Elements()
			}
			for _, o := range others {
				if o.Kind() != ast.LiteralKind {
					continue
				}
				s, isString := o.AsLiteral().Value().(string)
				if isString && !slices.Contains(allowed, s) {
					at := native.SourceInfo().GetStartLocation(o.ID())
					line, column := c.position(n, runeOffset(n.Value, at.Line(), at.Column()))
					c.failAt(line, column, "%s: %s is never %q%s", label, path(arg), s, didYouMean(s, allowed))
				}
			}
		}
	}))
}

// usesCounts says whether a condition looks at facts that are counted in the
// decisions before.
func usesCounts(checked *cel.Ast) bool {
	found := false
	ast.PreOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch p := path(e); p {
		case "case.negatives_24h", "case.negatives_7d", "session.negatives", "user.negatives_24h", "user.negatives_7d", "user.signals_7d":
			found = true
		}
	}))
	return found
}

// path is an expression such as signal.polarity; empty for any other.
func path(e ast.Expr) string {
	if e.Kind() != ast.SelectKind || e.AsSelect().IsTestOnly() || e.AsSelect().Operand().Kind() != ast.IdentKind {
		return ""
	}
	return e.AsSelect().Operand().AsIdent() + "." + e.AsSelect().FieldName()
}

// didYouMean names the nearest candidate, or all of them where none is near
// and they are few.
func didYouMean(name string, candidates []string) string {
	best, nearest := "", len([]rune(name))/3+2
	for _, c := range candidates {
		if d := distance(name, c); c != "" && d < nearest {
			best, nearest = c, d
		}
	}
	if best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	if len(candidates) <= 6 {
		return ": want one of " + strings.Join(slices.DeleteFunc(slices.Clone(candidates), func(s string) bool { return s == "" }), ", ")
	}
	return ""
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(y)]
}
