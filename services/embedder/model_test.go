package embedder

import (
	"errors"
	"strings"
	"testing"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/vector/vectortest"
)

func TestAnIndexHasOneModel(t *testing.T) {
	ix := vectortest.NewFake()
	for range 2 {
		if err := claim(t.Context(), ix, embedding.NewHash(), embedding.ProviderHash); err != nil {
			t.Fatal(err)
		}
	}
	err := claim(t.Context(), ix, &angles{}, "angles")
	if !errors.Is(err, errOtherModel) || !strings.Contains(err.Error(), embedding.NewHash().Model()) {
		t.Errorf("another model: %v", err)
	}
	ix.Before = func(string, string) error { return errDown }
	if err := claim(t.Context(), ix, embedding.NewHash(), embedding.ProviderHash); !errors.Is(err, errDown) {
		t.Errorf("index away: %v", err)
	}
}
