package env

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale/headscaletest"
)

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
