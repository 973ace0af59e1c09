package stage

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Read asks a target for what it tells Prometheus. The caller closes the answer.
func (t Target) Read(ctx context.Context) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.Address+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("%s answers with %s", t.Address, response.Status)
	}
	return response.Body, nil
}
