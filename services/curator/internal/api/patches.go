package api

import (
	"context"

	"github.com/honeloop/hone/pkg/auth"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	"github.com/honeloop/hone/services/curator/internal/store"
)

// Patches is the PatchService.
type Patches struct {
	curationv1.UnimplementedPatchServiceServer
	Store *store.Store
}

// ListPatches implements the service: newest first.
func (p *Patches) ListPatches(ctx context.Context, req *curationv1.ListPatchesRequest) (*curationv1.ListPatchesResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	limit, err := checkLimit(req.GetLimit())
	if err != nil {
		return nil, err
	}
	patches, err := p.Store.ListPatches(ctx, project, limit)
	if err != nil {
		return nil, unavailable(err)
	}
	return &curationv1.ListPatchesResponse{Patches: patches}, nil
}
