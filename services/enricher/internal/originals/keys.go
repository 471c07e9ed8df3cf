// Package originals keeps what placeholders stand for, encrypted, for projects
// that ask for it.
package originals

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// Place is where an original belongs: it can be read nowhere else.
type Place struct{ Project, Session, Placeholder string }

// Keys encrypt with one key, and decrypt with that and older ones. They are safe
// for concurrent use; the zero value has no key.
type Keys struct {
	newest *key
	byID   map[string]*key
}

type key struct {
	id    string
	aead  cipher.AEAD
	nonce []byte // of the function that makes nonces
}

// Reasons why an original cannot be kept or read. They hold no content.
var (
	ErrNoKey      = errors.New("privacy.keep_originals is on, but the enricher has no originals_key (HONE_ENRICHER_ORIGINALS_KEY): give it one, or switch it off")
	errUnknownKey = errors.New("its key is not configured: add it to originals_old_keys of the enricher")
	errBroken     = errors.New("it was changed, or belongs to another project, session or placeholder")
)

// NewKeys reads keys of 32 bytes, in base64 or hex. newest may be empty where
// nothing is to be kept. Errors do not quote them.
func NewKeys(newest string, older []string) (Keys, error) {
	k := Keys{byID: map[string]*key{}}
	add := func(name, text string) (*key, error) {
		secret, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		made, err := newKey(secret)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		k.byID[made.id] = made
		return made, nil
	}
	var errs []error
	for i, text := range older {
		_, err := add(fmt.Sprintf("originals_old_keys[%d]", i), text)
		errs = append(errs, err)
	}
	if newest != "" {
		var err error
		k.newest, err = add("originals_key", newest)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return Keys{}, err
	}
	return k, nil
}

func parse(text string) ([]byte, error) {
	if secret, err := hex.DecodeString(text); err == nil && len(secret) == 32 {
		return secret, nil
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if secret, err := enc.DecodeString(text); err == nil && len(secret) == 32 {
			return secret, nil
		}
	}
	return nil, errors.New("want 32 random bytes in base64 or hex (openssl rand -base64 32)")
}

func newKey(secret []byte) (*key, error) {
	// A key has one use: each is derived from the secret, and so is its name.
	derive := func(use string, n int) ([]byte, error) {
		return hkdf.Key(sha256.New, secret, nil, "hone originals "+use, n)
	}
	id, err := derive("id", 6)
	if err != nil {
		return nil, err
	}
	nonce, err := derive("nonce", 32)
	if err != nil {
		return nil, err
	}
	enc, err := derive("encryption", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(enc)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &key{hex.EncodeToString(id), aead, nonce}, nil
}

// CanKeep says whether there is a key to encrypt with.
func (k Keys) CanKeep() bool { return k.newest != nil }

// Seal encrypts with the newest key, and says which that is. The same value in
// the same place gives the same bytes (DECISIONS.md 29): nonce, then ciphertext
// and tag.
func (k Keys) Seal(at Place, value string) (keyID string, sealed []byte, err error) {
	if !k.CanKeep() {
		return "", nil, ErrNoKey
	}
	aad := at.encode()
	h := hmac.New(sha256.New, k.newest.nonce)
	h.Write(aad)
	h.Write([]byte(value))
	nonce := h.Sum(nil)[:k.newest.aead.NonceSize()]
	return k.newest.id, k.newest.aead.Seal(nonce, nonce, []byte(value), aad), nil
}

// Open decrypts.
func (k Keys) Open(at Place, keyID string, sealed []byte) (string, error) {
	key := k.byID[keyID]
	if key == nil {
		return "", errUnknownKey
	}
	n := key.aead.NonceSize()
	if len(sealed) < n {
		return "", errBroken
	}
	value, err := key.aead.Open(nil, sealed[:n], sealed[n:], at.encode())
	if err != nil {
		return "", errBroken
	}
	return string(value), nil
}

// encode tells any two places apart, and where they end.
func (p Place) encode() []byte {
	var out []byte
	for _, part := range []string{p.Project, p.Session, p.Placeholder} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return out
}
