// Package cli is the command line of Hone.
package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
)

// global are the flags that every command has.
type global struct {
	dir  string
	json bool
}

// New is the command tree.
func New() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "hone",
		Short: "Hone turns what people do with an LLM's answers into better answers",
		Long: `Hone takes in feedback on an LLM's answers, ties it to the session that caused it,
finds the known problem that it belongs to, and acts on it.

Start everything on this machine with 'hone up', then try 'hone demo'.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&g.dir, "dir", defaultDir(), "directory of the running Hone (HONE_DIR)")
	root.PersistentFlags().BoolVar(&g.json, "json", false, "print JSON, for scripts")
	add := func(title string, commands ...*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: title, Title: title + ":"})
		for _, c := range commands {
			c.GroupID = title
		}
		root.AddCommand(commands...)
	}
	add("One machine", newUpCommand(g), newEnvCommand(g), newDemoCommand(g), newBenchCommand(g), newDoctorCommand(g))
	add("Data in", newSendCommand(g), newImportCommand(g))
	add("What is known", newTrailCommand(g), newOriginalsCommand(g), newTrendsCommand(g), newAlertsCommand(g), newRecallCommand(g), newCaseCommand(g), newSQLCommand(g), newEraseCommand(g))
	add("What is done about it", newPolicyCommand(g), newReviewCommand(g), newDatasetCommand(g), newPatchCommand(g))
	add("Operation", newKeysCommand(g), newTopicCommand(g), newDLQCommand(g), newReplayCommand(g), newReindexCommand(g), newMigrateCommand(), newHealthCommand())
	add("Services", newServiceCommands()...)
	return root
}

func defaultDir() string {
	if dir := os.Getenv("HONE_DIR"); dir != "" {
		return dir
	}
	return ".hone"
}

// dial connects to the gRPC API with the secret key.
func (g *global) dial() (*grpc.ClientConn, error) {
	e, err := endpoints.Read(g.dir)
	if err != nil {
		return nil, err
	}
	return dial(e)
}

// connected is a command that calls the gRPC API of the running Hone.
func (g *global) connected(run func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		conn, err := g.dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		return run(cmd, args, conn)
	}
}

func dial(e endpoints.Endpoints) (*grpc.ClientConn, error) {
	authorize := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+e.SecretKey)
	}
	conn, err := grpc.NewClient(e.GRPC,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return next(authorize(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return next(authorize(ctx), desc, cc, method, opts...)
		}))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e.GRPC, err)
	}
	return conn, nil
}

// kafka is how commands reach the broker.
func (g *global) kafka() (stream.Config, error) {
	e, err := endpoints.Read(g.dir)
	if err != nil {
		return stream.Config{}, err
	}
	cfg := stream.DefaultConfig()
	cfg.Brokers = []string{e.Kafka}
	return cfg, nil
}

var jsonOptions = protojson.MarshalOptions{UseProtoNames: true, Multiline: true, Indent: "  "}

// printMessage prints a message as JSON.
func printMessage(w io.Writer, m proto.Message) error {
	data, err := jsonOptions.Marshal(m)
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", data)
	return err
}

// printJSON prints a value as JSON.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// isTerminal says whether w shows colors and moving progress.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is the number of columns of w; 100 where it is no terminal.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns >= 40 {
			return min(columns, 140)
		}
	}
	return 100
}
