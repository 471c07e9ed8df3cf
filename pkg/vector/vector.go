// Package vector stores objects with vectors in Weaviate, one tenant for each
// project.
package vector

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/weaviate/weaviate-go-client/v4/weaviate"
	pb "github.com/weaviate/weaviate/grpc/generated/protocol/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/honeloop/hone/pkg/ids"
)

// ErrUnavailable is in the chain of every error that means: Weaviate did not
// answer, or not in time. Trying again later may help.
var ErrUnavailable = errors.New("weaviate is not available")

// MaxResults is the most objects that one Near or List can return; Weaviate's
// own limit.
const MaxResults = 10_000

const (
	batchObjects = 200       // objects in one write request
	batchBytes   = 8 << 20   // and bytes of payloads and vectors in it
	maxMessage   = 100 << 20 // bytes of an answer
	maxTenants   = 100_000   // tenants known to exist
)

// Object is one object of a collection.
type Object struct {
	// A UUID, from ids.UUID.
	ID string
	// Unit length; empty for an object that Near does not find. Read only where
	// the caller asked for it.
	Vector []float32
	// What can be filtered and sorted by; of type string, int, bool or
	// time.Time. Written, never read back.
	Properties map[string]any
	// The object itself. It is read back exactly.
	Payload []byte
}

// Match is an object near a vector.
type Match struct {
	Object
	// Cosine similarity, in [-1, 1].
	Similarity float64
}

// Client talks to one Weaviate. It is safe for concurrent use. Every call has
// a deadline of its own; a project whose tenant does not exist is empty.
type Client struct {
	cfg  Config
	rest *weaviate.Client
	conn *grpc.ClientConn
	grpc pb.WeaviateClient

	mu      sync.Mutex
	tenants map[string]bool // collection/tenant that exist
}

// Open makes a client. It does not connect: that happens with the first call.
func Open(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open weaviate: %w", err)
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("open weaviate: %w", err)
	}
	headers := map[string]string{}
	creds := insecure.NewCredentials()
	if u.Scheme == "https" {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	if cfg.APIKey != "" {
		headers["Authorization"] = "Bearer " + cfg.APIKey
	}
	// The Go client's own gRPC neither searches nor verifies certificates, so
	// objects go over a connection of ours and the client does the schema.
	conn, err := grpc.NewClient(cfg.GRPCAddr,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		// A restarted Weaviate is found within 2 s; the default is 2 minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 5 * time.Minute, Timeout: 5 * time.Second}),
	)
	if err != nil {
		return nil, fmt.Errorf("open weaviate: %w", err)
	}
	rest := weaviate.New(weaviate.Config{
		Scheme: u.Scheme, Host: u.Host + strings.TrimSuffix(u.Path, "/"), Headers: headers,
		ConnectionClient: &http.Client{Timeout: cfg.WriteTimeout},
	})
	keep(rest)
	return &Client{
		cfg:     cfg,
		rest:    rest,
		conn:    conn,
		grpc:    pb.NewWeaviateClient(conn),
		tenants: map[string]bool{},
	}, nil
}

// kept are the Go clients of this process, a few.
var kept struct {
	sync.Mutex
	clients []*weaviate.Client
}

// keep keeps a Go client from being collected: its finalizer sends on a channel
// that nobody reads (v4.16.1, connection/rest.go), which would stop every
// finalizer of the process.
func keep(c *weaviate.Client) {
	kept.Lock()
	defer kept.Unlock()
	kept.clients = append(kept.clients, c)
}

// Close ends the connection. Calls in flight fail.
func (c *Client) Close() error { return c.conn.Close() }

// Upsert writes objects, replacing those with the same ids. nil means that
// each of them is stored and found by every later call. After an error any
// part of them may be stored.
func (c *Client) Upsert(ctx context.Context, collection, project string, objects []Object) error {
	for len(objects) > 0 {
		n, size := 0, 0
		for n < len(objects) && n < batchObjects && (n == 0 || size < batchBytes) {
			size += len(objects[n].Payload) + 4*len(objects[n].Vector)
			n++
		}
		if err := c.upsert(ctx, collection, project, objects[:n]); err != nil {
			return fmt.Errorf("upsert into %s: %w", collection, err)
		}
		objects = objects[n:]
	}
	return nil
}

