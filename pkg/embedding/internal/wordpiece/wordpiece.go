// Package wordpiece splits text as BERT's uncased models do.
package wordpiece

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxWord is the number of characters above which a word is not split but unknown.
const maxWord = 100

// Tokenizer splits text into word pieces of its vocabulary. It is safe for
// concurrent use.
type Tokenizer struct {
	starts    map[string]int32 // pieces that begin a word
	continued map[string]int32 // pieces within a word, without their "##"
	longest   int              // bytes of the longest piece
	first     int32            // [CLS]
	last      int32            // [SEP]
	unknown   int32            // [UNK]
}

// New reads a vocabulary: a piece per line, its id is the line's number from 0.
func New(vocabulary io.Reader) (*Tokenizer, error) {
	t := &Tokenizer{starts: make(map[string]int32), continued: make(map[string]int32)}
	lines := bufio.NewScanner(vocabulary)
	for id := int32(0); lines.Scan(); id++ {
		piece := lines.Text()
		if rest, ok := strings.CutPrefix(piece, "##"); ok && rest != "" {
			t.continued[rest] = id
		} else {
			t.starts[piece] = id
		}
		t.longest = max(t.longest, len(piece))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read vocabulary: %w", err)
	}
	var errs []error
	for piece, id := range map[string]*int32{"[CLS]": &t.first, "[SEP]": &t.last, "[UNK]": &t.unknown} {
		var ok bool
		if *id, ok = t.starts[piece]; !ok {
			errs = append(errs, fmt.Errorf("read vocabulary: %s is missing", piece))
		}
	}
	return t, errors.Join(errs...)
}

// Encode is the ids of the text's pieces between [CLS] and [SEP], at most limit
// ids in all. truncated says that the text has more pieces than fit. Names of
// special pieces, such as "[SEP]", are plain text.
func (t *Tokenizer) Encode(text string, limit int) (ids []int32, truncated bool) {
	// Most texts have a piece for each four bytes or fewer.
	ids = append(make([]int32, 0, min(limit, len(text)/3+3)), t.first)
	var buf []byte
	for field := range strings.FieldsFuncSeq(text, isSpace) {
		buf = normalize(buf[:0], field)
		for rest := buf; len(rest) > 0; {
			var word []byte
			word, rest = cutWord(rest)
			ids = t.split(ids, word)
			if len(ids) > limit-1 {
				return append(ids[:limit-1], t.last), true
			}
		}
	}
	return append(ids, t.last), false
}

// split appends the longest pieces that make up the word, from left to right,
// or [UNK] where there are none.
func (t *Tokenizer) split(ids []int32, word []byte) []int32 {
	if len(word) == 0 {
		return ids
	}
	if len(word) > maxWord && utf8.RuneCount(word) > maxWord {
		return append(ids, t.unknown)
	}
	before, pieces := len(ids), t.starts
	for len(word) > 0 {
		end := min(len(word), t.longest)
		id, ok := pieces[string(word[:end])]
		for !ok && end > 1 {
			end--
			id, ok = pieces[string(word[:end])] // a cut inside a character is no piece
		}
		if !ok {
			return append(ids[:before], t.unknown)
		}
		ids, word, pieces = append(ids, id), word[end:], t.continued
	}
	return ids
}

// cutWord takes the first word off normalized text: a punctuation mark, or what
// is before the next mark or space.
func cutWord(text []byte) (word, rest []byte) {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == ' ':
			return text[:i], text[i+size:]
		case isPunctuation(r) && i == 0:
			return text[:size], text[size:]
		case isPunctuation(r):
			return text[:i], text[i:]
		}
		i += size
	}
	return text, nil
}

// normalize appends text without control characters and accents, in lower case,
// each Chinese character between spaces.
func normalize(dst []byte, text string) []byte {
	if isASCII(text) {
		for i := range len(text) {
			c := text[i]
			switch {
			case 'A' <= c && c <= 'Z':
				dst = append(dst, c+'a'-'A')
			case ' ' < c && c < 0x7f:
				dst = append(dst, c)
			}
		}
		return dst
	}
	var clean []byte
	for _, r := range text {
		switch {
		case isDropped(r):
		case isChinese(r):
			clean = append(clean, ' ')
			clean = utf8.AppendRune(clean, r)
			clean = append(clean, ' ')
		default:
			clean = utf8.AppendRune(clean, r)
		}
	}
	for _, r := range string(norm.NFD.Bytes(clean)) {
		if !unicode.Is(unicode.Mn, r) {
			dst = utf8.AppendRune(dst, unicode.ToLower(r))
		}
	}
	return bytes.TrimSpace(dst)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// isSpace leaves out the control characters that count as space elsewhere: they
// are dropped, and what is around them is one word.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) && r != '\v' && r != '\f' && r != '\u0085'
}

// isDropped is true for control, format, private and broken characters.
func isDropped(r rune) bool {
	return r == 0 || r == utf8.RuneError || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co)
}

func isPunctuation(r rune) bool {
	if r < utf8.RuneSelf {
		return '!' <= r && r <= '/' || ':' <= r && r <= '@' || '[' <= r && r <= '`' || '{' <= r && r <= '~'
	}
	return unicode.IsPunct(r)
}

// isChinese is true in the blocks of CJK ideographs. Kana and Hangul are not.
func isChinese(r rune) bool {
	return r >= 0x3400 &&
		(r <= 0x4DBF || 0x4E00 <= r && r <= 0x9FFF || 0xF900 <= r && r <= 0xFAFF ||
			0x20000 <= r && r <= 0x2A6DF || 0x2A700 <= r && r <= 0x2B73F || 0x2B740 <= r && r <= 0x2B81F ||
			0x2B820 <= r && r <= 0x2CEAF || 0x2F800 <= r && r <= 0x2FA1F)
}
