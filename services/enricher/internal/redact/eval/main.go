// Command eval trains the tagger of package redact, and measures what the
// detectors and the tagger find of the personal data in presidio's texts.
package main

import (
	_ "embed"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/honeloop/hone/services/enricher/internal/redact"
	"github.com/honeloop/hone/services/enricher/internal/trends/stats"
	"github.com/honeloop/hone/services/internal/cputime"
)

const (
	folds  = 5
	epochs = 8
)

func main() {
	data := flag.String("data", "../shared/data", "the folder with presidio and banking77")
	negatives := flag.String("negatives", "services/enricher/internal/redact/testdata/hard_negatives.txt", "the hard negatives")
	train := flag.String("train", "", "train on everything and write the tagger to this file, in place of measuring")
	show := flag.Int("show", 0, "print this many mistakes")
	flag.Parse()
	if err := run(*data, *negatives, *train, *show); err != nil {
		fmt.Fprintln(os.Stderr, "eval-pii:", err)
		os.Exit(1)
	}
}

// text is one of presidio's: what it holds, by presidio's labels.
type text struct {
	redact.Example
	labels []string
	// What is held out together: the text, or all texts of its template.
	text, template uint64
}

// types says what presidio's labels are called here; the first is learned.
var types = map[string][]redact.Type{
	"PERSON": {redact.Name}, "STREET_ADDRESS": {redact.Address, redact.Place, redact.Country}, "ZIP_CODE": {redact.Address}, "GPE": {redact.Place, redact.Country, redact.Address},
	"ORGANIZATION": {redact.Organization}, "DATE_TIME": {redact.Date}, "TITLE": {redact.Title}, "PHONE_NUMBER": {redact.Phone}, "AGE": {redact.Age},
	"NRP": {redact.Nationality}, "EMAIL_ADDRESS": {redact.Email}, "CREDIT_CARD": {redact.Card}, "DOMAIN_NAME": {redact.URL}, "IBAN_CODE": {redact.IBAN},
	"US_SSN": {redact.NationalID}, "US_DRIVER_LICENSE": {redact.NationalID}, "IP_ADDRESS": {redact.IP},
}

func run(data, negatives, train string, show int) error {
	texts, err := readPresidio(filepath.Join(data, "presidio", "synth_dataset_v2.json"))
	if err != nil {
		return err
	}
	questions, err := readBanking(filepath.Join(data, "banking77", "train.csv"))
	if err != nil {
		return err
	}
	conversations, err := readConversations(filepath.Join(data, "open-assistant", "en_100_tree.jsonl"))
	if err != nil {
		return err
	}
	var taught, unseen []redact.Example
	for i, q := range questions {
		if i%2 == 0 {
			taught = append(taught, redact.Example{Text: q})
		} else {
			unseen = append(unseen, redact.Example{Text: q})
		}
	}
	// People who chat about the world name many, and few of those are theirs.
	var chats []string
	for i, c := range conversations {
		if i%2 == 0 {
			taught = append(taught, redact.Example{Text: c})
		} else {
			chats = append(chats, c)
		}
	}
	var plain []string
	for _, t := range taught {
		plain = append(plain, t.Text)
	}
	if train != "" {
		examples := taught
		for _, t := range texts {
			examples = append(examples, t.Example)
		}
		examples = append(examples, invented(texts)...)
		return os.WriteFile(train, redact.Train(examples, plain, epochs).Bytes(), 0o600)
	}

	hard, err := os.ReadFile(negatives)
	if err != nil {
		return err
	}
	hardTexts := strings.Split(strings.TrimSpace(string(hard)), "\n----\n")
	// learn trains without a fold.
	learn := func(fold uint64, group func(text) uint64) *redact.Tagger {
		examples := slices.Clone(taught)
		var known []text
		for _, t := range texts {
			if group(t)%folds != fold {
				known = append(known, t)
				examples = append(examples, t.Example)
			}
		}
		return redact.Train(append(examples, invented(known)...), plain, epochs)
	}
	false77, falseHard, inChats, chatBytes := 0, 0, 0, 0
	measure := func(group func(text) uint64, show *int) score {
		total := score{}
		for fold := range uint64(folds) {
			tagger := learn(fold, group)
			for _, t := range texts {
				if group(t)%folds == fold {
					total.add(t, tagger.Find(t.Text, redact.AllTypes), show)
				}
			}
		}
		return total
	}
	byText := measure(func(t text) uint64 { return t.text }, &show)
	none := 0
	byTemplate := measure(func(t text) uint64 { return t.template }, &none)
	tagger := learn(0, func(t text) uint64 { return t.text })
	for _, q := range unseen {
		false77 += len(tagger.Find(q.Text, byDefault))
	}
	for _, c := range chats {
		inChats += len(tagger.Find(c, byDefault))
		chatBytes += len(c)
	}
	var hits []string
	for _, h := range hardTexts {
		for _, s := range redact.Find(h, redact.AllTypes&^redact.SetOf(redact.URL, redact.Date)) {
			falseHard++
			hits = append(hits, s.Type.String()+" "+h[s.Start:s.End])
		}
	}

	fmt.Printf("Presidio: %d texts, each found in by a tagger that did not learn from it (%d folds).\n", len(texts), folds)
	fmt.Println("Rules, margins and our own templates were made by somebody who saw such figures: expect somewhat less elsewhere.")
	fmt.Println("found: a label whose letters and digits are all covered, by its own type. wrong: a span that is less than half within a label of its type.")
	fmt.Println("Addresses and places count as one type: an address holds a place.")
	fmt.Println("any type: labels that are covered, by whatever type. Intervals are Wilson's, 95 %.")
	fmt.Println()
	if err := byText.print(); err != nil {
		return err
	}
	fmt.Println("\nThe same, where the tagger learned from no text of the same template: wording that it never saw.")
	fmt.Println()
	if err := byTemplate.print(); err != nil {
		return err
	}
	fmt.Println()
	fmt.Printf("questions without personal data: %d spans of the types that are on by default in %d questions of BANKING77 that the tagger did not learn from\n", false77, len(unseen))
	fmt.Printf("conversations about the world: %d spans in %d trees (%d KB) of OpenAssistant that the tagger did not learn from; most are public names\n", inChats, len(chats), chatBytes/1000)
	fmt.Printf("hard negatives: %d spans in %d texts of code, logs and identifiers %v\n", falseHard, len(hardTexts), hits)
	speed(texts, hardTexts, unseen)
	return nil
}

