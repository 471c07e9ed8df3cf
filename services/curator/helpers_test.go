package curator_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
)

// decision is a record of hone.curation.
func decision(t *testing.T, offset int64, review, verdict, answer string) stage.Record {
	t.Helper()
	value, err := proto.Marshal(&curationv1.CurationEvent{CurationId: fmt.Sprint("cu", offset), ProjectId: "p", OccurredAt: timestamppb.New(began),
		Payload: &curationv1.CurationEvent_ReviewDecided{ReviewDecided: &curationv1.ReviewDecided{ReviewId: review, SignalId: "sg",
			Verdict: verdict, Answer: answer, Reviewer: "ann", DecidedAt: timestamppb.New(began)}}})
	if err != nil {
		t.Fatal(err)
	}
	return stage.Record{Topic: stream.TopicCuration, Offset: offset, Key: []byte("p"), Value: value, Time: began}
}
