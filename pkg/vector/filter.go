package vector

import pb "github.com/weaviate/weaviate/grpc/generated/protocol/v1"

// Filter is a condition on properties. A nil filter holds for every object.
type Filter struct {
	// Property and the values, one of which it has.
	Property string
	Values   []string
	// All of these hold, too.
	And []*Filter
}

// In is the filter "property is one of values".
func In(property string, values ...string) *Filter {
	return &Filter{Property: property, Values: values}
}

func (f *Filter) message() *pb.Filters {
	if f == nil {
		return nil
	}
	own := filterOn(f.Property, pb.Filters_OPERATOR_CONTAINS_ANY, f.Values)
	if len(f.And) == 0 {
		return own
	}
	all := &pb.Filters{Operator: pb.Filters_OPERATOR_AND, Filters: []*pb.Filters{own}}
	for _, a := range f.And {
		all.Filters = append(all.Filters, a.message())
	}
	return all
}

func filterOn(property string, op pb.Filters_Operator, values []string) *pb.Filters {
	return &pb.Filters{
		Operator:  op,
		Target:    &pb.FilterTarget{Target: &pb.FilterTarget_Property{Property: property}},
		TestValue: &pb.Filters_ValueTextArray{ValueTextArray: &pb.TextArray{Values: values}},
	}
}
