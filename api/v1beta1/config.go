package v1beta1

import (
	"encoding/json"
	"fmt"

	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// HeadscaleConfig is Headscale's own config.yaml. It is passed through whole:
// every key of every Headscale version can stand here. The fields below are the
// ones that the operator must know, because a pod's ports, volumes and probes
// follow from them.
//
// +kubebuilder:pruning:PreserveUnknownFields
type HeadscaleConfig struct {
	// URL under which clients reach Headscale, such as https://headscale.example.com.
	// +required
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/?#\\\\s]+') && isURL(self) && url(self).getHostname() != ''",message="server_url must begin with http:// or https:// followed by a host, such as https://headscale.example.com"
	ServerURL string `json:"server_url"`

	// Address of the HTTP server, host:port. Default 0.0.0.0:8080.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.matches('^(127[.]|localhost:|\\\\[::1\\\\])')",message="listen_addr must not be a loopback address: nothing outside the pod could reach Headscale; write 0.0.0.0:8080"
	ListenAddr ListenAddress `json:"listen_addr,omitempty"`

	// Address of the metrics and debug server, host:port. Default 0.0.0.0:9090.
	// An empty string turns it off.
	// +optional
	// +kubebuilder:validation:MaxLength=300
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^(\\\\[[0-9a-fA-F:.]+\\\\]|[^:\\\\[\\\\]\\\\s]*):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$')",message="metrics_listen_addr must be host:port with a port from 1 to 65535, such as 0.0.0.0:9090, [::]:9090 or :9090, or empty to turn it off"
	MetricsListenAddr *string `json:"metrics_listen_addr,omitempty"`

	// Address of the gRPC server, host:port. Default 0.0.0.0:50443.
	// +optional
	GRPCListenAddr ListenAddress `json:"grpc_listen_addr,omitempty"`

	// Path of the Unix socket of the admin API. Default
	// /var/run/headscale/headscale.sock. Its directory becomes a volume of its own.
	// +optional
	// +kubebuilder:validation:MaxLength=107
	// +kubebuilder:validation:XValidation:rule="self.matches('^(/[^/:\\\\s]+){2,}$') && !self.matches('/\\\\.\\\\.?(/|$)')",message="unix_socket must be an absolute path of a file in a directory of its own, without ., .. or a colon, such as /var/run/headscale/headscale.sock"
	UnixSocket string `json:"unix_socket,omitempty"`

	// Path of the TLS certificate that Headscale serves.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self == '' || self.startsWith('/')",message="tls_cert_path must be an absolute path, such as /etc/headscale-tls/tls.crt"
	TLSCertPath string `json:"tls_cert_path,omitempty"`

	// Path of the private key of the TLS certificate that Headscale serves.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self == '' || self.startsWith('/')",message="tls_key_path must be an absolute path, such as /etc/headscale-tls/tls.key"
	TLSKeyPath string `json:"tls_key_path,omitempty"`

	// Host name for which Headscale gets its own certificate from Let's Encrypt.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	TLSLetsEncryptHostname string `json:"tls_letsencrypt_hostname,omitempty"`

	// The database. Default: SQLite in the data volume.
	// +optional
	Database *DatabaseConfig `json:"database,omitempty"`

	// The DERP relays. Default: the relay that is part of Headscale, alone.
	// +optional
	DERP *DERPConfig `json:"derp,omitempty"`

	// document is the config as it was written, known fields and all.
	document []byte `json:"-"`
	// refusal says why the document is larger than the limits, where it was dropped.
	refusal string `json:"-"`
}

// ListenAddress is a host and a port, separated by a colon. The host may be empty;
// an IPv6 address stands in brackets; the port is a number.
//
// +kubebuilder:validation:MaxLength=300
// +kubebuilder:validation:XValidation:rule="self.matches('^(\\\\[[0-9a-fA-F:.]+\\\\]|[^:\\\\[\\\\]\\\\s]*):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$')",message="must be host:port with a port from 1 to 65535, such as 0.0.0.0:8080, [::]:8080 or :8080"
type ListenAddress string

// DatabaseConfig is the section database of Headscale's config.yaml.
//
// +kubebuilder:pruning:PreserveUnknownFields
type DatabaseConfig struct {
	// Kind of database: sqlite (the default) or postgres.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self in ['sqlite', 'sqlite3', 'postgres']",message="database.type must be sqlite or postgres"
	Type string `json:"type,omitempty"`

	// Settings of SQLite.
	// +optional
	SQLite *SQLiteConfig `json:"sqlite,omitempty"`
}

// SQLiteConfig is the section database.sqlite of Headscale's config.yaml.
//
// +kubebuilder:pruning:PreserveUnknownFields
type SQLiteConfig struct {
	// Path of the database file. Default /var/lib/headscale/db.sqlite. Its directory
	// is where the data volume is mounted.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.matches('^(/[^/:\\\\s]+){2,}$') && !self.matches('/\\\\.\\\\.?(/|$)')",message="database.sqlite.path must be an absolute path of a file in a directory of its own, without ., .. or a colon, such as /var/lib/headscale/db.sqlite"
	Path string `json:"path,omitempty"`
}

// DERPConfig is the section derp of Headscale's config.yaml.
//
// +kubebuilder:pruning:PreserveUnknownFields
type DERPConfig struct {
	// The relay that is part of Headscale.
	// +optional
	Server *DERPServerConfig `json:"server,omitempty"`
}

// DERPServerConfig is the section derp.server of Headscale's config.yaml.
//
// +kubebuilder:pruning:PreserveUnknownFields
type DERPServerConfig struct {
	// Whether the relay that is part of Headscale runs.
	// +optional
	Enabled *bool `json:"enabled,omitempty"`

	// Address of its STUN server, host:port (UDP). Default 0.0.0.0:3478.
	// +optional
	STUNListenAddr ListenAddress `json:"stun_listen_addr,omitempty"`
}

// NewHeadscaleConfig makes a config of a document such as a config.yaml decodes
// to. It fails where the document is not one that JSON can express, or where a
// known field has the wrong type.
func NewHeadscaleConfig(document map[string]any) (HeadscaleConfig, error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return HeadscaleConfig{}, fmt.Errorf("encoding the config: %w", err)
	}
	var config HeadscaleConfig
	if err := config.UnmarshalJSON(raw); err != nil {
		return HeadscaleConfig{}, fmt.Errorf("decoding the config: %w", err)
	}
	return config, nil
}

