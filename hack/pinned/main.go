// Command pinned refuses inputs of builds, tests and releases that are not pinned: actions by
// commit, images by digest. It looks into workflows, composite actions, Dockerfiles, Makefiles
// and scripts. What hack/unpinned lists is accepted. It does not see an image without a tag
// that a script runs.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// skipped are directories of what is built.
var skipped = []string{".git", "bin", "out", "dist"}

var (
	// own begins the images that are built here, and those of examples.
	own    = regexp.MustCompile(`^(headscale-operator|registry\.example\.com)/`)
	pinned = regexp.MustCompile(`(^[^:]+@[0-9a-f]{40}|@sha256:[0-9a-f]{64})$`)
	// image is one that says that it is one: a repository of several parts and a tag, which may
	// be an expression of a workflow.
	image = regexp.MustCompile(`(?:^|[^\w./:}$@-])([a-z0-9][a-z0-9.-]*(?::[0-9]+)?(?:/[a-z0-9][a-z0-9._-]*)+:(?:\w[\w.-]*|\$\{\{)(?:@sha256:[0-9a-f]+)?)`)
	// assigned is the value of a variable or an option for an image.
	assigned = regexp.MustCompile(`(?:(?:IMAGE|IMG|--image)[ \t]*[:?]?=[ \t]*|--image[ \t]+)["']?([a-z0-9][^\s"']*)`)
	// engine is a command that runs or pulls an image, and short an image of one part in its
	// arguments.
	engine = regexp.MustCompile(`(?:docker|podman|nerdctl|CONTAINER_TOOL[)}]?"?)[ \t]+(run|pull|create)[ \t]+(.*)`)
	short  = regexp.MustCompile(`^[a-z][a-z0-9._-]*:\w[\w.-]*(?:@sha256:[0-9a-f]+)?$`)
	// mounted is a stage or an image from which a Dockerfile copies.
	mounted = regexp.MustCompile(`(?i)[=, -]from=([^\s,]+)`)
	base    = regexp.MustCompile(`(?i)^\s*from\s+(?:--platform=\S+\s+)?(\S+)`)
	stage   = regexp.MustCompile(`(?i)^\s*from\s.*\sas\s+(\S+)`)
	// argument is the default of an argument for an image, and syntax the image that reads
	// the Dockerfile.
	argument = regexp.MustCompile(`(?i)^\s*arg\s+\w*(?:image|img)=["']?([^\s"']+)`)
	syntax   = regexp.MustCompile(`(?i)^#\s*syntax=(\S+)`)
	comment  = regexp.MustCompile(`(?m)(^|\s)#.*$`)
	number   = regexp.MustCompile(`^[0-9]+$`)
)

func main() {
	dir := flag.String("C", ".", "the repository's `directory`")
	flag.Parse()
	if err := run(*dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run fails if an input in a directory is neither pinned nor listed there.
func run(dir string) error {
	listed, err := readList(dir)
	if err != nil {
		return err
	}
	refused, err := check(dir, listed)
	if err == nil && len(refused) > 0 {
		err = errors.New(strings.Join(refused, "\n"))
	}
	return err
}

// readList returns the inputs that hack/unpinned lists.
func readList(dir string) ([]string, error) {
	content, err := fs.ReadFile(os.DirFS(dir), "hack/unpinned")
	return strings.Fields(comment.ReplaceAllString(string(content), "")), err
}

// check returns a sentence for each input in a directory that is neither pinned nor listed.
func check(dir string, listed []string) ([]string, error) {
	refused := map[string]bool{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(skipped, path):
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		inputs, err := inputsOf(dir, path)
		for _, input := range inputs {
			if !pinned.MatchString(input) && !own.MatchString(input) && !slices.Contains(listed, input) {
				refused[path+": "+input+" is not pinned: name its commit or digest, or list it in hack/unpinned"] = true
			}
		}
		return err
	})
	return slices.Sorted(maps.Keys(refused)), err
}

// inputsOf returns the actions and images that a file names.
func inputsOf(dir, path string) ([]string, error) {
	name := filepath.Base(path)
	isWorkflow := filepath.Dir(path) == filepath.Join(".github", "workflows") || strings.TrimSuffix(name, filepath.Ext(name)) == "action"
	extension := filepath.Ext(name)
	isDockerfile := strings.HasPrefix(name, "Dockerfile") || strings.HasPrefix(name, "Containerfile") || extension == ".Dockerfile"
	mayBeScript := extension == "" || extension == ".mk" || extension == ".sh"
	isYAML := extension == ".yaml" || extension == ".yml"
	if (!isWorkflow || !isYAML) && !isDockerfile && !mayBeScript {
		return nil, nil
	}
	content, err := fs.ReadFile(os.DirFS(dir), path)
	switch {
	case err != nil:
		return nil, err
	case isDockerfile:
		return inDockerfile(string(content)), nil
	case isYAML:
		var workflow any
		if err := yaml.Unmarshal(content, &workflow); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return inWorkflow("", workflow), nil
	case strings.HasSuffix(name, "akefile"), extension != "", bytes.HasPrefix(content, []byte("#!")):
		return inScript(string(content)), nil
	default:
		return nil, nil
	}
}

// inWorkflow returns the inputs in a value of a workflow or an action, which has a key.
func inWorkflow(key string, value any) []string {
	var found []string
	switch value := value.(type) {
	case map[string]any:
		for name, part := range value {
			found = append(found, inWorkflow(name, part)...)
		}
	case []any:
		for _, part := range value {
			found = append(found, inWorkflow(key, part)...)
		}
	case string:
		return inText(key, value)
	}
	return found
}

// inText returns the inputs in a text of a workflow.
func inText(key, text string) []string {
	lower := strings.ToLower(key)
	switch {
	case key == "run":
		return inScript(text)
	case key == "uses" && !strings.HasPrefix(text, "./"):
		return []string{text}
	case key == "uses", strings.HasPrefix(text, "$"), strings.HasSuffix(text, "Dockerfile"):
		return nil
	case key == "container", strings.HasSuffix(lower, "image"):
		return []string{strings.TrimPrefix(text, "docker://")}
	default:
		return submatches(image, text)
	}
}

// inScript returns the images in a script or a Makefile.
func inScript(text string) []string {
	text = comment.ReplaceAllString(text, "")
	found := submatches(image, text)
	for _, value := range submatches(assigned, text) {
		if !strings.Contains(value, "$") {
			found = append(found, value)
		}
	}
	for _, command := range engine.FindAllStringSubmatch(text, -1) {
		for _, word := range strings.Fields(command[2]) {
			word = strings.Trim(word, `"'`)
			if short.MatchString(word) || command[1] == "pull" && !strings.ContainsAny(word[:1], "-$") {
				found = append(found, word)
			}
		}
	}
	return found
}

// inDockerfile returns the images in a Dockerfile, without the names of its stages.
func inDockerfile(text string) []string {
	var found []string
	stages := map[string]bool{"scratch": true}
	for line := range strings.Lines(text) {
		found = append(found, submatches(syntax, line)...)
		line = comment.ReplaceAllString(line, "")
		found = append(found, submatches(argument, line)...)
		for _, name := range append(submatches(base, line), submatches(mounted, line)...) {
			if !stages[strings.ToLower(name)] && !number.MatchString(name) && !strings.HasPrefix(name, "$") {
				found = append(found, name)
			}
		}
		for _, name := range submatches(stage, line) {
			stages[strings.ToLower(name)] = true
		}
	}
	return found
}

// submatches returns the first group of each match.
func submatches(pattern *regexp.Regexp, text string) []string {
	var found []string
	for _, match := range pattern.FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	return found
}
