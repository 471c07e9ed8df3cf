// Package redact finds personal data and secrets in text, and puts typed
// placeholders in their place. It is pure: what it finds depends on the text
// alone, and a placeholder on the session, the key and what it stands for.
package redact

import (
	"iter"
	"math/bits"
)

// Type is a kind of personal data; a set of them is a Types.
type Type uint8

// The types. Email to Credentials have a form of their own, Name to
// Nationality are told by their words and what stands around them.
const (
	Email Type = iota
	Phone
	Card
	IBAN
	NationalID
	IP
	Secret      // keys, tokens, passwords
	Credentials // user and password in a URL
	URL
	Date
	Name
	Address
	Place
	Country
	Organization
	Title
	Age
	Nationality
	numTypes
)

var typeNames = [numTypes]string{"email", "phone", "card", "iban", "national_id", "ip", "secret", "credentials", "url", "date",
	"name", "address", "place", "country", "organization", "title", "age", "nationality"}

// String is the type's name in settings, metrics and, in capitals, placeholders.
func (t Type) String() string { return typeNames[t] }

// Types is a set of types.
type Types uint32

// AllTypes holds every type.
const AllTypes = Types(1)<<numTypes - 1

// SetOf makes a set.
func SetOf(types ...Type) Types {
	var s Types
	for _, t := range types {
		s |= 1 << t
	}
	return s
}

// Has says whether t is in s.
func (s Types) Has(t Type) bool { return s&(1<<t) != 0 }

// All are the types of s, in order.
func (s Types) All() iter.Seq[Type] {
	return func(yield func(Type) bool) {
		for ; s != 0; s &= s - 1 {
			if !yield(Type(bits.TrailingZeros32(uint32(s)))) {
				return
			}
		}
	}
}

// TypeOf finds a type by its name.
func TypeOf(name string) (Type, bool) {
	for i, n := range typeNames {
		if n == name {
			return Type(i), true
		}
	}
	return 0, false
}

// Span is the bytes [Start, End) of a text, and what they are.
type Span struct {
	Start, End int
	Type       Type
}
