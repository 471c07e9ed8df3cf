package gateway

import (
	"slices"
	"strings"
	"testing"

	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
)

func TestTemplatesMatchPaths(t *testing.T) {
	review := (&curationv1.DecideReviewRequest{}).ProtoReflect().Descriptor()
	session := (&trailv1.GetSessionRequest{}).ProtoReflect().Descriptor()
	for _, test := range []struct {
		template, path string
		want           []string // nil for no match
	}{
		{"/v1/reviews", "/v1/reviews", []string{}},
		{"/v1/reviews", "/v1/reviews/", nil},
		{"/v1/reviews", "/v1/reviewsx", nil},
		{"/v1/reviews", "/x/v1/reviews", nil},
		{"/v1/reviews/{review_id}", "/v1/reviews/r%2F1", []string{"r%2F1"}},
		{"/v1/reviews/{review_id}", "/v1/reviews/r/1", nil},
		{"/v1/reviews/{review_id}", "/v1/reviews/", nil},
		{"/v1/reviews/{review_id}:decide", "/v1/reviews/a:b:decide", []string{"a:b"}},
		{"/v1/reviews/{review_id}:decide", "/v1/reviews/a", nil},
		{"/v1/sessions/{session_id=**}", "/v1/sessions/a/b", []string{"a/b"}},
	} {
		in := review
		if strings.Contains(test.template, "session") {
			in = session
		}
		re, _, err := compile(test.template, in)
		if err != nil {
			t.Fatal(err)
		}
		groups := re.FindStringSubmatch(test.path)
		if (groups == nil) != (test.want == nil) || groups != nil && !slices.Equal(groups[1:], test.want) {
			t.Errorf("%s on %s: got %q, want %q", test.template, test.path, groups, test.want)
		}
	}
	for _, template := range []string{"/v1/{unknown}", "/v1/*", "/v1/{review_id=a/*}"} {
		if _, _, err := compile(template, review); err == nil {
			t.Errorf("%s is not supported, but there is no error", template)
		}
	}
}
