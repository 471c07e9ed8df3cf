package embedder

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stream/streamtest"
)

const secret = "Zanzibar" // of the attacked project

// Every field of every request of both services, also of those that are yet to
// come, is tried with everything that names another project or its data.
func TestNoParameterReachesAnotherProject(t *testing.T) {
	const (
		victim, attacker = "iso-victim", "iso-attacker"
		query            = "How do I get to Zanzibar by ship?"
	)
	enricher := &trails{sessions: map[string][]string{}}
	broker := streamtest.StartBroker(t)
	r := runWith(t, broker, embeddedtest.Weaviate(t), func(cfg *Config) {
		cfg.Recall.Trail = enricher.serve(t)
		cfg.Server.ProjectsFile = filepath.Join(t.TempDir(), "projects.yaml")
		if err := os.WriteFile(cfg.Server.ProjectsFile, []byte("defaults: {recall: {positives: 5}}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}, victim, attacker)
	enricher.sessions["Bearer "+r.keys[victim]+"/one session"] = []string{query}
	out := r.sendRead(3,
		signal("s1", negative, query, of(victim), func(s *signalv1.Signal) { s.Comment = "There is no ship to " + secret }),
		signal("s3", positive, query, of(victim), func(s *signalv1.Signal) { s.Interaction.Output = "By ship from " + secret }),
		signal("s2", negative, "Where is my parcel?", of(attacker)))
	var caseID string
	for _, o := range out {
		if o.GetSignal().GetProjectId() == victim {
			caseID = o.GetCase().GetCaseId()
		}
	}
	theirs := func() *casesv1.Case {
		t.Helper()
		c, err := r.cases.GetCase(r.as(victim), &casesv1.GetCaseRequest{CaseId: caseID})
		if err != nil {
			t.Fatal(err)
		}
		return c.GetCase()
	}
	before := theirs()
	broker.Write(t, patchRecord(t, patch{ProjectID: victim, PatchID: "pt_1", CaseID: caseID, Version: 1, State: patchActive, Text: "Name " + secret}))
	eventually(t, "the victim itself recalls all of it", func() bool {
		resp := r.ask(victim, query)
		g := resp.GetGuidance()
		return len(g) == 1 && len(g[0].GetPatches()) == 1 && len(resp.GetPositives()) == 1
	})
	if resp, err := r.recall.Recall(r.as(victim), &recallv1.RecallRequest{Query: "and back?", SessionId: "one session"}); err != nil || resp.GetSessionContext() != query {
		t.Fatalf("the victim's own session: %v, %v", resp, err)
	}

	words := []string{
		query, victim, "p-" + victim, "HoneCase", "HoneExchange/p-" + victim, caseID, "s1", "one session", "user-s1", "negative", "new",
		ids.UUID(victim, caseID), ids.UUID(victim, "s1"), victim + "/" + caseID, victim + "\x00" + caseID, "../" + victim + "/" + caseID,
		"*", "%", "' OR 1=1 --", `{"tenant":"p-` + victim + `"}`, `"}) { tenant: "p-` + victim + `" `,
	}
	numbers := []float64{-1, 0, 0.5, 1, 20, 10_000, math.Inf(1), math.NaN()}
	tried := 0
	try := func(ctx context.Context, method string, in proto.Message, what string) {
		t.Helper()
		tried++
		reply := replyOf(t, method)
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := r.conn.Invoke(ctx, method, in, reply); err != nil {
			if strings.Contains(err.Error(), secret) && !strings.Contains(what, secret) {
				t.Errorf("%s with %s: the error tells: %v", method, what, err)
			}
			return
		}
		// A vector of the attacker's own words is no secret.
		if text := protojson.Format(reply); strings.Contains(text, secret) || strings.Contains(text, caseID) || strings.Contains(text, victim) {
			t.Errorf("%s with %s answers %s", method, what, text)
		}
	}
	for _, service := range []protoreflect.FullName{"hone.recall.v1.RecallService", "hone.cases.v1.CaseService"} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(service)
		if err != nil {
			t.Fatal(err)
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			m := methods.Get(i)
			method := fmt.Sprintf("/%s/%s", service, m.Name())
			fields := m.Input().Fields()
			for j := range fields.Len() {
				f := fields.Get(j)
				values := hostile(t, f, words, numbers, m.Name() == "UpdateCase" && f.Name() != "case_id")
				for _, v := range values {
					for _, short := range []bool{false, true} {
						in := widest(m.Input(), query, caseID)
						if q := m.Input().Fields().ByName("query"); short && q != nil {
							in.Set(q, protoreflect.ValueOfString("and back?")) // which reads sessions
						} else if short {
							continue
						}
						switch {
						case f.IsList():
							in.Mutable(f).List().Append(v)
						default:
							in.Set(f, v)
						}
						try(r.as(attacker), method, in, fmt.Sprintf("%s = %v", f.Name(), v))
					}
				}
			}
			for _, header := range []string{"project", "project_id", "x-project", "x-project-id", "tenant", "x-weaviate-tenant", "authorization"} {
				for _, value := range []string{victim, "p-" + victim, "Bearer " + victim} {
					ctx := metadata.AppendToOutgoingContext(r.as(attacker), header, value)
					try(ctx, method, widest(m.Input(), query, caseID), header+": "+value)
				}
			}
		}
	}
	if tried < 300 {
		t.Errorf("only %d requests were tried", tried)
	}
	if after := theirs(); !proto.Equal(before, after) {
		t.Errorf("the case was changed from %v to %v", before, after)
	}
}

// hostile are values of a field that name another project or its data. Those of
// a message have one field each, those of a map one entry.
func hostile(t *testing.T, f protoreflect.FieldDescriptor, words []string, numbers []float64, ownText bool) []protoreflect.Value {
	t.Helper()
	var values []protoreflect.Value
	switch {
	case f.IsMap():
		for _, v := range hostile(t, f.MapValue(), words, numbers, ownText) {
			m := dynamicpb.NewMessage(f.ContainingMessage()).NewField(f)
			m.Map().Set(protoreflect.ValueOfString("plan").MapKey(), v)
			values = append(values, m)
		}
	case f.Kind() == protoreflect.MessageKind:
		fields := f.Message().Fields()
		for i := range fields.Len() {
			for _, v := range hostile(t, fields.Get(i), words, numbers, ownText) {
				m := dynamicpb.NewMessage(f.Message())
				m.Set(fields.Get(i), v)
				values = append(values, protoreflect.ValueOfMessage(m))
			}
		}
	case f.Kind() == protoreflect.StringKind:
		for _, w := range words {
			if w = strings.ToValidUTF8(w, ""); ownText && strings.Contains(w, secret) {
				continue // would be the attacker's own title
			}
			values = append(values, protoreflect.ValueOfString(w))
		}
	case f.Kind() == protoreflect.DoubleKind:
		for _, n := range numbers {
			values = append(values, protoreflect.ValueOfFloat64(n))
		}
	case f.Kind() == protoreflect.Uint32Kind:
		for _, n := range []uint32{0, 1, 20, 100, math.MaxUint32} {
			values = append(values, protoreflect.ValueOfUint32(n))
		}
	case f.Kind() == protoreflect.BoolKind:
		values = append(values, protoreflect.ValueOfBool(true))
	default:
		t.Errorf("%s has a type that this test does not know: %s", f.FullName(), f.Kind())
	}
	return values
}

// widest is a request that names the case and lets everything through.
func widest(d protoreflect.MessageDescriptor, query, caseID string) *dynamicpb.Message {
	in := dynamicpb.NewMessage(d)
	for name, v := range map[protoreflect.Name]protoreflect.Value{
		"query": protoreflect.ValueOfString(query), "k": protoreflect.ValueOfUint32(maxRecall),
		"min_similarity": protoreflect.ValueOfFloat64(-1), "min_relevance": protoreflect.ValueOfFloat64(0),
		"case_id": protoreflect.ValueOfString(caseID),
	} {
		if f := d.Fields().ByName(name); f != nil {
			in.Set(f, v)
		}
	}
	return in
}

func replyOf(t *testing.T, method string) proto.Message {
	t.Helper()
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
	if err != nil {
		t.Fatal(err)
	}
	return dynamicpb.NewMessage(d.(protoreflect.MethodDescriptor).Output())
}
