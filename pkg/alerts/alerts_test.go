package alerts

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func example() *Alert {
	return &Alert{
		ProjectID: "shop", AlertID: ID("shop", "too-many-outdated", "2026-11-24T09:30:00Z"), Name: "too-many-outdated", State: Open,
		Summary: "category:outdated is 31 %, above 20 %.", At: time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC),
		Trend: &Trend{Metric: "category:outdated", Condition: "above 0.2", Value: 0.31, Low: 0.25, High: 0.38, Count: 200},
	}
}

func TestAnAlertIsReadAsItWasWritten(t *testing.T) {
	want := example()
	rec, err := want.Record()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(rec.Value)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	again, err := example().Record()
	if err != nil || !bytes.Equal(again.Value, rec.Value) {
		t.Errorf("the same alert again: %s, %v", again.Value, err)
	}
}

func TestEachStateHasAnEventOfItsOwn(t *testing.T) {
	a, b := example(), example()
	b.State = Resolved
	if a.EventID() == b.EventID() {
		t.Error("open and resolved have one event id")
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	rec, err := example().Record()
	if err != nil {
		t.Fatal(err)
	}
	for old, new := range map[string]string{
		`"hone.alert.v1"`: `"other"`, `"state":"open"`: `"state":"ajar"`, `"id":"ae_`: `"id":"ae_0`, `{`: `[`,
	} {
		if _, err := Parse([]byte(strings.Replace(string(rec.Value), old, new, 1))); err == nil {
			t.Errorf("%s in place of %s is taken", new, old)
		}
	}
	if _, err := (&Alert{}).Record(); err == nil || !strings.Contains(err.Error(), "alert_id") {
		t.Errorf("an empty alert: %v, want what is missing", err)
	}
}
