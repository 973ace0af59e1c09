package env

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
	"infrado.cloud/headscale-operator/test/process"
)

const (
	// requestTimeout bounds a call to a server on this machine.
	requestTimeout = 10 * time.Second
	// hashTime is what a check of a key costs a real Headscale.
	hashTime = 65 * time.Millisecond
	// startTimeout is how long a server may take until it answers, and endTimeout
	// how long it may take to end.
	startTimeout = 3 * time.Minute
	endTimeout   = 20 * time.Second
	// poll is how often a server is asked that is about to answer.
	poll = 20 * time.Millisecond
)

// KeyStatus calls Headscale's REST API at baseURL with an API key and returns
// the HTTP status: 200 when Headscale honors the key, 401 when it does not. Headscale v0.26
// refuses a key that it does not know with the status 500 and the text of a 401, which is
// returned as 401.
func KeyStatus(ctx context.Context, baseURL, key string) (int, error) {
	status, text, err := Get(ctx, baseURL+"/api/v1/apikey", key)
	if status == http.StatusInternalServerError && text == http.StatusText(http.StatusUnauthorized) {
		return http.StatusUnauthorized, err
	}
	return status, err
}

// httpClient is the one of Get. It keeps no connection, so that every call meets the server as it is
// now, and checks no certificate, as a kubelet does not either.
var httpClient = http.Client{Transport: &http.Transport{
	DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
}}

// Get sends a GET request, with a bearer token if there is one, and returns the status and
// the text of the answer.
func Get(ctx context.Context, url, bearer string) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	return response.StatusCode, string(raw), err
}

// Honours calls the REST API with an API key and returns whether it is let in.
func (h *Headscale) Honours(ctx context.Context, key string) (bool, error) {
	status, err := KeyStatus(ctx, h.URL(), key)
	if err == nil && status != http.StatusOK && status != http.StatusUnauthorized {
		err = fmt.Errorf("headscale answered with status %d", status)
	}
	return err == nil && status == http.StatusOK, err
}

// ContractHonours says whether a server that stands in for Headscale would let the bearer
// of the key in. It takes about as long as a real Headscale, which reads what it knows of the
// key and then hashes it.
func ContractHonours(ctx context.Context, server *headscaletest.Server, key string) (bool, error) {
	valid := server.Validate(key)
	select {
	case <-time.After(hashTime):
		return valid, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// awaitUp waits until a server answers at the URL with the status 200 and the files exist, or
// kills it and says why it did not come to that.
func awaitUp(ctx context.Context, p *process.Process, url string, files ...string) error {
	err := wait.PollUntilContextTimeout(ctx, poll, startTimeout, true, func(ctx context.Context) (bool, error) {
		if !p.Running() {
			return false, errors.New("it ended")
		}
		status, _, _ := Get(ctx, url, "")
		missing := slices.ContainsFunc(files, func(path string) bool {
			_, err := os.Stat(path)
			return err != nil
		})
		return status == http.StatusOK && !missing, nil
	})
	if err != nil {
		p.Kill()
		return fmt.Errorf("%s did not come up: %w; it said:\n%s", p.Name(), err, p.Log().Tail(20))
	}
	return nil
}

// OwnIP returns an IP address of this machine that hardly anybody else uses; "": there is only 127.0.0.1.
func OwnIP() string {
	if runtime.GOOS != "linux" {
		return ""
	}
	// Linux has all of 127.0.0.0/8 without being told.
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// FreeAddress returns a loopback address, host:port, that nobody listens on. On Linux it has an IP address
// of its own, so that nobody takes the port before the address is used, or while a server is restarted.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(cmp.Or(OwnIP(), "127.0.0.1"), "0")) //nolint:noctx // closed at once
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}
