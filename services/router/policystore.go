package router

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// policyRow is a row of policies_log.
type policyRow struct {
	ProjectID     string    `ch:"project_id"`
	Number        uint32    `ch:"number"`
	Earliness     uint64    `ch:"earliness"`
	PolicyVersion string    `ch:"policy_version"`
	YAML          string    `ch:"yaml"`
	Author        string    `ch:"author"`
	Note          string    `ch:"note"`
	RollbackOf    uint32    `ch:"rollback_of"`
	PublishedAt   time.Time `ch:"published_at"`
}

func policiesTable() clickhouse.Table[*policyRow] {
	type r = *policyRow
	return clickhouse.Table[r]{Name: "policies_log", Columns: []clickhouse.Column[r]{
		clickhouse.Col("project_id", func(p r) string { return p.ProjectID }),
		clickhouse.Col("number", func(p r) uint32 { return p.Number }),
		clickhouse.Col("earliness", func(p r) uint64 { return p.Earliness }),
		clickhouse.Col("policy_version", func(p r) string { return p.PolicyVersion }),
		clickhouse.Col("yaml", func(p r) string { return p.YAML }),
		clickhouse.Col("author", func(p r) string { return p.Author }),
		clickhouse.Col("note", func(p r) string { return p.Note }),
		clickhouse.Col("rollback_of", func(p r) uint32 { return p.RollbackOf }),
		clickhouse.Col("published_at", func(p r) time.Time { return p.PublishedAt }),
	}}
}

func newPolicyRow(event *curationv1.CurationEvent, pub *curationv1.PolicyPublished, offset int64) *policyRow {
	at := event.GetOccurredAt().AsTime()
	if clickhouse.CheckTime(at) != nil {
		at = time.UnixMilli(0).UTC() // no time that this build's API gives
	}
	return &policyRow{
		ProjectID: event.GetProjectId(), Number: pub.GetNumber(), Earliness: math.MaxUint64 - uint64(offset),
		PolicyVersion: pub.GetPolicyVersion(), YAML: pub.GetYaml(), Author: pub.GetAuthor(), Note: pub.GetNote(),
		RollbackOf: pub.GetRollbackOf(), PublishedAt: at,
	}
}

func (r *policyRow) info() *policyv1.Policy {
	return &policyv1.Policy{
		Number: r.Number, PolicyVersion: r.PolicyVersion, Author: r.Author, Note: r.Note,
		PublishedAt: timestamppb.New(r.PublishedAt), RollbackOf: r.RollbackOf, RoutersOwn: r.YAML == "",
	}
}

// policyVersions reads a project's versions up to one number, newest first.
func (s *store) policyVersions(ctx context.Context, project string, upTo uint32, limit int) ([]policyRow, error) {
	var rows []policyRow
	err := s.conn.Select(ctx, &rows, `SELECT project_id, number, earliness, policy_version, yaml, author, note, rollback_of, published_at
		FROM policies_log FINAL WHERE project_id = ? AND number <= ? ORDER BY number DESC LIMIT ?`, project, upTo, limit)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	return rows, nil
}
