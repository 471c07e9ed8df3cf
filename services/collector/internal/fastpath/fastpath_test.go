package fastpath

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const line = "POST /v1/events HTTP/1.1\r\n"

func request(fields ...string) string {
	return line + strings.Join(append(fields, "", ""), "\r\n")
}

// requests are what FuzzParse starts from, and whether they are plain.
var requests = []struct {
	name, data string
	want       verdict
}{
	{"plain", request("Host: h", "Content-Length: 2", "Authorization: Bearer hs_1", "content-type:application/json ") + "{}", plain},
	{"kept alive", request("Host: h", "Connection: Keep-Alive", "Content-Length: 2") + "{}", plain},
	{"with another behind", request("Host: h", "Content-Length: 2") + "{}" + line, plain},
	{"half a line", line[:9], more},
	{"half a head", request("Host: h", "Content-Length: 2")[:40], more},
	{"half a body", request("Host: h", "Content-Length: 2") + "{", more},
	{"another method", "GET /v1/events HTTP/1.1\r\nHost: h\r\n\r\n", other},
	{"a query", "POST /v1/events?key=hp_1 HTTP/1.1\r\nHost: h\r\n\r\n", other},
	{"HTTP/1.0", "POST /v1/events HTTP/1.0\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", other},
	{"no host", request("Content-Length: 2") + "{}", other},
	{"two hosts", request("Host: h", "Host: h", "Content-Length: 2") + "{}", other},
	{"a broken host", request("Host: h/\\x", "Content-Length: 2") + "{}", other},
	{"no length", request("Host: h"), other},
	{"no body", request("Host: h", "Content-Length: 0"), other},
	{"two lengths", request("Host: h", "Content-Length: 2", "Content-Length: 2") + "{}", other},
	{"two lengths in one", request("Host: h", "Content-Length: 2, 2") + "{}", other},
	{"a signed length", request("Host: h", "Content-Length: +2") + "{}", other},
	{"chunks", request("Host: h", "Transfer-Encoding: chunked") + "2\r\n{}\r\n0\r\n\r\n", other},
	{"chunks and a length", request("Host: h", "Content-Length: 2", "Transfer-Encoding: chunked") + "2\r\n{}\r\n0\r\n\r\n", other},
	{"asks first", request("Host: h", "Content-Length: 2", "Expect: 100-continue"), other},
	{"closes", request("Host: h", "Content-Length: 2", "Connection: close") + "{}", other},
	{"a space before the colon", request("Host: h", "Content-Length : 2") + "{}", other},
	{"a folded line", request("Host: h", "X: a", " b", "Content-Length: 2") + "{}", other},
	{"a lone line feed", request("Host: h", "X: a\nContent-Length: 9", "Content-Length: 2") + "{}", other},
	{"a lone carriage return", request("Host: h", "X: a\rY: b", "Content-Length: 2") + "{}", other},
	{"a field without a colon", request("Host: h", "X", "Content-Length: 2") + "{}", other},
	{"no fields", line + "\r\n", other},
	{"a large body", request("Host: h", "Content-Length: 99999"), other},
	{"a large head", request("Host: h", "X: "+strings.Repeat("x", maxRequest)), other},
	{"many fields", request("Host: h", strings.Repeat("X: x\r\n", maxHeaders)+"Content-Length: 2") + "{}", other},
}

func TestOnlyPlainRequestsArePlain(t *testing.T) {
	for _, test := range requests {
		t.Run(test.name, func(t *testing.T) {
			if got := new(head).parse(line, []byte(test.data)); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

// What is plain is to net/http the same request.
func FuzzParse(f *testing.F) {
	for _, test := range requests {
		f.Add([]byte(test.data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var h head
		if h.parse(line, data) != plain {
			return
		}
		in := bufio.NewReader(bytes.NewReader(data))
		req, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("net/http refuses it: %v", err)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Fatalf("net/http finds no whole body: %v", err)
		}
		if req.Method != "POST" || req.RequestURI != "/v1/events" || req.Host != h.host || req.ContentLength != int64(h.body) || len(req.TransferEncoding) > 0 || req.Close {
			t.Fatalf("net/http reads %+v", req)
		}
		if !maps.EqualFunc(req.Header, h.header, func(a, b []string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
			t.Fatalf("net/http reads the fields %q, we %q", req.Header, h.header)
		}
		if !bytes.Equal(body, data[h.size:h.size+h.body]) {
			t.Fatalf("net/http reads the body %q, we %q", body, data[h.size:h.size+h.body])
		}
		rest, err := io.ReadAll(in)
		if err != nil || !bytes.Equal(rest, data[h.size+h.body:]) {
			t.Fatalf("net/http leaves %q (%v), we %q", rest, err, data[h.size+h.body:])
		}
	})
}

// front is a server whose answers say who gave them, and what they were asked.
type front struct {
	*Server
	addr   string
	served chan error
}

func start(t *testing.T, plain http.HandlerFunc, change func(*http.Server)) *front {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rest := &http.Server{
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, WriteTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { echo(w, r, "net/http") }),
	}
	if change != nil {
		change(rest)
	}
	if plain == nil {
		plain = func(w http.ResponseWriter, r *http.Request) { echo(w, r, "plain") }
	}
	f := &front{Server: New("/v1/events", plain, rest), addr: lis.Addr().String(), served: make(chan error, 1)}
	go func() { f.served <- f.Serve(lis) }()
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if err := <-f.served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		f.serving.Wait()
	})
	return f
}

func echo(w http.ResponseWriter, r *http.Request, who string) {
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintf(w, "%s: %s %v", who, body, err)
}

func dial(t *testing.T, f *front) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func send(t *testing.T, conn net.Conn, data string) {
	t.Helper()
	if _, err := io.WriteString(conn, data); err != nil {
		t.Fatal(err)
	}
}

func answer(t *testing.T, in *bufio.Reader, want string) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != want || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("got %d %q (%v), want %q", resp.StatusCode, body, err, want)
	}
	if resp.Header.Get("Date") == "" || resp.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("headers: %v", resp.Header)
	}
	return resp
}

