package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/honeloop/hone/pkg/auth"
)

func newKeysCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Keys of projects",
		Long: `Keys of projects. The keys file holds only hashes; a key is shown once, when it is made.
Services read the file when they start.`,
	}
	var file string
	cmd.PersistentFlags().StringVar(&file, "file", "", "keys file (default keys.yaml in --dir)")
	path := func() string {
		if file != "" {
			return file
		}
		return filepath.Join(g.dir, "keys.yaml")
	}
	cmd.AddCommand(newKeysCreate(g, path), newKeysList(g, path), newKeysRevoke(g, path))
	return cmd
}

func newKeysCreate(g *global, path func() string) *cobra.Command {
	var project, kind string
	var origins []string
	var ifNone bool
	var rate float64
	cmd := &cobra.Command{
		Use: "create", Short: "Make a key and show it once", Args: cobra.NoArgs,
		Example: `  hone keys create --project default --kind secret
  hone keys create --project shop --kind publishable --origin https://shop.example --rate 200`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := readKeys(path())
			if err != nil {
				return err
			}
			for _, k := range keys {
				if ifNone && k.ProjectID == project && k.Kind == auth.Kind(kind) {
					fmt.Fprintf(cmd.ErrOrStderr(), "project %s has a %s key already: %s\n", project, kind, k.ID)
					return nil
				}
			}
			if rate < 0 || math.IsNaN(rate) {
				return fmt.Errorf("--rate %g: want at least 0 events a second", rate)
			}
			key, secret, err := auth.Mint(project, auth.Kind(kind))
			if err != nil {
				return err
			}
			key.Origins, key.Rate = origins, rate
			if err := auth.WriteKeys(path(), append(keys, key)); err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"id": key.ID, "project_id": project, "kind": kind, "key": secret})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n", secret)
			fmt.Fprintf(cmd.ErrOrStderr(), "%s key of project %s. It is not shown again.\n", kind, project)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&project, "project", "default", "project that the key belongs to")
	f.StringVar(&kind, "kind", string(auth.Secret), "secret or publishable")
	f.StringSliceVar(&origins, "origin", nil, "origin that a publishable key may be used from (repeatable)")
	f.Float64Var(&rate, "rate", 0, "events a second that it may send to one collector (0: what keys of its kind may)")
	f.BoolVar(&ifNone, "if-none", false, "do nothing where the project has such a key")
	return cmd
}

func newKeysList(g *global, path func() string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List keys, without what is secret", Args: cobra.NoArgs,
		Example: "  hone keys list\n  hone keys list --file /etc/hone/keys.yaml --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := readKeys(path())
			if err != nil {
				return err
			}
			if g.json {
				out := make([]map[string]any, 0, len(keys))
				for _, k := range keys {
					out = append(out, map[string]any{"id": k.ID, "project_id": k.ProjectID, "kind": k.Kind, "origins": k.Origins, "rate": k.Rate})
				}
				return printJSON(cmd.OutOrStdout(), out)
			}
			var rows [][]string
			for _, k := range keys {
				rate := ""
				if k.Rate > 0 {
					rate = strconv.FormatFloat(k.Rate, 'g', -1, 64)
				}
				rows = append(rows, []string{k.ID, k.ProjectID, string(k.Kind), rate, strings.Join(k.Origins, " ")})
			}
			return table(cmd.OutOrStdout(), []string{"id", "project", "kind", "rate", "origins"}, rows)
		},
	}
}

func newKeysRevoke(g *global, path func() string) *cobra.Command {
	return &cobra.Command{
		Use: "revoke KEYID", Short: "Remove a key", Args: cobra.ExactArgs(1),
		Long: `Remove a key. KEYID is its name in 'hone keys list', such as hs_0123abcd, not the key
itself. Services that run take the change within 2 s (twice server.files_reload).`,
		Example: `  hone keys revoke hs_0123abcd
  hone keys revoke hp_89abcdef --file /etc/hone/keys.yaml --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := readKeys(path())
			if err != nil {
				return err
			}
			id := args[0]
			i := slices.IndexFunc(keys, func(k auth.Key) bool { return k.ID == id })
			if i < 0 {
				return fmt.Errorf("no key %q in %s: 'hone keys list' names them", oneLine(id, 12), path())
			}
			if n := slices.IndexFunc(keys[i+1:], func(k auth.Key) bool { return k.ID == id }); n >= 0 {
				return fmt.Errorf("two keys in %s have the id %s: remove the one that is meant from the file", path(), id)
			}
			key := keys[i]
			if err := auth.WriteKeys(path(), slices.Delete(keys, i, i+1)); err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"id": key.ID, "project_id": key.ProjectID, "kind": key.Kind, "revoked": true})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "revoked %s, a %s key of project %s\n", key.ID, key.Kind, key.ProjectID)
			return nil
		},
	}
}

// readKeys reads the stored keys; none where there is no file.
func readKeys(path string) ([]auth.Key, error) {
	keys, err := auth.ReadKeys(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return keys.List(), nil
}
