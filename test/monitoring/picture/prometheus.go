package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/process"
)

// startLimit is how long Prometheus may take to answer.
const startLimit = 2 * time.Minute

// freeAddress is one that nobody listens on.
func freeAddress() (string, error) { return env.FreeAddress() }

// waitFor waits until an address answers that all is well.
func waitFor(ctx context.Context, p *process.Process, address string) error {
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, startLimit, true, func(ctx context.Context) (bool, error) {
		if !p.Running() {
			return false, errors.New("it ended")
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, nil //nolint:nilerr // it does not answer yet
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	})
}

// point is a value at a time.
type point struct {
	at    time.Time
	value float64
}

// line is one series of an answer.
type line struct {
	labels map[string]string
	points []point
}

// prometheus asks a Prometheus.
type prometheus struct{ address string }

// answer is the format of an answer.
type answer struct {
	Error string `json:"error"`
	Data  struct {
		Result []struct {
			Metric map[string]string `json:"metric"`
			Value  [2]any            `json:"value"`
			Values [][2]any          `json:"values"`
		} `json:"result"`
	} `json:"data"`
}

// at asks for the values at a time.
func (p prometheus) at(ctx context.Context, expression string, at time.Time) ([]line, error) {
	return p.ask(ctx, "query", url.Values{"query": {expression}, "time": {seconds(at)}})
}

// between asks for the values between two times.
func (p prometheus) between(ctx context.Context, expression string, from, to time.Time, step time.Duration) ([]line, error) {
	return p.ask(ctx, "query_range", url.Values{
		"query": {expression}, "start": {seconds(from)}, "end": {seconds(to)},
		"step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	})
}

// ask asks a question of Prometheus' API.
func (p prometheus) ask(ctx context.Context, question string, parameters url.Values) ([]line, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/api/v1/"+question+"?"+parameters.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var a answer
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, fmt.Errorf("%s: %s", parameters.Get("query"), a.Error)
	}
	var lines []line
	for _, result := range a.Data.Result {
		l := line{labels: result.Metric}
		if result.Values == nil {
			result.Values = [][2]any{result.Value}
		}
		for _, pair := range result.Values {
			if p := pointOf(pair); !math.IsNaN(p.value) {
				l.points = append(l.points, p)
			}
		}
		if len(l.points) > 0 {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// pointOf reads a time in seconds and a value in text.
func pointOf(pair [2]any) point {
	at, _ := pair[0].(float64)
	text, _ := pair[1].(string)
	value, _ := strconv.ParseFloat(text, 64)
	return point{time.UnixMilli(int64(at * 1000)), value}
}

// seconds is a time as Prometheus reads it.
func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}
