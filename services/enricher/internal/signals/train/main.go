// Command train measures the model of dissatisfaction on rated sessions, and
// writes its weights where it is told to.
//
//	go run ./enricher/internal/signals/train -data ../../shared/data [-write enricher/internal/derive/weights.json] [-embedding minilm]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/telemetry"

	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/enrich"
	"github.com/honeloop/hone/services/enricher/internal/signals"
	"github.com/honeloop/hone/services/enricher/internal/trends/stats"
)

func main() {
	data := flag.String("data", filepath.Join("..", "..", "shared", "data"), "folder with iflm")
	write := flag.String("write", "", "file to write the weights to")
	provider := flag.String("embedding", embedding.ProviderHash, "model that compares questions: hash or minilm")
	flag.Parse()
	if err := run(*data, *write, *provider); err != nil {
		slog.Error("training failed", "error", err)
		os.Exit(1)
	}
}

func run(data, write, provider string) error {
	cfg := embedding.DefaultConfig()
	cfg.Provider = provider
	model, err := embedding.New(cfg, telemetry.Discard())
	if err != nil {
		return fmt.Errorf("open embedding model: %w", err)
	}
	defer model.Close()
	meaning := enrich.NewMeaning(model)
	rules, err := derive.NewRules(projects.DefaultSignals(), meaning.Similarity)
	if err != nil {
		return err
	}
	sessions, err := signals.IFLM(filepath.Join(data, "iflm"))
	if err != nil {
		return err
	}
	examples := signals.Examples(sessions, rules)
	if err := meaning.Err(); err != nil {
		return err
	}
	report(sessions, examples, model.Model())
	if write == "" {
		return nil
	}
	m := signals.Train(examples)
	m.Trained = fmt.Sprintf("on iflm: %d rated answers, dissatisfied below 4 of 5 stars; explicit feedback by decision", len(examples))
	out, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode weights: %w", err)
	}
	if err := os.WriteFile(write, append(out, '\n'), 0o644); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	return nil
}

func report(sessions []signals.Session, examples []signals.Example, model string) {
	persons, bad := map[string]bool{}, 0
	for _, e := range examples {
		persons[e.Person] = true
		if e.Dissatisfied {
			bad++
		}
	}
	rate := float64(bad) / float64(len(examples))
	fmt.Printf("iflm: %d sessions of %d persons, %d rated answers, of which %d dissatisfied (below 4 of 5 stars): %.1f %%\n", len(sessions), len(persons), len(examples), bad, 100*rate)
	fmt.Printf("Only implicit evidence is used. Predictions are by a model that never saw the person; questions compared with %s.\n\n", model)

	p := signals.CrossValidate(examples)
	plain := make([]signals.Prediction, len(p))
	for i, x := range p {
		plain[i] = signals.Prediction{Example: x.Example, Probability: rate, Fold: x.Fold}
	}
	bins := signals.Reliability(p, 8)
	low, high := signals.AUCInterval(p)
	fmt.Printf("%-28s %6s %-16s %7s %7s\n", "", "AUC", "(95 %)", "Brier", "ECE")
	fmt.Printf("%-28s %6.3f %.3f to %.3f   %7.4f %7.4f\n", "model", signals.AUC(p), low, high, signals.Brier(p), signals.ECE(bins))
	fmt.Printf("%-28s %6.3f %-16s %7.4f %7.4f\n\n", "yardstick: the plain rate", signals.AUC(plain), "", signals.Brier(plain), 0.0)

	fmt.Printf("Reliability   %5s %10s %12s  %s\n", "n", "predicted", "dissatisfied", "95 %")
	for _, b := range bins {
		i := stats.Wilson(float64(b.Dissatisfied), float64(b.N))
		fmt.Printf("              %5d %10.3f %12.3f  %.3f to %.3f\n", b.N, b.Predicted, b.Rate(), i.Low, i.High)
	}

	m := signals.Train(examples)
	fmt.Printf("\n%-18s %6s %13s  %-15s %7s\n", "feature", "seen", "dissatisfied", "95 %", "weight")
	for _, name := range derive.Features() {
		n, k := 0, 0
		for _, e := range examples {
			if e.Features[name] != 0 {
				n++
				if e.Dissatisfied {
					k++
				}
			}
		}
		share, interval := "-", "not in the data"
		if n > 0 {
			i := stats.Wilson(float64(k), float64(n))
			share, interval = fmt.Sprintf("%.3f", float64(k)/float64(n)), fmt.Sprintf("%.3f to %.3f", i.Low, i.High)
		}
		fmt.Printf("%-18s %6d %13s  %-15s %7.2f\n", name, n, share, interval, m.Weights[name])
	}
	fmt.Println("\nWhat is not in the data has the weight that it began with. Explicit feedback is\nweighted by decision, since ratings are the labels; copies are left out, since the study told people to copy.")
}