func TestAConnectionStaysWithNetHTTPOnceItWasOdd(t *testing.T) {
	f := start(t, nil, nil)
	conn, in := dial(t, f)
	one, odd := request("Host: h", "Content-Length: 1")+"1", request("Host: h", "Transfer-Encoding: chunked")+"1\r\n2\r\n0\r\n\r\n"
	send(t, conn, one+one) // at once
	answer(t, in, "plain: 1 <nil>")
	answer(t, in, "plain: 1 <nil>")
	for i := range len(one) { // and bit by bit
		send(t, conn, one[i:i+1])
	}
	answer(t, in, "plain: 1 <nil>")
	send(t, conn, one+odd+one)
	answer(t, in, "plain: 1 <nil>")
	answer(t, in, "net/http: 2 <nil>")
	answer(t, in, "net/http: 1 <nil>")
	send(t, conn, one)
	answer(t, in, "net/http: 1 <nil>")
}

func TestBodiesUpToTheLimitArePlain(t *testing.T) {
	f := start(t, nil, nil)
	conn, in := dial(t, f)
	for _, size := range []int{1, 5000, maxRequest - 100, 1} {
		body := strings.Repeat("x", size)
		send(t, conn, request("Host: h", fmt.Sprintf("Content-Length: %d", size))+body)
		answer(t, in, "plain: "+body+" <nil>")
	}
	body := strings.Repeat("x", maxRequest)
	send(t, conn, request("Host: h", fmt.Sprintf("Content-Length: %d", len(body)))+body)
	answer(t, in, "net/http: "+body+" <nil>")
}

func TestHeadersOfTheHandlerAreSent(t *testing.T) {
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer x" || r.URL.Path != "/v1/events" || r.RemoteAddr == "" || r.Host != "h" {
			t.Errorf("got %+v", r)
		}
		w.Header().Add("Vary", "Origin")
		w.Header().Add("Vary", "Accept")
		w.Header().Set("Bad", "a\r\nInjected: b")
		w.Header().Set("Connection", "close")
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusAccepted)
		w.WriteHeader(http.StatusTeapot)
	}, nil)
	conn, in := dial(t, f)
	send(t, conn, request("Host: h", "authorization: Bearer x", "Content-Length: 1")+"1")
	resp := answer(t, in, "")
	if fmt.Sprint(resp.Header["Vary"]) != "[Origin Accept]" || resp.Header.Get("Injected") != "" || !resp.Close {
		t.Errorf("headers: %v, close %v", resp.Header, resp.Close)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("not closed: %v", err)
	}
}

func TestSlowAndIdleConnectionsEnd(t *testing.T) {
	f := start(t, nil, func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = 50*time.Millisecond, 1100*time.Millisecond })
	for name, data := range map[string]string{
		"nothing": "", "half a head": line + "Host: h\r\n", "whole": request("Host: h", "Content-Length: 1") + "1",
	} {
		conn, in := dial(t, f)
		send(t, conn, data)
		if rest, err := io.ReadAll(in); err != nil {
			t.Errorf("%s: not closed: %v", name, err)
		} else if name == "whole" && !bytes.HasSuffix(rest, []byte("plain: 1 <nil>")) {
			t.Errorf("%s: got %q", name, rest)
		}
	}
}

func TestALateAnswerArrivesOnAConnectionThatWasIdle(t *testing.T) {
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(150 * time.Millisecond)
		echo(w, r, "late")
	}, func(s *http.Server) { s.WriteTimeout = 100 * time.Millisecond })
	conn, in := dial(t, f)
	for range 3 {
		send(t, conn, request("Host: h", "Content-Length: 1")+"1")
		answer(t, in, "late: 1 <nil>")
	}
}

func TestAPanicEndsItsConnectionAlone(t *testing.T) {
	var calls atomic.Int32
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		echo(w, r, "plain")
	}, nil)
	one := request("Host: h", "Content-Length: 1") + "1"
	conn, in := dial(t, f)
	send(t, conn, one)
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("not closed: %v", err)
	}
	conn, in = dial(t, f)
	send(t, conn, one)
	answer(t, in, "plain: 1 <nil>")
}

func TestShutdownLetsRequestsFinishAndClosesTheRest(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	f := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 2 {
			close(entered)
			<-leave
		}
		echo(w, r, "plain")
	}, nil)
	silent, silentIn := dial(t, f)
	used, usedIn := dial(t, f)
	send(t, used, request("Host: h", "Content-Length: 1")+"1")
	answer(t, usedIn, "plain: 1 <nil>")
	active, activeIn := dial(t, f)
	send(t, active, request("Host: h", "Content-Length: 2")+"12")
	<-entered

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown with a request in flight: %v", err)
	}
	for name, in := range map[string]*bufio.Reader{"silent": silentIn, "used": usedIn} {
		if _, err := in.ReadByte(); err == nil {
			t.Errorf("%s: not closed", name)
		}
	}
	if _, err := net.Dial("tcp", f.addr); err == nil {
		t.Error("still listening")
	}
	close(leave)
	if resp := answer(t, activeIn, "plain: 12 <nil>"); !resp.Close {
		t.Error("the last answer does not say that it is the last")
	}
	if err := f.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	_ = silent
}
