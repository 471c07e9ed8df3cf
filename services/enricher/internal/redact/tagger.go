package redact

import (
	_ "embed"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Tagger tells what has no form of its own (names, addresses, places, ...) by the
// words and what stands around them: a linear model over hashed features of a
// token and its neighbors, which labels tokens from left to right.
type Tagger struct {
	weights []int8 // buckets rows of stride labels
	// words is a set of hashes: of words that people write in lower case.
	words []byte
}

const (
	buckets = 1 << 17
	// wordBits is the size of the set of words, a bit each.
	wordBits = 1 << 18
	stride   = 12
	// marginKnown is how much better than "none" a label must score for a word that
	// people write in lower case too; marginNew that for other words.
	// Words in lower case must score much better.
	marginKnown, marginNew, marginLower = 50, -100, 800
	// Names in lower case are in the lists, and no words that people write.
	marginName = 100
	// The first word of a sentence has a capital anyhow.
	marginFirst = 200
)

// labels are what a token can be; the first is "none".
var labels = [stride]Type{numTypes, Name, Address, Place, Organization, Title, Age, Nationality, Date, Phone, NationalID, numTypes}

const usedLabels = stride - 1

// modelFile is made by make train-pii.
//
//go:embed tagger.bin
var modelFile string

var model = sync.OnceValue(func() *Tagger {
	t := &Tagger{weights: make([]int8, buckets*stride), words: make([]byte, wordBits/8)}
	copy(t.words, modelFile)
	for i := range min(max(len(modelFile)-len(t.words), 0), len(t.weights)) {
		t.weights[i] = int8(modelFile[len(t.words)+i])
	}
	return t
})

// byWords are the types that the tagger finds.
var byWords = SetOf(Name, Address, Place, Country, Organization, Title, Age, Nationality, Date, Phone, NationalID)

// ruled are the types that rules find alone.
var ruled = SetOf(Age, Nationality, Date)

// isForeign says whether most words in lower case, names aside, are none that the
// model knows.
func isForeign(tokens []token) bool {
	words, known := 0, 0
	for i := range tokens {
		if tokens[i].shape == shapeLower && !isName(&tokens[i]) {
			words++
			if tokens[i].list&inWords != 0 {
				known++
			}
		}
	}
	return words >= 3 && 2*known < words
}

// begins says whether token i begins a sentence, and a word in lower case is next.
func begins(text string, tokens []token, i int) bool {
	if i+1 == len(tokens) || tokens[i+1].shape != shapeLower {
		return false
	}
	return i == 0 || tokens[i-1].end-tokens[i-1].start == 1 && strings.IndexByte(".!?\n\"*-", text[tokens[i-1].start]) >= 0
}

// continues are the types of several words, of which later ones may be in lower
// case.
var continues = SetOf(Name, Address, Place, Organization, Title)

// token is a word, a number, a mark or a line's end, or a span that a detector
// found.
type token struct {
	start, end int
	lower      uint32 // hash of the word in lower case
	suffix     uint32 // of its last three letters
	prefix     uint32 // of its first two
	shape      uint32
	list       uint32 // the lists that hold it
	names      uint32 // the lists of names that hold it
	// Where it stands: its line, its place in it, and the last label of the line
	// above, which tell in a signature or an address who is who.
	line, word, above uint32
	label             uint8
	fixed             bool // a detector's, or opaque: it is not labeled
	look              bool // worth a look without a labeled word before it
}

const (
	shapeOther = iota
	shapeLower
	shapeCapital
	shapeUpper
	shapeMixed
	shapeDigits  // and how many, added
	shapeLineEnd = 98
)

const (
	inCountries = 1 << iota
	inNationalities
	inStreets
	inTitles
	inCompanies
	inCommon
	inWeekdays
	inHonorifics
	inYearBefore
	inManyWords // begins a country of several words
	inAlsoNames
	inWords
)

// features see these lists; the others are for rules.
const seenLists = inCountries | inNationalities | inStreets | inTitles | inCompanies | inCommon | inWords

// lists hold words in lower case, by their hash.
var lists = sync.OnceValue(func() map[uint32]uint32 {
	m := map[uint32]uint32{}
	for bit, words := range map[uint32]string{
		inCountries: countryWords, inNationalities: nationalityWords, inStreets: streetWords, inTitles: titleWords, inCompanies: companyWords, inCommon: commonWords,
		inWeekdays: weekdayWords, inHonorifics: "mr mrs ms miss dr prof", inYearBefore: "in since during of until till from by year a after before",
		inManyWords: manyWords(), inAlsoNames: "chad jordan georgia turkey us america guinea mali",
	} {
		for _, w := range strings.Fields(words) {
			m[hash(w)] |= bit
		}
	}
	return m
})

func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint32(c)) * 16777619
	}
	return h
}

