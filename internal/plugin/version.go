package plugin

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// versionReport is what a build says of itself, for programs.
type versionReport struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Date     string `json:"date"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// versionCommand is kubectl headscale version. It does not connect to a cluster.
func (a *app) versionCommand() *cobra.Command {
	var format output
	command := &cobra.Command{
		Use:               "version",
		Short:             "Print the version of this plugin",
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			build := a.Build
			if format != "" {
				return format.write(a.Streams.Out, versionReport{build.Version, build.Commit, build.Date, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
			}
			_, err := fmt.Fprintf(a.Streams.Out, "kubectl-headscale %s (commit %s, %s)\n", build.Version, build.Commit, build.Date)
			return err
		},
	}
	format.addTo(command)
	return command
}
