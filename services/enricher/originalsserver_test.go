package enricher

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/telemetry"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"

	"github.com/honeloop/hone/services/enricher/internal/originals"
	"github.com/honeloop/hone/services/enricher/internal/redact"
	"github.com/honeloop/hone/services/enricher/internal/sessions"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

const (
	oneKey     = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	anotherKey = "000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f"
)

// TestOriginalsAreReadBackByTheirProjectAlone keeps originals in ClickHouse, twice,
// and reads them in pages, with the right key, without it, and as somebody else.
func TestOriginalsAreReadBackByTheirProjectAlone(t *testing.T) {
	conn := trailtest.Conn(t)
	store := func(newest string, older ...string) *originals.Store {
		keys, err := originals.NewKeys(newest, older)
		if err != nil {
			t.Fatal(err)
		}
		return originals.NewStore(conn, keys, func(project string) int {
			return map[string]int{"brief": 1}[project]
		})
	}
	var log bytes.Buffer
	server := func(s *originals.Store) *trailServer {
		return &trailServer{store: sessions.NewStore(conn), originals: s, log: slog.New(slog.NewTextHandler(&log, nil))}
	}
	said := func(project string, n int, at time.Time) redact.Original {
		return redact.Original{ProjectID: project, SessionID: "s", Placeholder: fmt.Sprintf("<EMAIL_%04d>", n), Value: fmt.Sprintf("jo%d@example.com", n), Type: redact.Email, At: at}
	}
	batch := []redact.Original{said("p", 1, testDay), said("p", 2, testDay), said("p", 3, testDay), said("other", 1, testDay), said("brief", 1, testDay.AddDate(-1, 0, 0))}
	for range 2 { // a replay; the second time one is said again
		if err := store(oneKey).Save(t.Context(), append(batch, said("p", 1, testDay.Add(time.Hour)))); err != nil {
			t.Fatal(err)
		}
		if err := store(oneKey).Save(t.Context(), batch[:1]); err != nil { // and an older event comes late
			t.Fatal(err)
		}
	}
	var rows, plain uint64
	if err := conn.QueryRow(t.Context(), "SELECT count(), countIf(position(toString(tuple(*)), 'example.com') > 0) FROM originals_log FINAL WHERE project_id IN ('p', 'other')").Scan(&rows, &plain); err != nil || rows != 4 || plain != 0 {
		t.Errorf("%d rows, %d of them readable, %v; want 4 and none", rows, plain, err)
	}

	ctx := auth.WithKey(t.Context(), auth.Key{ID: "k-1", ProjectID: "p", Kind: auth.Secret})
	var got []string
	req := &trailv1.ListOriginalsRequest{SessionId: "s", PageSize: 2}
	for pages := 0; pages == 0 || req.PageToken != ""; pages++ {
		resp, err := server(store(oneKey)).ListOriginals(ctx, req)
		if err != nil || pages > 1 {
			t.Fatalf("page %d: %v: %s", pages, err, log.String())
		}
		for _, o := range resp.Originals {
			got = append(got, strings.Join([]string{o.Placeholder, o.Type, o.Value, o.Error, o.LastAt.AsTime().Format("15:04")}, " "))
		}
		req.PageToken = resp.NextPageToken
	}
	want := "<EMAIL_0001> email jo1@example.com  10:30, <EMAIL_0002> email jo2@example.com  09:30, <EMAIL_0003> email jo3@example.com  09:30"
	if strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
	if s := log.String(); strings.Count(s, "originals were read") != 2 || !strings.Contains(s, "key=k-1") || strings.Contains(s, "example.com") {
		t.Errorf("the log says %s", s)
	}

	// The key was changed, and then the old one left out.
	for _, tt := range []struct {
		store    *originals.Store
		readable bool
	}{{store(anotherKey, oneKey), true}, {store(anotherKey), false}, {store(""), false}} {
		resp, err := server(tt.store).ListOriginals(ctx, &trailv1.ListOriginalsRequest{SessionId: "s"})
		if err != nil || len(resp.Originals) != 3 {
			t.Fatalf("got %v, %v", resp, err)
		}
		for _, o := range resp.Originals {
			if (o.Value != "") != tt.readable || (o.Error == "") != tt.readable || o.KeyId == "" {
				t.Errorf("got %v, want readable %t", o, tt.readable)
			}
		}
	}

	// A row that is given to another project is not read there.
	if err := conn.Exec(t.Context(), "INSERT INTO originals_log SELECT 'thief', * EXCEPT project_id FROM originals_log WHERE project_id = 'p'"); err != nil {
		t.Fatal(err)
	}
	thief := auth.WithKey(t.Context(), auth.Key{ProjectID: "thief", Kind: auth.Secret})
	resp, err := server(store(oneKey)).ListOriginals(thief, &trailv1.ListOriginalsRequest{SessionId: "s"})
	if err != nil || len(resp.Originals) != 3 || resp.Originals[0].Value != "" || resp.Originals[0].Error == "" {
		t.Errorf("got %v, %v; want nothing readable", resp, err)
	}
	// What is over its time is not read, merged or not.
	brief := auth.WithKey(t.Context(), auth.Key{ProjectID: "brief", Kind: auth.Secret})
	if resp, err := server(store(oneKey)).ListOriginals(brief, &trailv1.ListOriginalsRequest{SessionId: "s"}); err != nil || len(resp.Originals) > 0 {
		t.Errorf("got %v, %v; want nothing, it expired", resp, err)
	}
	page := auth.WithKey(t.Context(), auth.Key{ProjectID: "p", Kind: auth.Publishable})
	if _, err := server(store(oneKey)).ListOriginals(page, &trailv1.ListOriginalsRequest{SessionId: "s"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a publishable key: %v", err)
	}
	for _, req := range []*trailv1.ListOriginalsRequest{{}, {SessionId: "s", PageSize: 1001}, {SessionId: "s", PageToken: "!"}, {SessionId: "s", PageToken: "aa"}} {
		if _, err := server(store(oneKey)).ListOriginals(ctx, req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
}

// TestOriginalsWithoutAKeyAreRefusedAtTheStart pins that nothing is silently not
// kept.
func TestOriginalsWithoutAKeyAreRefusedAtTheStart(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	cfg.Server.KeysFile, cfg.Server.ProjectsFile = filepath.Join(dir, "keys.yaml"), filepath.Join(dir, "projects.yaml")
	key, _, err := auth.Mint("shop", auth.Secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := auth.WriteKeys(cfg.Server.KeysFile, []auth.Key{key}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Server.ProjectsFile, []byte("projects: {shop: {privacy: {keep_originals: true}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), cfg, telemetry.Discard()); err == nil || !strings.Contains(err.Error(), "projects.shop: privacy.keep_originals is on") || !strings.Contains(err.Error(), "HONE_ENRICHER_ORIGINALS_KEY") {
		t.Errorf("got %v, want it to name the project and the key", err)
	}
	cfg.OriginalsKey = "too short"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "originals_key") || strings.Contains(err.Error(), "too short") {
		t.Errorf("got %v, want it to name originals_key and not to quote it", err)
	}
}
