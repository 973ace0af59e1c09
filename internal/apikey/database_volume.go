package apikey

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// CheckVolumeCommand is the argument that has the program look at a database's file and end.
const CheckVolumeCommand = "check-volume"

// CheckVolume sees to it that what counts as the database of a volume is one: Litestream restores
// none where the file is there, whatever it has. A file without any content is removed, for SQLite
// would begin a new database with it. Nothing that has content is touched: where the database has
// none and its log has, it is an error, because SQLite would delete that log, or add it to the database
// that is restored.
func CheckVolume(arguments []string, printed io.Writer) error {
	flags := flag.NewFlagSet(CheckVolumeCommand, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	database := flags.String("database", "", "`path` of the database")
	if err := flags.Parse(arguments); err != nil {
		return explain(err)
	}
	if *database == "" || flags.NArg() > 0 {
		return errors.New(CheckVolumeCommand + " takes --database")
	}
	// Headscale may have written the volume before and then been taken over: no path leads out of it.
	root, err := os.OpenRoot(filepath.Dir(*database))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the directory of the database: %w", err)
	}
	defer func() { _ = root.Close() }()
	return checkVolume(root, filepath.Base(*database), printed)
}

// logHeaders are the logs of a database, and how large each is at most where it has a header and no
// content: https://sqlite.org/fileformat.html.
var logHeaders = map[string]int64{"-wal": 32, "-journal": 512}

// checkVolume looks at the files of a database in a directory.
func checkVolume(root *os.Root, name string, printed io.Writer) error {
	info, err := root.Lstat(name)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for the database: %w", err)
	}
	if there && (!info.Mode().IsRegular() || info.Size() > 0) {
		return nil
	}
	var empty []string
	for suffix, header := range logHeaders {
		log, err := root.Lstat(name + suffix)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("looking for the log of the database: %w", err)
		case log.Mode().IsRegular() && log.Size() <= header:
			empty = append(empty, name+suffix)
		default:
			return fmt.Errorf("%s on the data volume is empty or not there, but %s has %d bytes of a database that was, which SQLite would delete, or add to another database. "+
				"Nothing is touched: put the database back, or move %[2]s away, too: the volume counts as empty then (spec.backup.restore says what happens)", name, name+suffix, log.Size())
		}
	}
	if there {
		empty = append(empty, name)
	}
	for _, file := range empty {
		if err := root.Remove(file); err != nil {
			return fmt.Errorf("removing the empty file %s: %w", file, err)
		}
		_, _ = fmt.Fprintf(printed, "Removed %s, which has no content\n", file)
	}
	return nil
}
