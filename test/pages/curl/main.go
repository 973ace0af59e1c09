// Command curl stands in the place of curl where the commands of pages are followed on a
// machine that does not have it. It knows what these commands ask of it, and refuses all
// else.
package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		os.Exit(1)
	}
}

// run does what the command line says, on which options may come after the URL.
func run(args []string, in io.Reader, out io.Writer) error {
	var urls, headers []string
	flags := flag.NewFlagSet("curl", flag.ContinueOnError)
	flags.Bool("s", false, "print no progress, which is never printed")
	flags.Bool("sS", false, "the same, and print errors, which are always printed")
	fail := flags.Bool("fsS", false, "the same, and a refusal is an error")
	flags.Func("H", "a header of the request; @-: those on the standard input", func(text string) error {
		headers = append(headers, text)
		return nil
	})
	data := flags.String("d", "", "what to send, which makes the request a POST")
	file := flags.String("o", "", "where the answer goes")
	format := flags.String("w", "", `what to print afterwards: %{http_code} and \n are known`)
	tries := flags.Int("retry", 0, "how often a request is tried again")
	refused := flags.Bool("retry-connrefused", false, "also where nobody listens")
	unverified := flags.Bool("k", false, "take any certificate")
	for len(args) > 0 {
		if err := flags.Parse(args); err != nil {
			return err
		}
		if args = flags.Args(); len(args) > 0 {
			urls, args = append(urls, args[0]), args[1:]
		}
	}
	if len(urls) != 1 {
		return errors.New("needs one URL")
	}
	request, err := newRequest(urls[0], *data, headers, in)
	if err != nil {
		return err
	}
	client := newClient(*unverified)
	response, err := client.Do(request)
	for pause := time.Second; errors.Is(err, syscall.ECONNREFUSED) && *refused && *tries > 0; pause *= 2 {
		<-time.After(pause)
		*tries--
		response, err = client.Do(request)
	}
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if *fail && response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the server answers %s", response.Status)
	}
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if *file != "" {
		err = os.WriteFile(*file, content, 0o600)
	} else {
		_, err = out.Write(content)
	}
	_, _ = strings.NewReplacer("%{http_code}", fmt.Sprint(response.StatusCode), `\n`, "\n").WriteString(out, *format)
	return err
}

// newClient takes any certificate where it is unverified.
func newClient(unverified bool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: unverified},
	}}
}

func newRequest(url, data string, headers []string, in io.Reader) (*http.Request, error) {
	method := http.MethodGet
	if data != "" {
		method = http.MethodPost
	}
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	request, err := http.NewRequest(method, url, strings.NewReader(data)) //nolint:noctx // ends with the process
	if err != nil {
		return nil, err
	}
	for _, header := range headers {
		if header == "@-" {
			lines, err := io.ReadAll(in)
			if err != nil {
				return nil, err
			}
			header = strings.TrimSpace(string(lines))
		}
		for line := range strings.Lines(header) {
			name, value, found := strings.Cut(line, ":")
			if !found {
				return nil, errors.New("a header has no colon")
			}
			request.Header.Add(name, strings.TrimSpace(value))
		}
	}
	return request, nil
}
