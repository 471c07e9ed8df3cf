package api

import (
	"bytes"
	"context"
	"strconv"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/auth"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	"github.com/honeloop/hone/services/curator/internal/dataset"
	"github.com/honeloop/hone/services/curator/internal/store"
)

// The trailers of an export.
const (
	TrailerRows       = "hone-rows"
	TrailerNoRejected = "hone-left-out-no-rejected"
	TrailerSuperseded = "hone-left-out-superseded"
)

// An export is sent in chunks of this size and at most one example more.
const chunkBytes = 64 << 10

// Datasets is the DatasetService.
type Datasets struct {
	curationv1.UnimplementedDatasetServiceServer
	Store *store.Store
	// Exports in flight; its capacity is the limit. Each holds a connection to
	// ClickHouse for as long as the caller reads.
	InFlight chan struct{}
	// Exported is told what an export left out, when it has ended well.
	Exported func(ctx context.Context, format string, counts dataset.Counts)
}

// ExportDataset implements the service. Each chunk is whole lines, so the
// chunks after one another are the file.
func (d *Datasets) ExportDataset(req *curationv1.ExportDatasetRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
	ctx := stream.Context()
	project, err := auth.Project(ctx)
	if err != nil {
		return err
	}
	if f := req.GetFormat(); f != dataset.SFT && f != dataset.DPO {
		return status.Error(codes.InvalidArgument, "format: want sft or dpo")
	}
	select {
	case d.InFlight <- struct{}{}:
		defer func() { <-d.InFlight }()
	default:
		return status.Errorf(codes.ResourceExhausted, "%d exports are running: try again later", cap(d.InFlight))
	}
	w := &dataset.Writer{Format: req.GetFormat(), ChunkBytes: chunkBytes, Emit: func(lines []byte) error {
		return stream.Send(&httpbody.HttpBody{ContentType: "application/x-ndjson", Data: bytes.Clone(lines)})
	}}
	if err := d.Store.ExportDataset(ctx, project, req.GetSource(), w.Add); err != nil {
		return unavailable(err)
	}
	if err := w.Close(); err != nil {
		return status.Errorf(codes.Internal, "export: %v", err)
	}
	stream.SetTrailer(metadata.Pairs(
		TrailerRows, strconv.Itoa(w.Counts.Rows),
		TrailerNoRejected, strconv.Itoa(w.Counts.NoRejected),
		TrailerSuperseded, strconv.Itoa(w.Counts.Superseded)))
	d.Exported(ctx, req.GetFormat(), w.Counts)
	return nil
}
