package vector

import (
	"context"
	"errors"
	"fmt"

	"github.com/weaviate/weaviate-go-client/v4/weaviate/fault"
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
	// Answers holds what people said: decided reviews, what is said about a
	// case, and each change of a case. It has no vectors. It stands apart from
	// Cases, so that the two writers of a case never overwrite each other.
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
			{name: "metadata", kind: text, about: "Model, prompt version, environment, language and tags of the interaction, as a URL's query"},
		}},
		{Cases, "A known problem, at the vector of the query that founded it", true, []field{
			{name: "case_id", kind: text, about: "Id of the case"},
			{name: "state", kind: text, about: "new, triaged, in_progress, solved, regressed, muted, withdrawn or merged"},
			{name: "severity", kind: text, about: "Highest severity among its signals"},
			{name: "negatives", kind: schema.DataTypeInt.String(), about: "Negative signals in it", sort: true},
			{name: "last_seen", kind: schema.DataTypeDate.String(), about: "Time of its newest negative signal", sort: true},
			{name: "embedding_model", kind: text, about: "Model that made the vector"},
		}},
		{Answers, "What people said: a decided review, what is said about a case, a change of a case, or a prompt patch", false, []field{
			{name: "case_id", kind: text, about: "Id of the case"},
			{name: "review_id", kind: text, about: "The decided review"},
			{name: "kind", kind: text, about: "review, case, edit, patch, or withdrawn_patch"},
			{name: "at", kind: schema.DataTypeDate.String(), about: "Time of a change", sort: true},
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
	have, err := c.rest.Schema().ClassGetter().WithClassName(want.name).Do(ctx)
	if isStatus(err, 404) {
		err = c.rest.Schema().ClassCreator().WithClass(want.class()).Do(ctx)
		if err == nil {
			return nil
		}
		// Somebody else may have created it meanwhile.
		created := err
		if have, err = c.rest.Schema().ClassGetter().WithClassName(want.name).Do(ctx); err != nil {
			return restError(created)
		}
	}
	if err != nil {
		return restError(err)
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
		if err := c.rest.Schema().PropertyCreator().WithClassName(want.name).WithProperty(p).Do(ctx); err != nil {
			return fmt.Errorf("add property %s: %w", p.Name, restError(err))
		}
	}
	return nil
}

// Ready says whether Weaviate answers and has all collections.
func (c *Client) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ReadTimeout)
	defer cancel()
	for _, want := range collections() {
		_, err := c.rest.Schema().ClassGetter().WithClassName(want.name).Do(ctx)
		if isStatus(err, 404) {
			return fmt.Errorf("collection %s is missing: run `hone migrate`", want.name)
		}
		if err != nil {
			return fmt.Errorf("read collection %s: %w", want.name, restError(err))
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
		VectorIndexType: "hnsw",
		VectorIndexConfig: map[string]any{
			"distance": "cosine", "skip": !w.vectors,
			// Weaviate would look at eight candidates for each object that is asked
			// for, up to 500: twice the work for Recall's 50, to find one more in 250.
			"dynamicEfMax": 128,
		},
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

func isStatus(err error, code int) bool {
	e, ok := errors.AsType[*fault.WeaviateClientError](err)
	return ok && e.IsUnexpectedStatusCode && e.StatusCode == code
}

// restError classifies an error of the HTTP client: what never got an answer,
// or a 5xx, is ErrUnavailable.
func restError(err error) error {
	e, ok := errors.AsType[*fault.WeaviateClientError](err)
	if !ok || !e.IsUnexpectedStatusCode || e.StatusCode >= 500 {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
