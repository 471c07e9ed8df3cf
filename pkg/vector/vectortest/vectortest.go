// Package vectortest has a vector index in memory, and the suite that it and
// the real one both pass.
package vectortest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/vector"
)

// Index is what vector.Client and Fake have in common.
type Index interface {
	Upsert(ctx context.Context, collection, project string, objects []vector.Object) error
	Get(ctx context.Context, collection, project string, objectIDs []string, vectors bool) (map[string]vector.Object, error)
	Near(ctx context.Context, collection, project string, q vector.NearQuery) ([]vector.Match, error)
	NearValues(ctx context.Context, collection, project string, q vector.NearQuery, properties ...string) ([]vector.ValueMatch, error)
	List(ctx context.Context, collection, project string, q vector.ListQuery) ([]vector.Object, error)
	Delete(ctx context.Context, collection, project string, objectIDs []string) error
	Tenants(ctx context.Context, collection string) ([]string, error)
	Walk(ctx context.Context, collection, tenant, after string, limit int, vectors bool) ([]vector.Object, error)
	EnsureSpace(ctx context.Context, suffix string) error
	EmptySpace(ctx context.Context, suffix string) error
}

// Fake is an Index in memory.
type Fake struct {
	// Called before each call, one at a time, where set; its error is the call's.
	Before func(method, collection string) error

	mu      sync.Mutex
	objects map[string]map[string]vector.Object // by collection/project, by id
}

// NewFake makes an empty one.
func NewFake() *Fake { return &Fake{objects: map[string]map[string]vector.Object{}} }

func (f *Fake) enter(method, collection string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Before == nil {
		return nil
	}
	return f.Before(method, collection)
}

// Upsert is vector.Client's.
func (f *Fake) Upsert(_ context.Context, collection, project string, objects []vector.Object) error {
	if err := f.enter("Upsert", collection); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := collection + "/" + project
	if f.objects[key] == nil {
		f.objects[key] = map[string]vector.Object{}
	}
	for _, o := range objects {
		o.Payload, o.Vector, o.Properties = bytes.Clone(o.Payload), slices.Clone(o.Vector), maps.Clone(o.Properties)
		f.objects[key][o.ID] = o
	}
	return nil
}

// Get is vector.Client's.
func (f *Fake) Get(_ context.Context, collection, project string, objectIDs []string, vectors bool) (map[string]vector.Object, error) {
	if err := f.enter("Get", collection); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[string]vector.Object{}
	for _, id := range objectIDs {
		if o, ok := f.objects[collection+"/"+project][id]; ok {
			found[id] = out(o, vectors)
		}
	}
	return found, nil
}

// Near is vector.Client's.
func (f *Fake) Near(_ context.Context, collection, project string, q vector.NearQuery) ([]vector.Match, error) {
	if err := f.enter("Near", collection); err != nil {
		return nil, err
	}
	matches := f.near(collection, project, q)
	for i, m := range matches {
		matches[i].Object = out(m.Object, false)
	}
	return matches, nil
}

// NearValues is vector.Client's.
func (f *Fake) NearValues(_ context.Context, collection, project string, q vector.NearQuery, properties ...string) ([]vector.ValueMatch, error) {
	if err := f.enter("NearValues", collection); err != nil {
		return nil, err
	}
	var values []vector.ValueMatch
	for _, m := range f.near(collection, project, q) {
		match := vector.ValueMatch{Values: make([]string, len(properties)), Similarity: m.Similarity}
		for i, p := range properties {
			match.Values[i], _ = m.Properties[p].(string)
		}
		values = append(values, match)
	}
	return values, nil
}

func (f *Fake) near(collection, project string, q vector.NearQuery) []vector.Match {
	f.mu.Lock()
	defer f.mu.Unlock()
	var matches []vector.Match
	for _, o := range f.objects[collection+"/"+project] {
		if len(o.Vector) == 0 || !holds(q.Filter, o) {
			continue
		}
		var dot float64
		for i := range o.Vector {
			dot += float64(o.Vector[i]) * float64(q.Vector[i])
		}
		if dot >= q.MinSimilarity {
			matches = append(matches, vector.Match{Object: o, Similarity: dot})
		}
	}
	slices.SortFunc(matches, func(a, b vector.Match) int {
		return cmp.Or(cmp.Compare(b.Similarity, a.Similarity), cmp.Compare(a.ID, b.ID))
	})
	return matches[:min(len(matches), q.Limit)]
}

