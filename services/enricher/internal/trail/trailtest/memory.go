package trailtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/trail"
)

// Memory is a store that behaves like trail.Store without a database: it keeps
// encoded rows, the newest of each id. It is safe for concurrent use.
type Memory struct {
	mu      sync.Mutex
	events  map[trail.Key]map[string]row
	signals map[trail.Key]map[string]row
}

type row struct {
	startedAt time.Time
	revision  uint32
	payload   []byte
}

// NewMemory is an empty store.
func NewMemory() *Memory {
	return &Memory{events: map[trail.Key]map[string]row{}, signals: map[trail.Key]map[string]row{}}
}

// Load is as that of trail.Store.
func (m *Memory) Load(_ context.Context, keys []trail.Key) (map[trail.Key]*trail.Trail, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[trail.Key]*trail.Trail{}
	for _, key := range keys {
		t := trail.New()
		for _, r := range m.events[key] {
			e := &eventv1.Event{}
			if err := proto.Unmarshal(r.payload, e); err != nil {
				return nil, fmt.Errorf("decode stored event: %w", err)
			}
			t.LoadEvent(e, r.startedAt)
		}
		for _, r := range m.signals[key] {
			s := &signalv1.Signal{}
			if err := proto.Unmarshal(r.payload, s); err != nil {
				return nil, fmt.Errorf("decode stored signal: %w", err)
			}
			t.SetSignal(s)
		}
		out[key] = t
	}
	return out, nil
}

// SaveEvents is as that of trail.Store: the earlier start is the newer row.
func (m *Memory) SaveEvents(_ context.Context, rows []trail.EventRow) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range rows {
		payload, err := proto.Marshal(r.Event)
		if err != nil {
			return err
		}
		key := trail.Key{Project: r.Event.ProjectId, Session: r.Event.SessionId}
		if m.events[key] == nil {
			m.events[key] = map[string]row{}
		}
		if old, ok := m.events[key][r.Event.EventId]; !ok || r.SessionStartedAt.Before(old.startedAt) {
			m.events[key][r.Event.EventId] = row{startedAt: r.SessionStartedAt, payload: payload}
		}
	}
	return nil
}

// SaveSignals is as that of trail.Store: the higher revision is the newer row.
func (m *Memory) SaveSignals(_ context.Context, signals []*signalv1.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range signals {
		payload, err := proto.Marshal(s)
		if err != nil {
			return err
		}
		key := trail.Key{Project: s.ProjectId, Session: s.SessionId}
		if m.signals[key] == nil {
			m.signals[key] = map[string]row{}
		}
		if old, ok := m.signals[key][s.SignalId]; !ok || s.Revision > old.revision {
			m.signals[key][s.SignalId] = row{revision: s.Revision, payload: payload}
		}
	}
	return nil
}
