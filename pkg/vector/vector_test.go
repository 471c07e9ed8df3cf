package vector_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/pkg/vector/vectortest"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(embeddedtest.Run(m))
}

func open(t *testing.T, url, grpcAddr string) *vector.Client {
	t.Helper()
	cfg := vector.DefaultConfig()
	cfg.URL, cfg.GRPCAddr = url, grpcAddr
	c, err := vector.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestFakePassesTheSuite(t *testing.T) {
	vectortest.Suite(t, vectortest.NewFake(), "suite")
}

func TestClientPassesTheSuite(t *testing.T) {
	w := embeddedtest.Weaviate(t)
	c := open(t, w.URL, w.GRPCAddr)
	ctx := context.Background()
	for range 2 { // the second call finds all there
		if err := c.EnsureSchema(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	vectortest.Suite(t, c, "suite")

	t.Run("a refused object is an error", func(t *testing.T) {
		good := vector.Object{ID: "5a2c3f0e-6d0b-5c8e-9f6e-4b1f8f1d7a10", Vector: []float32{1, 0, 0}}
		bad := vector.Object{ID: "5a2c3f0e-6d0b-5c8e-9f6e-4b1f8f1d7a11", Vector: []float32{1, 0}}
		if err := c.Upsert(ctx, vector.Exchanges, "refused", []vector.Object{good}); err != nil {
			t.Fatal(err)
		}
		err := c.Upsert(ctx, vector.Exchanges, "refused", []vector.Object{good, bad})
		if err == nil || !strings.Contains(err.Error(), "1 of 2 objects were refused") || errors.Is(err, vector.ErrUnavailable) {
			t.Errorf("Upsert = %v", err)
		}
	})
}

func TestWithoutWeaviateEveryCallIsUnavailableAtOnce(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, addr := range map[string]string{"gone": "127.0.0.1:1", "silent": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			cfg := vector.DefaultConfig()
			cfg.URL, cfg.GRPCAddr = "http://"+addr, addr
			cfg.ReadTimeout, cfg.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
			c, err := vector.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx := context.Background()
			start := time.Now()
			_, near := c.Near(ctx, vector.Cases, "p", vector.NearQuery{Vector: []float32{1}, Limit: 1})
			for what, err := range map[string]error{
				"Near":         near,
				"Upsert":       c.Upsert(ctx, vector.Cases, "p", []vector.Object{{ID: "5a2c3f0e-6d0b-5c8e-9f6e-4b1f8f1d7a10"}}),
				"Delete":       c.Delete(ctx, vector.Cases, "p", []string{"5a2c3f0e-6d0b-5c8e-9f6e-4b1f8f1d7a10"}),
				"Ready":        c.Ready(ctx),
				"EnsureSchema": c.EnsureSchema(ctx),
			} {
				if !errors.Is(err, vector.ErrUnavailable) {
					t.Errorf("%s = %v, want ErrUnavailable", what, err)
				}
			}
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
}

func TestValidateNamesEachKey(t *testing.T) {
	err := vector.Config{URL: "localhost:8080"}.Validate()
	for _, key := range []string{"url", "grpc_addr", "read_timeout", "write_timeout"} {
		if err == nil || !strings.Contains(err.Error(), key+":") {
			t.Errorf("Validate = %v, want it to name %s", err, key)
		}
	}
	if err := vector.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}
