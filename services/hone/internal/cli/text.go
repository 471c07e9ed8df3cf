package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// painter writes text for people: colors on a terminal, none elsewhere or
// where NO_COLOR is set.
type painter struct {
	w     io.Writer
	color bool
	width int
}

func newPainter(w io.Writer) *painter {
	return &painter{w: w, color: isTerminal(w) && os.Getenv("NO_COLOR") == "", width: width(w)}
}

func (p *painter) paint(code, s string) string {
	if !p.color || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *painter) bold(s string) string { return p.paint("1", s) }
func (p *painter) dim(s string) string  { return p.paint("2", s) }

// polarity colors s by what it stands for.
func (p *painter) polarity(polarity, s string) string {
	switch polarity {
	case "negative":
		return p.paint("31", s)
	case "positive":
		return p.paint("32", s)
	default:
		return p.paint("33", s)
	}
}

func (p *painter) printf(format string, args ...any) { fmt.Fprintf(p.w, format, args...) }

// block writes a label and a text, wrapped and indented under itself. Nothing
// is written for an empty text. What mark marked is underlined, or in brackets
// where there are no colors.
func (p *painter) block(indent int, label, text string) {
	if text == "" {
		return
	}
	const labelWidth = 12
	left := strings.Repeat(" ", indent)
	head := fmt.Sprintf("%s%s ", left, p.dim(fmt.Sprintf("%-*s", labelWidth-1, label)))
	deep := 0
	for _, line := range wrap(clean(text), max(p.width-indent-labelWidth, 24)) {
		line, deep = p.marks(line, deep)
		p.printf("%s%s\n", head, line)
		head = left + strings.Repeat(" ", labelWidth)
	}
}

// note writes a small text, wrapped and indented.
func (p *painter) note(indent int, text string) {
	if text == "" {
		return
	}
	left := strings.Repeat(" ", indent)
	for _, line := range wrap(text, max(p.width-indent, 24)) {
		p.printf("%s%s\n", left, p.dim(line))
	}
}

// Marks in a text, of the private use area: they are as wide as what stands for
// them.
const (
	markStart = '\uE000'
	markEnd   = '\uE001'
)

// mark puts marks around ranges of a text, which are in the order of their
// starts, and a number behind each. It says whether all fit; else the text is as
// it was.
func mark(text string, ranges []*eventv1.Edit) (string, bool) {
	plain := strings.Map(func(r rune) rune {
		if r == markStart || r == markEnd {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	runes := []rune(plain)
	starts, ends := map[uint32]int{}, map[uint32][]int{}
	for i, e := range ranges {
		if e.Start >= e.End || int(e.End) > len(runes) {
			return plain, false
		}
		starts[e.Start]++
		ends[e.End] = append(ends[e.End], i+1)
	}
	if len(ranges) == 0 {
		return plain, false
	}
	var b strings.Builder
	for i := uint32(0); int(i) <= len(runes); i++ {
		for _, n := range ends[i] {
			b.WriteRune(markEnd)
			b.WriteString(superscript(n))
		}
		for range starts[i] {
			b.WriteRune(markStart)
		}
		if int(i) < len(runes) {
			b.WriteRune(runes[i])
		}
	}
	return b.String(), true
}

// superscript is a small number.
func superscript(n int) string {
	return strings.Map(func(r rune) rune { return []rune("⁰¹²³⁴⁵⁶⁷⁸⁹")[r-'0'] }, strconv.Itoa(n))
}

// marks shows the marks of a line that begins deep within them.
func (p *painter) marks(line string, deep int) (string, int) {
	const on, off = "\x1b[4m", "\x1b[24m"
	if !strings.ContainsRune(line, markStart) && !strings.ContainsRune(line, markEnd) && deep == 0 {
		return line, 0
	}
	var b strings.Builder
	if p.color && deep > 0 {
		b.WriteString(on)
	}
	for _, r := range line {
		switch r {
		case markStart:
			deep++
			if p.color {
				b.WriteString(on)
			} else {
				b.WriteRune('⟦')
			}
		case markEnd:
			deep = max(deep-1, 0)
			if !p.color {
				b.WriteRune('⟧')
			} else if deep == 0 {
				b.WriteString(off)
			}
		default:
			b.WriteRune(r)
		}
	}
	if p.color && deep > 0 {
		b.WriteString(off)
	}
	return b.String(), deep
}

// clean makes control characters of user text visible, so that text cannot
// steer the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// oneLine is s without line breaks, cut to n characters.
func oneLine(s string, n int) string {
	r := []rune(strings.Join(strings.Fields(clean(s)), " "))
	if len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return string(r)
}

// wrap breaks s into lines of at most n characters, at spaces where it can.
func wrap(s string, n int) []string {
	var out []string
	for _, paragraph := range strings.Split(strings.TrimRight(s, "\n"), "\n") {
		var line []rune
		for _, word := range strings.Fields(paragraph) {
			w := []rune(word)
			if len(line) > 0 && len(line)+1+len(w) > n {
				out = append(out, string(line))
				line = nil
			}
			if len(line) > 0 {
				line = append(line, ' ')
			}
			line = append(line, w...)
			for len(line) > n {
				out = append(out, string(line[:n]))
				line = line[n:]
			}
		}
		out = append(out, string(line))
	}
	return out
}

// table writes rows in columns under headings.
func table(w io.Writer, headings []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ToUpper(strings.Join(headings, "\t")))
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	return tw.Flush()
}

// stamp is a time as people read it, in UTC.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format(time.DateTime)
}

// joined joins what is not empty.
func joined(sep string, parts ...string) string {
	kept := parts[:0:0]
	for _, s := range parts {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return strings.Join(kept, sep)
}

// prefixed is label and s, or nothing where s is empty.
func prefixed(label, s string) string {
	if s == "" {
		return ""
	}
	return label + s
}
