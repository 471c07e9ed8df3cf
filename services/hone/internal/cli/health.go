package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// newHealthCommand is the health check of containers, whose image holds no
// other client.
func newHealthCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "health URL",
		Short:   "Succeed where a health or readiness URL does",
		Example: "  hone health http://127.0.0.1:9190/readyz",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := httpOK(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return nil
		},
	}
}
