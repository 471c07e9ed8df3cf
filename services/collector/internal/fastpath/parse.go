package fastpath

import (
	"bytes"
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

const (
	// maxRequest bounds a plain request, head and body, in bytes. It is less than
	// the headers alone that net/http holds of one connection.
	maxRequest = 16 << 10
	// maxHeaders bounds the header fields of a plain request.
	maxHeaders = 32
)

type verdict int

const (
	more  verdict = iota // it may be plain: read on
	plain                // it is whole, and plain
	other                // it is for net/http
)

// head is what comes before a request's body.
type head struct {
	size   int // of the head, in bytes; 0 while it is not whole
	body   int // Content-Length
	host   string
	header http.Header
	values [maxHeaders]string // what header's values lie in
}

func (h *head) reset() {
	h.size, h.body, h.host = 0, 0, ""
	clear(h.header)
}

// parse looks at a request's beginning, again and again as more of it comes.
// line is the request line that is plain. What net/http would refuse, or read in
// another way, is not plain.
func (h *head) parse(line string, data []byte) verdict {
	if h.size == 0 {
		if v := h.parseHead(line, data); v != plain {
			return v
		}
	}
	switch size := h.size + h.body; {
	case size > maxRequest:
		return other
	case len(data) < size:
		return more
	}
	return plain
}

func (h *head) parseHead(line string, data []byte) verdict {
	if n := min(len(line), len(data)); string(data[:n]) != line[:n] {
		return other
	} else if n < len(line) {
		return more
	}
	end := bytes.Index(data[len(line)-2:], []byte("\r\n\r\n"))
	if end < 0 {
		if len(data) >= maxRequest {
			return other
		}
		return more
	}
	end += len(line)
	if h.header == nil {
		h.header = make(http.Header, maxHeaders)
	}
	fields := string(data[len(line):end]) // each with its \r\n
	for n := 0; fields != ""; n++ {
		if n == maxHeaders {
			return other
		}
		var field string
		field, fields, _ = strings.Cut(fields, "\r\n")
		name, value, ok := strings.Cut(field, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) || !h.take(n, name, value) {
			return other
		}
	}
	if h.host == "" || h.body == 0 {
		return other
	}
	h.size = end + 2
	return plain
}

// take is false for a field that is not plain.
func (h *head) take(n int, name, value string) bool {
	name = textproto.CanonicalMIMEHeaderKey(name)
	if _, twice := h.header[name]; twice {
		return false
	}
	switch name {
	case "Host":
		if h.host != "" || !httpguts.ValidHostHeader(value) {
			return false
		}
		h.host = value // net/http has it beside the header, too
		return true
	case "Content-Length":
		if len(value) > 5 {
			return false
		}
		for _, digit := range []byte(value) {
			if digit < '0' || digit > '9' {
				return false
			}
			h.body = 10*h.body + int(digit-'0')
		}
	case "Connection":
		if !strings.EqualFold(value, "keep-alive") {
			return false
		}
	case "Transfer-Encoding", "Expect", "Upgrade", "Trailer", "Pragma":
		return false
	}
	h.values[n] = value
	h.header[name] = h.values[n : n+1 : n+1]
	return true
}
