package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/services/hone/internal/endpoints"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
)

type checkResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// doctorWait bounds each check.
const doctorWait = 3 * time.Second

func newDoctorCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check what this machine has and whether Hone answers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks := append(machineChecks(), g.runningChecks(cmd.Context())...)
			if g.json {
				if err := printJSON(cmd.OutOrStdout(), checks); err != nil {
					return err
				}
			} else {
				p := newPainter(cmd.OutOrStdout())
				for _, c := range checks {
					mark := p.paint("32", "ok  ")
					if !c.OK {
						mark = p.paint("31", "FAIL")
					}
					p.printf("%s  %-18s %s\n", mark, c.Name, c.Detail)
				}
			}
			if i := slices.IndexFunc(checks, func(c checkResult) bool { return !c.OK }); i >= 0 {
				return errors.New("not all is well: see the lines that say FAIL")
			}
			return nil
		},
	}
}

func check(name, good string, err error) checkResult {
	if err != nil {
		return checkResult{name, false, err.Error()}
	}
	return checkResult{name, true, good}
}

func machineChecks() []checkResult {
	var checks []checkResult
	for _, tool := range []string{"go", "npm", "python3", "make"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			err = fmt.Errorf("not found: it is needed by 'make setup', not to run Hone")
		}
		checks = append(checks, check(tool, path, err))
	}
	library := ".so"
	if runtime.GOOS == "darwin" {
		library = ".dylib"
	}
	cache := embedded.CacheDir()
	for _, pattern := range []string{"bin/weaviate-server*", "clickhouse/libchdb" + library, "onnxruntime/libonnxruntime*", "model/minilm/*"} {
		found, err := filepath.Glob(filepath.Join(cache, filepath.FromSlash(pattern)))
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("%s is missing in %s: run 'make setup'", pattern, cache)
		}
		good := ""
		if len(found) > 0 {
			good = found[0]
		}
		checks = append(checks, check(filepath.Dir(pattern), good, err))
	}
	return checks
}

func (g *global) runningChecks(ctx context.Context) []checkResult {
	e, err := endpoints.Read(g.dir)
	checks := []checkResult{check("hone up", "endpoints in "+g.dir, err)}
	if err != nil {
		return checks
	}
	checks = append(checks,
		check("collector", e.HTTP, httpOK(ctx, e.HTTP+"/readyz")),
		check("clickhouse", e.ClickHouseHTTP, httpOK(ctx, e.ClickHouseHTTP+"/ping")),
		check("weaviate", e.Weaviate, httpOK(ctx, e.Weaviate+"/v1/.well-known/ready")),
		check("kafka", e.Kafka, kafkaOK(ctx, e.Kafka)))
	conn, err := dial(e)
	if err != nil {
		return append(checks, check("grpc", "", err))
	}
	defer conn.Close()
	calls := []struct {
		name string
		call func(context.Context) error
	}{
		{"enricher", func(ctx context.Context) error {
			_, err := trailv1.NewTrailServiceClient(conn).GetSession(ctx, &trailv1.GetSessionRequest{SessionId: "hone-doctor"})
			return err
		}},
		{"embedder", func(ctx context.Context) error {
			_, err := casesv1.NewCaseServiceClient(conn).ListCases(ctx, &casesv1.ListCasesRequest{Limit: 1})
			return err
		}},
		{"router", func(ctx context.Context) error {
			_, err := policyv1.NewPolicyServiceClient(conn).GetPolicy(ctx, &policyv1.GetPolicyRequest{})
			return err
		}},
		{"curator", func(ctx context.Context) error {
			_, err := curationv1.NewReviewServiceClient(conn).ListReviews(ctx, &curationv1.ListReviewsRequest{Limit: 1})
			return err
		}},
	}
	for _, c := range calls {
		cctx, cancel := context.WithTimeout(ctx, doctorWait)
		start := time.Now()
		err := c.call(cctx)
		cancel()
		if status.Code(err) == codes.NotFound {
			err = nil // it answered
		}
		checks = append(checks, check(c.name, "answered in "+time.Since(start).Round(100*time.Microsecond).String(), err))
	}
	return checks
}

func httpOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, doctorWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // the status alone will do
		return fmt.Errorf("%s answered %s %s", url, resp.Status, text)
	}
	return nil
}

// kafkaOK asks for the metadata of the events topic.
func kafkaOK(ctx context.Context, addr string) error {
	client := &kafka.Client{Addr: kafka.TCP(addr), Timeout: doctorWait}
	resp, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{stream.TopicEvents}})
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		if t.Error != nil {
			return fmt.Errorf("topic %s: %w", t.Name, t.Error)
		}
	}
	return nil
}
