package env

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// requestTimeout bounds a call to a server on this machine.
const requestTimeout = 10 * time.Second

// KeyStatus calls Headscale's REST API at baseURL with an API key and returns
// the HTTP status: 200 when Headscale honors the key, 401 when it does not. Headscale v0.26
// refuses a key that it does not know with the status 500 and the text of a 401, which is
// returned as 401.
func KeyStatus(ctx context.Context, baseURL, key string) (int, error) {
	status, text, err := get(ctx, baseURL+"/api/v1/apikey", key)
	if status == http.StatusInternalServerError && text == http.StatusText(http.StatusUnauthorized) {
		return http.StatusUnauthorized, err
	}
	return status, err
}

// maxText is how much of an answer is read, in bytes.
const maxText = 1 << 20

// get sends a GET request, with a bearer token if there is one, and returns the status and
// the text of the answer. No connection is kept, so that every call meets the server as it
// is now.
func get(ctx context.Context, url, bearer string) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", fmt.Errorf("calling %s: %w", url, err)
	}
	request.Close = true
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxText))
	return response.StatusCode, string(raw), err
}
