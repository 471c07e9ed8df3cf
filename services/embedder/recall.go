package embedder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/services/embedder/internal/relevance"
)

const (
	maxQueryBytes = 32 << 10 // of a Recall
	maxRecall     = 20
	maxFollowUp   = 3 // words of a query that is embedded with its context
	defaultRecall = 3
	spareCases    = 5 // read beyond k, for those that are muted or merged
	maxEmbed      = 256
	minTokens     = 150
	bytesPerToken = 3 // of a prompt block; English has four or five

	// A case is left out whose relevance is less than this part of the least
	// relevance, times the first case's.
	minShare = 0.02
)

// api serves RecallService and what CaseService shares with it. Whose data it
// reads comes from the key alone.
type api struct {
	recallv1.UnimplementedRecallServiceServer

	index    index
	embedder embedding.Embedder
	weights  relevance.Weights
	projects *projects.Projects
	cfg      RecallConfig
	slots    chan struct{}
	breaker  breaker
	sessions *sessionReader // nil where the embedder is told of no trail
	log      *slog.Logger

	backgrounds *backgrounds // nil for none
}

func newAPI(ix index, e embedding.Embedder, settings *projects.Projects, cfg RecallConfig, sessions *sessionReader, log *slog.Logger) (*api, error) {
	weights, err := relevance.WeightsOf(e.Model())
	if err != nil {
		return nil, err
	}
	return &api{index: ix, embedder: e, weights: weights, projects: settings, cfg: cfg, sessions: sessions,
		slots: make(chan struct{}, cfg.Concurrency), log: log, backgrounds: newBackgrounds(cfg.Background)}, nil
}