var byDefault = redact.SetOf(redact.Email, redact.Phone, redact.Card, redact.IBAN, redact.NationalID, redact.IP, redact.Secret, redact.Credentials, redact.Name, redact.Address, redact.Place)

type count struct{ labels, found, covered, spans, wrong int }

type score map[string]*count

func (s score) at(name string) *count {
	if s[name] == nil {
		s[name] = &count{}
	}
	return s[name]
}

func (s score) add(t text, spans []redact.Span, show *int) {
	mistake := func(kind, name, value string) {
		if *show > 0 {
			*show--
			fmt.Printf("%-7s %-16s %-40q in %.160q\n", kind, name, value, t.Text)
		}
	}
	for i, label := range t.Spans {
		name := t.labels[i]
		c := s.at(name)
		c.labels++
		if covered(t.Text, label, spans, types[name]) {
			c.found++
		} else {
			mistake("missed", name, t.Text[label.Start:label.End])
		}
		if covered(t.Text, label, spans, nil) {
			c.covered++
		}
	}
	for _, sp := range spans {
		best, within := nameOf(sp.Type), 0
		for i, label := range t.Spans {
			if !slices.Contains(types[t.labels[i]], sp.Type) {
				continue
			}
			if n := min(sp.End, label.End) - max(sp.Start, label.Start); n > 0 {
				if within == 0 {
					best = t.labels[i]
				}
				within += n
			}
		}
		c := s.at(best)
		c.spans++
		if 2*within < sp.End-sp.Start {
			c.wrong++
			mistake("wrong", sp.Type.String(), t.Text[sp.Start:sp.End])
		}
	}
}

// nameOf is presidio's label for a type, where a wrong span is counted.
func nameOf(t redact.Type) string {
	switch t {
	case redact.Address:
		return "STREET_ADDRESS"
	case redact.Place, redact.Country:
		return "GPE"
	case redact.NationalID:
		return "US_SSN"
	}
	for name, ts := range types {
		if slices.Contains(ts, t) {
			return name
		}
	}
	return strings.ToUpper(t.String())
}

