package enricher

import (
	"context"
	"errors"
	"fmt"

	"github.com/honeloop/hone/pkg/clickhouse"

	"github.com/honeloop/hone/services/enricher/internal/erase"
)

// ReadErased reads who was erased, for commands that handle records which the
// erasure does not reach. The key is the enricher's privacy_key.
func ReadErased(ctx context.Context, cfg clickhouse.Config, privacyKey string) (_ *erase.Subjects, err error) {
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	subjects := erase.NewSubjects(conn, privacyKey)
	if err := subjects.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("find out who was erased: %w", err)
	}
	return subjects, nil
}
