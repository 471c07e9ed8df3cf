// Package benchtext makes the text of events that benchmarks send.
package benchtext

import (
	"math/rand/v2"
	"strings"
)

var words = strings.Fields(`the a return shoes order of customer within days please worn size refund price can I my when
	delivery store online card receipt policy changed not received email address coupon account yes no exchange damaged warranty
	colour blue black leather shipping free over total paid invoice number contact support`)

// Prose has about n bytes and compresses as prose does.
func Prose(r *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(words[r.IntN(len(words))])
		b.WriteByte(' ')
	}
	return b.String()
}
