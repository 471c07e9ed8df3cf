package embedding

import (
	"errors"

	"github.com/honeloop/hone/pkg/telemetry"
)

func newMiniLM(Config, *telemetry.Telemetry) (Provider, error) {
	return nil, errors.New("load minilm: not built yet")
}