// Recall finds the cases that a query is about.
func (a *api) Recall(ctx context.Context, req *recallv1.RecallRequest) (*recallv1.RecallResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	q, err := a.question(project, req)
	if err != nil {
		return nil, err
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	leave, err := a.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	before, session := req.GetContext(), ""
	if a.sessions != nil && req.GetSessionId() != "" && strings.TrimSpace(before) == "" && isFollowUp(req.GetQuery()) {
		session = a.sessions.before(ctx, req.GetSessionId(), req.GetQuery())
		before = session
	}
	vectors, err := a.embedder.Embed(ctx, []string{recallText(req.GetQuery(), before)})
	if err != nil {
		return nil, a.fail(ctx, "recall", fmt.Errorf("embed query: %w", err))
	}
	q.vector = vectors[0]
	var resp *recallv1.RecallResponse
	err = a.breaker.do(caller, ctx, func() (err error) {
		resp, err = a.recall(ctx, project, q)
		return err
	})
	if err != nil {
		return nil, a.fail(ctx, "recall", err)
	}
	resp.SessionContext = session
	resp.PromptBlock = promptBlock(resp.GetGuidance(), resp.GetPositives(), q.promptBytes)
	return resp, nil
}

// question is a checked request.
type question struct {
	vector        []float32
	k             int
	minSimilarity float64
	minRelevance  float64
	metadata      []asked
	positives     int
	promptBytes   int
}

func (a *api) question(project string, req *recallv1.RecallRequest) (question, error) {
	settings := a.projects.Settings(project).Recall
	q := question{
		k: int(req.GetK()), minSimilarity: -1, minRelevance: settings.MinRelevance, positives: settings.Positives, promptBytes: a.cfg.PromptBytes,
	}
	switch {
	case strings.TrimSpace(req.GetQuery()) == "":
		return q, invalid("query", "missing")
	case len(req.GetQuery()) > maxQueryBytes:
		return q, invalid("query", fmt.Sprintf("%d bytes, want at most %d", len(req.GetQuery()), maxQueryBytes))
	case len(req.GetContext()) > maxQueryBytes:
		return q, invalid("context", fmt.Sprintf("%d bytes, want at most %d", len(req.GetContext()), maxQueryBytes))
	case len(req.GetSessionId()) > maxSessionID:
		return q, invalid("session_id", fmt.Sprintf("%d bytes, want at most %d", len(req.GetSessionId()), maxSessionID))
	case req.GetK() > maxRecall:
		return q, invalid("k", fmt.Sprintf("%d, want at most %d", req.GetK(), maxRecall))
	case req.GetMaxTokens() > 0 && req.GetMaxTokens() < minTokens:
		return q, invalid("max_tokens", fmt.Sprintf("%d, want at least %d, or 0 for the default", req.GetMaxTokens(), minTokens))
	}
	if q.k == 0 {
		q.k = defaultRecall
	}
	if req.MinSimilarity != nil {
		q.minSimilarity = req.GetMinSimilarity()
		if !(q.minSimilarity >= -1 && q.minSimilarity <= 1) {
			return q, invalid("min_similarity", "want -1 to 1")
		}
	}
	if req.MinRelevance != nil {
		q.minRelevance = req.GetMinRelevance()
		if !(q.minRelevance >= 0 && q.minRelevance <= 1) {
			return q, invalid("min_relevance", "want 0 to 1")
		}
	}
	if n := req.GetMaxTokens(); n > 0 {
		q.promptBytes = int(min(int64(q.promptBytes), bytesPerToken*int64(n)))
	}
	var err error
	q.metadata, err = askedMetadata(req.GetMetadata())
	return q, err
}

// isFollowUp says whether a query has so few words that it may go on from
// another.
func isFollowUp(query string) bool { return len(strings.Fields(query)) <= maxFollowUp }

// recallText is what is embedded. Few words mean little without what was said
// before; more of them mean something, which other words would only blur.
func recallText(query, before string) string {
	before = strings.TrimSpace(before)
	if before == "" || !isFollowUp(query) {
		return shorten(query, maxQuery)
	}
	query = shorten(query, maxQuery/2)
	return shorten(before, maxQuery-utf8.RuneCountInString(query)-1) + "\n" + query
}

// recall looks for exchanges near the query. There is no filter on them, which
// would cost as much as the search: those of no case are passed over.
func (a *api) recall(ctx context.Context, project string, q question) (*recallv1.RecallResponse, error) {
	properties := []string{"case_id"}
	if len(q.metadata) > 0 {
		properties = append(properties, "metadata", "polarity")
	}
	exchanges, err := a.index.NearValues(ctx, vector.Exchanges, project, vector.NearQuery{
		Vector: q.vector, Limit: relevance.MaxNeighbors, MinSimilarity: -1,
	}, properties...)
	if err != nil {
		return nil, err
	}
	neighbors := neighborsOf(exchanges)
	seen, with := map[string]bool{}, seenWith{}
	for _, m := range exchanges {
		caseID := m.Values[0]
		if caseID == "" {
			continue
		}
		seen[caseID] = true
		if len(q.metadata) > 0 && m.Values[2] == negative {
			with.add(caseID, m.Values[1])
		}
	}
	if len(seen) < q.k {
		// All of few cases, or of none: other cases are found by themselves.
		cases, err := a.index.NearValues(ctx, vector.Cases, project, vector.NearQuery{
			Vector: q.vector, Limit: q.k + spareCases, MinSimilarity: -1,
		}, "case_id")
		if err != nil {
			return nil, err
		}
		for _, m := range cases {
			if !seen[m.Values[0]] {
				neighbors = append(neighbors, relevance.Neighbor{Case: m.Values[0], Similarity: m.Similarity})
			}
		}
	}
	known, ranked := a.rank(project, q, neighbors)
	resp := &recallv1.RecallResponse{Known: known}
	if known < q.minRelevance || len(ranked) == 0 {
		return resp, nil
	}
	least := minShare * q.minRelevance * ranked[0].Relevance
	ranked = slices.DeleteFunc(ranked, func(r relevance.Ranked) bool {
		return r.Similarity < q.minSimilarity || r.Relevance < least
	})
	with.prefer(ranked, q.metadata)
	ranked = ranked[:min(len(ranked), q.k+spareCases)]
	f := &filling{api: a, project: project, q: q, with: with, at: map[string]*recallv1.Guidance{}, resp: resp}
	// The spare ones are read only where some of the first are muted or merged.
	for n := min(len(ranked), q.k); n > 0 && len(resp.GetGuidance()) < q.k; n = len(ranked) {
		if err := f.add(ctx, ranked[:n]); err != nil {
			return nil, fmt.Errorf("read cases: %w", err)
		}
		ranked = ranked[n:]
	}
	resp.Positives, err = a.positives(ctx, project, q, slices.Collect(maps.Keys(f.at)))
	return resp, err
}

// neighborsOf are exchanges that are in a case, the first of their values.
func neighborsOf(exchanges []vector.ValueMatch) []relevance.Neighbor {
	neighbors := make([]relevance.Neighbor, 0, len(exchanges))
	for _, m := range exchanges {
		if m.Values[0] != "" {
			neighbors = append(neighbors, relevance.Neighbor{Case: m.Values[0], Similarity: m.Similarity})
		}
	}
	return neighbors
}

// filling puts ranked cases into an answer.
type filling struct {
	*api
	project string
	q       question
	with    seenWith
	at      map[string]*recallv1.Guidance // by case
	resp    *recallv1.RecallResponse
}

// add reads cases, and what was said of them.
func (f *filling) add(ctx context.Context, ranked []relevance.Ranked) error {
	var names []string
	for _, r := range ranked {
		names = append(names, r.Case)
	}
	var objects map[string]vector.Object
	var said map[string]saidOf
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		objects, err = f.index.Get(gctx, vector.Cases, f.project, uuids(f.project, names), false)
		return err
	})
	g.Go(func() (err error) {
		said, err = readSaid(gctx, f.index, f.project, names)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	var found []relevance.Ranked
	var cases []*casesv1.Case
	merged := false
	for _, r := range ranked {
		o, ok := objects[ids.UUID(f.project, r.Case)]
		if !ok {
			continue // an exchange is written before the case that it founds
		}
		c := &casesv1.Case{}
		if err := proto.Unmarshal(o.Payload, c); err != nil {
			return fmt.Errorf("decode case %s: %w", o.ID, err)
		}
		applyCuration(c, said[r.Case].curation)
		merged = merged || c.GetMergedInto() != ""
		found, cases = append(found, r), append(cases, c)
	}
	if merged {
		if err := f.followMerged(ctx, f.project, cases); err != nil {
			return err
		}
		names = names[:0]
		for _, c := range cases {
			names = append(names, c.GetCaseId())
		}
		var err error
		if said, err = readSaid(ctx, f.index, f.project, names); err != nil {
			return err
		}
	}
	for i, c := range cases {
		if !recallable(c.GetState()) {
			continue
		}
		if g := f.at[c.GetCaseId()]; g != nil { // another that was merged into it
			g.Relevance += found[i].Relevance
			continue
		}
		if len(f.resp.Guidance) == f.q.k {
			break
		}
		g := &recallv1.Guidance{
			Case: c, Similarity: found[i].Similarity, Relevance: found[i].Relevance,
			Differs: f.with.differs(found[i].Case, f.q.metadata), Patches: said[c.GetCaseId()].patches,
		}
		f.at[c.GetCaseId()] = g
		f.resp.Guidance = append(f.resp.Guidance, g)
	}
	return nil
}

// Embed gives the vectors of texts.
func (a *api) Embed(ctx context.Context, req *recallv1.EmbedRequest) (*recallv1.EmbedResponse, error) {
	if _, err := auth.Project(ctx); err != nil {
		return nil, err
	}
	if n := len(req.GetTexts()); n == 0 || n > maxEmbed {
		return nil, invalid("texts", fmt.Sprintf("%d of them, want 1 to %d", n, maxEmbed))
	}
	leave, err := a.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	vectors, err := a.embedder.Embed(ctx, req.GetTexts())
	if errors.Is(err, embedding.ErrTooLarge) {
		return nil, invalid("texts", err.Error())
	}
	if err != nil {
		return nil, a.fail(ctx, "embed", err)
	}
	resp := &recallv1.EmbedResponse{Model: a.embedder.Model()}
	for _, v := range vectors {
		resp.Vectors = append(resp.Vectors, &recallv1.Vector{Values: v})
	}
	return resp, nil
}

// enter waits for a free slot, at most the Recall timeout.
func (a *api) enter(ctx context.Context) (leave func(), err error) {
	timer := time.NewTimer(a.cfg.Timeout)
	defer timer.Stop()
	select {
	case a.slots <- struct{}{}:
		return func() { <-a.slots }, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil, status.Error(codes.ResourceExhausted, "too many calls at once: try again")
}

// fail makes an error a status. What the caller can do nothing about is
// logged, not told.
func (a *api) fail(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, what+": canceled")
	case errors.Is(err, vector.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		if !errors.Is(err, errOpen) { // said when it opened
			a.log.WarnContext(ctx, "call failed", "call", what, "error", err)
		}
		return status.Error(codes.Unavailable, what+": the semantic index does not answer: try again")
	}
	a.log.ErrorContext(ctx, "call failed", "call", what, "error", err)
	return status.Error(codes.Internal, what+": internal error")
}

func invalid(field, message string) error {
	s := status.New(codes.InvalidArgument, field+": "+message)
	detailed, err := s.WithDetails(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: field, Description: message},
	}})
	if err != nil {
		return s.Err()
	}
	return detailed.Err()
}
