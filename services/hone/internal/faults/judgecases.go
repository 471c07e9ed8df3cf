package faults

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// heldSignals looks whether each signal for the rule that holds is either held or
// let go, once, and is held no longer than its case is too small. Why it was let
// go then is the router's matter: what a case had at that time, nobody knows later.
func (j *judge) heldSignals(ctx context.Context) error {
	v := j.check("held and released signals")
	cases, err := j.snapshots(ctx)
	if err != nil {
		return err
	}
	type decided struct {
		*policyv1.Decision
		superseded bool
	}
	byID := map[string]decided{}
	err = j.each(ctx, "SELECT payload, superseded_by > 0 FROM decisions_log FINAL WHERE rule = '"+ruleHeld+"' SETTINGS do_not_merge_across_partitions_select_final = 1",
		func(scan func(...any) error) error {
			var payload string
			d := decided{Decision: &policyv1.Decision{}}
			if err := scan(&payload, &d.superseded); err != nil {
				return err
			}
			if err := proto.Unmarshal([]byte(payload), d.Decision); err != nil {
				return fmt.Errorf("read a decision: %w", err)
			}
			byID[d.GetDecisionId()] = d
			return nil
		})
	if err != nil {
		return err
	}
	released, current := map[string]string{}, map[string]bool{}
	for id, d := range byID {
		if from := d.GetReleasedFrom(); from != "" {
			held, known := byID[from]
			switch {
			case !known || held.GetHoldUntil() == 0 || held.GetSignalId() != d.GetSignalId() || held.GetSignalRevision() != d.GetSignalRevision():
				j.find(v, unknown, d.GetSignalId(), "decision %s lets go of %s, which does not hold it: %v", id, from, held.Decision)
			case !held.superseded:
				j.find(v, different, d.GetSignalId(), "decision %s lets it go, and %s holds it all the same", id, from)
			case released[from] != "":
				j.find(v, doubled, d.GetSignalId(), "decisions %s and %s both let it go", released[from], id)
			}
			released[from] = id
		}
		if d.superseded {
			continue
		}
		v.Found++
		if d.GetReleasedFrom() != "" {
			j.changes["signals let go"]++
		} else if d.GetHoldUntil() > 0 {
			j.changes["signals held"]++
		}
		current[d.GetSignalId()] = true
		negatives := cases[d.GetCaseId()].GetNegatives()
		switch until := d.GetHoldUntil(); {
		case until == 0 && !slices.Equal(d.GetRoutes(), []string{"human-review"}), until != 0 && (until != heldUntil || len(d.GetRoutes()) > 0):
			j.find(v, different, d.GetSignalId(), "decision %s holds it until %d, and routes it to %v", id, until, d.GetRoutes())
		case until != 0 && negatives >= until:
			j.find(v, lost, d.GetSignalId(), "decision %s holds it until case %s has %d negative signals, and it has %d", id, d.GetCaseId(), until, negatives)
		}
	}
	for id, h := range j.holds {
		if h.signal == nil || h.withdrawn || h.signal.kind != "explicit" || h.signal.category != "outdated" {
			continue
		}
		v.Expected++
		if !current[id] {
			j.find(v, lost, id, "decision %s is not by the rule that holds", h.decision)
		}
	}
	return nil
}

// limits looks whether a rule with a limit took no more than it may. Partitions are
// decided at the same time, and each may take the last.
func (j *judge) limits(ctx context.Context) error {
	v := j.check("days of the rule with a limit")
	most := uint64(limitADay * partitions)
	return j.each(ctx, "SELECT toStartOfDay(occurred_at) AS day, uniqExact(signal_id) FROM decisions WHERE rule = '"+ruleLimited+"' GROUP BY day", func(scan func(...any) error) error {
		var day time.Time
		var n uint64
		if err := scan(&day, &n); err != nil {
			return err
		}
		v.Expected++
		v.Found++
		if n > most {
			j.find(v, different, day.Format(time.DateOnly), "it took %d signals, and may take %d", n, most)
		}
		return nil
	})
}

// passes looks whether each change of a case in the log was applied, or refused,
// once, and whether the cases are as it left them. Where the signals of merged and
// split cases went, exchanges and cases have looked at.
func (j *judge) passes(ctx context.Context) error {
	v := j.check("merges, splits and words of cases")
	edits := map[string]*curationv1.CurationEvent{}
	err := stream.Scan(ctx, j.kafka, stream.TopicCuration, stream.ScanFrom{}, func(_ context.Context, r stage.Record) error {
		e := &curationv1.CurationEvent{}
		if proto.Unmarshal(r.Value, e) == nil && (e.GetCaseMerged() != nil || e.GetCaseSplit() != nil || e.GetCaseSummarized() != nil) {
			edits[e.GetCurationId()] = e
		}
		return nil
	})
	if err != nil || len(edits) == 0 {
		return err
	}
	v.Expected = len(edits)
	cases, err := j.snapshots(ctx)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	err = j.answersOf(ctx, "edit", func(id string, payload []byte) error {
		v.Found++
		edit := &casesv1.CaseEdit{}
		if err := proto.Unmarshal(payload, edit); err != nil {
			j.find(v, different, id, "cannot be read: %v", err)
			return nil
		}
		e := edit.GetEvent()
		name := e.GetCurationId()
		merged, split := e.GetCaseMerged(), e.GetCaseSplit()
		switch {
		case edits[name] == nil:
			j.find(v, unknown, name, "%v", e)
		case seen[name]:
			j.find(v, doubled, name, "object %s", id)
		case !edit.GetApplied():
			j.find(v, different, name, "it was never applied to the end: %v", e)
		case edit.GetRefused() != "":
			j.changes["changes refused"]++
		case merged != nil:
			j.changes["merges"]++
			if cases[merged.GetCaseId()].GetMergedInto() == "" {
				j.find(v, different, name, "case %s was merged into %s, and its snapshot is %v", merged.GetCaseId(), merged.GetIntoCaseId(), cases[merged.GetCaseId()])
			}
		case split != nil:
			j.changes["splits"]++
			if cases[split.GetNewCaseId()] == nil {
				j.find(v, different, name, "case %s was split off %s, and has no snapshot", split.GetNewCaseId(), split.GetCaseId())
			}
		default:
			j.changes["words"]++
		}
		seen[name] = true
		return nil
	})
	for name, e := range edits {
		if !seen[name] {
			j.find(v, lost, name, "nothing came of %v", e)
		}
	}
	return err
}
