package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/honeloop/hone/services/hone/internal/endpoints"
)

func newEnvCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Print address and key of the running Hone as shell variables",
		Example: `  eval "$(hone env)"
  curl -s $HONE_URL/v1/recall -H "Authorization: Bearer $HONE_KEY" -d '{"query": "Where is my parcel?"}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := endpoints.Read(g.dir)
			if err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), e)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "export HONE_URL=%s\nexport HONE_KEY=%s\n", e.HTTP, e.SecretKey)
			return err
		},
	}
}