func (c *Client) upsert(ctx context.Context, collection, project string, objects []Object) error {
	req := &pb.BatchObjectsRequest{}
	for _, o := range objects {
		props, err := properties(o)
		if err != nil {
			return fmt.Errorf("object %s: %w", o.ID, err)
		}
		req.Objects = append(req.Objects, &pb.BatchObject{
			Uuid: o.ID, Collection: collection, Tenant: tenant(project), VectorBytes: vectorBytes(o.Vector),
			Properties: &pb.BatchObject_Properties{NonRefProperties: props},
		})
	}
	ctx, cancel := c.context(ctx, c.cfg.WriteTimeout)
	defer cancel()
	reply, err := c.grpc.BatchObjects(ctx, req)
	if err != nil {
		return classify(err)
	}
	// A reply without an error may still name objects that were not stored.
	if len(reply.GetErrors()) > 0 {
		var errs []error
		for _, e := range reply.GetErrors()[:min(3, len(reply.GetErrors()))] {
			errs = append(errs, fmt.Errorf("object %d: %s", e.GetIndex(), e.GetError()))
		}
		return fmt.Errorf("%d of %d objects were refused: %w", len(reply.GetErrors()), len(objects), errors.Join(errs...))
	}
	c.remember(collection, project)
	return nil
}

// Get reads the objects that exist, by id, with their vectors where asked.
func (c *Client) Get(ctx context.Context, collection, project string, objectIDs []string, vectors bool) (map[string]Object, error) {
	found := make(map[string]Object, len(objectIDs))
	for len(objectIDs) > 0 {
		n := min(1000, len(objectIDs))
		matches, err := c.search(ctx, collection, project, vectors, &pb.SearchRequest{
			Limit: uint32(n), Filters: filterOn("_id", pb.Filters_OPERATOR_CONTAINS_ANY, objectIDs[:n]),
		})
		if err != nil {
			return nil, fmt.Errorf("get from %s: %w", collection, err)
		}
		for _, m := range matches {
			found[m.ID] = m.Object
		}
		objectIDs = objectIDs[n:]
	}
	return found, nil
}

// NearQuery says what Near returns.
type NearQuery struct {
	Vector []float32
	// At most MaxResults.
	Limit int
	// Cosine similarity, in [-1, 1].
	MinSimilarity float64
	// Nil for all objects.
	Filter *Filter
}

// Near returns the objects nearest to a vector, most similar first.
func (c *Client) Near(ctx context.Context, collection, project string, q NearQuery) ([]Match, error) {
	distance := 1 - q.MinSimilarity
	matches, err := c.search(ctx, collection, project, false, &pb.SearchRequest{
		Limit:      uint32(min(q.Limit, MaxResults)),
		NearVector: &pb.NearVector{VectorBytes: vectorBytes(q.Vector), Distance: &distance},
		Filters:    q.Filter.message(),
	})
	if err != nil {
		return nil, fmt.Errorf("search %s: %w", collection, err)
	}
	return matches, nil
}

// ListQuery says what List returns, and in which order.
type ListQuery struct {
	// Nil for all objects.
	Filter *Filter
	// Property to sort by; empty for no order.
	SortBy     string
	Descending bool
	// Offset + Limit is at most MaxResults.
	Offset, Limit int
	// Read the vectors, too.
	Vectors bool
}

// List returns the objects that match a filter.
func (c *Client) List(ctx context.Context, collection, project string, q ListQuery) ([]Object, error) {
	req := &pb.SearchRequest{Limit: uint32(q.Limit), Offset: uint32(q.Offset), Filters: q.Filter.message()}
	if q.SortBy != "" {
		req.SortBy = []*pb.SortBy{{Ascending: !q.Descending, Path: []string{q.SortBy}}}
	}
	matches, err := c.search(ctx, collection, project, q.Vectors, req)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", collection, err)
	}
	objects := make([]Object, 0, len(matches))
	for _, m := range matches {
		objects = append(objects, m.Object)
	}
	return objects, nil
}

// Delete removes objects by id. Those that do not exist are no error.
func (c *Client) Delete(ctx context.Context, collection, project string, objectIDs []string) error {
	for len(objectIDs) > 0 {
		n := min(1000, len(objectIDs))
		if err := c.delete(ctx, collection, project, objectIDs[:n]); err != nil {
			return fmt.Errorf("delete from %s: %w", collection, err)
		}
		objectIDs = objectIDs[n:]
	}
	return nil
}

func (c *Client) delete(ctx context.Context, collection, project string, objectIDs []string) error {
	exists, err := c.exists(ctx, collection, project)
	if err != nil || !exists {
		return err
	}
	ctx, cancel := c.context(ctx, c.cfg.WriteTimeout)
	defer cancel()
	name := tenant(project)
	reply, err := c.grpc.BatchDelete(ctx, &pb.BatchDeleteRequest{
		Collection: collection, Tenant: &name, Filters: filterOn("_id", pb.Filters_OPERATOR_CONTAINS_ANY, objectIDs),
	})
	if err != nil {
		return classify(err)
	}
	if reply.GetFailed() > 0 {
		return fmt.Errorf("%d of %d objects were not deleted", reply.GetFailed(), reply.GetMatches())
	}
	return nil
}

