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
	"time"
)

// Headscale's admin API from 0.30 on.
const (
	// httpHost stands in the Host header; on a Unix socket it means nothing.
	httpHost   = "headscale"
	keysPath   = "/api/v1/apikey"
	expirePath = "/api/v1/apikey/expire"

	// expirationLayout is RFC 3339 with all six digits of the microseconds.
	expirationLayout = "2006-01-02T15:04:05.000000Z07:00"
)

// httpAPI is the admin API over HTTP/1.1 and JSON, a connection for each request.
type httpAPI struct {
	client http.Client
}

func newHTTPAPI(path string) *httpAPI {
	return &httpAPI{client: http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialSocket(ctx, path)
			},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// listedKey is an entry of the list. Its numbers are strings, as in the JSON form
// of protobuf.
type listedKey struct {
	ID         uint64     `json:"id,string"`
	Prefix     string     `json:"prefix"`
	Expiration *time.Time `json:"expiration"`
	CreatedAt  *time.Time `json:"createdAt"`
}

func (h *httpAPI) list(ctx context.Context) ([]APIKey, error) {
	var answer struct {
		APIKeys []listedKey `json:"apiKeys"`
	}
	if err := h.exchange(ctx, http.MethodGet, keysPath, nil, &answer); err != nil {
		return nil, err
	}
	keys := make([]APIKey, 0, len(answer.APIKeys))
	for _, listed := range answer.APIKeys {
		keys = append(keys, newAPIKey(listed.ID, listed.Prefix, listed.Expiration, listed.CreatedAt))
	}
	return keys, nil
}

func (h *httpAPI) create(ctx context.Context, expiration time.Time) (string, error) {
	request := map[string]string{"expiration": expiration.Format(expirationLayout)}
	var answer struct {
		APIKey string `json:"apiKey"`
	}
	err := h.exchange(ctx, http.MethodPost, keysPath, request, &answer)
	return answer.APIKey, err
}

func (h *httpAPI) expire(ctx context.Context, prefix string) error {
	err := h.exchange(ctx, http.MethodPost, expirePath, map[string]string{"prefix": prefix}, nil)
	var refused *problem
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return ErrNotFound
	}
	return err
}

func (h *httpAPI) close() { h.client.CloseIdleConnections() }

// exchange sends a request and decodes the answer, where one is wanted. It returns a
// *problem when Headscale answered with one.
func (h *httpAPI) exchange(ctx context.Context, method, path string, body, answer any) error {
	request, err := newRequest(ctx, method, path, body)
	if err != nil {
		return err
	}
	response, err := h.client.Do(request)
	if err != nil {
		return unavailable(err.Error())
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, listLimit+1))
	switch {
	case err != nil:
		return unavailable("the answer broke off: " + err.Error())
	case len(content) > listLimit:
		return fmt.Errorf("the answer of Headscale is longer than %d MiB", listLimit>>20)
	case response.StatusCode != http.StatusOK:
		return refusal(response, content)
	case answer == nil:
		return nil
	case json.Unmarshal(content, answer) != nil: // its error may quote the content, and so a key
		return fmt.Errorf("the answer of Headscale to %s %s is not the JSON that was expected", method, path)
	default:
		return nil
	}
}

func newRequest(ctx context.Context, method, path string, body any) (*http.Request, error) {
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
	return request, nil
}

// problem is an error that Headscale answered with (RFC 9457), less the values that
// it quotes.
type problem struct {
	Status int    `json:"-"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
}

// Error says in one sentence what Headscale said in several places.
func (p *problem) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "Headscale refused with status %d %s", p.Status, http.StatusText(p.Status))
	if p.Detail != "" {
		text.WriteString(": " + p.Detail)
	}
	for _, e := range p.Errors {
		text.WriteString(": " + e.Message)
		if e.Location != "" {
			text.WriteString(" (" + e.Location + ")")
		}
	}
	return foreignText(text.String())
}

// refusal returns the error that an answer with another status than 200 stands for.
// One without a problem in it does not come from Headscale's API, but for example
// from a server that has no such path: it says no more than its status.
func refusal(response *http.Response, content []byte) error {
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	refused := &problem{}
	if err != nil || kind != "application/problem+json" || json.Unmarshal(content, refused) != nil {
		return fmt.Errorf("the answer has the unexpected status %d %s",
			response.StatusCode, http.StatusText(response.StatusCode))
	}
	refused.Status = response.StatusCode
	return refused
}
