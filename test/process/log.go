package process

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// Log collects what a process prints. It is safe for concurrent use.
type Log struct {
	mutex sync.Mutex
	text  bytes.Buffer
	tee   io.Writer
}

// NewLog returns a Log that also hands on what it is given to another writer,
// which may be nil.
func NewLog(tee io.Writer) *Log {
	return &Log{tee: tee}
}

// Write adds to the log.
func (l *Log) Write(text []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.text.Write(text)
	if l.tee != nil {
		// A process must not die of a broken pipe because nobody listens.
		_, _ = l.tee.Write(text)
	}
	return len(text), nil
}

// String is everything so far.
func (l *Log) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

// Tail is the last lines, without a final newline.
func (l *Log) Tail(lines int) string {
	all := strings.Split(strings.TrimRight(l.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