// tokens cuts a text, of which s found what has a form.
func (m *Tagger) tokens(s *scanner) []token {
	text := s.text
	out := make([]token, 0, len(text)/4)
	known := lists()
	spans, opaque, numbers := s.spans, s.opaque, s.numbers
	for i := 0; i < len(text); {
		for len(spans) > 0 && spans[0].End <= i {
			spans = spans[1:]
		}
		for len(opaque) > 0 && opaque[0].End <= i {
			opaque = opaque[1:]
		}
		for len(numbers) > 0 && numbers[0].End <= i {
			numbers = numbers[1:]
		}
		switch {
		case len(spans) > 0 && spans[0].Start <= i:
			out = append(out, token{start: i, end: spans[0].End, fixed: true, lower: 1000 + uint32(spans[0].Type), shape: 100})
			i = spans[0].End
			continue
		case len(opaque) > 0 && opaque[0].Start <= i:
			out = append(out, token{start: i, end: opaque[0].End, fixed: true, lower: 999, shape: 99})
			i = opaque[0].End
			continue
		case len(numbers) > 0 && numbers[0].Start == i:
			run := text[i:numbers[0].End]
			n := uint32(len(digits(run)))
			t := token{start: i, end: numbers[0].End, lower: hash(run), suffix: n, shape: shapeDigits + n, look: true}
			if len(run) != int(n) {
				t.shape += 30
			}
			out = append(out, t)
			i = t.end
			continue
		}
		c := text[i]
		if c == '\n' {
			out = append(out, token{start: i, end: i + 1, lower: 998, shape: shapeLineEnd})
			i++
			continue
		}
		if c == ' ' || c == '\t' || c == '\r' {
			i++
			continue
		}
		if !isAlnum(c) {
			out = append(out, token{start: i, end: i + 1, lower: uint32(c), shape: 97})
			i++
			continue
		}
		start := i
		var flags uint8
		first := classes[c]
		for i < len(text) && isAlnum(text[i]) {
			flags |= classes[text[i]]
			i++
		}
		t := word(text[start:i], start, first, flags, known)
		if m.knows(t.lower) || i-start > 4 && text[i-1] == 's' && m.knows(hash(text[start:i-1])) {
			t.list |= inWords
		} else if t.end-t.start > 2 {
			t.look = true
		}
		out = append(out, t)
	}
	return out
}

// knows says whether people write a word in lower case.
func (m *Tagger) knows(word uint32) bool {
	word %= wordBits
	return m.words[word/8]&(1<<(word%8)) != 0
}

// learnWords takes in the words that stand in the texts in lower case, at least
// twice.
func (m *Tagger) learnWords(texts []string) {
	seen := map[string]int{}
	for _, text := range texts {
		for _, w := range strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) }) {
			if strings.ToLower(w) == w {
				seen[w]++
			}
		}
	}
	for w, n := range seen {
		if n >= 2 {
			h := hash(w) % wordBits
			m.words[h/8] |= 1 << (h % 8)
		}
	}
}

