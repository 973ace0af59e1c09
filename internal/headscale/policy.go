package headscale

import (
	"context"
	"fmt"
	"net/http"
	"time"

	v1 "github.com/juanfont/headscale/gen/go/headscale/v1"
)

// policyPath is the path of the policy over HTTP.
const policyPath = "/api/v1/policy"

// Policy is the policy of a tailnet.
type Policy struct {
	// Text is as it was set, byte for byte: HuJSON, with its comments.
	Text string
	// UpdatedAt is when it was set, by Headscale's clock, UTC. Zero: the policy is read from a
	// file.
	UpdatedAt time.Time
}

// policyMeanings maps Headscale's messages about the policy as a whole to errors. Messages about
// its content are returned as a Refusal.
var policyMeanings = meanings{
	"acl policy not found":                               ErrNoPolicy,
	"update is disabled for modes other than 'database'": ErrPolicyMode,
}

// GetPolicy returns the policy in force. The error wraps ErrNoPolicy if none was set: then
// everything is allowed.
func (c *Client) GetPolicy(ctx context.Context) (Policy, error) {
	policy, err := call(ctx, c, method[Policy]{
		limit: largeAnswerLimit, means: policyMeanings, grpc: getPolicyOverGRPC,
		http: func(ctx context.Context, conn *httpConn) (Policy, error) {
			return conn.exchangePolicy(ctx, http.MethodGet, nil)
		},
	})
	if err != nil {
		return Policy{}, fmt.Errorf("reading the policy: %w", err)
	}
	return policy, nil
}

func getPolicyOverGRPC(ctx context.Context, conn *grpcConn) (Policy, error) {
	answer, err := conn.stub.GetPolicy(ctx, &v1.GetPolicyRequest{})
	if err != nil {
		return Policy{}, conn.failure(err)
	}
	return Policy{Text: answer.GetPolicy(), UpdatedAt: knownTime(timeOf(answer.GetUpdatedAt()))}, nil
}

// SetPolicy replaces the policy. An empty text is accepted, and allows everything.
//
// What Headscale finds wrong with the text is a *Refusal with its words, and what was in force
// stays, but for v0.29.3, which may have the refused one in memory. The error wraps
// ErrPolicyMode where Headscale reads its policy from a file, and ErrTooLarge for a text of
// nearly 4 MiB or more.
func (c *Client) SetPolicy(ctx context.Context, text string) (Policy, error) {
	if len(text) > policyLimit {
		return Policy{}, fmt.Errorf("setting the policy: %w: it has %d bytes of at most %d", ErrTooLarge, len(text), policyLimit)
	}
	policy, err := call(ctx, c, setPolicy(text))
	if err != nil {
		return Policy{}, fmt.Errorf("setting the policy: %w", err)
	}
	return policy, nil
}

func setPolicy(text string) method[Policy] {
	return method[Policy]{
		limit: largeAnswerLimit, means: policyMeanings,
		grpc: func(ctx context.Context, conn *grpcConn) (Policy, error) {
			answer, err := conn.stub.SetPolicy(ctx, &v1.SetPolicyRequest{Policy: text})
			if err != nil {
				return Policy{}, conn.failure(err)
			}
			return Policy{Text: answer.GetPolicy(), UpdatedAt: knownTime(timeOf(answer.GetUpdatedAt()))}, nil
		},
		http: func(ctx context.Context, conn *httpConn) (Policy, error) {
			return conn.exchangePolicy(ctx, http.MethodPut, map[string]string{"policy": text})
		},
	}
}

// exchangePolicy sends a request that is answered with a policy.
func (h *httpConn) exchangePolicy(ctx context.Context, method string, request any) (Policy, error) {
	var answer struct {
		Policy    string     `json:"policy"`
		UpdatedAt *time.Time `json:"updatedAt"`
	}
	err := h.exchange(ctx, method, policyPath, request, &answer)
	return Policy{Text: answer.Policy, UpdatedAt: knownTime(answer.UpdatedAt)}, err
}
