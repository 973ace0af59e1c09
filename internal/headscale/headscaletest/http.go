package headscaletest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"strconv"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// newHTTPServer returns the admin API of Headscale from 0.30 on.
func newHTTPServer(s *Server) *http.Server {
	mux := http.NewServeMux()
	handle := func(pattern string, operation Operation, doing string, do func(*Server, *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			content, err := s.performHTTP(operation, r, do)
			answer(w, content, err, doing)
		})
	}
	handle("GET /api/v1/apikey", List, "listing api keys", listKeys)
	handle("POST /api/v1/apikey", Create, "creating api key", createKey)
	handle("POST /api/v1/apikey/expire", Expire, "getting api key", expireKey)
	handleTailnet(handle)
	return &http.Server{
		Handler:           mux,
		ErrorLog:          log.New(io.Discard, "", 0), // connections that were cut on purpose
		ReadHeaderTimeout: time.Minute,
	}
}

// performHTTP answers a client that only wants to know the protocol without a fault: over
// gRPC no fault can hit that question either.
func (s *Server) performHTTP(operation Operation, r *http.Request, do func(*Server, *http.Request) (any, error)) (any, error) {
	body, err := io.ReadAll(r.Body) // before a delay, after which the caller may be gone
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if r.UserAgent() == headscale.ProbeUserAgent {
		return do(s, r)
	}
	var content any
	err = s.perform(operation, func() (err error) {
		content, err = do(s, r)
		return err
	})
	return content, err
}

type listedKey struct {
	ID         string     `json:"id"`
	Prefix     string     `json:"prefix"`
	Expiration *time.Time `json:"expiration"`
	CreatedAt  time.Time  `json:"createdAt"`
	LastSeen   *time.Time `json:"lastSeen"`
}

func listKeys(s *Server, _ *http.Request) (any, error) {
	keys := []listedKey{}
	for _, key := range s.Database().Keys() {
		id, prefix := strconv.FormatUint(key.ID, 10), listedPrefix(V030, key.Prefix)
		keys = append(keys, listedKey{ID: id, Prefix: prefix, Expiration: key.Expiration, CreatedAt: key.CreatedAt})
	}
	return map[string]any{"apiKeys": keys}, nil
}

func createKey(s *Server, r *http.Request) (any, error) {
	var request struct {
		Expiration string `json:"expiration"`
	}
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	expiration, err := time.Parse(time.RFC3339, request.Expiration)
	if err != nil {
		return nil, newProblem(http.StatusUnprocessableEntity, "validation failed", problemError{
			"expected string to be RFC 3339 date-time", "body.expiration", request.Expiration,
		})
	}
	return map[string]any{"apiKey": s.createKey(expiration)}, nil
}

func expireKey(s *Server, r *http.Request) (any, error) {
	var request struct {
		ID     uint64 `json:"id,string"`
		Prefix string `json:"prefix"`
	}
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	return map[string]any{}, s.expire(request.ID, request.Prefix)
}

func decode(r *http.Request, request any) error {
	if err := json.NewDecoder(r.Body).Decode(request); err != nil {
		return newProblem(http.StatusBadRequest, "reading request", problemError{Message: err.Error()})
	}
	return nil
}

// problem is an answer that says what went wrong.
type problem struct {
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail"`
	Errors []problemError `json:"errors,omitempty"`
}

type problemError struct {
	Message  string `json:"message"`
	Location string `json:"location,omitempty"`
	Value    any    `json:"value,omitempty"`
}

func newProblem(status int, detail string, cause problemError) *problem {
	return &problem{http.StatusText(status), status, detail, []problemError{cause}}
}

func (p *problem) Error() string { return p.Detail }

// problemOf says what went wrong in doing something.
func problemOf(err error, doing string) *problem {
	var (
		known   *problem
		refused *refusal
		status  = http.StatusInternalServerError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, errNotFound):
		status = http.StatusNotFound
	case errors.As(err, &refused):
		status = refused.status
	}
	if status == http.StatusConflict {
		return &problem{Title: http.StatusText(status), Status: status, Detail: err.Error()}
	}
	return newProblem(status, doing, problemError{Message: err.Error()})
}

// answer writes what a call came to, or cuts the connection.
func answer(w http.ResponseWriter, content any, err error, doing string) {
	contentType, status := "application/json", http.StatusOK
	if err != nil {
		if errors.Is(err, errCut) {
			panic(http.ErrAbortHandler) // the documented way to hang up
		}
		refused := problemOf(err, doing)
		contentType, status, content = "application/problem+json", refused.Status, refused
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(content) // fails when the client is gone
}