func word(w string, start int, first, flags uint8, known map[uint32]uint32) token {
	t := token{start: start, end: start + len(w), shape: shapeOther}
	if flags&wideClass != 0 {
		if r, _ := utf8.DecodeRuneInString(w); r >= utf8.RuneSelf && unicode.IsUpper(r) {
			first = upperClass
		}
		if up, low := strings.ToUpper(w), strings.ToLower(w); up == w && low != w {
			flags = flags&^lowerClass | upperClass
		}
		w = strings.ToLower(w)
	}
	t.lower = hash(w)
	t.suffix, t.prefix = hash(w[max(0, len(w)-3):]), hash(w[:min(len(w), 2)])
	switch {
	case flags&digitClass != 0 && flags&(upperClass|lowerClass|wideClass) == 0:
		t.shape = shapeDigits + uint32(len(w))
	case flags&digitClass != 0:
		t.shape = shapeOther
	case flags&(upperClass|lowerClass) == upperClass && len(w) > 1:
		t.shape = shapeUpper
	case first == upperClass:
		t.shape = shapeCapital
	case flags&upperClass != 0:
		t.shape = shapeMixed
	default:
		t.shape = shapeLower
	}
	t.list = known[t.lower]
	t.names = namesWith(t.lower)
	t.look = t.shape != shapeLower || t.list&inNationalities != 0
	return t
}

// features writes the rows of token i into to, and returns how many.
func features(tokens []token, i int, to *[32]uint32) int {
	at := func(j int) *token {
		if j < 0 || j >= len(tokens) {
			return &edge
		}
		return &tokens[j]
	}
	t, p, pp, n, nn := at(i), at(i-1), at(i-2), at(i+1), at(i+2)
	k := 0
	add := func(kind, a, b uint32) {
		h := (kind*0x9e3779b1 ^ a) * 0x85ebca6b
		h = (h ^ h>>15 ^ b) * 0xc2b2ae35
		to[k] = (h ^ h>>13) % buckets
		k++
	}
	label := uint32(p.label)
	add(1, t.lower, 0)
	add(2, t.suffix, t.shape)
	add(3, t.prefix, t.shape)
	add(4, t.shape, label)
	add(5, p.lower, 0)
	add(6, p.lower, t.shape)
	add(7, n.lower, t.shape)
	add(8, pp.lower, p.lower)
	add(9, n.lower, nn.lower)
	add(10, label, t.lower)
	add(11, label, uint32(pp.label)<<8|t.shape)
	add(12, p.shape<<16|n.shape, t.shape)
	add(13, t.list&seenLists, label)
	add(14, n.list&seenLists, t.shape<<8|n.shape)
	add(15, p.list&seenLists, t.shape<<8|p.shape)
	add(16, label, n.lower)
	add(17, pp.lower, t.shape)
	add(18, n.shape<<16|nn.shape, t.shape<<8|label)
	add(19, t.suffix, n.shape)
	add(20, p.suffix, t.suffix)
	ppp, nnn := at(i-3), at(i+3)
	add(21, ppp.lower^pp.lower*31, p.lower)
	add(22, nnn.lower^nn.lower*31, n.lower)
	add(23, p.lower, n.lower)
	add(24, pp.lower*31^p.lower, n.lower)
	add(25, t.names, label)
	add(26, t.names<<8|p.names, n.names<<8|t.shape)
	add(27, t.names, t.shape<<8|n.shape)
	add(28, t.line<<8|t.word, t.shape)
	add(29, t.above<<8|label, t.shape<<8|t.names)
	return k
}

var edge = token{lower: 997, shape: 96}

// label decides token i, whose neighbors before are decided.
func (m *Tagger) label(tokens []token, i int, least int32) uint8 {
	var rows [32]uint32
	var score [stride]int32
	for _, r := range rows[:features(tokens, i, &rows)] {
		w := (*[stride]int8)(m.weights[r*stride:])
		for l := range stride {
			score[l] += int32(w[l])
		}
	}
	best := 0
	for l := 1; l < usedLabels; l++ {
		if ruled.Has(labels[l]) {
			continue // the rules do better
		}
		if score[l] > score[best]+or(best == 0, least) {
			best = l
		}
	}
	return uint8(best)
}

