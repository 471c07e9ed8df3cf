package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/honeloop/hone/pkg/jsonpb"
)

// maxItems bounds lists in requests; the owners have limits of their own.
const maxItems = 10_000

// route is one RPC as REST.
type route struct {
	owner      owner
	rpc        string // "/package.Service/Method"
	method     string
	path       *regexp.Regexp // over the escaped path, one group for each of params
	verb       bool           // the path ends in one, such as ":decide"
	params     []protoreflect.FieldDescriptor
	body       bool
	stream     bool
	decoder    *jsonpb.Decoder
	in, out    protoreflect.MessageType
	emptyLists []protoreflect.FieldDescriptor // of out
}

// newRoutes reads the google.api.http annotations of the owners' schemas. It
// knows as much of them as the schemas use: paths with string parameters, the
// whole request as body, and streams of google.api.HttpBody.
func newRoutes(owners []owner) ([]route, error) {
	var routes []route
	for _, o := range owners {
		services := o.file.Services()
		for i := range services.Len() {
			methods := services.Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
				if rule == nil {
					continue
				}
				r, err := newRoute(o, m, rule)
				if err != nil {
					return nil, fmt.Errorf("prepare REST for %s: %w", m.FullName(), err)
				}
				routes = append(routes, r)
			}
		}
	}
	return routes, nil
}

func newRoute(o owner, m protoreflect.MethodDescriptor, rule *annotations.HttpRule) (route, error) {
	r := route{owner: o, rpc: fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()), body: rule.GetBody() == "*", stream: m.IsStreamingServer()}
	var template string
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		r.method, template = http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		r.method, template = http.MethodPost, p.Post
	case *annotations.HttpRule_Put:
		r.method, template = http.MethodPut, p.Put
	case *annotations.HttpRule_Patch:
		r.method, template = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		r.method, template = http.MethodDelete, p.Delete
	}
	switch {
	case template == "":
		return route{}, fmt.Errorf("the pattern is not supported")
	case rule.GetBody() != "" && !r.body, rule.GetResponseBody() != "", len(rule.GetAdditionalBindings()) > 0:
		return route{}, fmt.Errorf("bodies other than the whole message, and additional bindings, are not supported")
	case m.IsStreamingClient(), r.stream && m.Output().FullName() != "google.api.HttpBody":
		return route{}, fmt.Errorf("streams other than of google.api.HttpBody are not supported")
	}
	var err error
	if r.path, r.params, err = compile(template, m.Input()); err != nil {
		return route{}, err
	}
	r.verb = strings.Contains(template[strings.LastIndex(template, "}")+1:], ":")
	if r.decoder, err = jsonpb.New(m.Input(), maxItems); err != nil {
		return route{}, err
	}
	if r.in, err = protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName()); err != nil {
		return route{}, err
	}
	if r.out, err = protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName()); err != nil {
		return route{}, err
	}
	fields := m.Output().Fields()
	for i := range fields.Len() {
		if fields.Get(i).IsList() {
			r.emptyLists = append(r.emptyLists, fields.Get(i))
		}
	}
	return r, nil
}

var parameter = regexp.MustCompile(`\{([a-z0-9_]+)(=\*\*)?\}`)

// compile turns "/v1/reviews/{review_id}:decide" into an expression.
func compile(template string, in protoreflect.MessageDescriptor) (*regexp.Regexp, []protoreflect.FieldDescriptor, error) {
	var params []protoreflect.FieldDescriptor
	var b strings.Builder
	b.WriteString("^")
	rest := 0
	for _, m := range parameter.FindAllStringSubmatchIndex(template, -1) {
		b.WriteString(regexp.QuoteMeta(template[rest:m[0]]))
		name := template[m[2]:m[3]]
		fd := in.Fields().ByName(protoreflect.Name(name))
		if fd == nil || fd.Kind() != protoreflect.StringKind || fd.IsList() {
			return nil, nil, fmt.Errorf("path parameter %s: want a string field", name)
		}
		params = append(params, fd)
		if m[4] >= 0 {
			b.WriteString("(.+)")
		} else {
			b.WriteString("([^/]+)")
		}
		rest = m[1]
	}
	if tail := template[rest:]; strings.ContainsAny(tail, "{}*") {
		return nil, nil, fmt.Errorf("path %s: only {field} and {field=**} are supported", template)
	}
	b.WriteString(regexp.QuoteMeta(template[rest:]) + "$")
	re, err := regexp.Compile(b.String())
	return re, params, err
}

// find is the route of a request, or else the methods that its path allows. A
// path that ends in a verb is that verb's, and not an id with a colon.
func (g *Gateway) find(method, escapedPath string) (*route, []string, []string) {
	var allowed []string
	verb := slices.ContainsFunc(g.routes, func(r route) bool { return r.verb && r.path.MatchString(escapedPath) })
	for i := range g.routes {
		r := &g.routes[i]
		groups := r.path.FindStringSubmatch(escapedPath)
		if groups == nil || r.verb != verb {
			continue
		}
		if r.method == method {
			return r, groups[1:], nil
		}
		if !slices.Contains(allowed, r.method) {
			allowed = append(allowed, r.method)
		}
	}
	return nil, nil, allowed
}

// request makes the RPC's request of path, query and body.
func (r *route) request(groups []string, query url.Values, body []byte) (proto.Message, *jsonpb.FieldError) {
	in := r.in.New()
	var err error
	switch {
	case r.body:
		for name := range query {
			return nil, (&jsonpb.FieldError{Reason: jsonpb.UnknownField, Message: "the query has no fields here: send it in the body"}).Key(name)
		}
		if len(body) > 0 {
			err = r.decoder.Unmarshal(body, in.Interface())
		}
	case len(body) > 0:
		return nil, &jsonpb.FieldError{Reason: jsonpb.UnknownField, Message: "want no body here"}
	case len(query) > 0:
		err = r.decoder.Unmarshal(r.queryJSON(query), in.Interface())
	}
	if err != nil {
		return nil, asFieldError(err)
	}
	for i, fd := range r.params {
		value, err := url.PathUnescape(groups[i])
		if err != nil {
			return nil, (&jsonpb.FieldError{Reason: jsonpb.WrongType, Message: "the path is escaped wrongly"}).In(string(fd.Name()))
		}
		if has := in.Get(fd).String(); has != "" && has != value {
			return nil, (&jsonpb.FieldError{Reason: jsonpb.Duplicate, Message: "differs from the path: leave it out"}).In(string(fd.Name()))
		}
		in.Set(fd, protoreflect.ValueOfString(value))
	}
	return in.Interface(), nil
}

// queryJSON writes a query as JSON, so that it is checked like a body.
func (r *route) queryJSON(query url.Values) []byte {
	fields := r.in.Descriptor().Fields()
	object := map[string]any{}
	for name, values := range query {
		fd := fields.ByName(protoreflect.Name(name))
		list := make([]any, len(values))
		for i, v := range values {
			list[i] = v
			if fd != nil && fd.Kind() != protoreflect.StringKind && fd.Kind() != protoreflect.MessageKind && v != "null" && json.Valid([]byte(v)) {
				list[i] = json.RawMessage(v)
			}
		}
		if len(list) == 1 && (fd == nil || !fd.IsList()) {
			object[name] = list[0]
		} else {
			object[name] = list
		}
	}
	data, err := json.Marshal(object)
	if err != nil {
		return []byte("{}") // strings and valid JSON always encode
	}
	return data
}
