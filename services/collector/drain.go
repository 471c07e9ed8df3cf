package collector

import (
	"io"
	"net/http"
)

// maxDrain bounds what is read of a body that nobody wants, in bytes.
const maxDrain = 128 << 20

// drain reads the rest of a refused body before the answer goes out. Most
// clients send all of a body before they read: one whose connection is closed
// meanwhile sees a broken pipe, and never the answer that says what is wrong.
// What is read is thrown away, within maxDrain and the server's read timeout.
func drain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := r.Body // the handler may wrap it in a limit
		next.ServeHTTP(w, r)
		// A client that asked first has not sent its body, and shall not.
		if r.ProtoMajor == 1 && r.Header.Get("Expect") == "" {
			_, _ = io.CopyN(io.Discard, body, maxDrain) // its error is the client's
		}
	})
}