func or(is bool, x int32) int32 {
	if is {
		return x
	}
	return 0
}

// Lines and words of a line are counted up to here.
const maxLine, maxWord = 9, 3

// place sets where token i stands; the tokens before are labeled.
func place(tokens []token, i int) {
	t := &tokens[i]
	if i == 0 {
		t.line, t.word = 0, 1
		return
	}
	p := &tokens[i-1]
	t.line, t.word, t.above = p.line, min(p.word+1, maxWord), p.above
	if p.shape != shapeLineEnd {
		return
	}
	t.line, t.word, t.above = min(p.line+1, maxLine), 1, 0
	for j := i - 2; j >= 0 && tokens[j].shape != shapeLineEnd && t.above == 0; j-- {
		t.above = uint32(tokens[j].label)
	}
}

// candidate says whether token i is labeled at all: words in lower case that
// follow no labeled one are not.
func candidate(tokens []token, i int) bool {
	t := &tokens[i]
	return !t.fixed && (t.look || i > 0 && tokens[i-1].label != 0)
}

func isName(t *token) bool {
	return NameList(t.names)&(FirstNames|LastNames) != 0 && t.list&inWords == 0
}

// corners joins what makes an address of two streets: "the corner of First
// Street 1 and Hill Road".
func corners(text string, tokens []token) {
	is := func(i int, word string) bool {
		return i >= 0 && i < len(tokens) && strings.EqualFold(text[tokens[i].start:tokens[i].end], word)
	}
	address := labelOf(Address)
	for i := 2; i < len(tokens); i++ {
		if !is(i-2, "corner") || !is(i-1, "of") {
			continue
		}
		street := i // where the first one begins: a number may stand before it
		for street < min(len(tokens), i+4) && tokens[street].label != address {
			street++
		}
		if street == len(tokens) || tokens[street].label != address {
			continue
		}
		from, to := i-2, street
		if is(from-1, "the") {
			from--
		}
		for to < len(tokens) && (tokens[to].label == address || is(to, ".")) {
			to++
		}
		if is(to, "and") {
			to++
			for end := min(len(tokens), to+4); to < end && (tokens[to].shape == shapeCapital || tokens[to].shape == shapeUpper || tokens[to].label != 0 || tokens[to].list&inStreets != 0); to++ {
			}
		}
		for j := from; j < to; j++ {
			tokens[j].label = address
		}
	}
}

// tag labels the tokens and returns the spans of equal labels.
func (m *Tagger) tag(s *scanner, to []Span) []Span {
	text, tokens := s.text, m.tokens(s)
	m.rules(text, tokens)
	// The model knows English: capitals mean something else in German.
	foreign := isForeign(tokens)
	for i := range tokens {
		place(tokens, i)
		if candidate(tokens, i) && !foreign {
			margin := int32(marginKnown)
			switch {
			case tokens[i].shape == shapeCapital && begins(text, tokens, i):
				margin = marginFirst
			case tokens[i].shape == shapeCapital && tokens[i].list&inWords == 0:
				margin = marginNew
			case tokens[i].shape == shapeLower && isName(&tokens[i]):
				margin = marginName
			case tokens[i].shape == shapeLower && (i == 0 || !continues.Has(labels[tokens[i-1].label])):
				margin = marginLower
			}
			tokens[i].label = m.label(tokens, i, margin)
			if i > 0 && tokens[i].list&inStreets != 0 && labels[tokens[i-1].label] == Address {
				tokens[i].label = tokens[i-1].label
			}
		}
	}
	corners(text, tokens)
	var found []Span
	for i := 0; i < len(tokens); {
		l := tokens[i].label
		j := i + 1
		if l == 0 {
			i = j
			continue
		}
		for j < len(tokens) && tokens[j].label == l {
			j++
		}
		a, b := i, j
		for a < b && !isAlnum(text[tokens[a].start]) {
			a++
		}
		for b > a && !isAlnum(text[tokens[b-1].start]) {
			b--
		}
		if a < b {
			sp := Span{tokens[a].start, tokens[b-1].end, labels[l]}
			if sp.Type == Place && IsCountry(text[sp.Start:sp.End]) {
				sp.Type = Country
			}
			found = append(found, sp)
		}
		i = j
	}
	return append(to, m.plausible(s, found)...)
}

