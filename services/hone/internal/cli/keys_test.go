package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/honeloop/hone/pkg/auth"
)

// run runs a command line and returns what it wrote to its output.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, progress bytes.Buffer
	cmd := New()
	cmd.SetOut(&out)
	cmd.SetErr(&progress)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t, args...)
	if err != nil {
		t.Fatalf("hone %s: %v", strings.Join(args, " "), err)
	}
	return out
}

type keyJSON struct {
	ID        string   `json:"id"`
	ProjectID string   `json:"project_id"`
	Kind      string   `json:"kind"`
	Key       string   `json:"key"`
	Origins   []string `json:"origins"`
	Rate      float64  `json:"rate"`
}

func TestKeysAreMadeListedAndRevoked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	var secret, publishable keyJSON
	decode(t, mustRun(t, "keys", "create", "--file", file, "--project", "shop", "--json"), &secret)
	decode(t, mustRun(t, "keys", "create", "--file", file, "--project", "shop", "--kind", "publishable", "--origin", "https://shop.example", "--rate", "12.5", "--json"), &publishable)
	if secret.Kind != "secret" || !strings.HasPrefix(secret.Key, secret.ID) || !strings.HasPrefix(secret.Key, "hs_") {
		t.Errorf("made %+v, want a secret key whose id is its beginning", secret)
	}

	stored, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(stored, []byte(secret.Key)) || bytes.Contains(stored, []byte(publishable.Key)) {
		t.Error("the file holds a key in the clear")
	}
	listed := mustRun(t, "keys", "list", "--file", file, "--json")
	if strings.Contains(listed, secret.Key) {
		t.Error("the list shows a key in the clear")
	}
	var list []keyJSON
	decode(t, listed, &list)
	if list[0].Rate != 0 || list[1].Rate != 12.5 {
		t.Errorf("listed %+v, want the second with its rate", list)
	}
	if _, err := run(t, "keys", "create", "--file", file, "--rate", "-1"); err == nil || !strings.Contains(err.Error(), "--rate") {
		t.Errorf("a negative rate: %v", err)
	}
	if len(list) != 2 || list[1].ID != publishable.ID || len(list[1].Origins) != 1 {
		t.Fatalf("listed %+v, want both keys in the order they were made", list)
	}

	if out := mustRun(t, "keys", "revoke", secret.ID, "--file", file); !strings.Contains(out, "revoked "+secret.ID) {
		t.Errorf("revoke says %q", out)
	}
	keys, err := auth.ReadKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Authenticate(secret.Key); err == nil {
		t.Error("a revoked key is known")
	}
	if _, err := keys.Authenticate(publishable.Key); err != nil {
		t.Errorf("the other key: %v", err)
	}
	if _, err := run(t, "keys", "revoke", secret.ID, "--file", file); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("revoking twice: %v, want an error that says there is no such key", err)
	}
}

func TestRevokeDoesNotEchoAKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	var made keyJSON
	decode(t, mustRun(t, "keys", "create", "--file", file, "--json"), &made)
	_, err := run(t, "keys", "revoke", made.Key, "--file", file)
	if err == nil || strings.Contains(err.Error(), made.Key) {
		t.Errorf("revoking by the key itself: %v, want an error without the key", err)
	}
}

func TestKeysCreateIfNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	mustRun(t, "keys", "create", "--file", file, "--if-none")
	if out := mustRun(t, "keys", "create", "--file", file, "--if-none"); out != "" {
		t.Errorf("made another key: %q", out)
	}
	mustRun(t, "keys", "create", "--file", file, "--if-none", "--kind", "publishable")
	if _, err := run(t, "keys", "create", "--file", file, "--kind", "master"); err == nil {
		t.Error("made a key of an unknown kind")
	}
	var list []keyJSON
	decode(t, mustRun(t, "keys", "list", "--file", file, "--json"), &list)
	if len(list) != 2 {
		t.Errorf("%d keys, want 2", len(list))
	}
}

func decode(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), to); err != nil {
		t.Fatalf("decode %q: %v", text, err)
	}
}
