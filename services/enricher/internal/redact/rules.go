package redact

import "strings"

// rules settle the tokens that need no model: words of closed lists, and code.
// What they settle is fixed.
func (m *Tagger) rules(text string, tokens []token) {
	lower := func(i int) string {
		if i < 0 || i >= len(tokens) {
			return ""
		}
		return strings.ToLower(text[tokens[i].start:tokens[i].end])
	}
	set := func(i int, t Type) {
		if !tokens[i].fixed {
			tokens[i].label, tokens[i].fixed = labelOf(t), true
		}
	}
	m.code(text, tokens)
	for i := range tokens {
		t := &tokens[i]
		if t.fixed {
			continue
		}
		w := text[t.start:t.end]
		if n := countryAt(text, tokens, i); n > 1 {
			for j := i; j < i+n; j++ {
				set(j, Place)
			}
			continue
		}
		if n := streetAt(text, tokens, i); n > 0 {
			for j := i; j < i+n; j++ {
				set(j, Address)
			}
			continue
		}
		switch {
		case t.shape >= shapeDigits && t.shape < shapeDigits+5 && isDigit(w[0]):
			switch {
			case len(w) <= 3 && number(w) >= 1 && number(w) <= 120 && (ageAfter(lower(i+1), lower(i+2), lower(i+3)) || ageBefore(lower(i-1), lower(i-2), lower(i+1))):
				set(i, Age)
			case len(w) == 4 && number(w) >= 1900 && number(w) <= 2099 && i > 0 && tokens[i-1].list&inYearBefore != 0:
				set(i, Date)
			}
		case t.list&inNationalities != 0 && (t.shape != shapeMixed):
			set(i, Nationality)
		case t.list&inWeekdays != 0 && t.shape != shapeMixed:
			set(i, Date)
		case t.list&inHonorifics != 0 && (lower(i+1) == "." || t.shape == shapeCapital):
			set(i, Title)
			if lower(i+1) == "." && tokens[i+1].start == t.end {
				set(i+1, Title)
			}
		case t.list&inCountries != 0 && t.shape != shapeLower && t.shape != shapeMixed && t.list&inAlsoNames == 0 && len(w) > 2:
			set(i, Place)
			// "Cyprus (Greek)"
			if lower(i+1) == "(" && lower(i+3) == ")" && (tokens[i+2].shape == shapeCapital || tokens[i+2].shape == shapeUpper) {
				set(i+1, Place)
				set(i+2, Place)
				set(i+3, Place)
			}
		case t.list&inCommon != 0 && t.shape != shapeUpper:
			// Many a sentence begins with it; "May Lee" and "Will Smith" lose their
			// first half.
			t.look = false
		}
	}
}

// countryAt is how many tokens the country takes that begins at token i with a
// capital.
func countryAt(text string, tokens []token, i int) int {
	if tokens[i].shape != shapeCapital && tokens[i].shape != shapeUpper {
		return 0
	}
	if tokens[i].list&inManyWords == 0 {
		return 0
	}
	for n := 4; n > 1; n-- {
		if i+n <= len(tokens) && tokens[i+n-1].end-tokens[i].start < 32 && IsCountry(text[tokens[i].start:tokens[i+n-1].end]) {
			return n
		}
	}
	return 0
}

// streetAt is how many tokens the house takes that begins at token i: "12 Garden
// Street", "Hauptstraße 12".
func streetAt(text string, tokens []token, i int) int {
	t := &tokens[i]
	if t.fixed {
		return 0
	}
	isNumber := func(j int) bool {
		return j < len(tokens) && !tokens[j].fixed && isDigit(text[tokens[j].start]) && tokens[j].end-tokens[j].start <= 5
	}
	if isNumber(i) {
		for j := i + 1; j < len(tokens) && j <= i+4 && tokens[j].shape == shapeCapital && !tokens[j].fixed; j++ {
			if j > i+1 && tokens[j].list&inStreets != 0 {
				return j + 1 - i
			}
		}
		return 0
	}
	if t.shape != shapeCapital || !isNumber(i+1) {
		return 0
	}
	for _, ending := range []string{"straße", "strasse", "gatan", "vägen", "katu", "vej", "gade", "gasse", "straat", "laan", "utca"} {
		if strings.HasSuffix(text[t.start:t.end], ending) {
			return 2
		}
	}
	return 0
}

func ageAfter(a, b, c string) bool {
	if a == "-" {
		a, b = b, c
		if b == "-" {
			b = ""
		}
	}
	return (a == "year" || a == "years" || a == "yrs" || a == "yr") && (b == "" || b == "old" || b == "-" || b == "of") || a == "y" && b == "/" && c == "o" || a == "yo"
}

func ageBefore(p, pp, n string) bool {
	if n == "%" || n == "," && p != "aged" {
		return false
	}
	switch p {
	case "turned", "turning", "aged":
		return true
	case "turn":
		return true
	case "of":
		return pp == "age"
	case "age":
		return true
	case "was", "is", "am":
		return (pp == "he" || pp == "she" || pp == "i") && (n == "." || n == "")
	}
	return false
}

