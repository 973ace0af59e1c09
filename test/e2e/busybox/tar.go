package main

import (
	"archive/tar"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// runTar writes or reads an archive: tar -C DIR -cf FILE PATH…, tar -C DIR -xf FILE. The
// file - is the standard output or input.
func runTar(args []string) error {
	flags := flag.NewFlagSet("tar", flag.ExitOnError)
	dir := flags.String("C", ".", "directory to work in")
	create := flags.String("cf", "", "archive to write")
	extract := flags.String("xf", "", "archive to read")
	_ = flags.Parse(args) // ExitOnError
	if (*create == "") == (*extract == "") {
		return fmt.Errorf("needs one of -cf and -xf")
	}
	archive, err := openArchive(*create, *extract)
	if err != nil {
		return err
	}
	if err := os.Chdir(*dir); err != nil {
		return err
	}
	if *create != "" {
		err = pack(archive, flags.Args())
	} else {
		err = unpack(archive)
	}
	return errors.Join(err, archive.Close())
}

// openArchive opens what is to be written, or else what is to be read.
func openArchive(create, extract string) (*os.File, error) {
	switch {
	case create == "-":
		return os.Stdout, nil
	case extract == "-":
		return os.Stdin, nil
	case create != "":
		return os.Create(create)
	default:
		return os.Open(extract)
	}
}

// pack writes files, and directories with all that is in them, with their modes, owners
// and times.
func pack(to io.Writer, paths []string) error {
	archive := tar.NewWriter(to)
	for _, path := range paths {
		if err := filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return packOne(archive, path)
		}); err != nil {
			return err
		}
	}
	return archive.Close()
}

func packOne(archive *tar.Writer, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	// A socket that a process has left is nothing to keep.
	if info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	var target string
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name = "./" + path
	if info.IsDir() {
		header.Name = strings.TrimSuffix("./"+path, "/.") + "/"
	}
	if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return errors.Join(err, file.Close())
}

// unpack makes the files of an archive. As in busybox, modes, owners and times are set
// where the user may do that, and stay as they are where not: a user other than root can
// set none of those of the volume's own directory.
func unpack(from io.Reader) error {
	archive := tar.NewReader(from)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(header.Name) {
			return fmt.Errorf("%s leads out of the directory", header.Name)
		}
		if err := unpackOne(archive, header); err != nil {
			return err
		}
	}
}

func unpackOne(archive io.Reader, header *tar.Header) error {
	mode := header.FileInfo().Mode()
	switch header.Typeflag {
	case tar.TypeDir:
		if err := os.MkdirAll(header.Name, mode.Perm()); err != nil {
			return err
		}
	case tar.TypeSymlink:
		return os.Symlink(header.Linkname, header.Name)
	case tar.TypeReg:
		if err := writeFile(header.Name, mode.Perm(), archive); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is of a type that is not known here", header.Name)
	}
	_ = os.Chown(header.Name, header.Uid, header.Gid)
	_ = os.Chmod(header.Name, mode)
	_ = os.Chtimes(header.Name, header.ModTime, header.ModTime)
	return nil
}

func writeFile(name string, mode fs.FileMode, content io.Reader) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}
