package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/test/env"
	"infrado.cloud/headscale-operator/test/serverbuild"
)

// Images that the suite makes. Nothing is pulled, unless E2E_PULLS says that it can be.
const (
	operatorRepository = "headscale-operator/operator"
	managerRepository  = "headscale-operator/apikey-manager"
	currentTag         = "e2e"
	previousTag        = "e2e-previous"
	testpodImage       = "headscale-operator/testpod:e2e"
	nodeImage          = "headscale-operator/node:e2e"
	kubectlImage       = "headscale-operator/kubectl:e2e"
)

// previousRoot is the directory with the files of the revision that is upgraded.
var previousRoot string

// loadImages makes all images and loads them into the cluster.
func loadImages(ctx context.Context, servers serverbuild.Servers) error {
	dir, err := os.MkdirTemp("", "e2e-images-")
	if err != nil {
		return err
	}
	DeferCleanup(func() error { return os.RemoveAll(dir) })
	previousRoot = filepath.Join(dir, "previous")
	if err := checkOut(ctx, previousRoot); err != nil {
		return err
	}
	programs := map[string]string{
		kubectlImage: servers.Kubectl(), v1beta1.DefaultBackupImage: filepath.Join(servers.Backup["litestream"], "litestream"),
	}
	for version, program := range servers.Headscale {
		programs["headscale/headscale:"+version] = program
	}
	if err := buildPrograms(ctx, dir, programs); err != nil {
		return err
	}
	if err := buildOperators(ctx, dir, programs); err != nil {
		return err
	}
	return makeAndLoad(ctx, dir, programs)
}

// buildPrograms builds what runs in the suite's own pods.
func buildPrograms(ctx context.Context, dir string, programs map[string]string) error {
	programs[testpodImage], programs[nodeImage] = filepath.Join(dir, "testpod"), filepath.Join(dir, "node")
	if err := serverbuild.BuildProgram(ctx, root, "./test/e2e/testpod", programs[testpodImage], GinkgoWriter); err != nil {
		return err
	}
	if err := serverbuild.BuildProgram(ctx, filepath.Join(root, "test", "e2e", "node"), ".", programs[nodeImage], GinkgoWriter); err != nil {
		return err
	}
	if os.Getenv("E2E_PULLS") != "" {
		return nil
	}
	image, err := busyboxImage()
	if err != nil {
		return err
	}
	programs[image] = filepath.Join(dir, busybox)
	return serverbuild.BuildProgram(ctx, root, "./test/e2e/testpod", programs[image], GinkgoWriter)
}

// busybox is the name of testpod where it stands in for the image that the pages have pods of,
// for a shell and tar.
const busybox = "busybox"

var busyboxReference = regexp.MustCompile(`image: (busybox:\S+)`)

// busyboxImage is the name that this image has in docs/operations.md.
func busyboxImage() (string, error) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		return "", err
	}
	match := busyboxReference.FindSubmatch(page)
	if match == nil {
		return "", fmt.Errorf("docs/operations.md has no pod of busybox")
	}
	return string(match[1]), nil
}

// furtherNames are the flags for further names of a program in its image.
func furtherNames(program string) []string {
	if filepath.Base(program) == busybox {
		return []string{"--link", "sh", "--link", "tar", "--link", "sleep"}
	}
	return nil
}

// buildOperators builds the operator and the API Key Manager as they are and as they were.
// Those of now have the names in the README's commands too.
func buildOperators(ctx context.Context, dir string, programs map[string]string) error {
	for tag, source := range map[string]string{currentTag: root, previousTag: previousRoot} {
		target := filepath.Join(dir, tag)
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		binaries, err := env.BuildBinaries(ctx, source, target, GinkgoWriter)
		if err != nil {
			return err
		}
		programs[operatorRepository+":"+tag], programs[managerRepository+":"+tag] = binaries.Operator, binaries.Manager
	}
	operator, manager, err := readmeImages()
	if err != nil {
		return err
	}
	programs[operator], programs[manager] = programs[operatorRepository+":"+currentTag], programs[managerRepository+":"+currentTag]
	return nil
}

// checkOut puts the files of the revision E2E_PREVIOUS into dir.
func checkOut(ctx context.Context, dir string) error {
	revision := os.Getenv("E2E_PREVIOUS")
	if revision == "" {
		revision = "HEAD~1"
	}
	if _, err := output(ctx, "", "git", "rev-parse", "--verify", revision+"^{commit}"); err != nil {
		return fmt.Errorf("E2E_PREVIOUS must name a commit that is there; a shallow clone has none but the last: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	archive := dir + ".tar"
	if _, err := output(ctx, "", "git", "archive", "--output", archive, revision); err != nil {
		return err
	}
	_, err := output(ctx, "", "tar", "-xf", archive, "-C", dir)
	return err
}

// makeAndLoad makes an image of each program and loads it.
func makeAndLoad(ctx context.Context, dir string, programs map[string]string) error {
	maker := filepath.Join(dir, "images")
	if _, err := output(ctx, "", "go", "build", "-C", filepath.Join(root, "hack", "images"), "-o", maker, "."); err != nil {
		return err
	}
	for image, program := range programs {
		args := append([]string{"--output", dir}, furtherNames(program)...)
		archive, err := output(ctx, "", maker, append(args, image+"="+program)...)
		if err != nil {
			return err
		}
		if err := load(ctx, image, strings.TrimSpace(archive)); err != nil {
			return fmt.Errorf("loading %s: %w", image, err)
		}
	}
	return nil
}

// load loads an image into the cluster.
func load(ctx context.Context, image, archive string) error {
	command := strings.Fields(os.Getenv("E2E_LOAD_IMAGE"))
	if len(command) == 0 {
		command = []string{"kind", "load", "docker-image"}
	}
	argument := archive
	if command[len(command)-1] == "docker-image" {
		// This takes an image's name, and the image from Docker.
		if _, err := output(ctx, "", "docker", "load", "--input", archive); err != nil {
			return err
		}
		argument = image
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return fmt.Errorf("E2E_LOAD_IMAGE must be a command that loads an image's archive into the cluster: %w", err)
	}
	_, err := output(ctx, "", command[0], append(command[1:], argument)...)
	return err
}
