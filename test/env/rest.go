package env

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
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

// hashTime is what a check of a key costs a real Headscale.
const hashTime = 65 * time.Millisecond

// Honours calls the REST API with an API key and returns whether it is let in.
func (h *Headscale) Honours(ctx context.Context, key string) (bool, error) {
	status, err := KeyStatus(ctx, h.URL(), key)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusOK:
		return true, nil
	case status == http.StatusUnauthorized:
		return false, nil
	default:
		return false, fmt.Errorf("headscale answered with status %d", status)
	}
}

// ContractHonours says whether a server that stands in for Headscale would let the bearer
// of the key in. It takes about as long as a real Headscale, which reads what it knows of the
// key and then hashes it.
func ContractHonours(ctx context.Context, server *headscaletest.Server, key string) (bool, error) {
	valid := server.Validate(key)
	timer := time.NewTimer(hashTime)
	defer timer.Stop()
	select {
	case <-timer.C:
		return valid, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// FreeAddress returns a loopback address, host:port, that nobody listens on now.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String(), nil
}
