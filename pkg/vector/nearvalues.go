package vector

import (
	"context"
	"fmt"

	pb "github.com/weaviate/weaviate/grpc/generated/protocol/v1"
)

// ValueMatch is some properties of an object near a vector.
type ValueMatch struct {
	// In the order that they were asked for; empty where the object has none.
	Values []string
	// Cosine similarity, in [-1, 1].
	Similarity float64
}

// NearValues is Near that reads text properties of each object in the place of
// the object itself.
func (c *Client) NearValues(ctx context.Context, collection, project string, q NearQuery, properties ...string) ([]ValueMatch, error) {
	exists, err := c.exists(ctx, collection, project)
	if err != nil {
		return nil, fmt.Errorf("search %s: %w", collection, err)
	}
	if !exists {
		return nil, nil
	}
	distance := 1 - q.MinSimilarity
	ctx, cancel := c.context(ctx, c.cfg.ReadTimeout)
	defer cancel()
	reply, err := c.grpc.Search(ctx, &pb.SearchRequest{
		Collection: collection, Tenant: tenant(project), Uses_127Api: true,
		Limit:      uint32(min(q.Limit, MaxResults)),
		NearVector: &pb.NearVector{VectorBytes: vectorBytes(q.Vector), Distance: &distance},
		Filters:    q.Filter.message(),
		Properties: &pb.PropertiesRequest{NonRefProperties: properties},
		Metadata:   &pb.MetadataRequest{Distance: true},
	})
	if err != nil {
		return nil, fmt.Errorf("search %s: %w", collection, classify(err))
	}
	matches := make([]ValueMatch, 0, len(reply.GetResults()))
	for _, r := range reply.GetResults() {
		m := ValueMatch{Values: make([]string, len(properties)), Similarity: 1 - float64(r.GetMetadata().GetDistance())}
		fields := r.GetProperties().GetNonRefProps().GetFields()
		for i, p := range properties {
			m.Values[i] = fields[p].GetTextValue()
		}
		matches = append(matches, m)
	}
	return matches, nil
}
