package redact

import (
	_ "embed"
	"strings"
)

// NameList is one of the lists of names.
type NameList uint32

// The lists of words in names.
const (
	FirstNames NameList = 1 << iota
	LastNames
	Cities
	Streets // "road", "ulica", "gade"
)

// nameSlots is the size of the table of names, four bits each. With some 90,000
// words in it, one word in thirty of others seems to be a first name.
const nameSlots = 1 << 20

// Names are the lists that hold a word, by its hash.
type Names [nameSlots / 2]byte

// Add puts a word, in whatever case, on a list.
func (n *Names) Add(list NameList, word string) {
	h := hash(strings.ToLower(word)) % nameSlots
	n[h/2] |= byte(list) << (h % 2 * 4)
}

// namesFile is made by make train-pii-names.
//
//go:embed names.bin
var namesFile string

// namesWith are the lists that hold the word of a hash.
func namesWith(word uint32) uint32 {
	h := word % nameSlots
	if int(h/2) >= len(namesFile) {
		return 0 // it is being made
	}
	return uint32(namesFile[h/2]>>(h%2*4)) & 15
}
