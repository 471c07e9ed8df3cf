// Package auth says whose request it is.
//
// A key belongs to one project. A publishable key ("hp_...") may only write
// events, from listed origins; a secret key ("hs_...") may do all in its
// project. Only hashes of keys are stored, in a keys file that every service
// reads.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/config"
)

// Kind is what a key may do.
type Kind string

// The kinds of keys.
const (
	Publishable Kind = "publishable"
	Secret      Kind = "secret"
)

var prefixes = map[Kind]string{Publishable: "hp_", Secret: "hs_"}

// Key is a key as it is stored.
type Key struct {
	ID        string   `yaml:"id"`
	ProjectID string   `yaml:"project_id"`
	Kind      Kind     `yaml:"kind"`
	SHA256    string   `yaml:"sha256"` // of the key, in hex; keys are 256 random bits, so no salt
	Origins   []string `yaml:"origins,omitempty"`
	// Rate is how many events a second it may send to one collector; 0 means
	// what the collector gives keys of its kind.
	Rate float64 `yaml:"rate,omitempty"`
}

// AllowsOrigin says whether pages of an origin, such as "https://shop.example",
// may use a publishable key. "*" in Origins allows every origin.
func (k Key) AllowsOrigin(origin string) bool {
	return slices.Contains(k.Origins, origin) || slices.Contains(k.Origins, "*")
}

// ErrUnknownKey is the answer to a key that is missing, malformed or not known.
var ErrUnknownKey = errors.New("the key is missing or not known: send a key of this project as 'Authorization: Bearer <key>'")

// Mint makes a key. The secret is not kept anywhere.
func Mint(projectID string, kind Kind) (Key, string, error) {
	prefix, ok := prefixes[kind]
	if !ok {
		return Key{}, "", fmt.Errorf("kind %q: want %q or %q", kind, Publishable, Secret)
	}
	var raw [32]byte
	rand.Read(raw[:])
	secret := prefix + hex.EncodeToString(raw[:])
	sum := sha256.Sum256([]byte(secret))
	return Key{
		ID:        prefix + secret[len(prefix):len(prefix)+8],
		ProjectID: projectID,
		Kind:      kind,
		SHA256:    hex.EncodeToString(sum[:]),
	}, secret, nil
}

// Keys knows all keys. It is safe for concurrent use.
type Keys struct {
	table atomic.Pointer[table]
	file  *config.File // nil where they come from no file
}

// table is what Keys knows at one time.
type table struct {
	keys      []Key
	hashes    [][sha256.Size]byte // of keys
	byPrefix  map[uint64][]int    // places in keys by the beginning of the hash
	origins   map[string]bool
	anyOrigin bool
}

type keysFile struct {
	Keys []Key `yaml:"keys"`
}

// NewKeys checks keys and makes them usable.
func NewKeys(keys []Key) (*Keys, error) {
	t, err := newTable(keys)
	if err != nil {
		return nil, err
	}
	k := &Keys{}
	k.table.Store(t)
	return k, nil
}

func newTable(keys []Key) (*table, error) {
	t := &table{keys: keys, byPrefix: map[uint64][]int{}, origins: map[string]bool{}}
	for i, key := range keys {
		raw, err := hex.DecodeString(key.SHA256)
		if err != nil || len(raw) != sha256.Size {
			return nil, fmt.Errorf("keys[%d].sha256: want 64 hex digits", i)
		}
		if key.ProjectID == "" {
			return nil, fmt.Errorf("keys[%d].project_id: missing", i)
		}
		if prefixes[key.Kind] == "" {
			return nil, fmt.Errorf("keys[%d].kind: %q is neither %q nor %q", i, key.Kind, Publishable, Secret)
		}
		if key.Rate < 0 || math.IsNaN(key.Rate) {
			return nil, fmt.Errorf("keys[%d].rate: want at least 0 events a second", i)
		}
		hash := [sha256.Size]byte(raw)
		t.hashes = append(t.hashes, hash)
		t.byPrefix[prefix(hash)] = append(t.byPrefix[prefix(hash)], i)
		for _, o := range key.Origins {
			t.origins[o] = true
			t.anyOrigin = t.anyOrigin || o == "*"
		}
	}
	return t, nil
}

