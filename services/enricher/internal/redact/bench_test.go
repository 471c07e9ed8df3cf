package redact

import (
	"strings"
	"testing"
)

// BenchmarkFind is the speed on text without personal data and on hard
// negatives, with the types that are on by default.
func BenchmarkFind(b *testing.B) {
	want := SetOf(Email, Phone, Card, IBAN, NationalID, IP, Secret, Credentials, Name, Address, Place)
	for name, text := range map[string]string{
		"prose": strings.Repeat("Can I return worn shoes? Yes, within 60 days of delivery, if they are clean. Your receipt is enough for that, and we pay for the parcel. ", 20),
		"code":  strings.Join(hardNegatives(b), "\n"),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				Find(text, want)
			}
		})
	}
}
