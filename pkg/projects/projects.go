// Package projects is what can be set for each project: one file that the
// services read, with a section for all and one for each that differs.
//
//	defaults:
//	  signals: {...}
//	projects:
//	  shop:
//	    signals: {...}
//
// A section says only what differs from the one above it: the defaults of Hone,
// then "defaults", then the project's own. Maps are joined, lists replaced.
package projects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/honeloop/hone/pkg/config"
)

// Settings of one project. Each section stands in a file of its own, with its
// defaults and its checks.
type Settings struct {
	// No alerts where nothing is said.
	Alerts  Alerts  `yaml:"alerts"`
	Cases   Cases   `yaml:"cases"`
	Privacy Privacy `yaml:"privacy"`
	Recall  Recall  `yaml:"recall"`
	Signals Signals `yaml:"signals"`
	// Retention keeps everything where nothing is said.
	Retention Retention `yaml:"retention"`
}

// DefaultSettings hold for a project of which nothing is said.
func DefaultSettings() Settings {
	return Settings{
		Cases:   DefaultCases(),
		Privacy: DefaultPrivacy(),
		Recall:  DefaultRecall(),
		Signals: DefaultSignals(),
	}
}

// Validate joins all that is wrong, each with its key.
func (s Settings) Validate() error {
	return errors.Join(
		config.In("alerts", s.Alerts.Validate()),
		config.In("cases", s.Cases.Validate()),
		config.In("privacy", s.Privacy.Validate()),
		config.In("recall", s.Recall.Validate()),
		config.In("signals", s.Signals.Validate()),
		config.In("retention", s.Retention.Validate()),
	)
}

// Projects knows the settings of all projects. It is safe for concurrent use.
type Projects struct {
	table atomic.Pointer[table]
	file  *config.File // nil where there is none
	// check is what a service asks of settings besides Validate; may be nil.
	check func(Settings) error
}

type table struct {
	defaults *Settings
	own      map[string]*Settings
}

// Defaults are projects of which nothing is said.
func Defaults() *Projects {
	p := &Projects{}
	s := DefaultSettings()
	p.table.Store(&table{defaults: &s})
	return p
}

// Read reads a projects file; no path means that there is none. Unknown keys
// are errors.
func Read(path string) (*Projects, error) {
	return ReadChecked(path, nil)
}

// ReadChecked is Read for a service that cannot do all that may be set: what
// check refuses is an error, and later changes nothing, as what is not valid.
func ReadChecked(path string, check func(Settings) error) (*Projects, error) {
	p := Defaults()
	p.check = check
	if path == "" {
		return p, nil
	}
	var err error
	if p.file, err = config.ReadFile(path, p.take); err != nil {
		return nil, fmt.Errorf("projects: %w", err)
	}
	return p, nil
}

func (p *Projects) take(data []byte) error {
	var f struct {
		Defaults yaml.Node            `yaml:"defaults"`
		Projects map[string]yaml.Node `yaml:"projects"`
	}
	if err := decode(data, &f); err != nil {
		return err
	}
	t := &table{own: map[string]*Settings{}}
	var errs []error
	read := func(name string, sections ...yaml.Node) *Settings {
		s := DefaultSettings()
		for _, section := range sections {
			if err := overlay(&s, section); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
				return nil
			}
		}
		err := s.Validate()
		if p.check != nil {
			err = errors.Join(err, p.check(s))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return &s
	}
	t.defaults = read("defaults", f.Defaults)
	for _, name := range slices.Sorted(maps.Keys(f.Projects)) {
		t.own[name] = read("projects."+name, f.Defaults, f.Projects[name])
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p.table.Store(t)
	return nil
}

func overlay(s *Settings, section yaml.Node) error {
	if section.IsZero() {
		return nil
	}
	// yaml.Node.Decode has no strict mode: encode the section and decode it anew.
	data, err := yaml.Marshal(&section)
	if err != nil {
		return err
	}
	return decode(data, s)
}

func decode(data []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Watch reads the file again when it changes, until ctx ends. See
// config.File.Watch.
func (p *Projects) Watch(ctx context.Context, interval time.Duration, log *slog.Logger) {
	if p.file != nil {
		p.file.Watch(ctx, interval, log)
	}
}

// Settings are those of a project. Whoever gets them must not change them; a
// later call may give others.
func (p *Projects) Settings(project string) *Settings {
	t := p.table.Load()
	if s := t.own[project]; s != nil {
		return s
	}
	return t.defaults
}

// Names are the projects with settings of their own.
func (p *Projects) Names() []string { return slices.Sorted(maps.Keys(p.table.Load().own)) }
