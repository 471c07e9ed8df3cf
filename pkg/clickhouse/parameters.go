package clickhouse

import "regexp"

// Parameter is one of a query in a file, as the file's comments declare it:
//
//	-- {days:UInt32} = 30   How many days back from now.
type Parameter struct {
	Name, Type, Default, About string
}

var parameterLine = regexp.MustCompile(`(?m)^-- \{(\w+):(\w+)\} = (\S+) +(.+)$`)

// Parameters are those that the comments of a query declare, in their order.
func Parameters(query string) []Parameter {
	var out []Parameter
	for _, m := range parameterLine.FindAllStringSubmatch(query, -1) {
		out = append(out, Parameter{Name: m[1], Type: m[2], Default: m[3], About: m[4]})
	}
	return out
}
