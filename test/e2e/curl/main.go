// Command curl stands in the place of curl where the commands of pages are followed on a
// machine that does not have it. It knows what these commands ask of it, and refuses all
// else.
package main

import (
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
	header http.Header
	tries  int
	// refused says that a port at which nobody listens is tried again.
	refused bool
}

func main() {
	o := options{header: http.Header{}}
	flag.Bool("s", false, "print no progress, which is never printed")
	flag.Bool("sS", false, "the same, and print errors, which are always printed")
	flag.Func("H", "a header of the request", o.addHeader)
	flag.IntVar(&o.tries, "retry", 0, "how often a request is tried again")
	flag.BoolVar(&o.refused, "retry-connrefused", false, "also where nobody listens")
	flag.Parse()
	if err := o.get(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		os.Exit(1)
	}
}

func (o *options) addHeader(text string) error {
	name, value, found := strings.Cut(text, ":")
	if !found {
		return fmt.Errorf("%q is no header", text)
	}
	o.header.Add(name, strings.TrimSpace(value))
	return nil
}

// get prints what is at a URL, with twice as long a pause before each further try, as curl
// makes it.
func (o *options) get(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("needs one URL")
	}
	url := args[0]
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	pause := time.Second
	for {
		err := o.try(url)
		if !o.refused || o.tries == 0 || !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		o.tries--
		<-time.After(pause)
		pause *= 2
	}
}

func (o *options) try(url string) error {
	request, err := http.NewRequest(http.MethodGet, url, http.NoBody) //nolint:noctx // the client has a timeout
	if err != nil {
		return err
	}
	request.Header = o.header
	client := &http.Client{Timeout: requestTimeout}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return errors.Join(err, response.Body.Close())
}
