package vector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/weaviate/weaviate/entities/models"
	"github.com/weaviate/weaviate/entities/schema"
)

// The collections.
const (
	// Exchanges holds one object for each signal: the embedded query, and the
	// case that the signal belongs to.
	Exchanges = "HoneExchange"
	// Cases holds one object for each case, at its founder's vector.
	Cases = "HoneCase"
	// Answers holds what a reviewer approved for a case. It has no vectors. It
	// stands apart from Cases, so that the two writers of a case never
	// overwrite each other.
	Answers = "HoneAnswer"
)

// payload is the property of every collection that holds an object's bytes.
const payload = "payload"

// field is one property of a collection. All but text can be filtered by.
type field struct {
	name, kind, about string
	sort              bool // compared by range
}

type collection struct {
	name, about string
	vectors     bool
	fields      []field
}

func collections() []collection {
	text := schema.DataTypeText.String()
	return []collection{
		{Exchanges, "One signal's exchange: the embedded query and the case it belongs to", true, []field{
			{name: "signal_id", kind: text, about: "Id of the signal"},
			{name: "case_id", kind: text, about: "Case that the signal belongs to; empty for none"},
			{name: "session_id", kind: text, about: "Session of the signal"},
			{name: "user_id", kind: text, about: "User who gave the signal"},
			{name: "polarity", kind: text, about: "positive, negative or neutral"},
			{name: "withdrawn", kind: schema.DataTypeBoolean.String(), about: "The signal no longer holds"},
			{name: "occurred_at", kind: schema.DataTypeDate.String(), about: "Time of the newest evidence", sort: true},
			{name: "embedding_model", kind: text, about: "Model that made the vector"},
		}},
		{Cases, "A known problem, at the vector of the query that founded it", true, []field{
			{name: "case_id", kind: text, about: "Id of the case"},
			{name: "state", kind: text, about: "new or solved"},
			{name: "severity", kind: text, about: "Highest severity among its signals"},
			{name: "negatives", kind: schema.DataTypeInt.String(), about: "Negative signals in it", sort: true},
			{name: "last_seen", kind: schema.DataTypeDate.String(), about: "Time of its newest negative signal", sort: true},
			{name: "embedding_model", kind: text, about: "Model that made the vector"},
		}},
		{Answers, "What a reviewer approved for a case", false, []field{
			{name: "case_id", kind: text, about: "Id of the case"},
			{name: "review_id", kind: text, about: "Review that the answer came from"},
		}},
	}
}

// EnsureSchema creates the collections, and the properties that existing ones
// lack. It changes nothing else and may be called again.
func (c *Client) EnsureSchema(ctx context.Context) error {
	for _, want := range collections() {
		if err := c.ensure(ctx, want); err != nil {
			return fmt.Errorf("ensure collection %s: %w", want.name, err)
		}
	}
	return nil
}

func (c *Client) ensure(ctx context.Context, want collection) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.WriteTimeout)
	defer cancel()
	have, err := c.class(ctx, want.name)
	if errors.Is(err, errNotFound) {
		created := c.rest(ctx, http.MethodPost, "/v1/schema", want.class(), nil)
		if created == nil {
			return nil
		}
		// Somebody else may have created it meanwhile.
		if have, err = c.class(ctx, want.name); err != nil {
			return created
		}
	}
	if err != nil {
		return err
	}
	if have.MultiTenancyConfig == nil || !have.MultiTenancyConfig.Enabled {
		return errors.New("it exists without multi-tenancy, so it is not Hone's: remove it or use another Weaviate")
	}
	existing := map[string]bool{}
	for _, p := range have.Properties {
		existing[p.Name] = true
	}
	for _, p := range want.class().Properties {
		if existing[p.Name] {
			continue
		}
		if err := c.rest(ctx, http.MethodPost, "/v1/schema/"+want.name+"/properties", p, nil); err != nil {
			return fmt.Errorf("add property %s: %w", p.Name, err)
		}
	}
	return nil
}

// Ready says whether Weaviate answers and has all collections.
func (c *Client) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ReadTimeout)
	defer cancel()
	for _, want := range collections() {
		_, err := c.class(ctx, want.name)
		if errors.Is(err, errNotFound) {
			return fmt.Errorf("collection %s is missing: run `hone migrate`", want.name)
		}
		if err != nil {
			return fmt.Errorf("read collection %s: %w", want.name, err)
		}
	}
	return nil
}

func (w collection) class() *models.Class {
	yes, no := true, false
	class := &models.Class{
		Class:       w.name,
		Description: w.about,
		Vectorizer:  "none",
		MultiTenancyConfig: &models.MultiTenancyConfig{
			Enabled: true,
			// The first object of a project creates its tenant.
			AutoTenantCreation:   true,
			AutoTenantActivation: true,
		},
		VectorIndexType:   "hnsw",
		VectorIndexConfig: map[string]any{"distance": "cosine", "skip": !w.vectors},
	}
	for _, f := range w.fields {
		p := &models.Property{
			Name: f.name, Description: f.about, DataType: []string{f.kind},
			IndexFilterable: &yes, IndexSearchable: &no, IndexRangeFilters: &f.sort,
		}
		if f.kind == schema.DataTypeText.String() {
			p.Tokenization = "field" // ids and closed sets are compared whole
		}
		class.Properties = append(class.Properties, p)
	}
	class.Properties = append(class.Properties, &models.Property{
		Name: payload, Description: "The object itself, a protobuf message",
		DataType: []string{schema.DataTypeBlob.String()}, IndexFilterable: &no, IndexSearchable: &no,
	})
	return class
}

func (c *Client) class(ctx context.Context, name string) (*models.Class, error) {
	var class models.Class
	if err := c.rest(ctx, http.MethodGet, "/v1/schema/"+name, nil, &class); err != nil {
		return nil, err
	}
	return &class, nil
}

var errNotFound = errors.New("not found")

// maxREST bounds an answer of the HTTP API, in bytes.
const maxREST = 8 << 20

// rest calls the HTTP API, which is for the schema only. What gets no answer,
// or a 5xx, is ErrUnavailable.
func (c *Client) rest(ctx context.Context, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.cfg.URL, "/")+path, &body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.cfg.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.APIKey)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxREST))
	if err != nil {
		return fmt.Errorf("%w: %s %s: %w", ErrUnavailable, method, path, err)
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s %s: %w", method, path, errNotFound)
	case resp.StatusCode >= 500:
		return fmt.Errorf("%w: %s %s: status %d", ErrUnavailable, method, path, resp.StatusCode)
	case resp.StatusCode >= 300:
		return fmt.Errorf("%s %s: status %d: %.500s", method, path, resp.StatusCode, data)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s %s: decode answer: %w", method, path, err)
	}
	return nil
}
