package main

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// consumeEvery is the pause between two uses of the key.
const consumeEvery = 100 * time.Millisecond

// counts are what a consumer has met so far. A line of them is printed each second.
type counts struct {
	Answered    int   `json:"answered"`
	Refused     int   `json:"refused"`     // uses with no key that works
	Unreachable int   `json:"unreachable"` // uses that met no Headscale
	Keys        int   `json:"keys"`        // different keys that worked
	LongestGap  int64 `json:"longestGap"`  // milliseconds between two answered uses
}

// consumer uses the key as an operator or a UI does.
type consumer struct {
	url, file, secret string
	secrets           corev1client.SecretInterface
	counts            counts
	key, lastWorked   string
	lastAnswer        time.Time
}

// consume uses the key until it is stopped.
func consume(ctx context.Context, args []string) error {
	c := consumer{}
	flags := flag.NewFlagSet("consume", flag.ExitOnError)
	flags.StringVar(&c.url, "url", "", "Headscale's address")
	flags.StringVar(&c.file, "file", "", "the key in a mounted Secret")
	flags.StringVar(&c.secret, "secret", "", "namespace/name of the Secret, read through the API")
	_ = flags.Parse(args) // ExitOnError
	var err error
	if c.secrets, c.secret, err = secretIn("/", c.secret); err != nil {
		return err
	}
	every := time.NewTicker(consumeEvery)
	defer every.Stop()
	report := time.NewTicker(time.Second)
	defer report.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-report.C:
			if err := json.NewEncoder(os.Stdout).Encode(c.counts); err != nil {
				return err
			}
		case <-every.C:
			c.use(ctx)
		}
	}
}

// use uses the key once. One that is refused is read once more, because it may have
// been replaced since it was read.
func (c *consumer) use(ctx context.Context) {
	if c.key == "" || c.file != "" {
		c.read(ctx)
	}
	status := c.try(ctx)
	if status == http.StatusUnauthorized {
		c.read(ctx)
		status = c.try(ctx)
	}
	switch status {
	case http.StatusOK:
		c.worked()
	case http.StatusUnauthorized:
		c.counts.Refused++
	default:
		c.counts.Unreachable++
	}
}

// read reads the key; the old one stays where that fails.
func (c *consumer) read(ctx context.Context) {
	if c.file != "" {
		if content, err := os.ReadFile(c.file); err == nil {
			c.key = strings.TrimSpace(string(content))
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if read, err := c.secrets.Get(ctx, c.secret, metav1.GetOptions{}); err == nil {
		c.key = string(read.Data["api-key"])
	}
}

// try asks Headscale and returns the status, or 0.
func (c *consumer) try(ctx context.Context) int {
	result, err := send(ctx, http.DefaultClient, http.MethodGet, c.url+"/api/v1/user", c.key, http.NoBody)
	if err != nil {
		return 0
	}
	return result.Status
}

// worked counts a use that was answered.
func (c *consumer) worked() {
	now := time.Now()
	if !c.lastAnswer.IsZero() {
		c.counts.LongestGap = max(c.counts.LongestGap, now.Sub(c.lastAnswer).Milliseconds())
	}
	c.lastAnswer = now
	c.counts.Answered++
	if c.key != c.lastWorked {
		c.lastWorked = c.key
		c.counts.Keys++
	}
}
