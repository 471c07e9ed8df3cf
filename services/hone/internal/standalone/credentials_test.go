package standalone

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/honeloop/hone/pkg/auth"
)

func TestCredentialsAreMadeOnce(t *testing.T) {
	dir := t.TempDir()
	first, made, err := loadCredentials(dir)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	second, made, err := loadCredentials(dir)
	if err != nil || made || second != first {
		t.Errorf("second start: made %t, %v, the same credentials %t", made, err, second == first)
	}
	keys, err := auth.ReadKeys(filepath.Join(dir, keysFile))
	if err != nil {
		t.Fatal(err)
	}
	for key, kind := range map[string]auth.Kind{first.SecretKey: auth.Secret, first.PublishableKey: auth.Publishable} {
		if got, err := keys.Authenticate(key); err != nil || got.Kind != kind || got.ProjectID != "default" {
			t.Errorf("the %s key is %+v, %v", kind, got, err)
		}
	}
	stored, err := os.ReadFile(filepath.Join(dir, keysFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(stored), first.SecretKey) {
		t.Error("the keys file holds a key in the clear")
	}
	info, err := os.Stat(filepath.Join(dir, credentialsFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("credentials have mode %v, %v; want 0600", info.Mode(), err)
	}
}
