// Package config fills a config struct from defaults, a YAML file and the
// environment, in that order.
//
// A config is a plain struct with yaml and env tags and a Validate method. The
// file is strict: an unknown key is an error. An environment variable is the
// prefix, such as HONE_COLLECTOR_, and the field's env tag.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/caarlos0/env/v11"
	"go.yaml.in/yaml/v3"
)

// Validator is a config that can find what is wrong with it. Validate joins
// all errors, each naming its key.
type Validator interface{ Validate() error }

// Load overlays cfg, which holds the defaults, with the section of the YAML
// file at path and with the environment, and validates it. No path means no
// file. A file may hold sections for several services.
func Load(cfg Validator, path, section, envPrefix string) error {
	if path != "" {
		if err := loadFile(cfg, path, section); err != nil {
			return err
		}
	}
	if err := env.ParseWithOptions(cfg, env.Options{Prefix: envPrefix}); err != nil {
		return fmt.Errorf("read environment %s*: %w", envPrefix, err)
	}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("invalid configuration of %s: %w", section, err)
	}
	return nil
}

// In puts the section's name before the key of each error that a section's
// Validate joined: "brokers: missing" of kafka becomes "kafka.brokers: missing".
func In(section string, err error) error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s.%w", section, err)
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, In(section, e))
	}
	return errors.Join(errs...)
}

// At puts the key that an error is about before it.
func At(key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", key, err)
}

func loadFile(cfg any, path, section string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var sections map[string]yaml.Node
	if err := yaml.Unmarshal(data, &sections); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	node, ok := sections[section]
	if !ok {
		return nil
	}
	// yaml.Node.Decode has no strict mode: encode the section and decode it anew.
	part, err := yaml.Marshal(&node)
	if err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(part))
	dec.KnownFields(true)
	if err := dec.Decode(cfg); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read configuration %s, section %s: %w", path, section, err)
	}
	return nil
}