// ReadKeys reads a keys file.
func ReadKeys(path string) (*Keys, error) {
	k := &Keys{}
	var err error
	if k.file, err = config.ReadFile(path, k.take); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return k, nil
}

func (k *Keys) take(data []byte) error {
	var f keysFile
	if err := yaml.Unmarshal(data, &f); err != nil {
		return err
	}
	t, err := newTable(f.Keys)
	if err != nil {
		return err
	}
	k.table.Store(t)
	return nil
}

// Watch reads the file again when it changes, until ctx ends: new keys work and
// removed ones stop. See config.File.Watch.
func (k *Keys) Watch(ctx context.Context, interval time.Duration, log *slog.Logger) {
	if k.file != nil {
		k.file.Watch(ctx, interval, log)
	}
}

// WriteKeys replaces a keys file in one step.
func WriteKeys(path string, keys []Key) error {
	data, err := yaml.Marshal(keysFile{Keys: keys})
	if err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".keys-*")
	if err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // renamed by then, where all went well
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return fmt.Errorf("write keys: %w", err)
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	return nil
}

// List is all keys.
func (k *Keys) List() []Key { return slices.Clone(k.table.Load().keys) }

// Authenticate finds the key that a bearer sent. It looks at none but those
// whose hashes begin alike, and compares these in constant time.
func (k *Keys) Authenticate(secret string) (Key, error) {
	sum := sha256.Sum256([]byte(secret))
	t := k.table.Load()
	for _, i := range t.byPrefix[prefix(sum)] {
		if subtle.ConstantTimeCompare(sum[:], t.hashes[i][:]) == 1 {
			return t.keys[i], nil
		}
	}
	return Key{}, ErrUnknownKey
}

func prefix(hash [sha256.Size]byte) uint64 { return binary.BigEndian.Uint64(hash[:]) }

// AllowsOrigin says whether any key allows an origin: what a browser asks before
// it sends the key.
func (k *Keys) AllowsOrigin(origin string) bool {
	t := k.table.Load()
	return t.anyOrigin || t.origins[origin]
}

// Bearer is the token of an Authorization header; empty where there is none.
func Bearer(header string) string {
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

type contextKey struct{}

// WithKey is ctx with the authenticated key.
func WithKey(ctx context.Context, key Key) context.Context {
	return context.WithValue(ctx, contextKey{}, key)
}

// FromContext is the authenticated key.
func FromContext(ctx context.Context) (Key, bool) {
	key, ok := ctx.Value(contextKey{}).(Key)
	return key, ok
}

// Project is the project of a request that came through UnaryInterceptor or
// StreamInterceptor.
func Project(ctx context.Context) (string, error) {
	key, ok := FromContext(ctx)
	if !ok {
		return "", status.Error(codes.Unauthenticated, ErrUnknownKey.Error())
	}
	return key.ProjectID, nil
}

// writeMethods are what a publishable key may call.
var writeMethods = map[string]bool{
	"/hone.collector.v1.CollectorService/SendEvents":              true,
	"/opentelemetry.proto.collector.trace.v1.TraceService/Export": true,
	"/opentelemetry.proto.collector.logs.v1.LogsService/Export":   true,
}

func (k *Keys) authorize(ctx context.Context, method string) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	var header string
	if v := md.Get("authorization"); len(v) > 0 {
		header = v[0]
	}
	key, err := k.Authenticate(Bearer(header))
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if key.Kind != Secret && !writeMethods[method] {
		return nil, status.Error(codes.PermissionDenied, "a publishable key may only send events: use a secret key (hs_...)")
	}
	return WithKey(ctx, key), nil
}

// UnaryInterceptor refuses calls without a key that allows them.
func (k *Keys) UnaryInterceptor() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := k.authorize(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// StreamInterceptor refuses streams without a key that allows them.
func (k *Keys) StreamInterceptor() grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := k.authorize(ss.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return next(srv, &serverStream{ss, ctx})
	}
}

type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *serverStream) Context() context.Context { return s.ctx }
