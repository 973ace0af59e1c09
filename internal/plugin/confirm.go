package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// canAsk reports whether input is a terminal, so that somebody can answer a question.
func (a *app) canAsk() bool {
	file, ok := a.Streams.In.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// confirm asks a question, and returns an error unless the answer is yes.
func (a *app) confirm(ctx context.Context, question string) error {
	_, _ = fmt.Fprintf(a.Streams.ErrOut, "%s [y/N] ", newScreen(a.Streams.ErrOut, a.Getenv).text(question))
	answers := make(chan string, 1)
	go func() {
		answer, _ := bufio.NewReader(a.Streams.In).ReadString('\n') // none is no
		answers <- answer
	}()
	select {
	case <-ctx.Done():
		_, _ = fmt.Fprintln(a.Streams.ErrOut)
		return ctx.Err() // the process ends before the answer
	case answer := <-answers:
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return nil
		}
		return &exit{ExitFailure, errors.New("nothing was changed")}
	}
}
