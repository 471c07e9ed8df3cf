package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
)

func newOriginalsCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "originals SESSION",
		Short: "Show what the placeholders of a session stand for",
		Long: `Show what the placeholders of a session stand for, where its project keeps that: privacy.keep_originals
in the projects file, and a key in the enricher's settings. Who looks is logged.`,
		Example: "  hone originals s-1\n  hone originals s-1 --json | jq '.originals[] | select(.type == \"email\")'",
		Args:    cobra.ExactArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			client := trailv1.NewTrailServiceClient(conn)
			all := &trailv1.ListOriginalsResponse{}
			for req := (&trailv1.ListOriginalsRequest{SessionId: args[0]}); ; {
				resp, err := client.ListOriginals(cmd.Context(), req)
				if err != nil {
					return explain(err)
				}
				all.Originals = append(all.Originals, resp.Originals...)
				if req.PageToken = resp.NextPageToken; req.PageToken == "" {
					break
				}
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), all)
			}
			if len(all.Originals) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "No original of this session is kept. A project keeps those of events that come after it set privacy.keep_originals.")
				return err
			}
			rows := make([][]string, len(all.Originals))
			for i, o := range all.Originals {
				value := oneLine(o.Value, 80)
				if o.Error != "" {
					value = "cannot be read with key " + o.KeyId + ": " + o.Error
				}
				rows[i] = []string{o.Placeholder, value, stamp(o.LastAt)}
			}
			return table(cmd.OutOrStdout(), []string{"PLACEHOLDER", "ORIGINAL", "LAST SAID"}, rows)
		}),
	}
}
