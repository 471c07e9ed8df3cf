package embedder

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

func TestGuidanceOfOtherCircumstancesComesLater(t *testing.T) {
	h := newHarness(t)
	under := func(model, plan string) func(*signalv1.Signal) {
		return func(s *signalv1.Signal) {
			s.Interaction.Model, s.Interaction.ModelVersion, s.Environment, s.Tags = "m", model, "production", map[string]string{"plan": plan}
			s.Interaction.PromptVersion, s.Interaction.Language = "", "en"
		}
	}
	h.send(signal("s1", negative, "0", under("v1", "free")), signal("s2", negative, "92", under("v2", "pro")))
	for _, tt := range []struct {
		name     string
		metadata *recallv1.RecallMetadata
		want     string
	}{
		{"none", nil, "0 [], 92 []"},
		{"the same", &recallv1.RecallMetadata{Model: "m", ModelVersion: "v1", Environment: "production", Language: "EN", Tags: map[string]string{"plan": "free"}},
			"0 [], 92 [model_version tags.plan]"},
		{"another version", &recallv1.RecallMetadata{ModelVersion: "v2"}, "92 [], 0 [model_version]"},
		{"a third version", &recallv1.RecallMetadata{ModelVersion: "v3"}, "0 [model_version], 92 [model_version]"},
		{"what signals do not say", &recallv1.RecallMetadata{PromptVersion: "p9", Tags: map[string]string{"region": "eu"}}, "0 [], 92 []"},
		{"a tag", &recallv1.RecallMetadata{Tags: map[string]string{"plan": "pro"}}, "92 [], 0 [tags.plan]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// 45 is a little nearer to 0 than to 92.
			none := 0.0
			r, err := h.api().Recall(as("p"), &recallv1.RecallRequest{Query: "45", Metadata: tt.metadata, MinRelevance: &none})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			differs := 0
			for _, g := range r.GetGuidance() {
				got = append(got, fmt.Sprint(g.GetCase().GetTitle(), " ", g.GetDiffers()))
				if len(g.GetDiffers()) > 0 {
					differs++
				}
			}
			if strings.Join(got, ", ") != tt.want || strings.Count(r.GetPromptBlock(), "Seen only with another") != differs {
				t.Errorf("got %v, want %s\n%s", got, tt.want, r.GetPromptBlock())
			}
		})
	}

	// One signal under the same circumstances is enough, if it is negative.
	for _, polarity := range []string{positive, negative} {
		h.send(signal("s-"+polarity, polarity, "1", under("v2", "pro")))
		r, err := h.api().Recall(as("p"), &recallv1.RecallRequest{Query: "0", K: 1, Metadata: &recallv1.RecallMetadata{ModelVersion: "v2"}})
		if err != nil || len(r.GetGuidance()) != 1 || len(r.GetGuidance()[0].GetDiffers()) > 0 != (polarity == positive) {
			t.Errorf("%s: %v, %v", polarity, r, err)
		}
	}

	many := map[string]string{}
	for i := range maxTags + 1 {
		many[fmt.Sprint(i)] = "x"
	}
	long := strings.Repeat("x", maxMetadata+1)
	for field, m := range map[string]*recallv1.RecallMetadata{
		"metadata.tags: 51": {Tags: many}, "metadata.tags: a name": {Tags: map[string]string{long: ""}}, "metadata.tags.a: 257": {Tags: map[string]string{"a": long}},
		"metadata.model_version": {ModelVersion: long},
	} {
		if _, err := h.api().Recall(as("p"), &recallv1.RecallRequest{Query: "0", Metadata: m}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
