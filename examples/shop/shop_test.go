package shop

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"
)

func collect(t *testing.T, o Options) ([]Event, Summary) {
	t.Helper()
	var got []Event
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hs_test" {
			t.Errorf("authorization %q", r.Header.Get("Authorization"))
		}
		var body struct{ Events []Event }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		got = append(got, body.Events...)
		w.Write([]byte(`{"rejected":0}`))
	}))
	defer srv.Close()
	sum, err := Simulate(context.Background(), Hone{srv.URL, "hs_test", srv.Client()}, o)
	if err != nil {
		t.Fatal(err)
	}
	return got, sum
}

func TestSimulateDependsOnTheSeedAlone(t *testing.T) {
	o := Options{Sessions: 45, Seed: 7, End: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)}
	a, sum := collect(t, o)
	b, _ := collect(t, o)
	if !reflect.DeepEqual(a, b) {
		t.Error("two runs with one seed differ")
	}
	if len(a) != sum.Interactions+sum.Feedback+sum.Behaviors || sum.Sessions != 45 {
		t.Errorf("%d events sent, summary %+v", len(a), sum)
	}
	ids := map[string]bool{}
	for _, e := range a {
		if ids[e.ID] {
			t.Fatalf("event id %s is used twice", e.ID)
		}
		ids[e.ID] = true
	}
}

func TestScriptAnswersItsOwnQuestions(t *testing.T) {
	for _, topic := range topics() {
		for _, q := range topic.questions {
			if got := script(q); got != topic.answer {
				t.Errorf("script(%q) = %q, want %q", q, got, topic.answer)
			}
		}
	}
}
