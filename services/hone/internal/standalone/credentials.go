package standalone

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/honeloop/hone/pkg/auth"
)

const (
	credentialsFile = "credentials.json"
	keysFile        = "keys.yaml"
	projectsFile    = "projects.yaml"
	project         = "default"
)

// credentials are what endpoints.json tells again at every start. The services
// see only the hashes.
type credentials struct {
	PublishableKey string `json:"publishable_key"`
	SecretKey      string `json:"secret_key"`
	WeaviateKey    string `json:"weaviate_key"`
	PrivacyKey     string `json:"privacy_key"`
	OriginalsKey   string `json:"originals_key"`
}

// loadCredentials reads the credentials of dir, or makes the project, its keys
// and the credentials, and says so.
func loadCredentials(dir string) (creds credentials, made bool, err error) {
	path := filepath.Join(dir, credentialsFile)
	data, err := os.ReadFile(path)
	if err == nil {
		if err := json.Unmarshal(data, &creds); err != nil {
			return credentials{}, false, fmt.Errorf("read credentials %s: %w", path, err)
		}
		if creds.PrivacyKey == "" || creds.OriginalsKey == "" { // made by an older version
			creds.PrivacyKey = cmp.Or(creds.PrivacyKey, rand.Text())
			creds.OriginalsKey = cmp.Or(creds.OriginalsKey, newOriginalsKey())
			return creds, false, creds.write(path)
		}
		return creds, false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return credentials{}, false, fmt.Errorf("read credentials: %w", err)
	}
	publishable, publishablePlain, err := auth.Mint(project, auth.Publishable)
	if err != nil {
		return credentials{}, false, err
	}
	publishable.Origins = []string{"*"} // one machine: a page under development may come from anywhere
	secret, secretPlain, err := auth.Mint(project, auth.Secret)
	if err != nil {
		return credentials{}, false, err
	}
	creds = credentials{publishablePlain, secretPlain, rand.Text(), rand.Text(), newOriginalsKey()}
	// The keys first: credentials without keys would never be made again.
	if err := auth.WriteKeys(filepath.Join(dir, keysFile), []auth.Key{publishable, secret}); err != nil {
		return credentials{}, false, err
	}
	if err := creds.write(path); err != nil {
		return credentials{}, false, err
	}
	return creds, true, nil
}

// PrivacyKey is the enricher's privacy_key of the Hone on dir.
func PrivacyKey(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, credentialsFile))
	if err != nil {
		return "", fmt.Errorf("read credentials: %w", err)
	}
	var creds credentials
	if err := json.Unmarshal(data, &creds); err != nil {
		return "", fmt.Errorf("read credentials: %w", err)
	}
	return creds.PrivacyKey, nil
}

func newOriginalsKey() string {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key)
}

func (c credentials) write(path string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	return nil
}

// ensureProjects makes an empty file of the projects' settings where there is
// none, so that it is known where they go.
func ensureProjects(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, projectsFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write projects: %w", err)
	}
	_, err = f.WriteString("# Settings for all projects, and for each that differs; read again when this file changes.\n" +
		"# Sections and defaults: pkg/projects/README.md.\ndefaults: {}\nprojects: {}\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write projects: %w", err)
	}
	return nil
}
