package embedder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/vector"
)

// indexProject is where the index keeps what it says of itself: not a name that
// a project can have.
const indexProject = "\x00index"

// spaceRecord names the vectors of an index.
type spaceRecord struct {
	Provider   string `json:"provider"`
	Model      string `json:"model"`
	Dimensions int    `json:"dimensions"`
}

// errOtherModel says that the index has vectors of another model, which must
// not be compared with this embedder's.
var errOtherModel = errors.New("the index has vectors of another embedding model")

// claim writes down which model made the vectors of an index that says nothing
// yet, and fails where that was another one.
func claim(ctx context.Context, ix index, e embedding.Embedder, provider string) error {
	if e.Dimensions() == 0 { // a remote model, which has not answered yet
		if err := embedding.Probe(ctx, e); err != nil {
			return err
		}
	}
	own := spaceRecord{provider, e.Model(), e.Dimensions()}
	id := ids.UUID(indexProject, "model")
	stored, err := ix.Get(ctx, vector.Answers, indexProject, []string{id}, false)
	if err != nil {
		return fmt.Errorf("read the model of the index: %w", err)
	}
	if o, ok := stored[id]; ok {
		var has spaceRecord
		if err := json.Unmarshal(o.Payload, &has); err != nil {
			return fmt.Errorf("decode the model of the index: %w", err)
		}
		if has != own {
			return fmt.Errorf("%w: embedding.provider %s, model %s, %d dimensions; this one has provider %s, model %s, %d dimensions: "+
				"set it back, or give it an empty Weaviate and run it over history again with `hone replay`", errOtherModel,
				has.Provider, has.Model, has.Dimensions, own.Provider, own.Model, own.Dimensions)
		}
		return nil
	}
	data, err := json.Marshal(own)
	if err != nil {
		return fmt.Errorf("encode the model of the index: %w", err)
	}
	o := vector.Object{ID: id, Payload: data, Properties: map[string]any{"kind": "model"}}
	if err := ix.Upsert(ctx, vector.Answers, indexProject, []vector.Object{o}); err != nil {
		return fmt.Errorf("write the model of the index: %w", err)
	}
	return nil
}
