// Package observation is what the reliability suite writes down of what it saw, and
// what docs/reliability.md is made of.
package observation

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// File is where the suite leaves its observations, below the repository's root.
const File = "out/reliability.jsonl"

// FileVariable is the environment variable that names another place.
const FileVariable = "RELIABILITY_REPORT"

// Observation is what was seen of one failure in one spec.
type Observation struct {
	// Section is the name of the table in the document that it belongs to.
	Section string `json:"section"`
	// Failure says what went wrong, Produced how it was made to.
	Failure  string `json:"failure"`
	Produced string `json:"produced"`
	// Headscale is the version that it was seen with.
	Headscale string `json:"headscale"`
	// Times is how often the failure was produced.
	Times int `json:"times"`
	// Minted is how many keys were made from the failure until all was well, all
	// times together, and Wanted how many of them somebody had asked for.
	Minted int `json:"minted"`
	Wanted int `json:"wanted"`
	// Left is how many unexpired keys of ours there were in the end.
	Left int `json:"left"`
	// Heal is how long it took each time until all was well, in seconds, counted from
	// the end of the failure.
	Heal []float64 `json:"heal"`
	// Calls is how often a consumer called Headscale with the key that it had just
	// read, Refusals how often it was refused, Streak how often in a row at most.
	Calls    int `json:"calls"`
	Refusals int `json:"refusals"`
	Streak   int `json:"streak"`
	// Midway is how many of the times hit a manager between two steps, where that was
	// left to chance.
	Midway int `json:"midway,omitempty"`
	// Note is one more thing worth telling.
	Note string `json:"note,omitempty"`
	// Slow says that the spec runs in the slow suite only.
	Slow bool `json:"slow"`
}

// Latency is one measurement of the time from a start to the key in the Secret.
type Latency struct {
	// Latency says what was measured. It tells a Latency from an Observation.
	Latency string `json:"latency"`
	// Headscale is the version that it was measured with.
	Headscale string `json:"headscale"`
	// Milliseconds are all samples.
	Milliseconds []float64 `json:"milliseconds"`
}

// Writer appends records to a file, one JSON object a line. It is safe for concurrent use.
type Writer struct {
	mutex sync.Mutex
	file  *os.File
}

// Create starts an empty file.
func Create(path string) (*Writer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &Writer{file: file}, nil
}

// Write adds a record.
func (w *Writer) Write(record any) error {
	line, err := json.Marshal(record)
	if err != nil {
		return err
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	_, err = w.file.Write(append(line, '\n'))
	return err
}

// Close ends the file.
func (w *Writer) Close() error { return w.file.Close() }

// Read returns the records of a file.
func Read(path string) ([]Observation, []Latency, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }()
	var observations []Observation
	var latencies []Latency
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var both struct {
			Observation
			Latency string `json:"latency"`
		}
		if err := json.Unmarshal(lines.Bytes(), &both); err != nil {
			return nil, nil, fmt.Errorf("reading %s: %w", path, err)
		}
		if both.Latency == "" {
			observations = append(observations, both.Observation)
			continue
		}
		var latency Latency
		if err := json.Unmarshal(lines.Bytes(), &latency); err != nil {
			return nil, nil, fmt.Errorf("reading %s: %w", path, err)
		}
		latencies = append(latencies, latency)
	}
	return observations, latencies, lines.Err()
}
