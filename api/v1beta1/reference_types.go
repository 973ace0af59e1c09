package v1beta1

// SecretsSpec names the Secrets that Headscale needs. Their values go straight from
// the Secret into Headscale's container: they are not in config.yaml, and the operator
// reads them for a digest only. A change of one makes a new pod.
type SecretsSpec struct {
	// Password for the PostgreSQL server in config.database.postgres.
	// +optional
	DatabasePassword *KeyReference `json:"database_password,omitempty"`

	// Client secret for the identity provider in config.oidc.
	// +optional
	OIDCClientSecret *KeyReference `json:"oidc_client_secret,omitempty"`

	// Secret of type kubernetes.io/tls with the certificate that Headscale serves.
	// +optional
	TLS *TLSReference `json:"tls,omitempty"`

	// Private key of Headscale's Noise protocol. Left out: Headscale makes one, in the
	// data volume.
	// +optional
	NoisePrivateKey *KeyReference `json:"noise_private_key,omitempty"`

	// Private key of the DERP relay that is part of Headscale. Left out: Headscale
	// makes one, in the data volume.
	// +optional
	DERPPrivateKey *KeyReference `json:"derp_private_key,omitempty"`
}

// FilesSpec names the ConfigMaps or Secrets with files that Headscale reads. A change
// of one makes a new pod.
type FilesSpec struct {
	// The policy (ACL) file; config.policy.path is set to it.
	// +optional
	Policy *FileReference `json:"policy,omitempty"`

	// A JSON list of further DNS records; config.dns.extra_records_path is set to it.
	// +optional
	ExtraDNSRecords *FileReference `json:"extra_dns_records,omitempty"`
}

// FileReference is one file, in a ConfigMap or in a Secret.
//
// +kubebuilder:validation:XValidation:rule="has(self.config_map) != has(self.secret)",message="a file must be from either config_map or secret"
type FileReference struct {
	// The ConfigMap that the file is in.
	// +optional
	ConfigMap *KeyReference `json:"config_map,omitempty"`
	// The Secret that the file is in.
	// +optional
	Secret *KeyReference `json:"secret,omitempty"`
}

// KeyReference is one entry of a Secret or a ConfigMap in the namespace of the
// Headscale.
type KeyReference struct {
	// Name of the object.
	// +required
	Name ReferencedName `json:"name"`
	// Key of the entry in its data.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && !self.startsWith('..') && self != '.'",message="key must be the key of an entry: letters, digits, '-', '_' and '.', such as password"
	Key string `json:"key"`
}

// TLSReference is a Secret of type kubernetes.io/tls in the namespace of the
// Headscale: its entries are tls.crt and tls.key.
type TLSReference struct {
	// Name of the Secret.
	// +required
	Name ReferencedName `json:"name"`
}

// ReferencedName is the name of a Secret or a ConfigMap.
//
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="name must be the name of an object: lower-case letters, digits, '-' and '.', beginning and ending with a letter or a digit"
type ReferencedName string
