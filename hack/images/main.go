// Command images builds container images of single static programs, without a
// container engine: each is one archive for docker load, kind load image-archive,
// ctr images import and crane push.
//
//	images --output out/images headscale-operator/operator:v1=bin/manager
//
// An image has no base: it holds the program at /<its file name>, which is also its
// entrypoint, a /tmp, the license if one is given, and runs as the user nonroot (65532).
// There is no shell. --link adds further names of a multi-call program. Builds are
// reproducible: the same program gives the same image, byte for byte.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// settings are the options that apply to all images.
type settings struct {
	output   string
	platform string
	created  time.Time
	labels   map[string]string
	links    []string
	license  []byte
}

func run(args []string) error {
	s := settings{labels: map[string]string{}}
	flags := flag.NewFlagSet("images", flag.ExitOnError)
	flags.StringVar(&s.output, "output", ".", "directory for the archives")
	flags.StringVar(&s.platform, "platform", "linux/amd64", "platform of the programs")
	flags.Func("created", "date of the images, in RFC 3339 (default: none, 1970)", s.setCreated)
	flags.Func("license", "file that becomes /LICENSE of the images (default: none)", s.readLicense)
	flags.Func("link", "another name of the programs, as a link in /; may be repeated", s.addLink)
	flags.Func("label", "label of the images, key=value; may be repeated", s.addLabel)
	_ = flags.Parse(args) // ExitOnError
	if flags.NArg() == 0 {
		return fmt.Errorf("name at least one image, such as headscale-operator/operator:v1=bin/manager")
	}
	if err := os.MkdirAll(s.output, 0o750); err != nil {
		return err
	}
	for _, argument := range flags.Args() {
		archive, err := s.write(argument)
		if err != nil {
			return fmt.Errorf("%s: %w", argument, err)
		}
		fmt.Println(archive)
	}
	return nil
}

// write builds the image of an argument, name:tag=program, and returns the path of its
// archive.
func (s *settings) write(argument string) (string, error) {
	reference, program, found := strings.Cut(argument, "=")
	if !found {
		return "", fmt.Errorf("the program is missing: write name:tag=path/of/the/program")
	}
	tag, err := name.NewTag(reference, name.WithDefaultTag(""))
	switch {
	case err != nil:
		return "", err
	case tag.TagStr() == "":
		return "", fmt.Errorf("the tag is missing: write name:tag=path/of/the/program")
	}
	platform, err := v1.ParsePlatform(s.platform)
	if err != nil {
		return "", err
	}
	image, err := newImage(program, imageOptions{platform: platform, created: s.created, labels: s.labels, links: s.links, license: s.license})
	if err != nil {
		return "", err
	}
	archive := filepath.Join(s.output, strings.NewReplacer("/", "_", ":", "_").Replace(reference)+".tar")
	return archive, tarball.WriteToFile(archive, tag, image)
}

func (s *settings) setCreated(text string) (err error) {
	s.created, err = time.Parse(time.RFC3339, text)
	return err
}

func (s *settings) readLicense(path string) (err error) {
	s.license, err = os.ReadFile(path) //nolint:gosec // the caller of this program chooses the path
	return err
}

func (s *settings) addLink(name string) error {
	if name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("%q is not the name of a file in /", name)
	}
	s.links = append(s.links, name)
	return nil
}

func (s *settings) addLabel(text string) error {
	key, value, found := strings.Cut(text, "=")
	if !found {
		return fmt.Errorf("%q is not key=value", text)
	}
	s.labels[key] = value
	return nil
}
