// Command gazetteer writes redact/names.bin: hashes of the words in the names of
// people, places and streets that the Python package Faker has for its locales
// (MIT License, Copyright (c) 2012 Daniele Faraglia).
package main

import (
	"archive/zip"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
	"unicode"

	"github.com/honeloop/hone/services/enricher/internal/redact"
)

func main() {
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: gazetteer FAKER.whl FILE\n\nGet the wheel with: pip download --no-deps faker==40.63.0")
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, "gazetteer:", err)
		os.Exit(1)
	}
}

// A class attribute that holds words, by the provider it stands in.
var attributes = map[string]map[redact.NameList]*regexp.Regexp{
	"person": {
		redact.FirstNames: regexp.MustCompile(`^(first|middle)_names?`),
		redact.LastNames:  regexp.MustCompile(`^last_names?`),
	},
	"address": {
		redact.Cities:  regexp.MustCompile(`^(city|cities|city_names?|towns?|villages?|municipalities|states?|provinces?|count(y|ies)|districts?|regions?)$`),
		redact.Streets: regexp.MustCompile(`^street_(suffix|prefix|title)`),
	},
}

var (
	begin   = regexp.MustCompile(`^ {4}(\w+)\b[^=]*= *(?:OrderedDict\()?[(\[{]`)
	end     = regexp.MustCompile(`^ {0,4}[)\]}]`)
	literal = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'`)
)

func run(wheel, file string) error {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("open wheel: %w", err)
	}
	defer z.Close()
	var names redact.Names
	for _, f := range z.File {
		provider, ok := strings.CutPrefix(path.Dir(path.Dir(f.Name)), "faker/providers/")
		if !ok || attributes[provider] == nil || path.Base(f.Name) != "__init__.py" {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return fmt.Errorf("open %s: %w", f.Name, err)
		}
		source, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name, err)
		}
		read(string(source), attributes[provider], &names)
	}
	return os.WriteFile(file, names[:], 0o644) //nolint:gosec // it is committed, for all to read
}

// read adds the words of string literals in the attributes of a provider's class.
func read(source string, lists map[redact.NameList]*regexp.Regexp, to *redact.Names) {
	var in []redact.NameList
	for line := range strings.Lines(source) {
		if m := begin.FindStringSubmatch(line); m != nil {
			in = nil
			for list, attribute := range lists {
				if attribute.MatchString(m[1]) {
					in = append(in, list)
				}
			}
		} else if end.MatchString(line) {
			in = nil
			continue
		}
		if len(in) == 0 || strings.Contains(line, "{{") {
			continue
		}
		for _, m := range literal.FindAllStringSubmatch(line, -1) {
			for _, w := range strings.FieldsFunc(m[1]+m[2], func(r rune) bool { return !unicode.IsLetter(r) }) {
				if len(w) < 2 {
					continue
				}
				for _, list := range in {
					to.Add(list, w)
				}
			}
		}
	}
}