// code takes code out: lines that are full of its marks, and words that are
// glued to them or written as only identifiers are.
func (m *Tagger) code(text string, tokens []token) {
	next := 0
	for line := 0; line < len(text); {
		end := line + strings.IndexByte(text[line:], '\n')
		if end < line {
			end = len(text)
		}
		marks, letters := 0, 0
		for i := line; i < end; i++ {
			if isLetter(text[i]) {
				letters++
			} else if codeMarks[text[i]] {
				marks++
			}
		}
		isCode := marks >= 2 && marks*12 > letters
		for ; next < len(tokens) && tokens[next].start < end; next++ {
			if isCode {
				tokens[next].fixed = true
			}
		}
		line = end + 1
	}
	for i := range tokens {
		t := &tokens[i]
		if t.fixed || !isAlnum(text[t.start]) {
			continue
		}
		if t.end < len(text) {
			switch c := text[t.end]; {
			case strings.IndexByte("(_=<[{$@/\\", c) >= 0, c == ':' && t.end+1 < len(text) && text[t.end+1] == ':',
				c == '.' && t.end+1 < len(text) && isLetter(text[t.end+1]) && t.end-t.start > 2:
				t.fixed = true
			}
		}
		if t.start > 1 {
			switch c := text[t.start-1]; {
			case strings.IndexByte("_$@\\#", c) >= 0, strings.IndexByte(".:/", c) >= 0 && isAlnum(text[t.start-2]) && isLetter(text[t.start]) && (i < 2 || tokens[i-2].end-tokens[i-2].start > 2):
				t.fixed = true
			}
		}
		if humps(text[t.start:t.end]) {
			t.fixed = true
		}
	}
}

var codeMarks = func() (marks [256]bool) {
	for _, c := range []byte("{}[]<>=;|_$#\\&*+@") {
		marks[c] = true
	}
	return marks
}()

// humps says whether a word is written as identifiers are: aB, AbCd.
func humps(w string) bool {
	n := 0
	for i := 1; i < len(w); i++ {
		if classes[w[i]] == upperClass && classes[w[i-1]] == lowerClass {
			n++
		}
	}
	if n == 0 || n == 1 && (strings.HasPrefix(w, "Mc") || strings.HasPrefix(w, "Mac") || strings.HasPrefix(w, "De") || strings.HasPrefix(w, "Van") || strings.HasPrefix(w, "Di") || strings.HasPrefix(w, "Le") || strings.HasPrefix(w, "La") || strings.HasPrefix(w, "Fitz")) {
		return false
	}
	return true
}

// plausible leaves out what the model takes for personal data though its form
// says otherwise.
func (m *Tagger) plausible(s *scanner, spans []Span) []Span {
	var out []Span
	var rest []int // parts of addresses, which need another beside them
	for i, sp := range spans {
		w := s.text[sp.Start:sp.End]
		var letters, capital, number bool
		for j := range len(w) {
			letters = letters || isLetter(w[j])
			number = number || isDigit(w[j])
			capital = capital || classes[w[j]]&(upperClass|wideClass) != 0
		}
		ok := false
		switch sp.Type {
		case Name, Title, Nationality, Place, Country:
			ok = letters && len(w) > 1 && !number
		case Organization:
			ok = letters && len(w) > 1
		case Age, Date:
			ok = true
		case Phone:
			n := len(digits(w))
			ok = !letters && n >= 7 && n <= 15 && n < len(w) && strings.IndexByte(w, '.') < 0 && s.nearest(sp.Start, otherNumberWords, phoneWords) != 1
		case NationalID:
			ok = number && len(w) >= 6 && s.named(sp.Start, idWords)
		case Address:
			ok = letters && number && m.streetLike(w) || number && len(w) <= 10 && s.named(sp.Start, zipWords) || capital && len(w) > 5 && s.named(sp.Start, addressWords)
			if !ok && len(w) <= 24 {
				rest = append(rest, i)
			}
		}
		if ok {
			out = append(out, sp)
		}
	}
	sure := len(out)
	for _, i := range rest {
		for _, o := range out[:sure] {
			if (o.Type == Address || o.Type == Place || o.Type == Country) && spans[i].Start-o.End < 6 && o.Start-spans[i].End < 6 {
				out = append(out, spans[i])
				break
			}
		}
	}
	return out
}

// streetLike says whether letters and digits are of an address: there is a
// street's word, or one with a capital that is not only capitals, and no mark
// that addresses do not have.
func (m *Tagger) streetLike(w string) bool {
	if len(w) < 6 || strings.ContainsAny(w, ":%=+\"") {
		return false
	}
	if i := strings.Index(w, ". "); i > 5 && strings.IndexByte(w[i-5:i], ' ') < 0 {
		return false // a sentence ends there
	}
	known := lists()
	for _, f := range strings.FieldsFunc(w, func(r rune) bool { return r < 128 && !isAlnum(byte(r)) }) {
		list := known[hash(f)]
		if list&inStreets != 0 && len(f) > 2 {
			return true
		}
		if first := classes[f[0]]; len(f) > 3 && list&inCommon == 0 && (first == wideClass || first == upperClass && strings.ToUpper(f) != f) && !m.knows(hash(f)) {
			return true
		}
	}
	return false
}

var (
	zipWords     = []string{"zip", "zip code", "zipcode", "postcode", "postal code", "plz", "cep"}
	addressWords = []string{"address", "street", "live at", "lives at", "live on", "lives on", "corner of", "located at", "delivered to", "ship to", "office at"}
)
