package vector

import (
	"context"
	"fmt"
	"slices"

	pb "github.com/weaviate/weaviate/grpc/generated/protocol/v1"
)

// A space is a pair of collections like Exchanges and Cases, with the vectors of
// one embedding model. Those of the first have no suffix; others have the same
// names with a suffix, made of letters, digits and "_".

// EnsureSpace creates the collections of a space, and adds properties that they
// lack.
func (c *Client) EnsureSpace(ctx context.Context, suffix string) error {
	for _, want := range collections() {
		if !want.vectors {
			continue
		}
		want.name += suffix
		if err := c.ensure(ctx, want); err != nil {
			return fmt.Errorf("ensure collection %s: %w", want.name, err)
		}
	}
	return nil
}

// EmptySpace removes all objects of a space. Its collections stay.
func (c *Client) EmptySpace(ctx context.Context, suffix string) error {
	for _, want := range collections() {
		if !want.vectors {
			continue
		}
		name := want.name + suffix
		tenants, err := c.Tenants(ctx, name)
		if err != nil {
			return err
		}
		for chunk := range slices.Chunk(tenants, 100) {
			if err := c.deleteTenants(ctx, name, chunk); err != nil {
				return fmt.Errorf("empty %s: %w", name, err)
			}
		}
	}
	return nil
}

func (c *Client) deleteTenants(ctx context.Context, collection string, tenants []string) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.WriteTimeout)
	defer cancel()
	c.mu.Lock()
	for _, t := range tenants {
		delete(c.tenants, collection+"/"+t)
	}
	c.mu.Unlock()
	if err := c.rest.Schema().TenantsDeleter().WithClassName(collection).WithTenants(tenants...).Do(ctx); err != nil {
		return restError(err)
	}
	return nil
}

// Tenants are the tenants of a collection, one for each project, in order. A
// project's name cannot be told from it.
func (c *Client) Tenants(ctx context.Context, collection string) ([]string, error) {
	ctx, cancel := c.context(ctx, c.cfg.ReadTimeout)
	defer cancel()
	reply, err := c.grpc.TenantsGet(ctx, &pb.TenantsGetRequest{Collection: collection})
	if err != nil {
		return nil, fmt.Errorf("list tenants of %s: %w", collection, classify(err))
	}
	var names []string
	for _, t := range reply.GetTenants() {
		names = append(names, t.GetName())
	}
	slices.Sort(names)
	return names, nil
}

// Walk reads the objects of a tenant in the order of their ids, from the one
// after the given id on; "" is the beginning. Fewer than limit are the last.
func (c *Client) Walk(ctx context.Context, collection, tenant, after string, limit int, vectors bool) ([]Object, error) {
	if after == "" {
		after = "00000000-0000-0000-0000-000000000000"
	}
	matches, err := c.searchTenant(ctx, collection, tenant, vectors, &pb.SearchRequest{Limit: uint32(limit), After: after})
	if err != nil {
		return nil, fmt.Errorf("walk through %s: %w", collection, err)
	}
	objects := make([]Object, 0, len(matches))
	for _, m := range matches {
		objects = append(objects, m.Object)
	}
	return objects, nil
}
