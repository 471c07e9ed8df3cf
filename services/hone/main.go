// Command hone is all of Hone: the services, the standalone mode and the
// operator's command line.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/services/hone/internal/cli"
)

func main() {
	embedded.Main() // a child of `hone up` ends here
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := cli.New().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hone:", err)
		os.Exit(1)
	}
}
