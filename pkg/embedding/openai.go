package embedding

import (
	"errors"

	"github.com/honeloop/hone/pkg/telemetry"
)

func newOpenAI(Config, *telemetry.Telemetry) (Provider, error) {
	return nil, errors.New("connect to embeddings endpoint: not built yet")
}
