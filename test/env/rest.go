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
// the HTTP status: 200 when Headscale honors the key, 401 when it does not.
func KeyStatus(ctx context.Context, baseURL, key string) (int, error) {
	return getStatus(ctx, baseURL+"/api/v1/apikey", key)
}

// getStatus sends a GET request, with a bearer token if there is one. No
// connection is kept, so that every call meets the server as it is now.
func getStatus(ctx context.Context, url, bearer string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("calling %s: %w", url, err)
	}
	request.Close = true
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}