// Document is the whole config as a fresh map, to the letter of what the user
// wrote. Whole numbers that fit are int64, others float64. It refuses a config that is
// larger than MaxConfigSize, MaxConfigEntries or MaxConfigDepth before it decodes it.
func (c *HeadscaleConfig) Document() (map[string]any, error) {
	if err := c.checkSize(); err != nil {
		return nil, err
	}
	raw, err := c.MarshalJSON()
	if err != nil {
		return nil, err
	}
	document := map[string]any{}
	if err := utiljson.Unmarshal(raw, &document); err != nil {
		return nil, fmt.Errorf("decoding the config: %w", err)
	}
	if document == nil {
		return map[string]any{}, nil
	}
	return document, nil
}

// knownConfig is HeadscaleConfig without its methods, for the JSON packages.
type knownConfig HeadscaleConfig

// UnmarshalJSON keeps the whole document and reads the known fields from it. Keys
// are matched to the letter: encoding/json would take an unknown Database for
// database, and a value that the API server let pass could then fail to decode.
func (c *HeadscaleConfig) UnmarshalJSON(raw []byte) error {
	var known knownConfig
	if err := utiljson.Unmarshal(raw, &known); err != nil {
		return err
	}
	*c = HeadscaleConfig(known)
	c.document = append([]byte(nil), raw...)
	return nil
}

// MarshalJSON returns the document as it was read; of a config that was built in
// Go, its known fields. A config is changed by making a new one.
func (c HeadscaleConfig) MarshalJSON() ([]byte, error) {
	if c.document != nil {
		return c.document, nil
	}
	return json.Marshal(knownConfig(c))
}
