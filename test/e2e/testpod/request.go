package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// requestTimeout bounds each request.
const requestTimeout = 10 * time.Second

// answer is what a request gave; it is printed as JSON.
type answer struct {
	Status int    `json:"status"`
	Body   string `json:"body"`
}

// request sends one request. The first line on stdin is the key, the rest the body.
func request(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("request needs a method and a URL")
	}
	input := bufio.NewReader(os.Stdin)
	key, err := input.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	result, err := send(ctx, http.DefaultClient, args[0], args[1], strings.TrimSpace(key), input)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// send sends a request with a bearer token. Every call makes a connection of its own,
// so that it meets the server as it is now.
func send(ctx context.Context, client *http.Client, method, url, bearer string, body io.Reader) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return answer{}, err
	}
	request.Close = true
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return answer{Status: response.StatusCode, Body: string(text)}, err
}
