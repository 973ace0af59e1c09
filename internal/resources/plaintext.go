package resources

import "fmt"

// plainText says of every secret in a config what to do about it. The config is passed
// through whole, so they are not refused.
func plainText(config document) ([]string, error) {
	var warnings []string
	for _, secret := range []struct{ setting, field string }{
		{"database.postgres.pass", "secrets.database_password"},
		{"oidc.client_secret", "secrets.oidc_client_secret"},
	} {
		value, written, err := config.lookup(secret.setting)
		if err != nil {
			return nil, err
		}
		if written && value != "" {
			warnings = append(warnings, fmt.Sprintf(
				"spec.config.%s is in plain text in the ConfigMap: put it into a Secret and name that in spec.%s", secret.setting, secret.field))
		}
	}
	return warnings, nil
}