// covered says whether spans of the types, or of any, cover all letters and
// digits of a label.
func covered(text string, label redact.Span, spans []redact.Span, of []redact.Type) bool {
	for i, r := range text[label.Start:label.End] {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			continue
		}
		at := label.Start + i
		if !slices.ContainsFunc(spans, func(s redact.Span) bool {
			return s.Start <= at && at < s.End && (of == nil || slices.Contains(of, s.Type))
		}) {
			return false
		}
	}
	return true
}

func (s score) print() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "type\tlabels\tfound\tmissed\twrong\trecall\t95 %\tprecision\t95 %\tany type\t")
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return s[b].labels - s[a].labels })
	var all, on count
	line := func(name string, c count) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%.3f\t\n", name, c.labels, c.found, c.labels-c.found, c.wrong,
			share(c.found, c.labels), share(c.spans-c.wrong, c.spans), float64(c.covered)/float64(max(c.labels, 1)))
	}
	for _, name := range names {
		c := *s[name]
		for _, sum := range []*count{&all, &on} {
			if sum == &on && (len(types[name]) == 0 || !byDefault.Has(types[name][0])) {
				continue
			}
			sum.labels += c.labels
			sum.found += c.found
			sum.covered += c.covered
			sum.spans += c.spans
			sum.wrong += c.wrong
		}
		line(name, c)
	}
	line("on by default", on)
	line("all types", all)
	return w.Flush()
}

// share is k of n with its interval.
func share(k, n int) string {
	if n == 0 {
		return "-\t-"
	}
	i := stats.Wilson(float64(k), float64(n))
	return fmt.Sprintf("%.3f\t%.3f-%.3f", float64(k)/float64(n), i.Low, i.High)
}

// speed runs over each kind of text for half a second.
func speed(texts []text, hard []string, questions []redact.Example) {
	var presidio, asked []string
	for _, t := range texts {
		presidio = append(presidio, t.Text)
	}
	for _, q := range questions {
		asked = append(asked, q.Text)
	}
	for _, set := range []struct {
		name  string
		texts []string
	}{{"presidio", presidio}, {"questions", asked}, {"code and logs", hard}} {
		for _, types := range []struct {
			name string
			want redact.Types
		}{{"default types", byDefault}, {"without names, addresses, places", redact.SetOf(redact.Email, redact.Card, redact.IBAN, redact.IP, redact.Secret, redact.Credentials)}} {
			bytes, start := 0, cputime.Self()
			for cputime.Self()-start < time.Second/2 {
				for _, t := range set.texts {
					redact.Find(t, types.want)
					bytes += len(t)
				}
			}
			fmt.Printf("speed, %s, %s: %.1f MB per second of CPU time\n", set.name, types.name, float64(bytes)/1e6/(cputime.Self()-start).Seconds())
		}
	}
}

func readPresidio(path string) ([]text, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("presidio's texts are missing, want ../shared/data beside the checkout: %w", err)
	}
	var rows []struct {
		Text   string `json:"full_text"`
		Masked string `json:"masked"`
		Spans  []struct {
			Type  string `json:"entity_type"`
			Start int    `json:"start_position"`
			End   int    `json:"end_position"`
		} `json:"spans"`
		Template int `json:"template_id"`
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		return nil, fmt.Errorf("read presidio: %w", err)
	}
	// Templates that differ in their spaces, marks or digits alone are one.
	groups := map[int]uint64{}
	var out []text
	for _, r := range rows {
		at := offsets(r.Text)
		t := text{Example: redact.Example{Text: r.Text}}
		for _, s := range r.Spans {
			if len(types[s.Type]) == 0 || s.End >= len(at) {
				return nil, errors.New("presidio has a label that is not known: " + s.Type)
			}
			t.Spans = append(t.Spans, redact.Span{Start: at[s.Start], End: at[s.End], Type: types[s.Type][0]})
			t.labels = append(t.labels, s.Type)
		}
		if _, known := groups[r.Template]; !known {
			groups[r.Template] = letters(r.Masked)
		}
		t.template, t.text = groups[r.Template], letters(r.Text)
		out = append(out, t)
	}
	return out, nil
}

// letters is a hash of a text's letters, in lower case.
func letters(text string) uint64 {
	h := fnv.New64a()
	for _, c := range strings.ToLower(text) {
		if unicode.IsLetter(c) {
			_, _ = h.Write([]byte(string(c))) // it cannot fail
		}
	}
	return h.Sum64() >> 8
}

