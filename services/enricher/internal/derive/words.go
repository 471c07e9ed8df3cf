package derive

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// plain is text to look for phrases in: its words in lower case, without accents
// and apostrophes, each between single spaces.
func plain(s string) string {
	if !isASCII(s) {
		s = norm.NFD.String(s)
	}
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte(' ')
	gap := true
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9': // most of all text
			b.WriteByte(byte(r))
			gap = false
		case r == '\'' || r == '’' || unicode.Is(unicode.Mn, r):
		case unicode.IsLetter(r) || unicode.IsNumber(r):
			b.WriteRune(unicode.ToLower(r))
			gap = false
		case !gap:
			b.WriteByte(' ')
			gap = true
		}
	}
	if !gap {
		b.WriteByte(' ')
	}
	return b.String()
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// stopWords carry little of what is asked. Question words are not among them.
var stopWords = words(` a an the of in on at to for from by with and or is are was were be been do does did has have had can could will
	would should i you he she it they we me my your his her its their this that these those there about as if so just please tell
	also then than some any all more most many much very really
	der die das ein eine einen und oder ist sind war von im in am zu fur mit auf den dem des es ich du sie er wir bitte auch
	le la les un une des de du et ou est sont en au aux je tu il elle vous nous pour par sur dans que
	el los las una y o es son del al por para con en yo se su `)

func words(s string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(s) {
		out[w] = true
	}
	return out
}

// content is the set of words of a plain text that say what it is about; all its
// words where none does.
func content(plain string) []string {
	all := strings.Fields(plain)
	slices.Sort(all)
	all = slices.Compact(all)
	var out []string
	for _, w := range all {
		if !stopWords[w] {
			out = append(out, w)
		}
	}
	if out == nil {
		return all
	}
	return out
}

// overlap is how much two sets of words share: the part of all words that are in
// both, and how many only one of them has. Words that differ by a typing error
// are the same.
func overlap(a, b []string) (shared float64, onlyA, onlyB int) {
	if len(a) == 0 || len(b) == 0 {
		return 0, len(a), len(b)
	}
	used := make([]bool, len(b))
	both := 0
	for _, w := range a {
		found := -1
		for j, v := range b {
			if !used[j] && (w == v || typo(w, v)) {
				found = j
				if w == v {
					break
				}
			}
		}
		if found >= 0 {
			used[found] = true
			both++
		}
	}
	return float64(both) / float64(len(a)+len(b)-both), len(a) - both, len(b) - both
}

// typo says whether two words of five letters and more differ by one letter.
func typo(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(a) < 5 || len(b)-len(a) > 1 || a[0] >= '0' && a[0] <= '9' {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	return len(a) == len(b) && a[i+1:] == b[i+1:] || len(a) < len(b) && a[i:] == b[i+1:]
}

// token is a piece of text at [start, end) in code points.
type token struct {
	text       string
	start, end int
}

// tokens are the words, numbers and signs of a text. White space is none; a
// combining mark belongs to its letter, and what is joined into one emoji stays
// one.
func tokens(s string) []token {
	var out []token
	at, last := 0, classSpace
	joined := false
	from := 0
	for i, r := range s {
		c := class(r)
		joins := c == classJoin || joined || c == last && c == classWord
		joined = r == '\u200d'
		switch {
		case joins && last != classSpace:
			t := &out[len(out)-1]
			t.end = at + 1
			t.text = s[from : i+utf8.RuneLen(r)]
			if c == classJoin {
				c = last
			}
		case c != classSpace:
			from = i
			out = append(out, token{s[i : i+max(1, utf8.RuneLen(r))], at, at + 1})
		}
		last = c
		at++
	}
	return out
}

const (
	classSpace = iota
	classWord
	classSign
	classJoin // goes with what stands before it
)

func class(r rune) int {
	switch {
	case unicode.IsSpace(r):
		return classSpace
	case unicode.Is(unicode.M, r) || r == '\u200d' || r >= 0x1f3fb && r <= 0x1f3ff:
		return classJoin
	case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai):
		return classSign // written without spaces: each is a word
	case unicode.IsLetter(r) || unicode.IsNumber(r):
		return classWord
	}
	return classSign
}

// maxCompared bounds the work of a comparison: tokens that differ in one text
// times those in the other.
const maxCompared = 4_000_000

// changes are what makes the output into the correction, token by token, in
// order; false where the two are too long and too different to compare.
func changes(output, correction string) ([]*signalv1.Change, bool) {
	a, b := tokens(output), tokens(correction)
	head := 0
	for head < len(a) && head < len(b) && a[head].text == b[head].text {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail].text == b[len(b)-1-tail].text {
		tail++
	}
	n, m := len(a)-head-tail, len(b)-head-tail
	if n*m > maxCompared {
		return nil, false
	}
	// longest[i*(m+1)+j] is the length of the longest common run of a[i:] and b[j:].
	longest := make([]uint16, (n+1)*(m+1))
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			if a[head+i].text == b[head+j].text {
				longest[i*(m+1)+j] = longest[(i+1)*(m+1)+j+1] + 1
			} else {
				longest[i*(m+1)+j] = max(longest[(i+1)*(m+1)+j], longest[i*(m+1)+j+1])
			}
		}
	}
	from, to := newCutter(output), newCutter(correction)
	var out []*signalv1.Change
	for i, j := 0, 0; i < n || j < m; {
		if i < n && j < m && a[head+i].text == b[head+j].text {
			i, j = i+1, j+1
			continue
		}
		i0, j0 := i, j
		for (i < n || j < m) && (i == n || j == m || a[head+i].text != b[head+j].text) {
			if j == m || i < n && longest[(i+1)*(m+1)+j] >= longest[i*(m+1)+j+1] {
				i++
			} else {
				j++
			}
		}
		c := &signalv1.Change{}
		switch {
		case i > i0:
			c.Start, c.End = uint32(a[head+i0].start), uint32(a[head+i-1].end)
			c.Deleted = from.cut(a[head+i0].start, a[head+i-1].end)
		case head+i0 > 0: // something is added behind a token
			c.Start = uint32(a[head+i0-1].end)
			c.End = c.Start
		}
		if j > j0 {
			c.Inserted = to.cut(b[head+j0].start, b[head+j-1].end)
		}
		out = append(out, c)
	}
	return out, true
}

// cutter cuts texts by code points, in rising order.
type cutter struct {
	s        string
	byte, at int
}

func newCutter(s string) *cutter { return &cutter{s: s} }

func (c *cutter) cut(start, end int) string {
	c.to(start)
	from := c.byte
	c.to(end)
	return c.s[from:c.byte]
}

func (c *cutter) to(at int) {
	for c.at < at {
		_, size := utf8.DecodeRuneInString(c.s[c.byte:])
		c.byte += size
		c.at++
	}
}
