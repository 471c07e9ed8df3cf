// Package endpoints says where a running `hone up` is reached.
package endpoints

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// FileName is the file that `hone up` writes into its directory once it is
// ready.
const FileName = "endpoints.json"

// Endpoints are the addresses and keys of one running Hone.
type Endpoints struct {
	HTTP           string `json:"http"`            // base URL
	GRPC           string `json:"grpc"`            // host:port
	Kafka          string `json:"kafka"`           // host:port
	ClickHouse     string `json:"clickhouse"`      // host:port, native protocol
	ClickHouseHTTP string `json:"clickhouse_http"` // base URL
	Weaviate       string `json:"weaviate"`        // base URL
	WeaviateGRPC   string `json:"weaviate_grpc"`   // host:port
	WeaviateKey    string `json:"weaviate_key"`
	PublishableKey string `json:"publishable_key"`
	SecretKey      string `json:"secret_key"`
}

// Read reads the endpoints of the Hone that runs on dir.
func Read(dir string) (Endpoints, error) {
	path := filepath.Join(dir, FileName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Endpoints{}, fmt.Errorf("no Hone runs on %s (%s is missing): start one with 'hone up --dir %s', or name its directory with --dir or HONE_DIR", dir, path, dir)
	}
	if err != nil {
		return Endpoints{}, fmt.Errorf("read endpoints: %w", err)
	}
	var e Endpoints
	if err := json.Unmarshal(data, &e); err != nil {
		return Endpoints{}, fmt.Errorf("read endpoints %s: %w", path, err)
	}
	return e, nil
}

// Write writes the endpoints in one step, readable by the owner alone since
// they hold keys.
func Write(dir string, e Endpoints) error {
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("write endpoints: %w", err)
	}
	tmp := filepath.Join(dir, "."+FileName)
	if err := os.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write endpoints: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, FileName)); err != nil {
		return fmt.Errorf("write endpoints: %w", err)
	}
	return nil
}

// Remove removes them when Hone stops.
func Remove(dir string) error {
	if err := os.Remove(filepath.Join(dir, FileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove endpoints: %w", err)
	}
	return nil
}
