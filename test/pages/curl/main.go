// Command curl stands in the place of curl where the commands of pages are followed on a
// machine that does not have it. It knows what these commands ask of it, and refuses all
// else.
package main

import (
	"bufio"
	"context"
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

// requestTimeout bounds each try.
const requestTimeout = 10 * time.Second

// options are what the command line says.
type options struct {
	urls   []string
	header http.Header
	// data is what is sent, which makes a request a POST.
	data string
	// file is where the answer goes; empty: the standard output.
	file string
	// format is what is printed after the answer.
	format string
	// fail makes a refusal an error.
	fail  bool
	tries int
	// refused says that a port at which nobody listens is tried again.
	refused bool
}

func main() {
	o, err := parse(os.Args[1:])
	if err == nil {
		err = o.get(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		os.Exit(1)
	}
}

// parse reads the command line, on which options may come after the URL.
func parse(args []string) (*options, error) {
	o := &options{header: http.Header{}}
	flags := flag.NewFlagSet("curl", flag.ContinueOnError)
	flags.Bool("s", false, "print no progress, which is never printed")
	flags.Bool("sS", false, "the same, and print errors, which are always printed")
	flags.BoolVar(&o.fail, "fsS", false, "the same, and a refusal is an error")
	flags.Func("H", "a header of the request; @-: those on the standard input", o.addHeader)
	flags.StringVar(&o.data, "d", "", "what to send")
	flags.StringVar(&o.file, "o", "", "where the answer goes")
	flags.StringVar(&o.format, "w", "", `what to print afterwards: %{http_code} and \n are known`)
	flags.IntVar(&o.tries, "retry", 0, "how often a request is tried again")
	flags.BoolVar(&o.refused, "retry-connrefused", false, "also where nobody listens")
	for len(args) > 0 {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if args = flags.Args(); len(args) > 0 {
			o.urls, args = append(o.urls, args[0]), args[1:]
		}
	}
	if len(o.urls) != 1 {
		return nil, errors.New("needs one URL")
	}
	return o, nil
}

func (o *options) addHeader(text string) error {
	if text != "@-" {
		return o.addLine(text)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := o.addLine(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (o *options) addLine(line string) error {
	name, value, found := strings.Cut(line, ":")
	if !found {
		return errors.New("a header has no colon")
	}
	o.header.Add(name, strings.TrimSpace(value))
	return nil
}

// get prints what is at the URL, with twice as long a pause before each further try, as curl
// makes it.
func (o *options) get(ctx context.Context) error {
	pause := time.Second
	for {
		err := o.try(ctx)
		if !o.refused || o.tries == 0 || !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		o.tries--
		<-time.After(pause)
		pause *= 2
	}
}

func (o *options) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	url, method := o.urls[0], http.MethodGet
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	if o.data != "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(o.data))
	if err != nil {
		return err
	}
	request.Header = o.header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return errors.Join(o.show(response), response.Body.Close())
}

// show prints an answer as it is asked for.
func (o *options) show(response *http.Response) error {
	if o.fail && response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the server answers %s", response.Status)
	}
	to := os.Stdout
	if o.file != "" {
		var err error
		if to, err = os.Create(o.file); err != nil {
			return err
		}
		defer func() { _ = to.Close() }()
	}
	if _, err := io.Copy(to, response.Body); err != nil {
		return err
	}
	_, err := strings.NewReplacer("%{http_code}", fmt.Sprint(response.StatusCode), `\n`, "\n").WriteString(os.Stdout, o.format)
	return err
}
