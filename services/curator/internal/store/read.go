package store

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"google.golang.org/protobuf/proto"

	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
)

var (
	//go:embed sql/list_reviews.sql
	listReviewsSQL string
	//go:embed sql/reviews_by_id.sql
	reviewsByIDSQL string
	//go:embed sql/export_dataset.sql
	exportDatasetSQL string
	//go:embed sql/list_patches.sql
	listPatchesSQL string
)

// ReviewItem is a review as the store has it, without its final state.
type ReviewItem struct {
	// Without state and decision.
	Review *curationv1.Review
	// The signal no longer calls for it.
	Withdrawn bool
	// Nil where no decision is stored.
	Decided    *curationv1.ReviewDecided
	CurationID string // of Decided
}

// Cursor is a place in the list of reviews. The zero value is its start.
type Cursor struct {
	turn      uint8
	createdAt time.Time
	reviewID  string
}

// ListReviews is a page of the project's reviews in a state, or in any state
// with "all", highest priority first, then oldest, after a cursor. It returns
// the cursor of the last.
func (s *Store) ListReviews(ctx context.Context, project, state string, after Cursor, limit int) ([]*ReviewItem, Cursor, error) {
	afterMS := int64(-1)
	if after != (Cursor{}) {
		afterMS = after.createdAt.UnixMilli()
	}
	var ids []string
	next := after
	err := s.query(ctx, listReviewsSQL, func(scan func(...any) error) error {
		if err := scan(&next.reviewID, &next.createdAt, &next.turn); err != nil {
			return err
		}
		ids = append(ids, next.reviewID)
		return nil
	}, clickhouse.Named("project", project), clickhouse.Named("state", state), clickhouse.Named("limit", limit),
		clickhouse.Named("after_turn", after.turn), clickhouse.Named("after_ms", afterMS), clickhouse.Named("after_id", after.reviewID))
	if err != nil {
		return nil, Cursor{}, fmt.Errorf("list reviews: %w", err)
	}
	byID, err := s.Reviews(ctx, project, ids)
	if err != nil {
		return nil, Cursor{}, err
	}
	items := make([]*ReviewItem, 0, len(ids))
	for _, id := range ids {
		if item := byID[id]; item != nil {
			items = append(items, item)
		}
	}
	return items, next, nil
}

// Reviews are the project's reviews with these ids; those that do not exist
// are missing.
func (s *Store) Reviews(ctx context.Context, project string, reviewIDs []string) (map[string]*ReviewItem, error) {
	items := make(map[string]*ReviewItem, len(reviewIDs))
	if len(reviewIDs) == 0 {
		return items, nil
	}
	err := s.query(ctx, reviewsByIDSQL, func(scan func(...any) error) error {
		var id, payload, decided string
		item := &ReviewItem{Review: &curationv1.Review{}}
		if err := scan(&id, &payload, &item.Withdrawn, &item.CurationID, &decided); err != nil {
			return err
		}
		if err := proto.Unmarshal([]byte(payload), item.Review); err != nil {
			return fmt.Errorf("unmarshal review %s: %w", id, err)
		}
		if item.CurationID != "" {
			item.Decided = &curationv1.ReviewDecided{}
			if err := proto.Unmarshal([]byte(decided), item.Decided); err != nil {
				return fmt.Errorf("unmarshal decision on review %s: %w", id, err)
			}
		}
		items[id] = item
		return nil
	}, clickhouse.Named("project", project), clickhouse.Named("ids", reviewIDs))
	if err != nil {
		return nil, fmt.Errorf("read reviews: %w", err)
	}
	return items, nil
}

// ExportDataset calls yield with each example of a project, those of one
// signal after another, in an order that depends only on ids. An empty source
// means all. It holds a few blocks of 256 rows at a time.
func (s *Store) ExportDataset(ctx context.Context, project, source string, yield func(*curationv1.DatasetRow) error) error {
	err := s.query(ctx, exportDatasetSQL, func(scan func(...any) error) error {
		row := &curationv1.DatasetRow{}
		if err := scanMessage(scan, row); err != nil {
			return err
		}
		return yield(row)
	}, clickhouse.Named("project", project), clickhouse.Named("source", source))
	if err != nil {
		return fmt.Errorf("export dataset: %w", err)
	}
	return nil
}

// ListPatches are the project's patches, newest first.
func (s *Store) ListPatches(ctx context.Context, project string, limit int) ([]*curationv1.Patch, error) {
	var out []*curationv1.Patch
	err := s.query(ctx, listPatchesSQL, func(scan func(...any) error) error {
		patch := &curationv1.Patch{}
		out = append(out, patch)
		return scanMessage(scan, patch)
	}, clickhouse.Named("project", project), clickhouse.Named("limit", limit))
	if err != nil {
		return nil, fmt.Errorf("list patches: %w", err)
	}
	return out, nil
}

// scanMessage reads a row that is one payload.
func scanMessage(scan func(...any) error, m proto.Message) error {
	var payload string
	if err := scan(&payload); err != nil {
		return err
	}
	return proto.Unmarshal([]byte(payload), m)
}

// query calls each for every row.
func (s *Store) query(ctx context.Context, sql string, each func(scan func(...any) error) error, args ...any) (err error) {
	rows, err := s.conn.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Ping says whether ClickHouse answers.
func (s *Store) Ping(ctx context.Context) error { return s.conn.Ping(ctx) }
