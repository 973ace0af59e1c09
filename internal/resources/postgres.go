package resources

import (
	"regexp"
	"strings"
)

// connectionValue is a text that a PostgreSQL connection string has as one value: without
// spaces, or in single quotes. A backslash takes the character behind it as it is. (pgx, by
// which Headscale connects, reads connection strings so in parseKeywordValueSettings.)
var connectionValue = regexp.MustCompile(`(?s)^(?:(?:[^\s\v'\\]|\\.)(?:[^\s\v\\]|\\.)*|'(?:[^'\\]|\\.)*')$`)

// howToQuote is how such a text is written as one value.
const howToQuote = `write it in single quotes, with a backslash before each ' and \ in it, such as "'two words'"`

// refusals are what Headscale prints where its password is not one value of the connection
// string, and where the server got another password than the one that was meant.
var refusals = []string{"failed to parse as keyword/value", "password authentication failed"}

// ConnectionHint says what may be wrong with the database password of a Headscale that printed
// something before it ended, as a sentence; "" where that is about something else. The password
// is in a Secret, of which the operator makes a digest only.
func ConnectionHint(printed string) string {
	for _, refusal := range refusals {
		if strings.Contains(printed, refusal) {
			return "If the database password contains a space, a quote or a backslash, " + howToQuote
		}
	}
	return ""
}

// checkConnection refuses what Headscale cannot connect to PostgreSQL with: it writes these
// settings into a connection string as they are (openDB in hscontrol/db/db.go),
// where a space begins the next setting.
func checkConnection(d document) error {
	if kind, err := d.text("database.type"); err != nil || kind != "postgres" {
		return err
	}
	for _, setting := range []string{"host", "name", "user", "pass"} {
		value, err := d.text("database.postgres." + setting)
		if err != nil {
			return err
		}
		if value != "" && !connectionValue.MatchString(value) {
			return invalid("config.database.postgres."+setting, "must not contain spaces, begin with a quote or end with a backslash, "+
				"because Headscale does not quote it in the connection string: "+howToQuote)
		}
	}
	return nil
}
