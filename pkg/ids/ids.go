// Package ids derives the ids of everything that the pipeline makes, so that a
// retry makes the same thing again.
package ids

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"

	"github.com/google/uuid"
)

var encoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// namespace is the UUID namespace of Hone's vector objects.
var namespace = uuid.MustParse("5a2c3f0e-6d0b-5c8e-9f6e-4b1f8f1d7a10")

// Derive is prefix, "_" and 26 characters (130 bits of SHA-256) that depend on
// every part and on where one part ends and the next begins.
func Derive(prefix string, parts ...string) string {
	h := sha256.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return prefix + "_" + encoding.EncodeToString(h.Sum(nil))[:26]
}

// UUID is the UUIDv5 of an id within a project, for stores that want UUIDs.
func UUID(project, id string) string {
	return uuid.NewSHA1(namespace, []byte(project+"\x00"+id)).String()
}
