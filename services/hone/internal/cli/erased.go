package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/services/enricher"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
	"github.com/honeloop/hone/services/hone/internal/standalone"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// erased says who was.
type erased interface {
	Is(project, session, user string) bool
}

// nobody was erased.
type nobody struct{}

func (nobody) Is(string, string, string) bool { return false }

// erasedStore is where it stands who was erased: part of the enricher's settings.
type erasedStore struct {
	ClickHouse clickhouse.Config `envPrefix:"CLICKHOUSE_"`
	PrivacyKey string            `env:"PRIVACY_KEY"`
}

func (s *erasedStore) Validate() error {
	if s.PrivacyKey == "" {
		return errors.New("HONE_ENRICHER_PRIVACY_KEY is missing")
	}
	return config.In("clickhouse", s.ClickHouse.Validate())
}

// erasedAt reads who was erased, where brokers were named from the store of the
// enricher's environment, or else from that of --dir.
func (g *global) erasedAt(ctx context.Context, brokers string) (erased, error) {
	store := erasedStore{ClickHouse: clickhouse.DefaultConfig()}
	if brokers != "" {
		if err := config.Load(&store, "", "enricher", "HONE_ENRICHER_"); err != nil {
			return nil, fmt.Errorf("it cannot be told whose dead letters were erased: say where the enricher keeps that, with HONE_ENRICHER_CLICKHOUSE_* and HONE_ENRICHER_PRIVACY_KEY, or see all with --with-erased: %w", err)
		}
	} else {
		e, err := endpoints.Read(g.dir)
		if err != nil {
			return nil, err
		}
		if e.ClickHouse == "" { // a Hone without a store
			return nobody{}, nil
		}
		store.ClickHouse.Addr = []string{e.ClickHouse}
		if store.PrivacyKey, err = standalone.PrivacyKey(g.dir); err != nil {
			return nil, err
		}
	}
	return enricher.ReadErased(ctx, store.ClickHouse, store.PrivacyKey)
}

// whose is the project, session and user that a record is about; empty where it
// does not say.
func whose(r stage.Record) (project, session, user string) {
	project, session, _ = strings.Cut(string(r.Key), "/")
	type subject interface {
		proto.Message
		GetProjectId() string
		GetSessionId() string
		GetUserId() string
	}
	decoded := func(m subject) (string, string, string) {
		if err := proto.Unmarshal(r.Value, m); err != nil {
			return project, session, ""
		}
		return cmp.Or(m.GetProjectId(), project), cmp.Or(m.GetSessionId(), session), m.GetUserId()
	}
	switch r.Topic {
	case stream.TopicEvents:
		return decoded(&eventv1.Event{})
	case stream.TopicSignals:
		return decoded(&signalv1.Signal{})
	case stream.TopicCases:
		m := &casesv1.CaseSignal{}
		if err := proto.Unmarshal(r.Value, m); err == nil && m.Signal != nil {
			return m.Signal.ProjectId, m.Signal.SessionId, m.Signal.UserId
		}
	case stream.TopicRouteHumanReview, stream.TopicRouteFineTune, stream.TopicRoutePromptPatch, stream.TopicRouteProduct:
		var e struct {
			Project string `json:"honeproject"`
			Session string `json:"honesession"`
			Data    struct {
				Signal struct {
					User string `json:"user_id"`
				} `json:"signal"`
			} `json:"data"`
		}
		if err := json.Unmarshal(r.Value, &e); err == nil && e.Session != "" {
			return e.Project, e.Session, e.Data.Signal.User
		}
	}
	return project, session, ""
}