// Example is a text for the tagger to learn from: what is in it.
type Example struct {
	Text  string
	Spans []Span
}

// Train makes a tagger by an averaged perceptron, and learns from plain texts
// which words are written in lower case. The same input gives the same tagger.
func Train(examples []Example, plain []string, epochs int) *Tagger {
	m := &Tagger{weights: make([]int8, buckets*stride), words: make([]byte, wordBits/8)}
	m.learnWords(plain)
	type sample struct {
		tokens []token
		gold   []uint8
	}
	samples := make([]sample, len(examples))
	for i, e := range examples {
		s := scanner{text: e.Text}
		s.scan()
		tokens := m.tokens(&s)
		m.rules(e.Text, tokens)
		ruled := make([]uint8, len(tokens))
		for j := range tokens {
			ruled[j] = tokens[j].label
		}
		gold := make([]uint8, len(tokens))
		for j, t := range tokens {
			for _, sp := range e.Spans {
				if t.start >= sp.Start && t.start < sp.End && !t.fixed {
					gold[j] = labelOf(sp.Type)
				}
			}
			if t.fixed {
				gold[j] = ruled[j]
			}
		}
		samples[i] = sample{tokens, gold}
	}
	weights, sums, since := make([]float64, buckets*stride), make([]float64, buckets*stride), make([]float64, buckets*stride)
	step := 0.0
	update := func(row, label uint32, by float64) {
		i := row*stride + label
		sums[i] += (step - since[i]) * weights[i]
		since[i] = step
		weights[i] += by
	}
	random := uint32(1)
	next := func(n uint32) uint32 { random = random*1664525 + 1013904223; return random >> 8 % n }
	for range epochs {
		for i := len(samples) - 1; i > 0; i-- {
			j := int(next(uint32(i + 1)))
			samples[i], samples[j] = samples[j], samples[i]
		}
		for _, s := range samples {
			for i := range s.tokens {
				// Teach with the labels as they are, so that mistakes do not spread.
				if i > 0 {
					s.tokens[i-1].label = s.gold[i-1]
				}
				s.tokens[i].label = 0
				place(s.tokens, i)
				if !candidate(s.tokens, i) {
					continue
				}
				step++
				var rows [32]uint32
				n := features(s.tokens, i, &rows)
				// Forget some features at times, so that each learns to do without others.
				kept := rows[:0]
				for _, r := range rows[:n] {
					if next(100) >= 30 {
						kept = append(kept, r)
					}
				}
				var score [stride]float64
				for _, r := range kept {
					for l := range usedLabels {
						score[l] += weights[int(r)*stride+l]
					}
				}
				gold, best := int(s.gold[i]), 0
				rival := math.Inf(-1)
				for l := range usedLabels {
					if l != gold && score[l] > rival {
						rival, best = score[l], l
					}
				}
				if score[gold] < rival+4 { // with a margin
					for _, r := range kept {
						update(r, uint32(gold), 1)
						update(r, uint32(best), -1)
					}
				}
			}
		}
	}
	most := 0.0
	for i := range sums {
		sums[i] += (step - since[i]) * weights[i]
		most = max(most, math.Abs(sums[i]))
	}
	for i, s := range sums {
		m.weights[i] = int8(max(-127, min(127, math.Round(s/most*250))))
	}
	return m
}

func labelOf(t Type) uint8 {
	if t == Country {
		t = Place
	}
	for i, l := range labels {
		if l == t && i > 0 && i < usedLabels {
			return uint8(i)
		}
	}
	return 0
}

// Bytes is the tagger as it is kept in a file.
func (m *Tagger) Bytes() []byte {
	out := slices.Clone(m.words)
	for _, w := range m.weights {
		out = append(out, byte(w))
	}
	return out
}
