package apikey

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// CountRowsCommand is the argument that has the program count the rows of a database and end.
const CountRowsCommand = "count-rows"

// Tables of Headscale's.
const (
	tableUsers       = "users"
	tableNodes       = "nodes"
	tablePreAuthKeys = "pre_auth_keys"
	tableAPIKeys     = "api_keys"
)

// CountRows counts the rows of a database of Headscale's that nobody writes to, and looks whether it has
// an API key. It writes a v1beta1.BackupReport to a file. A table that the database does not have is
// left out.
func CountRows(arguments []string) error {
	flags := flag.NewFlagSet(CountRowsCommand, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	database := flags.String("database", "", "`path` of the database")
	report := flags.String("report", "", "`path` of the file to write to")
	prefix := flags.String("api-key-prefix", "", "`prefix` of the API key to look for (default: none)")
	if err := flags.Parse(arguments); err != nil {
		return explain(err)
	}
	if *database == "" || *report == "" || flags.NArg() > 0 {
		return errors.New(CountRowsCommand + " takes --database and --report")
	}
	counted, err := examine(*database, *prefix)
	if err != nil {
		return fmt.Errorf("counting the rows of the database: %w", err)
	}
	text, err := json.Marshal(counted)
	if err != nil {
		return fmt.Errorf("encoding the rows: %w", err)
	}
	return os.WriteFile(*report, text, 0o600)
}

// examine counts the rows of the tables that a user would miss, and looks for an API key.
func examine(database, prefix string) (report v1beta1.BackupReport, err error) {
	if log, err := os.Stat(database + "-wal"); err == nil && log.Size() > 0 {
		return report, errors.New("it has a write-ahead log, so somebody may be writing to it")
	}
	opened, err := os.OpenInRoot(filepath.Dir(database), filepath.Base(database))
	if err != nil {
		return report, err
	}
	defer func() { _ = opened.Close() }()
	info, err := opened.Stat()
	if err != nil {
		return report, err
	}
	file, err := newTableFile(opened, info.Size())
	if err != nil {
		return report, err
	}
	rows := &report.Rows
	for table, count := range map[string]**int64{
		tableUsers: &rows.Users, tableNodes: &rows.Nodes, tablePreAuthKeys: &rows.PreAuthKeys, tableAPIKeys: &rows.APIKeys,
	} {
		number, found, err := file.count(table)
		if err != nil {
			return report, fmt.Errorf("table %s: %w", table, err)
		}
		if found {
			*count = &number
		}
	}
	if prefix == "" {
		return report, nil
	}
	has, err := file.contains(tableAPIKeys, prefix)
	if err != nil {
		return report, fmt.Errorf("table %s: %w", tableAPIKeys, err)
	}
	report.HasAPIKey = &has
	return report, nil
}
