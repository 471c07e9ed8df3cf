package auth

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestKeysSurviveTheFileAndOnlyHashesAreStored(t *testing.T) {
	secret, plain, err := Mint("p1", Secret)
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := Mint("p2", Publishable)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := WriteKeys(path, []Key{public, secret}); err != nil {
		t.Fatal(err)
	}
	keys, err := ReadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.Authenticate(plain); err != nil || got.ProjectID != "p1" || got.Kind != Secret {
		t.Errorf("Authenticate = %+v, %v", got, err)
	}
	for _, bad := range []string{"", plain[:len(plain)-1], plain + "0", secret.SHA256} {
		if _, err := keys.Authenticate(bad); err == nil {
			t.Errorf("Authenticate(%q) succeeded", bad)
		}
	}
}

func TestWatchTakesWhatTheFileSays(t *testing.T) {
	old, oldPlain, err := Mint("p1", Secret)
	if err != nil {
		t.Fatal(err)
	}
	added, addedPlain, err := Mint("p1", Publishable)
	if err != nil {
		t.Fatal(err)
	}
	added.Origins = []string{"https://shop.example"}
	path := filepath.Join(t.TempDir(), "keys.yaml")
	write := func(keys ...Key) {
		t.Helper()
		if err := WriteKeys(path, keys); err != nil {
			t.Fatal(err)
		}
	}
	write(old)
	keys, err := ReadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	var log syncBuffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		keys.Watch(ctx, time.Millisecond, slog.New(slog.NewTextHandler(&log, nil)))
	}()
	defer func() { cancel(); <-done }()
	knows := func(plain string) bool { _, err := keys.Authenticate(plain); return err == nil }
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	write(old, added)
	eventually("a new key does not work", func() bool { return knows(addedPlain) })
	if !keys.AllowsOrigin("https://shop.example") || keys.AllowsOrigin("https://evil.example") {
		t.Error("wrong origins")
	}
	write(added)
	eventually("a revoked key works", func() bool { return !knows(oldPlain) })
	if err := os.WriteFile(path, []byte("keys: [{id: x}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually("nothing is logged", func() bool { return strings.Contains(log.String(), "sha256: want 64 hex digits") })
	if !knows(addedPlain) {
		t.Error("a broken file took the keys away")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(old)
	eventually("the file is not read again", func() bool { return knows(oldPlain) && !knows(addedPlain) })
}

// syncBuffer is a bytes.Buffer for two goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func BenchmarkAuthenticate(b *testing.B) {
	var all []Key
	var plain string
	for range 10_000 {
		key, secret, err := Mint("p", Secret)
		if err != nil {
			b.Fatal(err)
		}
		all, plain = append(all, key), secret
	}
	keys, err := NewKeys(all)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := keys.Authenticate(plain); err != nil {
			b.Fatal(err)
		}
	}
}

func TestInterceptorGivesEachKindItsRights(t *testing.T) {
	secret, secretPlain, _ := Mint("p1", Secret)
	public, publicPlain, _ := Mint("p1", Publishable)
	keys, err := NewKeys([]Key{secret, public})
	if err != nil {
		t.Fatal(err)
	}
	const send, recall = "/hone.collector.v1.CollectorService/SendEvents", "/hone.recall.v1.RecallService/Recall"
	tests := []struct {
		name, header, method string
		want                 codes.Code
	}{
		{"secret reads", "Bearer " + secretPlain, recall, codes.OK},
		{"secret writes", "bearer " + secretPlain, send, codes.OK},
		{"publishable writes", "Bearer " + publicPlain, send, codes.OK},
		{"publishable reads", "Bearer " + publicPlain, recall, codes.PermissionDenied},
		{"none", "", send, codes.Unauthenticated},
		{"basic", "Basic " + secretPlain, send, codes.Unauthenticated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("authorization", tt.header))
			_, err := keys.UnaryInterceptor()(ctx, nil, &grpc.UnaryServerInfo{FullMethod: tt.method},
				func(ctx context.Context, _ any) (any, error) {
					if p, err := Project(ctx); err != nil || p != "p1" {
						t.Errorf("Project = %q, %v", p, err)
					}
					return nil, nil
				})
			if status.Code(err) != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestOriginsAreMatchedWhole(t *testing.T) {
	listed := Key{Kind: Publishable, Origins: []string{"https://shop.example"}}
	every := Key{Kind: Publishable, Origins: []string{"*"}}
	for origin, want := range map[string]bool{
		"https://shop.example":      true,
		"https://shop.example.evil": false,
		"http://shop.example":       false,
		"https://shop.example:8443": false,
		"null":                      false,
	} {
		if got := listed.AllowsOrigin(origin); got != want {
			t.Errorf("AllowsOrigin(%q) = %v, want %v", origin, got, want)
		}
		if !every.AllowsOrigin(origin) {
			t.Errorf("* does not allow %q", origin)
		}
		if (Key{Kind: Publishable}).AllowsOrigin(origin) {
			t.Errorf("a key without origins allows %q", origin)
		}
	}
}