//go:embed templates.txt
var templates string

// copies is how often each template of our own is filled.
const copies = 8

// invented fills templates of our own with what stands in the texts, so that the
// tagger sees more ways to write than the texts have.
func invented(texts []text) []redact.Example {
	values := map[string][]string{}
	add := func(slot, value string) { values[slot] = append(values[slot], value) }
	for _, t := range texts {
		for i, sp := range t.Spans {
			value := t.Text[sp.Start:sp.End]
			switch t.labels[i] {
			case "PERSON":
				add("name", value)
			case "STREET_ADDRESS":
				switch {
				case strings.ContainsAny(value, ",\n"):
					add("address", value)
				case strings.HasPrefix(value, "Apt") || strings.HasPrefix(value, "Suite"):
					add("apt", value)
				case strings.ContainsFunc(value, unicode.IsLetter):
					add("street", value)
				}
			case "GPE":
				add("place", value)
				if redact.IsCountry(value) {
					add("country", value)
				} else {
					add("city", value)
				}
			case "ORGANIZATION":
				add("org", value)
			case "TITLE":
				if strings.HasSuffix(value, ".") {
					add("title", value)
				} else if value != "Miss" {
					add("jobtitle", value)
				}
			case "DATE_TIME":
				if len(value) == 4 {
					add("year", value)
				} else {
					add("date", value)
				}
			case "PHONE_NUMBER":
				add("phone", value)
			case "AGE":
				add("age", value)
			case "NRP":
				add("nationality", value)
			case "ZIP_CODE":
				add("zip", value)
			case "US_DRIVER_LICENSE":
				add("license", value)
			}
		}
	}
	slots := map[string]redact.Type{
		"name": redact.Name, "address": redact.Address, "apt": redact.Address, "street": redact.Address, "zip": redact.Address, "place": redact.Place,
		"country": redact.Place, "city": redact.Place, "org": redact.Organization, "title": redact.Title, "jobtitle": redact.Title, "year": redact.Date,
		"date": redact.Date, "phone": redact.Phone, "age": redact.Age, "nationality": redact.Nationality, "license": redact.NationalID,
	}
	random := rand.New(rand.NewPCG(1, 2))
	var out []redact.Example
	for template := range strings.Lines(templates) {
		template = strings.ReplaceAll(strings.TrimSpace(template), `\n`, "\n")
		for range copies {
			e := redact.Example{}
			rest := template
			for {
				before, after, found := strings.Cut(rest, "{")
				e.Text += before
				if !found {
					break
				}
				slot, tail, _ := strings.Cut(after, "}")
				rest = tail
				of := values[slot]
				if len(of) == 0 {
					continue
				}
				value := of[random.IntN(len(of))]
				e.Spans = append(e.Spans, redact.Span{Start: len(e.Text), End: len(e.Text) + len(value), Type: slots[slot]})
				e.Text += value
			}
			// People write without capitals too.
			if lower := strings.ToLower(e.Text); random.IntN(8) == 0 && len(lower) == len(e.Text) {
				e.Text = lower
			}
			out = append(out, e)
		}
	}
	return out
}

// offsets are the bytes at which the code points of s begin, and its length.
func offsets(s string) []int {
	var out []int
	for i := range s {
		out = append(out, i)
	}
	return append(out, len(s))
}

func readBanking(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("BANKING77 is missing, want ../shared/data beside the checkout: %w", err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read BANKING77: %w", err)
	}
	var out []string
	for _, r := range rows[1:] {
		out = append(out, r[0])
	}
	return out, nil
}

type message struct {
	Text    string    `json:"text"`
	Replies []message `json:"replies"`
}

// readConversations reads the messages of trees, each tree as one text.
func readConversations(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open-assistant is missing, want ../shared/data beside the checkout: %w", err)
	}
	var out []string
	var walk func(message)
	walk = func(m message) {
		out[len(out)-1] += m.Text + "\n\n"
		for _, r := range m.Replies {
			walk(r)
		}
	}
	for line := range strings.Lines(string(data)) {
		var tree struct {
			Prompt message `json:"prompt"`
		}
		if err := json.Unmarshal([]byte(line), &tree); err != nil {
			return nil, fmt.Errorf("read open-assistant: %w", err)
		}
		out = append(out, "")
		walk(tree.Prompt)
	}
	return out, nil
}
