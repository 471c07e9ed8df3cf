package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/honeloop/hone/pkg/clickhouse"

	"github.com/honeloop/hone/services/hone/internal/endpoints"
)

func newSQLCommand(g *global) *cobra.Command {
	var format, file string
	var given map[string]string
	cmd := &cobra.Command{
		Use:   "sql [QUERY]",
		Short: "Ask ClickHouse",
		Long: `Ask ClickHouse. The views are hone.events, hone.signals, hone.cases and hone.decisions;
'hone sql "DESCRIBE hone.signals"' says what is in their columns.`,
		Example: `  hone sql "SELECT type, count() FROM hone.events GROUP BY type"
  hone sql "SELECT category, count() AS n FROM hone.signals WHERE polarity = 'negative' GROUP BY category ORDER BY n DESC"
  hone sql --file deploy/queries/03_open_cases.sql
  hone sql --file deploy/queries/07_silent_failures.sql --param days=7 --param likely=0.8
  hone sql --json "SELECT * FROM hone.cases" | jq .title`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := strings.Join(args, "")
			if file != "" {
				data, err := os.ReadFile(file)
				if err != nil {
					return fmt.Errorf("read query: %w", err)
				}
				query = string(data)
			}
			if strings.TrimSpace(query) == "" {
				return errors.New("no query: give one, or name a file with --file")
			}
			e, err := endpoints.Read(g.dir)
			if err != nil {
				return err
			}
			switch {
			case format != "":
			case g.json:
				format = "JSONEachRow"
			case isTerminal(cmd.OutOrStdout()):
				format = "PrettyCompact"
			default:
				format = "PrettyCompactNoEscapes"
			}
			params := map[string]string{}
			for _, p := range clickhouse.Parameters(query) {
				params[p.Name] = p.Default
			}
			maps.Copy(params, given)
			return queryClickHouse(cmd.Context(), e, query, params, format, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "any ClickHouse format, such as CSVWithNames or Vertical")
	cmd.Flags().StringVar(&file, "file", "", "file that holds the query; its comments may give parameters a default")
	cmd.Flags().StringToStringVar(&given, "param", nil, "a parameter of the query, name=value; in the query it is {name:Type}")
	return cmd
}

// queryClickHouse writes the answer of a query in a ClickHouse format.
func queryClickHouse(ctx context.Context, e endpoints.Endpoints, query string, params map[string]string, format string, w io.Writer) error {
	values := url.Values{"database": {"hone"}, "default_format": {format}}
	for name, value := range params {
		values.Set("param_"+name, value)
	}
	u := e.ClickHouseHTTP + "/?" + values.Encode()
	query = strings.TrimRight(strings.TrimSpace(query), ";")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, strings.NewReader(query))
	if err != nil {
		return fmt.Errorf("ask ClickHouse: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask ClickHouse: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return fmt.Errorf("read ClickHouse's answer: %w", err)
		}
		return fmt.Errorf("ClickHouse: %s", strings.TrimSpace(string(text)))
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("read ClickHouse's answer: %w", err)
	}
	return nil
}
