package headscaletest

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"strconv"
	"time"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// httpTransport is the admin API of Headscale from 0.30 on.
type httpTransport struct{ *http.Server }

func newHTTPTransport(s *Server) httpTransport {
	return httpTransport{&http.Server{
		Handler:           newHTTPHandler(s),
		ErrorLog:          log.New(io.Discard, "", 0), // connections that were cut on purpose
		ReadHeaderTimeout: time.Minute,
	}}
}

func (t httpTransport) Cut() { _ = t.Close() }

func newHTTPHandler(s *Server) http.Handler {
	h := &httpService{server: s}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/apikey", h.list)
	mux.HandleFunc("POST /api/v1/apikey", h.create)
	mux.HandleFunc("POST /api/v1/apikey/expire", h.expire)
	return mux
}

type httpService struct{ server *Server }

type listedKey struct {
	ID         string     `json:"id"`
	Prefix     string     `json:"prefix"`
	Expiration *time.Time `json:"expiration"`
	CreatedAt  time.Time  `json:"createdAt"`
	LastSeen   *time.Time `json:"lastSeen"`
}

// list answers a client that only wants to know the protocol without a fault: over
// gRPC no fault can hit that question either.
func (h *httpService) list(w http.ResponseWriter, r *http.Request) {
	keys := []listedKey{}
	collect := func(database *Database) error {
		for _, key := range database.Keys() {
			keys = append(keys, listedKey{
				ID:         strconv.FormatUint(key.ID, 10),
				Prefix:     listedPrefix(V030, key.Prefix),
				Expiration: key.Expiration,
				CreatedAt:  key.CreatedAt,
			})
		}
		return nil
	}
	var err error
	if r.UserAgent() == headscale.ProbeUserAgent {
		err = collect(h.server.Database())
	} else {
		err = h.server.perform(List, collect)
	}
	answer(w, err, "listing api keys", map[string]any{"apiKeys": keys})
}

func (h *httpService) create(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Expiration string `json:"expiration"`
	}
	if !decode(w, r, &request) {
		return
	}
	expiration, err := time.Parse(time.RFC3339, request.Expiration)
	if err != nil {
		writeProblem(w, http.StatusUnprocessableEntity, "validation failed", problemError{
			Message:  "expected string to be RFC 3339 date-time",
			Location: "body.expiration",
			Value:    request.Expiration,
		})
		return
	}
	var text string
	err = h.server.perform(Create, func(database *Database) error {
		text = h.server.mint(database, expiration)
		return nil
	})
	answer(w, err, "creating api key", map[string]any{"apiKey": text})
}

func (h *httpService) expire(w http.ResponseWriter, r *http.Request) {
	var request struct {
		ID     uint64 `json:"id,string"`
		Prefix string `json:"prefix"`
	}
	if !decode(w, r, &request) {
		return
	}
	err := h.server.perform(Expire, func(database *Database) error {
		return h.server.expire(database, request.ID, request.Prefix)
	})
	answer(w, err, "getting api key", map[string]any{})
}

func decode(w http.ResponseWriter, r *http.Request, request any) bool {
	if err := json.NewDecoder(r.Body).Decode(request); err != nil {
		writeProblem(w, http.StatusBadRequest, "reading request", problemError{Message: err.Error()})
		return false
	}
	return true
}

// answer writes what a call came to, or cuts the connection.
func answer(w http.ResponseWriter, err error, doing string, content any) {
	switch {
	case err == nil:
		writeJSON(w, "application/json", http.StatusOK, content)
	case errors.Is(err, errCut):
		panic(http.ErrAbortHandler) // the documented way to hang up
	case errors.Is(err, errNotFound):
		writeProblem(w, http.StatusNotFound, doing, problemError{Message: err.Error()})
	default:
		writeProblem(w, http.StatusInternalServerError, doing, problemError{Message: err.Error()})
	}
}

type problemError struct {
	Message  string `json:"message"`
	Location string `json:"location,omitempty"`
	Value    any    `json:"value,omitempty"`
}

func writeProblem(w http.ResponseWriter, status int, detail string, cause problemError) {
	writeJSON(w, "application/problem+json", status, struct {
		Title  string         `json:"title"`
		Status int            `json:"status"`
		Detail string         `json:"detail"`
		Errors []problemError `json:"errors"`
	}{http.StatusText(status), status, detail, []problemError{cause}})
}

func writeJSON(w http.ResponseWriter, contentType string, status int, content any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(content) // fails when the client is gone
}
