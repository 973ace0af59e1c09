package headscale

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
)

const (
	// httpHost stands in the Host header, where it means nothing: the dialer knows where
	// to connect.
	httpHost = "headscale"

	// headscaleSilent is what a gateway says.
	headscaleSilent = "the admin endpoint says that Headscale does not answer"

	// timeLayout is RFC 3339 with all six digits of the microseconds.
	timeLayout = "2006-01-02T15:04:05.000000Z07:00"
)

// httpConn is Headscale's admin API from 0.30 on, over HTTP/1.1 and JSON, for one call at a
// time.
type httpConn struct {
	client http.Client
	token  Key // may be none
	limit  int // of the answer of the call, in bytes
}

// newHTTPConn prepares a connection. One that is to be kept stays open after an answer.
func newHTTPConn(dial Dialer, token Key, keep bool) *httpConn {
	return &httpConn{token: token, client: http.Client{
		Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableKeepAlives:      !keep,
			DisableCompression:     true,
			MaxResponseHeaderBytes: headerLimit,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (h *httpConn) close() { h.client.CloseIdleConnections() }

// exchange sends a request and decodes the answer into a value, unless that is nil. It
// returns a *Refusal when Headscale answered with a problem.
func (h *httpConn) exchange(ctx context.Context, method, path string, body, answer any) error {
	request, err := h.newRequest(ctx, method, path, body)
	if err != nil {
		return err
	}
	response, err := h.client.Do(request)
	if err != nil {
		return brokenOff(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, int64(h.limit)+1))
	switch {
	case err != nil:
		return brokenOff(err)
	case len(content) > h.limit:
		return tooLongError(h.limit)
	case response.StatusCode != http.StatusOK:
		return refusal(response, content)
	case answer == nil:
		return nil
	}
	err = json.Unmarshal(content, answer)
	if err == nil || errors.Is(err, errTooMany) {
		return err
	}
	// The decoder's own error may quote the content, and so a key.
	return fmt.Errorf("the answer of Headscale to %s %s is not the JSON that was expected", method, path)
}

// brokenOff returns the error of an exchange in which no whole answer came. Package net/http
// quotes what it cannot read, so of its errors only those of the connection are quoted.
func brokenOff(err error) error {
	var system *net.OpError
	switch {
	case errors.As(err, &system):
		return unavailable("the answer broke off: " + system.Error())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return unavailable("the answer broke off")
	default:
		return unavailable("the answer is not HTTP/1.1, or its headers are too long")
	}
}

// boundedList is a list in an answer, decoded one entry after the other up to entryLimit.
type boundedList[Entry any] []Entry

// UnmarshalJSON decodes the list; null is an empty one.
func (l *boundedList[Entry]) UnmarshalJSON(content []byte) error {
	*l = nil
	decoder := json.NewDecoder(bytes.NewReader(content))
	switch opening, err := decoder.Token(); {
	case err != nil || opening == nil:
		return err
	case opening != json.Delim('['):
		return errors.New("a list was expected")
	}
	for decoder.More() {
		if len(*l) == entryLimit {
			return errTooMany
		}
		var entry Entry
		if err := decoder.Decode(&entry); err != nil {
			return err
		}
		*l = append(*l, entry)
	}
	return nil
}

func (h *httpConn) newRequest(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+httpHost+path, content)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	request.Header.Set("User-Agent", userAgent)
	request.Header.Set("Accept", "application/json, application/problem+json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if !h.token.IsZero() {
		request.Header.Set("Authorization", bearer(h.token))
	}
	return request, nil
}

// problem is an error that Headscale answered with (RFC 9457), less the values that
// it quotes.
type problem struct {
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
}

// words says in one sentence what Headscale said in several places.
func (p *problem) words() string {
	var words []string
	if p.Detail != "" {
		words = append(words, p.Detail)
	}
	for _, e := range p.Errors {
		if e.Location != "" {
			e.Message += " (" + e.Location + ")"
		}
		words = append(words, e.Message)
	}
	return refusalWords(strings.Join(words, ": "))
}

// refusal returns the error that an answer with another status than 200 stands for.
// One without a problem in it does not come from Headscale's API, but for example
// from a server that has no such path: it says no more than its status.
func refusal(response *http.Response, content []byte) error {
	code := response.StatusCode
	status := fmt.Sprintf("status %d %s", code, http.StatusText(code))
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	isProblem := err == nil && kind == "application/problem+json"
	refused := &problem{}
	switch {
	case isProblem && len(content) <= problemLimit && json.Unmarshal(content, refused) == nil:
		return &Refusal{Words: refused.words(), status: status, kind: problemKinds[code]}
	case !isProblem && gatewayWords[code] != "":
		return unavailable(gatewayWords[code])
	case !isProblem && statusKinds[code] != nil:
		return fmt.Errorf("the answer has the unexpected %s: %w", status, statusKinds[code])
	default:
		return fmt.Errorf("the answer has the unexpected %s", status)
	}
}

var (
	// gatewayWords are what the statuses mean with which the admin endpoint, or another reverse proxy,
	// answers in place of Headscale. They say nothing of what was asked for.
	gatewayWords = map[int]string{
		http.StatusMisdirectedRequest: "the Headscale that runs now speaks gRPC", http.StatusServiceUnavailable: "a proxy in front of Headscale is unavailable or overloaded",
		http.StatusBadGateway: headscaleSilent, http.StatusGatewayTimeout: headscaleSilent,
	}
	// problemKinds are the statuses that say what a refusal of Headscale means.
	problemKinds = map[int]error{
		http.StatusUnauthorized: ErrUnauthorized, http.StatusNotImplemented: ErrUnsupported,
		http.StatusRequestEntityTooLarge: ErrTooLarge,
	}
	// statusKinds are the statuses that say something without a problem, too: of the admin
	// endpoint, or of a server that lacks the path or the method.
	statusKinds = map[int]error{
		http.StatusUnauthorized: ErrUnauthorized, http.StatusRequestEntityTooLarge: ErrTooLarge,
		http.StatusNotFound: ErrUnsupported, http.StatusMethodNotAllowed: ErrUnsupported, http.StatusNotImplemented: ErrUnsupported,
	}
)
