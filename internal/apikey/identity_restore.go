package apikey

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// RestoreIdentityCommand is the argument that has the program restore private keys and end.
const RestoreIdentityCommand = "restore-identity"

// maxPrivateKeyFile is how much of a file is read that should have a private key, in bytes.
const maxPrivateKeyFile = 4 << 10

// privateKeyMode is the mode with which Headscale makes its keys.
const privateKeyMode = 0o600

// identityRestore is what the command line says.
type identityRestore struct {
	// dataDir is where the data volume is mounted, secretDir the Secret with the keys, and
	// copyDir is what the API Key Manager reads the keys from.
	dataDir, secretDir, copyDir string
	// files are the entries of the Secret and the paths below dataDir.
	files []identityFile
	// printed takes what is done.
	printed io.Writer
}

// identityFile is a private key.
type identityFile struct{ entry, path string }

// RestoreIdentity sees to it that the data volume has Headscale's private keys before Headscale
// starts. A key that is there stays. One that is missing comes from the Secret, or is made where
// the Secret has none, as Headscale would. What it finds or writes it copies for the API Key
// Manager, which need not read the volume.
func RestoreIdentity(arguments []string, printed io.Writer) error {
	restore := identityRestore{printed: printed}
	flags := flag.NewFlagSet(RestoreIdentityCommand, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&restore.dataDir, "data-dir", "", "`directory` of the data volume")
	flags.StringVar(&restore.secretDir, "secret-dir", "", "`directory` of the Secret with the keys")
	flags.StringVar(&restore.copyDir, "copy-dir", "", "`directory` for a copy of the keys")
	if err := flags.Parse(arguments); err != nil {
		return explain(err)
	}
	if restore.dataDir == "" || restore.secretDir == "" || restore.copyDir == "" || flags.NArg() == 0 {
		return errors.New(RestoreIdentityCommand + " takes --data-dir, --secret-dir, --copy-dir, and for each key ENTRY=PATH with a path below the data directory")
	}
	for _, argument := range flags.Args() {
		entry, file, found := strings.Cut(argument, "=")
		if !found || entry != filepath.Base(entry) || !filepath.IsLocal(file) {
			return fmt.Errorf("%q must be ENTRY=PATH: an entry of the Secret, and a path below the data directory", argument)
		}
		restore.files = append(restore.files, identityFile{entry, path.Clean(file)})
	}
	return restore.run()
}

// run restores each key. Headscale may have written the volume before and then been taken over:
// no path leads out of it.
func (r *identityRestore) run() error {
	root, err := os.OpenRoot(r.dataDir)
	if err != nil {
		return fmt.Errorf("opening the data volume: %w", err)
	}
	defer func() { _ = root.Close() }()
	for _, file := range r.files {
		if err := r.restore(root, file); err != nil {
			return err
		}
	}
	return nil
}

// restore restores one key.
func (r *identityRestore) restore(root *os.Root, file identityFile) error {
	kept, keptErr := r.kept(file.entry)
	key, err := onVolume(root, file.path)
	if keptErr != nil && !errors.Is(err, errNotThere) {
		r.print(nil, "The Secret's entry %s cannot be used: %v", file.entry, keptErr)
	}
	switch {
	case errors.Is(err, errNotThere) && keptErr != nil:
		return fmt.Errorf("the data volume has no %s, and the Secret's entry %s cannot be used: %w. Correct it; without the entry, a new key is made, and devices do not know it", file.path, file.entry, keptErr)
	case errors.Is(err, errNotThere) && kept != "":
		key, err = kept, writeKey(root, file.path, kept)
		r.print(err, "Restored %s from the Secret", file.path)
	case errors.Is(err, errNotThere):
		key = newPrivateKey()
		err = writeKey(root, file.path, key)
		r.print(err, "Made %s, because neither the data volume nor the Secret has one", file.path)
	case err != nil:
		// Headscale itself says what is wrong with it, and the API Key Manager keeps nothing.
		r.print(nil, "Cannot read %s on the data volume, so it is not kept in the Secret: %v", file.path, err)
		return nil
	case kept != "" && kept != key:
		r.print(nil, "%s on the data volume is another key than the Secret's; both are left as they are", file.path)
	}
	if err != nil {
		return fmt.Errorf("writing %s to the data volume: %w", file.path, err)
	}
	if err := os.WriteFile(filepath.Join(r.copyDir, file.entry), []byte(key), privateKeyMode); err != nil {
		return fmt.Errorf("copying %s for the API Key Manager: %w", file.path, err)
	}
	return nil
}

// print says what was done, unless it failed.
func (r *identityRestore) print(err error, format string, arguments ...any) {
	if err == nil {
		_, _ = fmt.Fprintf(r.printed, format+"\n", arguments...)
	}
}

// kept is the key in an entry of the Secret, "" where there is none.
func (r *identityRestore) kept(entry string) (string, error) {
	content, err := fs.ReadFile(os.DirFS(r.secretDir), entry)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(content) == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return parsePrivateKey(content)
}

// errNotThere says that the volume has no file of that name, whatever it is.
var errNotThere = errors.New("there is no such file")

// onVolume is the key in a file of the data volume.
func onVolume(root *os.Root, name string) (string, error) {
	if _, err := root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return "", errNotThere
	}
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // A pipe must not hold up the pod.
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxPrivateKeyFile))
	if err != nil {
		return "", err
	}
	return parsePrivateKey(content)
}

// writeKey writes a key to the data volume: all of it, or nothing.
func writeKey(root *os.Root, name, key string) error {
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	unfinished := name + ".new"
	if err := root.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := root.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_EXCL, privateKeyMode)
	if err != nil {
		return err
	}
	_, err = file.WriteString(key)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := root.Rename(unfinished, name); err != nil {
		return err
	}
	return syncDir(root, path.Dir(name))
}

// syncDir brings the names in a directory to the disk.
func syncDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// newPrivateKey makes a private key as Headscale does: 32 random bytes, clamped as Curve25519
// wants it.
func newPrivateKey() string {
	var key [privateKeyBytes]byte
	_, _ = rand.Read(key[:]) // It never fails.
	key[0] &= 248
	key[31] = key[31]&127 | 64
	return privateKeyPrefix + hex.EncodeToString(key[:])
}