// List is vector.Client's.
func (f *Fake) List(_ context.Context, collection, project string, q vector.ListQuery) ([]vector.Object, error) {
	if err := f.enter("List", collection); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var objects []vector.Object
	for _, o := range f.objects[collection+"/"+project] {
		if holds(q.Filter, o) {
			objects = append(objects, o)
		}
	}
	slices.SortFunc(objects, func(a, b vector.Object) int {
		order := compare(a.Properties[q.SortBy], b.Properties[q.SortBy])
		if q.Descending {
			order = -order
		}
		return cmp.Or(order, cmp.Compare(a.ID, b.ID))
	})
	objects = objects[min(q.Offset, len(objects)):]
	objects = objects[:min(q.Limit, len(objects))]
	for i := range objects {
		objects[i] = out(objects[i], q.Vectors)
	}
	return objects, nil
}

// Delete is vector.Client's.
func (f *Fake) Delete(_ context.Context, collection, project string, objectIDs []string) error {
	if err := f.enter("Delete", collection); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range objectIDs {
		delete(f.objects[collection+"/"+project], id)
	}
	return nil
}

// EnsureSpace is vector.Client's.
func (*Fake) EnsureSpace(context.Context, string) error { return nil }

// EmptySpace is vector.Client's.
func (f *Fake) EmptySpace(_ context.Context, suffix string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.objects, func(key string, _ map[string]vector.Object) bool {
		return strings.HasPrefix(key, vector.Exchanges+suffix+"/") || strings.HasPrefix(key, vector.Cases+suffix+"/")
	})
	return nil
}

