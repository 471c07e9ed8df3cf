package router

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/stage"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// policies knows the policy of each project: the fold of hone.curation, from
// its beginning. It holds the policies in force and no others; ClickHouse has
// all. It is safe for concurrent use.
type policies struct {
	// own is the router's, for projects that published none.
	own *Policy
	// refused hears of published policies that this build cannot use.
	refused func(project string, number uint32, err error)

	mu       sync.RWMutex
	projects map[string]*published
	waiting  map[versionKey][]chan readBack
	// shadows are the latest of each project, running or not.
	shadows map[string]*shadow
	// heard are asked for by the id of their event.
	heard map[string][]chan struct{}
}

// published is what is in force in a project.
type published struct {
	// info is of the newest version in the log; its error says that policy is of
	// a version before.
	info   *policyv1.Policy
	policy *Policy
}

// readBack is the event that became a version.
type readBack struct {
	curationID string
	offset     int64 // in hone.curation
}

type versionKey struct {
	project string
	number  uint32
}

func newPolicies(own *Policy, refused func(project string, number uint32, err error)) *policies {
	return &policies{own: own, refused: refused, projects: map[string]*published{}, waiting: map[versionKey][]chan readBack{},
		shadows: map[string]*shadow{}, heard: map[string][]chan struct{}{}}
}

// of is the policy of a project. Decisions of one batch take it once for each
// signal, and may be under two versions.
func (p *policies) of(project string) *Policy {
	policy, _ := p.current(project)
	return policy
}

// current is the policy of a project, and its version.
func (p *policies) current(project string) (*Policy, *policyv1.Policy) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if pub := p.projects[project]; pub != nil {
		return pub.policy, pub.info
	}
	return p.own, &policyv1.Policy{PolicyVersion: p.own.Version(), RoutersOwn: true}
}

// follow takes the next record of hone.curation. What it cannot read is none
// of its own; the curator makes a dead letter of it.
func (p *policies) follow(_ context.Context, rec stage.Record) error {
	event := &curationv1.CurationEvent{}
	if err := proto.Unmarshal(rec.Value, event); err != nil {
		return nil
	}
	if pub := event.GetPolicyPublished(); pub != nil {
		p.publish(event, pub, rec.Offset)
	}
	if sh := event.GetPolicyShadowed(); sh != nil {
		p.setShadow(event, sh)
	}
	return nil
}

// publish makes an event's policy the project's, if it is the first with the
// next number. A router that cannot compile it stays with the policy before.
func (p *policies) publish(event *curationv1.CurationEvent, pub *curationv1.PolicyPublished, offset int64) {
	project := event.GetProjectId()
	before, info := p.current(project)
	if pub.GetNumber() != info.GetNumber()+1 {
		return
	}
	next := &published{info: versionInfo(event, pub), policy: p.own}
	if pub.GetYaml() != "" {
		policy, err := CompilePolicy("policy", []byte(pub.GetYaml()))
		if err != nil {
			next.info.Error, policy = err.Error(), before
			p.refused(project, pub.GetNumber(), err)
		}
		next.policy = policy
	} else {
		next.info.PolicyVersion = p.own.Version()
	}
	k := versionKey{project, pub.GetNumber()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.projects[project] = next
	for _, w := range p.waiting[k] {
		w <- readBack{event.GetCurationId(), offset}
	}
	delete(p.waiting, k)
}

func versionInfo(event *curationv1.CurationEvent, pub *curationv1.PolicyPublished) *policyv1.Policy {
	return &policyv1.Policy{
		Number: pub.GetNumber(), PolicyVersion: pub.GetPolicyVersion(), Author: pub.GetAuthor(), Note: pub.GetNote(),
		PublishedAt: event.GetOccurredAt(), RollbackOf: pub.GetRollbackOf(), RoutersOwn: pub.GetYaml() == "",
	}
}

var errOvertaken = errors.New("somebody else published a policy in the meantime: look at it, and publish again")

// await hears of the event that became the version of that number. Ask
// before the event is appended. errOvertaken where the number is taken already.
func (p *policies) await(project string, number uint32) (won <-chan readBack, cancel func(), err error) {
	k, w := versionKey{project, number}, make(chan readBack, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if pub := p.projects[project]; pub != nil && pub.info.GetNumber() >= number {
		return nil, nil, errOvertaken
	}
	p.waiting[k] = append(p.waiting[k], w)
	return w, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, other := range p.waiting[k] {
			if other == w {
				p.waiting[k] = append(p.waiting[k][:i:i], p.waiting[k][i+1:]...)
			}
		}
		if len(p.waiting[k]) == 0 {
			delete(p.waiting, k)
		}
	}, nil
}

// policyLog is the stage that writes what is published into ClickHouse. Every
// router of the group writes; equal events are equal rows.
type policyLog struct{ store *store }

// Process implements stage.Stage.
func (l *policyLog) Process(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
	var rows []*policyRow
	for _, rec := range in {
		event := &curationv1.CurationEvent{}
		if err := proto.Unmarshal(rec.Value, event); err != nil {
			continue // the curator makes a dead letter of it
		}
		if pub := event.GetPolicyPublished(); pub != nil && event.GetProjectId() != "" {
			rows = append(rows, newPolicyRow(event, pub, rec.Offset))
		}
	}
	if err := policiesTable().Insert(ctx, l.store.conn, rows); err != nil {
		return nil, fmt.Errorf("write policies: %w", err)
	}
	return nil, nil
}
