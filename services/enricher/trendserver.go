package enricher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/alerts"
	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/config"
	trendsv1 "github.com/honeloop/hone/proto/gen/go/hone/trends/v1"

	"github.com/honeloop/hone/services/enricher/internal/alerting"
	"github.com/honeloop/hone/services/enricher/internal/trends"
)

// trendServer counts in the store.
type trendServer struct {
	trendsv1.UnimplementedTrendServiceServer
	store  *trends.Store
	alerts *alerting.Store
	log    *slog.Logger
}

const (
	defaultSpan      = 30 * 24 * time.Hour
	maxFilters       = 20
	maxSlices        = 10
	defaultSeries    = 10
	maxSeries        = 50
	defaultDiscovery = 0.05
	defaultAlerts    = 50
	maxAlerts        = 1000
)

// GetTrends implements TrendService.
func (s *trendServer) GetTrends(ctx context.Context, req *trendsv1.GetTrendsRequest) (*trendsv1.GetTrendsResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	q := trends.Query{Project: project, Metric: metric(req.Metric), Bucket: trends.Bucket(req.Bucket),
		By: trends.Dimension(req.By), Stratum: trends.Dimension(req.ReweightBy), Limit: int(req.Limit)}
	var errs []error
	q.From, q.To, err = span(req.From, req.To, now)
	errs = append(errs, err, config.At("metric", q.Metric.Validate()))
	q.Filter, err = conditions(req.Filter)
	errs = append(errs, err)
	if q.By != "" {
		errs = append(errs, config.At("by", q.By.Validate()))
	}
	if q.Stratum != "" {
		errs = append(errs, config.At("reweight_by", q.Stratum.Validate()))
	}
	switch q.Bucket {
	case trends.Hour, trends.Day, trends.Week, trends.Month:
	case "":
		q.Bucket = trends.Fitting(q.To.Sub(q.From))
	default:
		errs = append(errs, fmt.Errorf("bucket: %q, want hour, day, week or month", req.Bucket))
	}
	switch {
	case q.Limit == 0:
		q.Limit = defaultSeries
	case q.Limit > maxSeries:
		errs = append(errs, fmt.Errorf("limit: %d, want at most %d", q.Limit, maxSeries))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if _, err := q.Bucket.Starts(q.From, q.To); err != nil {
		return nil, status.Error(codes.InvalidArgument, config.At("bucket", err).Error())
	}
	series, err := s.store.Trends(ctx, q, now)
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	return &trendsv1.GetTrendsResponse{Metric: string(q.Metric), By: req.By, Bucket: string(q.Bucket),
		From: timestamppb.New(q.From), To: timestamppb.New(q.To), Series: series}, nil
}

// CompareTrends implements TrendService.
func (s *trendServer) CompareTrends(ctx context.Context, req *trendsv1.CompareTrendsRequest) (*trendsv1.CompareTrendsResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	q := trends.Query{Project: project, Metric: metric(req.Metric), By: trends.Dimension(req.By)}
	var errs []error
	q.From, q.To, err = span(req.From, req.To, time.Now())
	errs = append(errs, err, config.At("metric", q.Metric.Validate()), config.At("by", q.By.Validate()))
	q.Filter, err = conditions(req.Filter)
	errs = append(errs, err)
	if req.A == req.B {
		errs = append(errs, errors.New("a, b: want two values of the dimension"))
	}
	if len(req.Slices) > maxSlices {
		errs = append(errs, fmt.Errorf("slices: %d, want at most %d", len(req.Slices), maxSlices))
	}
	slices := req.Slices
	if len(slices) == 0 {
		slices = []string{"user_role", "environment", "language", "model", "prompt_version"}
	}
	var within []trends.Dimension
	for i, name := range slices {
		d := trends.Dimension(name)
		errs = append(errs, config.At(fmt.Sprintf("slices[%d]", i), d.Validate()))
		if d != q.By {
			within = append(within, d)
		}
	}
	fdr := defaultDiscovery
	if req.FalseDiscoveryRate != nil {
		fdr = *req.FalseDiscoveryRate
	}
	if !(fdr > 0 && fdr <= 0.5) {
		errs = append(errs, fmt.Errorf("false_discovery_rate: %g, want over 0 and at most 0.5", fdr))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	comparisons, small, err := s.store.Compare(ctx, q, req.A, req.B, within, fdr)
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	return &trendsv1.CompareTrendsResponse{Metric: string(q.Metric), From: timestamppb.New(q.From), To: timestamppb.New(q.To),
		FalseDiscoveryRate: fdr, Comparisons: comparisons, TooSmall: small}, nil
}

// ListAlerts implements TrendService.
func (s *trendServer) ListAlerts(ctx context.Context, req *trendsv1.ListAlertsRequest) (*trendsv1.ListAlertsResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	if req.State != "" && req.State != alerts.Open && req.State != alerts.Resolved {
		return nil, status.Errorf(codes.InvalidArgument, "state: %q, want open, resolved, or nothing", req.State)
	}
	limit := int(req.Limit)
	switch {
	case limit == 0:
		limit = defaultAlerts
	case limit > maxAlerts:
		return nil, status.Errorf(codes.InvalidArgument, "limit: %d, want at most %d", limit, maxAlerts)
	}
	list, err := s.alerts.List(ctx, project, req.State, limit)
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	return &trendsv1.ListAlertsResponse{Alerts: list}, nil
}

// failed hides the store's error from the caller and shows it to the operator.
func (s *trendServer) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, trends.ErrTooLarge):
		return status.Error(codes.ResourceExhausted, "too much to read within the limits: take a shorter time, or a filter")
	}
	s.log.Error("trends could not be counted", "error", err)
	return status.Error(codes.Unavailable, "trends cannot be counted right now: try again in a moment")
}

func metric(name string) trends.Metric {
	if name == "" {
		return trends.Satisfaction
	}
	return trends.Metric(name)
}

// span is the time of a request, in milliseconds as the store keeps it.
func span(from, to *timestamppb.Timestamp, now time.Time) (time.Time, time.Time, error) {
	end := now.UTC().Truncate(time.Millisecond)
	if to != nil {
		if to.CheckValid() != nil {
			return time.Time{}, time.Time{}, errors.New("to: no valid time")
		}
		end = to.AsTime().Truncate(time.Millisecond)
	}
	start := end.Add(-defaultSpan)
	if from != nil {
		if from.CheckValid() != nil {
			return time.Time{}, time.Time{}, errors.New("from: no valid time")
		}
		start = from.AsTime().Truncate(time.Millisecond)
	}
	if start.Before(time.Unix(0, 0)) || end.Year() > 2100 {
		return time.Time{}, time.Time{}, errors.New("from, to: want times from 1970 to 2100")
	}
	if !start.Before(end) {
		return time.Time{}, time.Time{}, errors.New("from: must be before to")
	}
	return start, end, nil
}

func conditions(filter []string) ([]trends.Condition, error) {
	if len(filter) > maxFilters {
		return nil, fmt.Errorf("filter: %d conditions, want at most %d", len(filter), maxFilters)
	}
	var out []trends.Condition
	var errs []error
	for i, f := range filter {
		c, err := trends.ParseCondition(f)
		errs = append(errs, config.At(fmt.Sprintf("filter[%d]", i), err))
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}