// Tenants is vector.Client's.
func (f *Fake) Tenants(_ context.Context, collection string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for key := range f.objects {
		if project, ok := strings.CutPrefix(key, collection+"/"); ok {
			names = append(names, project)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Walk is vector.Client's.
func (f *Fake) Walk(_ context.Context, collection, tenant, after string, limit int, vectors bool) ([]vector.Object, error) {
	if err := f.enter("Walk", collection); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var objects []vector.Object
	for _, id := range slices.Sorted(maps.Keys(f.objects[collection+"/"+tenant])) {
		if id > after && len(objects) < limit {
			objects = append(objects, out(f.objects[collection+"/"+tenant][id], vectors))
		}
	}
	return objects, nil
}

// Snapshot is all that is stored, in a form that two runs can be compared by.
func (f *Fake) Snapshot() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]string{}
	for key, objects := range f.objects {
		for id, o := range objects {
			all[key+"/"+id] = fmt.Sprintf("%v %v %x", o.Vector, o.Properties, o.Payload)
		}
	}
	return all
}

func out(o vector.Object, vectors bool) vector.Object {
	if !vectors {
		o.Vector = nil
	}
	o.Properties = nil
	return o
}

func holds(f *vector.Filter, o vector.Object) bool {
	if f == nil {
		return true
	}
	v, _ := o.Properties[f.Property].(string)
	if !slices.Contains(f.Values, v) {
		return false
	}
	for _, a := range f.And {
		if !holds(a, o) {
			return false
		}
	}
	return true
}

func compare(a, b any) int {
	switch a := a.(type) {
	case int:
		b, _ := b.(int)
		return cmp.Compare(a, b)
	case string:
		b, _ := b.(string)
		return cmp.Compare(a, b)
	case time.Time:
		b, _ := b.(time.Time)
		return a.Compare(b)
	}
	return 0
}

// Suite is what an Index must do. open gives the same index at each call; no
// project whose name begins with prefix may exist yet.
func Suite(t *testing.T, index Index, prefix string) {
	ctx := context.Background()
	one, two := prefix+"-one", prefix+"-Two/ü"
	at := time.Date(2026, 11, 24, 9, 30, 0, 123, time.UTC)
	object := func(project, id string, v []float32, negatives int, state string) vector.Object {
		return vector.Object{
			ID: ids.UUID(project, id), Vector: v, Payload: []byte{0, 1, 0xff, byte(negatives)},
			Properties: map[string]any{"case_id": id, "negatives": negatives, "state": state, "last_seen": at.Add(time.Duration(negatives) * time.Hour)},
		}
	}

	t.Run("a project without objects is empty", func(t *testing.T) {
		if m, err := index.Near(ctx, vector.Cases, one, vector.NearQuery{Vector: []float32{1, 0}, Limit: 3}); err != nil || len(m) != 0 {
			t.Errorf("Near = %v, %v", m, err)
		}
		if m, err := index.Get(ctx, vector.Cases, one, []string{ids.UUID(one, "a")}, true); err != nil || len(m) != 0 {
			t.Errorf("Get = %v, %v", m, err)
		}
		if m, err := index.List(ctx, vector.Cases, one, vector.ListQuery{Limit: 3}); err != nil || len(m) != 0 {
			t.Errorf("List = %v, %v", m, err)
		}
		if err := index.Delete(ctx, vector.Cases, one, []string{ids.UUID(one, "a")}); err != nil {
			t.Errorf("Delete = %v", err)
		}
	})

	if err := index.Upsert(ctx, vector.Cases, one, []vector.Object{
		object(one, "a", []float32{1, 0}, 1, "new"),
		object(one, "b", []float32{0.6, 0.8}, 3, "solved"),
		object(one, "c", []float32{0, 1}, 2, "new"),
		object(one, "d", nil, 4, "new"),
	}); err != nil {
		t.Fatal(err)
	}
	if err := index.Upsert(ctx, vector.Cases, two, []vector.Object{object(two, "a", []float32{1, 0}, 9, "new")}); err != nil {
		t.Fatal(err)
	}
	names := func(project string, got ...string) string {
		var all []string
		for _, g := range got {
			for _, n := range []string{"a", "b", "c", "d"} {
				if g == ids.UUID(project, n) {
					all = append(all, n)
				}
			}
		}
		return fmt.Sprint(len(got), all)
	}
	near := func(t *testing.T, project string, q vector.NearQuery, want string) []vector.Match {
		t.Helper()
		matches, err := index.Near(ctx, vector.Cases, project, q)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range matches {
			got = append(got, m.ID)
		}
		if names(project, got...) != want {
			t.Errorf("Near = %s, want %s", names(project, got...), want)
		}
		return matches
	}
	list := func(t *testing.T, project string, q vector.ListQuery, want string) {
		t.Helper()
		objects, err := index.List(ctx, vector.Cases, project, q)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range objects {
			got = append(got, o.ID)
		}
		if names(project, got...) != want {
			t.Errorf("List = %s, want %s", names(project, got...), want)
		}
	}

	t.Run("near is by cosine, bounded, filtered, and of one project", func(t *testing.T) {
		m := near(t, one, vector.NearQuery{Vector: []float32{1, 0}, Limit: 10, MinSimilarity: -1}, "3 [a b c]")
		if len(m) == 3 && (m[0].Similarity < 0.9999 || m[1].Similarity < 0.5999 || m[1].Similarity > 0.6001 || !bytes.Equal(m[1].Payload, []byte{0, 1, 0xff, 3})) {
			t.Errorf("Near = %+v", m)
		}
		near(t, one, vector.NearQuery{Vector: []float32{1, 0}, Limit: 1}, "1 [a]")
		near(t, one, vector.NearQuery{Vector: []float32{1, 0}, Limit: 10, MinSimilarity: 0.5}, "2 [a b]")
		near(t, one, vector.NearQuery{Vector: []float32{1, 0}, Limit: 10, MinSimilarity: -1, Filter: vector.In("state", "solved")}, "1 [b]")
		near(t, two, vector.NearQuery{Vector: []float32{1, 0}, Limit: 10, MinSimilarity: -1}, "1 [a]")
	})
	t.Run("near values are those of the near objects", func(t *testing.T) {
		for project, want := range map[string]string{one: "[a new b solved]", two: "[a new]", prefix + "-none": "[]"} {
			m, err := index.NearValues(ctx, vector.Cases, project, vector.NearQuery{Vector: []float32{1, 0}, Limit: 2, MinSimilarity: -1}, "case_id", "state")
			if err != nil {
				t.Fatal(err)
			}
			values := []string{}
			for _, v := range m {
				values = append(values, v.Values...)
			}
			if fmt.Sprint(values) != want {
				t.Errorf("%s: %v, want %s", project, values, want)
			}
			if len(m) == 2 && (m[1].Similarity < 0.5999 || m[1].Similarity > 0.6001) {
				t.Errorf("similarities %v", m)
			}
		}
	})
	t.Run("list is filtered and sorted", func(t *testing.T) {
		list(t, one, vector.ListQuery{SortBy: "negatives", Descending: true, Limit: 3}, "3 [d b c]")
		list(t, one, vector.ListQuery{SortBy: "last_seen", Offset: 1, Limit: 2}, "2 [c b]")
		list(t, one, vector.ListQuery{Filter: vector.In("state", "new"), SortBy: "negatives", Limit: 9}, "3 [a c d]")
		both := vector.In("case_id", "a", "b")
		both.And = []*vector.Filter{vector.In("state", "new", "other")}
		list(t, one, vector.ListQuery{Filter: both, Limit: 9}, "1 [a]")
	})
	t.Run("get finds those that exist", func(t *testing.T) {
		got, err := index.Get(ctx, vector.Cases, one, []string{ids.UUID(one, "b"), ids.UUID(one, "none"), ids.UUID(one, "d"), ids.UUID(two, "a")}, true)
		if err != nil || len(got) != 2 {
			t.Fatalf("Get = %v, %v", got, err)
		}
		if b := got[ids.UUID(one, "b")]; fmt.Sprint(b.Vector) != "[0.6 0.8]" || !bytes.Equal(b.Payload, []byte{0, 1, 0xff, 3}) {
			t.Errorf("b = %+v", b)
		}
	})
	t.Run("upsert replaces, delete removes", func(t *testing.T) {
		if err := index.Upsert(ctx, vector.Cases, one, []vector.Object{object(one, "a", []float32{-1, 0}, 7, "solved")}); err != nil {
			t.Fatal(err)
		}
		near(t, one, vector.NearQuery{Vector: []float32{1, 0}, Limit: 10}, "2 [b c]")
		list(t, one, vector.ListQuery{SortBy: "negatives", Descending: true, Limit: 9}, "4 [a d b c]")
		if err := index.Delete(ctx, vector.Cases, one, []string{ids.UUID(one, "a"), ids.UUID(one, "none")}); err != nil {
			t.Fatal(err)
		}
		list(t, one, vector.ListQuery{SortBy: "negatives", Descending: true, Limit: 9}, "3 [d b c]")
		near(t, two, vector.NearQuery{Vector: []float32{1, 0}, Limit: 10}, "1 [a]")
	})
	t.Run("many at once", func(t *testing.T) {
		var many []vector.Object
		var all []string
		for i := range 450 {
			o := object(one, fmt.Sprint("m", i), []float32{0, -1}, 0, "many")
			many, all = append(many, o), append(all, o.ID)
		}
		if err := index.Upsert(ctx, vector.Cases, one, many); err != nil {
			t.Fatal(err)
		}
		if got, err := index.Get(ctx, vector.Cases, one, all, false); err != nil || len(got) != len(all) {
			t.Errorf("Get = %d objects, %v", len(got), err)
		}
		if err := index.Delete(ctx, vector.Cases, one, all); err != nil {
			t.Fatal(err)
		}
		list(t, one, vector.ListQuery{Filter: vector.In("state", "many"), Limit: 9}, "0 []")
	})
	t.Run("another space is walked through in order, and emptied", func(t *testing.T) {
		const suffix = "_other_3"
		other := vector.Cases + suffix
		if err := index.EnsureSpace(ctx, suffix); err != nil {
			t.Fatal(err)
		}
		var all []vector.Object
		for i := range 25 {
			all = append(all, object(one, fmt.Sprint("w", i), []float32{0, 0, 1}, i, "new"))
		}
		all[3].Vector = nil
		if err := index.Upsert(ctx, other, one, all); err != nil {
			t.Fatal(err)
		}
		tenants, err := index.Tenants(ctx, other)
		if err != nil || len(tenants) != 1 {
			t.Fatalf("Tenants = %v, %v", tenants, err)
		}
		var got []vector.Object
		for after := ""; ; after = got[len(got)-1].ID {
			page, err := index.Walk(ctx, other, tenants[0], after, 10, true)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, page...)
			if len(page) < 10 {
				break
			}
		}
		slices.SortFunc(all, func(a, b vector.Object) int { return cmp.Compare(a.ID, b.ID) })
		if len(got) != len(all) {
			t.Fatalf("walked through %d objects, want %d", len(got), len(all))
		}
		for i, o := range got {
			if o.ID != all[i].ID || !bytes.Equal(o.Payload, all[i].Payload) || !slices.Equal(o.Vector, all[i].Vector) {
				t.Errorf("object %d: %v, want %v", i, o, all[i])
			}
		}
		if err := index.EmptySpace(ctx, suffix); err != nil {
			t.Fatal(err)
		}
		if left, err := index.Get(ctx, other, one, []string{all[0].ID}, false); err != nil || len(left) != 0 {
			t.Errorf("left = %v, %v", left, err)
		}
		if left, err := index.Get(ctx, vector.Cases, one, []string{ids.UUID(one, "b")}, false); err != nil || len(left) != 1 {
			t.Errorf("the other space has %v, %v", left, err)
		}
	})
}