func (c *Client) search(ctx context.Context, collection, project string, vectors bool, req *pb.SearchRequest) ([]Match, error) {
	exists, err := c.exists(ctx, collection, project)
	if err != nil || !exists {
		return nil, err
	}
	return c.searchTenant(ctx, collection, tenant(project), vectors, req)
}

func (c *Client) searchTenant(ctx context.Context, collection, tenant string, vectors bool, req *pb.SearchRequest) ([]Match, error) {
	req.Collection, req.Tenant, req.Uses_127Api = collection, tenant, true
	req.Properties = &pb.PropertiesRequest{NonRefProperties: []string{payload}}
	req.Metadata = &pb.MetadataRequest{Uuid: true, Vector: vectors, Distance: req.NearVector != nil}
	ctx, cancel := c.context(ctx, c.cfg.ReadTimeout)
	defer cancel()
	reply, err := c.grpc.Search(ctx, req)
	if err != nil {
		return nil, classify(err)
	}
	matches := make([]Match, 0, len(reply.GetResults()))
	for _, r := range reply.GetResults() {
		meta := r.GetMetadata()
		blob := r.GetProperties().GetNonRefProps().GetFields()[payload].GetBlobValue()
		data, err := base64.StdEncoding.DecodeString(blob)
		if err != nil {
			return nil, fmt.Errorf("object %s: decode payload: %w", meta.GetId(), err)
		}
		m := Match{Object: Object{ID: meta.GetId(), Payload: data}, Similarity: 1 - float64(meta.GetDistance())}
		if vectors {
			m.Vector = vectorOf(meta)
		}
		matches = append(matches, m)
	}
	return matches, nil
}

// exists says whether the project has a tenant. Weaviate refuses to read from
// a tenant that is not there, in words only, so it is asked before.
func (c *Client) exists(ctx context.Context, collection, project string) (bool, error) {
	key := collection + "/" + tenant(project)
	c.mu.Lock()
	known := c.tenants[key]
	c.mu.Unlock()
	if known {
		return true, nil
	}
	ctx, cancel := c.context(ctx, c.cfg.ReadTimeout)
	defer cancel()
	reply, err := c.grpc.TenantsGet(ctx, &pb.TenantsGetRequest{
		Collection: collection,
		Params:     &pb.TenantsGetRequest_Names{Names: &pb.TenantNames{Values: []string{tenant(project)}}},
	})
	if err != nil {
		return false, fmt.Errorf("look up tenant: %w", classify(err))
	}
	if len(reply.GetTenants()) == 0 {
		return false, nil
	}
	c.remember(collection, project)
	return true, nil
}

func (c *Client) remember(collection, project string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tenants) >= maxTenants {
		clear(c.tenants)
	}
	c.tenants[collection+"/"+tenant(project)] = true
}

func (c *Client) context(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if c.cfg.APIKey != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.cfg.APIKey)
	}
	return context.WithTimeout(ctx, timeout)
}

// classify adds ErrUnavailable to what may pass by itself. A call that the
// caller ended is also marked: its context says so better.
func classify(err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// tenant is a project's tenant name. Weaviate takes letters, digits, "_" and
// "-", at most 64; other projects get a derived name, with another prefix.
func tenant(project string) string {
	plain := len(project) > 0 && len(project) <= 60
	for _, r := range project {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' {
			plain = false
		}
	}
	if plain {
		return "p-" + project
	}
	return ids.Derive("x", project)
}

func properties(o Object) (*structpb.Struct, error) {
	fields := make(map[string]any, len(o.Properties)+1)
	for name, v := range o.Properties {
		switch v := v.(type) {
		case time.Time:
			fields[name] = v.UTC().Format(time.RFC3339Nano)
		case int:
			fields[name] = float64(v)
		case string:
			fields[name] = strings.ToValidUTF8(v, "\uFFFD")
		case bool:
			fields[name] = v
		default:
			return nil, fmt.Errorf("property %s: type %T cannot be stored", name, v)
		}
	}
	if len(o.Payload) > 0 { // Weaviate takes no empty blob
		fields[payload] = base64.StdEncoding.EncodeToString(o.Payload)
	}
	return structpb.NewStruct(fields)
}

func vectorBytes(v []float32) []byte {
	if len(v) == 0 {
		return nil
	}
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func vectorOf(meta *pb.MetadataResult) []float32 {
	b := meta.GetVectorBytes()
	if len(b) == 0 && len(meta.GetVectors()) > 0 {
		b = meta.GetVectors()[0].GetVectorBytes()
	}
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}
