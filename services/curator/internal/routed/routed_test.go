package routed_test

import (
	"strings"
	"testing"

	"github.com/honeloop/hone/services/curator/internal/routed"
)

const good = `{"specversion":"1.0","type":"hone.route.v1","id":"re_1","source":"/hone/router","subject":"sg","time":"2026-11-24T09:30:00Z",
"honeproject":"p","honesession":"s","datacontenttype":"application/json","data":{"project_id":"p","decision_id":"dc","signal_id":"sg","signal_revision":2,
"case_id":"ca","route":"human-review","rule":"r","reason":"why","priority":"high","policy_version":"v","links":{"trail":"/v1/sessions/s"},
"signal":{"signal_id":"sg","project_id":"p","revision":2,"comment":"PRIVATE","interaction":{"query":"q"},"of_a_newer_build":1},"case":{"case_id":"ca","title":"t"}}}`

func TestParseReadsARoute(t *testing.T) {
	e, err := routed.Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if e.ProjectID != "p" || e.SignalID != "sg" || e.Revision != 2 || e.CaseID != "ca" || e.Reason != "why" || e.Priority != "high" || e.Withdrawn ||
		e.Signal.GetInteraction().GetQuery() != "q" || e.Case.GetTitle() != "t" {
		t.Errorf("got %+v", e)
	}
}

func TestParseReadsAWithdrawal(t *testing.T) {
	e, err := routed.Parse([]byte(`{"specversion":"1.0","type":"hone.route.withdrawn.v1","time":"2026-11-24T09:30:00Z",
		"data":{"project_id":"p","decision_id":"dc","signal_id":"sg","signal_revision":3,"route":"product","reason":"r"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if !e.Withdrawn || e.Signal != nil || e.Revision != 3 {
		t.Errorf("got %+v", e)
	}
}

func TestParseRefusesByField(t *testing.T) {
	tests := map[string]struct{ old, new, want string }{
		"not JSON":             {`{"specversion"`, `{specversion`, "CloudEvent"},
		"another version":      {`"specversion":"1.0"`, `"specversion":"0.3"`, "specversion"},
		"another type":         {`hone.route.v1`, `other`, "type"},
		"no time":              {`"time":"2026-11-24T09:30:00Z",`, ``, "time"},
		"no project":           {`"data":{"project_id":"p"`, `"data":{"project_id":""`, "data.project_id"},
		"two projects":         {`"honeproject":"p"`, `"honeproject":"q"`, "honeproject"},
		"no revision":          {`"signal_revision":2`, `"signal_revision":0`, "data.signal_revision"},
		"no signal id":         {`"signal_id":"sg","signal_revision"`, `"signal_revision"`, "data.signal_id"},
		"another signal":       {`{"signal_id":"sg","project_id"`, `{"signal_id":"other","project_id"`, "data.signal"},
		"signal of a project":  {`"sg","project_id":"p"`, `"sg","project_id":"q"`, "data.signal"},
		"malformed signal":     {`"comment":"PRIVATE"`, `"comment":"PRIVATE","confidence":"PRIVATE"`, "data.signal"},
		"malformed case":       {`"title":"t"`, `"title":["PRIVATE"]`, "data.case"},
		"a time out of bounds": {`"revision":2,"comment"`, `"revision":2,"occurred_at":"0900-01-01T00:00:00Z","comment"`, "data.signal.occurred_at"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			value := strings.Replace(good, test.old, test.new, 1)
			if value == good {
				t.Fatal("the test changes nothing")
			}
			_, err := routed.Parse([]byte(value))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one that names %s", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("error %v shows a user's text", err)
			}
		})
	}
}
