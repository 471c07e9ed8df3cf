package redact

import (
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Classes of bytes: what a chunk of text is made of says which detectors look
// at it. Most chunks are words in lower case, which none does.
const (
	digitClass = 1 << iota
	upperClass
	lowerClass
	atClass
	colonClass // : and =, which bind a name to a value
	dashClass  // - and _
	wideClass  // not ASCII
	splitClass // ends a chunk
)

var classes = func() (c [256]uint8) {
	for i := range c {
		switch b := byte(i); {
		case isDigit(b):
			c[i] = digitClass
		case b >= 'A' && b <= 'Z':
			c[i] = upperClass
		case b >= 'a' && b <= 'z':
			c[i] = lowerClass
		case b >= utf8.RuneSelf:
			c[i] = wideClass
		}
	}
	c['@'], c[':'], c['='], c['-'], c['_'] = atClass, colonClass, colonClass, dashClass, dashClass
	for _, b := range []byte(" \t\r\n\v\f\"'`<>{}[]()|;,\\") {
		c[b] = splitClass
	}
	return c
}()

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isLetter(b byte) bool { return classes[b]&(upperClass|lowerClass|wideClass) != 0 }

func isAlnum(b byte) bool { return classes[b]&(upperClass|lowerClass|wideClass|digitClass) != 0 }

// scanner finds what has a form of its own.
type scanner struct {
	text  string
	spans []Span
	// opaque are stretches that are neither personal nor words: URLs, hashes,
	// versions, placeholders.
	opaque []Span
	// numbers are runs of digits that no detector knew; the words around may say
	// what they are.
	numbers []Span
	// capitals says that there is a letter in upper case, numerals a digit.
	capitals, numerals bool
}

func (s *scanner) add(start, end int, t Type) { s.spans = append(s.spans, Span{start, end, t}) }

func (s *scanner) skip(start, end int) { s.opaque = append(s.opaque, Span{Start: start, End: end}) }

func (s *scanner) scan() {
	text := s.text
	for i := 0; i < len(text); {
		if classes[text[i]] == splitClass {
			if text[i] == '<' {
				if end := placeholderEnd(text, i); end > 0 {
					s.skip(i, end)
					i = end
					continue
				}
			}
			i++
			continue
		}
		start, flags := i, uint8(0)
		for i < len(text) && classes[text[i]] != splitClass {
			flags |= classes[text[i]]
			i++
		}
		if flags&(upperClass|wideClass) != 0 {
			s.capitals = true
		}
		if flags&(digitClass|atClass|colonClass) == 0 {
			if text[start] == '-' && strings.HasPrefix(text[start:], "-----BEGIN") {
				i = s.pem(start, i)
			}
			continue
		}
		if flags&digitClass != 0 {
			s.numerals = true
		}
		i = s.chunk(start, i, flags)
	}
}

// chunk looks at the chunk [start, end) and returns where to go on.
func (s *scanner) chunk(start, end int, flags uint8) int {
	text := s.text
	whole := end
	for end > start && strings.IndexByte(".!?", text[end-1]) >= 0 {
		end--
	}
	if start == end {
		return whole
	}
	if flags&colonClass != 0 {
		if i := strings.Index(text[start:end], "://"); i > 0 {
			return s.url(start, start+i, end)
		}
		if addr := strings.TrimSuffix(text[start:end], "/"); strings.Count(addr, ":") >= 2 && isIPv6(addr) {
			s.add(start, start+len(addr), IP)
			return end
		}
		if i := strings.IndexAny(text[start:end], ":="); i >= 0 {
			if i > 0 {
				s.piece(start, start+i, flags)
			}
			if next := s.assigned(start, start+i); next > 0 {
				return next
			}
			return start + i + 1
		}
	}
	return s.piece(start, end, flags)
}

// piece looks at a chunk without a colon.
func (s *scanner) piece(start, end int, flags uint8) int {
	text := s.text
	if flags&atClass != 0 {
		for i := start; i < end; i++ {
			if text[i] == '@' {
				if from, to := emailAround(text, start, i, end); to > 0 {
					s.add(from, to, Email)
					return to
				}
			}
		}
	}
	if flags&digitClass == 0 {
		return end
	}
	if to := secretEnd(text, start, end); to > 0 {
		s.add(start, to, Secret)
		return to
	}
	if before := text[max(0, start-12):start]; end-start >= 6 && strings.EqualFold(before, "password is ") && mixed(text[start:end]) {
		s.add(start, end, Secret)
		return end
	}
	if c := text[start]; isDigit(c) || c == '+' && start+1 < end && isDigit(text[start+1]) {
		return s.number(start)
	}
	// A digit that does not begin the chunk belongs to a word: an id, a hash, a
	// model's name.
	if to := ibanEnd(text, start); to > 0 {
		s.add(start, to, IBAN)
		return to
	}
	if isLetter(text[start]) {
		to := wordEnd(text, start, end)
		if named := s.named(start, idWords); nationalID(text[start:to], named) {
			s.add(start, to, NationalID)
			return to
		}
		if flags&(dashClass|lowerClass) != 0 && to-start > 3 {
			s.skip(start, end)
		}
	}
	return end
}

// wordEnd is the end of the letters, digits and dashes from start on.
func wordEnd(text string, start, end int) int {
	i := start
	for i < end && (isAlnum(text[i]) || text[i] == '-') {
		i++
	}
	return i
}

// placeholderEnd is the end of a placeholder that begins at i; 0 where none does.
func placeholderEnd(text string, i int) int {
	j := i + 1
	for j < len(text) && (text[j] >= 'A' && text[j] <= 'Z' || text[j] == '_' || isDigit(text[j])) {
		j++
	}
	if j < len(text) && text[j] == '>' && j > i+4 && isDigit(text[j-1]) && !isDigit(text[i+1]) {
		return j + 1
	}
	return 0
}

// emailAround is the address around the @ at i, within [start, end).
func emailAround(text string, start, at, end int) (int, int) {
	from := at
	for from > start && (isAlnum(text[from-1]) || strings.IndexByte("._%+-", text[from-1]) >= 0) {
		from--
	}
	for from < at && !isAlnum(text[from]) {
		from++
	}
	to := at + 1
	for to < end && (isAlnum(text[to]) || text[to] == '.' || text[to] == '-') {
		to++
	}
	for to > at+1 && !isAlnum(text[to-1]) {
		to--
	}
	dot := strings.LastIndexByte(text[at:to], '.')
	if from == at || dot < 2 || to-(at+dot) < 3 {
		return 0, 0
	}
	for _, c := range []byte(text[at+dot+1 : to]) {
		if !isLetter(c) {
			return 0, 0 // "package@1.2.3"
		}
	}
	if text[from:at] == "git" && to < len(text) && text[to] == ':' {
		return 0, 0 // a repository
	}
	return from, to
}

// url handles a URL whose scheme ends at colon: it is opaque but for what it
// may hide.
func (s *scanner) url(start, colon, end int) int {
	text := s.text
	for start < colon && !isLetter(text[start]) || strings.ContainsAny(text[start:colon], "=@:") {
		start++
	}
	host := colon + 3
	// Brackets may be part of a URL: IPv6, and paths of wikis.
	for end < len(text) && strings.IndexByte("[]();,", text[end]) >= 0 && end+1 < len(text) && (isAlnum(text[end+1]) || strings.IndexByte(":?/#_", text[end+1]) >= 0) {
		for end++; end < len(text) && classes[text[end]] != splitClass; {
			end++
		}
		for strings.IndexByte(".!?:", text[end-1]) >= 0 {
			end--
		}
	}
	hostEnd := end
	if i := strings.IndexAny(text[host:end], "/?#"); i >= 0 {
		hostEnd = host + i
	}
	from := start
	cover := func(a, b int, t Type) {
		if a > from {
			s.skip(from, a)
		}
		s.add(a, b, t)
		from = b
	}
	if at := strings.LastIndexByte(text[host:hostEnd], '@'); at > 0 {
		cover(host, host+at, Credentials)
		host += at + 1
	}
	if addr := strings.Trim(hostOf(text[host:hostEnd]), "[]"); addr != "" {
		if a, err := netip.ParseAddr(addr); err == nil && personalIP(a) {
			at := host + strings.Index(text[host:hostEnd], addr)
			cover(at, at+len(addr), IP)
		}
	}
	for i := hostEnd; i < end; {
		next := i + 1
		for next < end && strings.IndexByte("?&#;/", text[next]) < 0 {
			next++
		}
		name, value, found := strings.Cut(text[i+1:next], "=")
		valueAt := next - len(value)
		switch {
		case found && value != "" && secretName(name):
			cover(valueAt, next, Secret)
		case found && strings.IndexByte(value, '@') > 0:
			if a, b := emailAround(text, valueAt, valueAt+strings.IndexByte(value, '@'), next); b > 0 {
				cover(a, b, Email)
			}
		case secretEnd(text, i+1, next) == next:
			cover(i+1, next, Secret)
		}
		i = next
	}
	if from == start {
		s.add(start, end, URL)
		return end
	}
	if from < end {
		s.skip(from, end)
	}
	return end
}

func hostOf(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && strings.IndexByte(authority[i:], ']') < 0 && (strings.Count(authority, ":") == 1 || strings.Contains(authority, "]")) {
		return authority[:i]
	}
	return authority
}

// personalIP leaves out the addresses that everybody has.
func personalIP(a netip.Addr) bool {
	return !a.IsLoopback() && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && a.Zone() == ""
}

func isIPv6(s string) bool {
	s, _, _ = strings.Cut(strings.Trim(s, "[]"), "/")
	if len(s) < 4 || !strings.ContainsAny(s, "0123456789") {
		return false
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || !personalIP(a) {
		return false
	}
	// "std::a1" and "12::30" read as addresses too: ask for a whole group with a
	// digit, and for more than two.
	groups := strings.FieldsFunc(s, func(r rune) bool { return r == ':' })
	whole := 0
	for _, g := range groups {
		if len(g) == 4 && strings.ContainsAny(g, "0123456789") {
			whole++
		}
	}
	return whole > 0 && (len(groups) > 2 || strings.HasPrefix(strings.ToLower(s), "fe80") || whole == 2)
}

// ipv4End is the end of an IPv4 address that begins at start.
func ipv4End(text string, start int) int {
	i := start
	for part := range 4 {
		from := i
		for i < len(text) && isDigit(text[i]) && i-from < 4 {
			i++
		}
		if i == from || i-from > 3 || number(text[from:i]) > 255 || i-from > 1 && text[from] == '0' {
			return 0
		}
		if part < 3 {
			if i >= len(text) || text[i] != '.' {
				return 0
			}
			i++
		}
	}
	if i < len(text) && (isAlnum(text[i]) || text[i] == '_' || strings.IndexByte(".-+", text[i]) >= 0 && i+1 < len(text) && isAlnum(text[i+1])) {
		return 0 // a longer version number
	}
	return i
}

// number looks at the run of digits that begins at start.
func (s *scanner) number(start int) int {
	text := s.text
	if start > 0 && (strings.IndexByte("._-/#@+$&=%", text[start-1]) >= 0 && start > 1 && isAlnum(text[start-2]) || isAlnum(text[start-1])) {
		// Within a word, a path or a formula.
		return wordOver(text, start)
	}
	if to := ipv4End(text, start); to > 0 {
		a, err := netip.ParseAddr(text[start:to])
		if err == nil && personalIP(a) && !s.named(start, versionWords) {
			s.add(start, to, IP)
		} else {
			s.skip(start, to)
		}
		return to
	}
	if to := dateEnd(text, start); to > 0 {
		s.add(start, to, Date)
		return to
	}
	if start >= 3 && start+10 <= len(text) && classes[text[start-2]]&upperClass != 0 && nationalID(text[start-3:start+10], false) {
		s.add(start-3, start+10, NationalID)
		return start + 10
	}
	if to := wordEnd(text, start, len(text)); to > start && classes[text[to-1]]&upperClass != 0 && nationalID(text[start:to], false) {
		s.add(start, to, NationalID)
		return to
	}
	end := runEnd(text, start)
	if end == start {
		// Digits and letters in one word.
		to := wordOver(text, start)
		if to-start > 4 {
			s.skip(start, to)
		}
		return to
	}
	run := text[start:end]
	d := digits(run)
	if len(d) < 7 {
		s.numbers = append(s.numbers, Span{Start: start, End: end})
		return end
	}
	if strings.IndexByte(run, '/') < 0 {
		// A card or an id may be followed by another number, so that the run is too
		// long: try it whole, then without its last groups.
		for to := end; to > start; to = lastGroup(text, start, to) {
			if s.identifier(start, to) {
				return to
			}
		}
	}
	if s.phone(start, end, run, d) {
		return s.spans[len(s.spans)-1].End
	}
	s.numbers = append(s.numbers, Span{Start: start, End: end})
	return end
}

// identifier looks at [start, end) as a card or a national id.
func (s *scanner) identifier(start, end int) bool {
	run := s.text[start:end]
	d := digits(run)
	if len(d) >= 12 && len(d) <= 19 && luhn(d) {
		if ok, sure := cardLength(d); (ok && sure || s.named(start, cardWords)) && !strings.ContainsAny(run, ".()+") {
			s.add(start, end, Card)
			return true
		}
	}
	if len(d) >= 8 && run[0] != '+' && nationalID(run, s.named(start, idWords)) {
		s.add(start, end, NationalID)
		return true
	}
	return false
}

func lastGroup(text string, start, end int) int {
	i := end
	for i > start && isDigit(text[i-1]) {
		i--
	}
	for i > start && !isDigit(text[i-1]) {
		i--
	}
	return i
}

// runEnd is the end of the digits from start on, with single separators between
// them. It is start where the first digits run into letters.
func runEnd(text string, start int) int {
	i, end := start, start
	if text[i] == '+' {
		i++
	}
	open := start > 0 && text[start-1] == '('
	for groups := 0; groups < 12; groups++ {
		from := i
		for i < len(text) && isDigit(text[i]) {
			i++
		}
		if i == from || i < len(text) && (isAlnum(text[i]) && text[i] != 'x' || text[i] == '_') {
			break
		}
		if i < len(text) && text[i] == 'x' && (i+1 >= len(text) || !isDigit(text[i+1])) {
			break
		}
		end = i
		for n := 0; i < len(text) && n < 3; n++ {
			c := text[i]
			if c == 'x' && n == 0 {
				i++
				break // an extension
			}
			if c == ' ' || c == '-' || c == '.' || c == '/' && n == 0 || c == '(' || c == ')' && (open || strings.IndexByte(text[start:i], '(') >= 0) {
				i++
				continue
			}
			break
		}
		if i == end || i-end > 1 && !strings.ContainsAny(text[end:i], "()") && text[end:i] != " - " {
			break
		}
	}
	return end
}

func wordOver(text string, start int) int {
	i := start
	for i < len(text) && (isAlnum(text[i]) || strings.IndexByte("-_.+/#@%", text[i]) >= 0) {
		i++
	}
	return max(i, start+1)
}

// dateEnd is the end of a date in digits, with a time where one follows.
func dateEnd(text string, start int) int {
	var group [3]int
	i := start
	var sep byte
	for g := range 3 {
		from := i
		for i < len(text) && isDigit(text[i]) {
			i++
		}
		if group[g] = i - from; group[g] == 0 || group[g] > 4 {
			return 0
		}
		if g == 2 {
			break
		}
		if i >= len(text) || strings.IndexByte("-/.", text[i]) < 0 || sep != 0 && text[i] != sep {
			return 0
		}
		sep = text[i]
		i++
	}
	parts := strings.FieldsFunc(text[start:i], func(r rune) bool { return r == rune(sep) })
	a, b, c := number(parts[0]), number(parts[1]), number(parts[2])
	year := func(y int) bool { return y >= 1800 && y <= 2200 }
	iso := group[0] == 4 && year(a) && b >= 1 && b <= 12 && c >= 1 && c <= 31
	local := group[0] <= 2 && group[1] <= 2 && (group[2] == 4 && year(c) || group[2] == 2 && sep == '/') &&
		a >= 1 && b >= 1 && a <= 31 && b <= 31 && min(a, b) <= 12
	if !iso && !local || i < len(text) && (isDigit(text[i]) || text[i] == sep && i+1 < len(text) && isDigit(text[i+1])) {
		return 0
	}
	if i+6 <= len(text) && (text[i] == ' ' || text[i] == 'T') && isDigit(text[i+1]) && isDigit(text[i+2]) && text[i+3] == ':' {
		for i++; i < len(text) && (isDigit(text[i]) || strings.IndexByte(":.Z+", text[i]) >= 0); {
			i++
		}
		for text[i-1] == '.' || text[i-1] == ':' || text[i-1] == '+' {
			i--
		}
		return i
	}
	if i < len(text) && isAlnum(text[i]) {
		return 0
	}
	return i
}

// phone looks at a run of at least seven digits.
func (s *scanner) phone(start, end int, run, d string) bool {
	text := s.text
	if len(d) > 17 || strings.Count(d, d[:1]) == len(d) {
		return false
	}
	main, _, extended := strings.Cut(run, "x")
	n := len(digits(main))
	if n > 15 {
		return false
	}
	if start > 0 && text[start-1] == '(' && strings.IndexByte(main, ')') > 0 {
		start--
	}
	yes := false
	switch shape := shapeOf(main); {
	case run[0] == '+':
		yes = n >= 8
	case strings.Contains(" ddd-ddd-dddd ddd.ddd.dddd (ddd) ddd-dddd (ddd)ddd-dddd d-ddd-ddd-dddd ddd) ddd-dddd ddd)ddd-dddd ddd-ddd-ddd-dddd ", " "+shape+" "):
		yes = d[0] != '0' || strings.HasPrefix(d, "00")
	case extended:
		yes = n >= 9
	case strings.HasPrefix(d, "00"):
		yes = n >= 10 && len(main) > n
	case d[0] == '0':
		yes = n >= 9 && n <= 12 && len(main) > n
	}
	switch s.nearest(start, phoneWords, otherNumberWords) {
	case 1:
		yes = n >= 7 && strings.IndexByte(main, '/') < 0 || yes
	case 2:
		yes = run[0] == '+' && yes
	}
	if yes {
		s.add(start, end, Phone)
	}
	return yes
}

// ibanEnd is the end of an IBAN that begins at start, in one piece or in groups
// of four.
func ibanEnd(text string, start int) int {
	if start+15 > len(text) || !isDigit(text[start+2]) || !isDigit(text[start+3]) {
		return 0
	}
	var b [34]byte
	want := ibanLength(strings.ToUpper(text[start : start+2]))
	n := 0
	for i := start; i < len(text) && n < want; i++ {
		c := text[i]
		switch {
		case c >= 'a' && c <= 'z':
			c -= 'a' - 'A'
		case c >= 'A' && c <= 'Z', isDigit(c):
		case c == ' ' && n%4 == 0:
			continue
		default:
			return 0
		}
		b[n] = c
		if n++; n == want {
			if i+1 < len(text) && isAlnum(text[i+1]) || !iban(string(b[:n])) {
				return 0
			}
			return i + 1
		}
	}
	return 0
}

// contextBytes is how far before a number its words are looked at.
const contextBytes = 48

// named says whether one of the words stands shortly before start.
func (s *scanner) named(start int, words []string) bool { return s.nearest(start, words, nil) == 1 }

// nearest says which words stand nearer before start: 1 for a, 2 for b, 0 where
// neither is there.
func (s *scanner) nearest(start int, a, b []string) int {
	before := strings.ToLower(s.text[max(0, start-contextBytes):start])
	last := func(words []string) int {
		at := -1
		for _, w := range words {
			for end := len(before); ; {
				i := strings.LastIndex(before[:end], w)
				if i < 0 {
					break
				}
				if j := i + len(w); (i == 0 || !isAlnum(before[i-1]) || !isLetter(w[0])) && (j == len(before) || !isAlnum(before[j])) {
					at = max(at, i)
					break
				}
				end = i
			}
		}
		return at
	}
	x, y := last(a), last(b)
	switch {
	case x < 0 && y < 0:
		return 0
	case x >= y:
		return 1
	}
	return 2
}
