package v1beta1

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// DefaultBackupImage is Litestream's image on Docker Hub.
const DefaultBackupImage = "litestream/litestream:0.5.10"

// What an empty volume gets, besides a point in time.
const (
	// RestoreWhenEmpty restores the newest state.
	RestoreWhenEmpty = "WhenEmpty"
	// RestoreNever has Headscale start with an empty database.
	RestoreNever = "Never"
)

// BackupSpec describes the continuous backup of the SQLite database by Litestream.
type BackupSpec struct {
	// Litestream's own settings of a replica, such as type, bucket, path and endpoint.
	// +required
	Replica BackupReplica `json:"replica"`

	// The Secret whose entries become environment variables of Litestream.
	// +optional
	Credentials *SecretReference `json:"credentials,omitempty"`

	// Files for Litestream alone, in /etc/litestream-files, such as a key for SFTP.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Files []BackupFile `json:"files,omitempty"`

	// Image of Litestream, with its tag or digest. Left out: the one that belongs to this
	// operator.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^\\\\s]+$')",message="backup.image must be an image reference without spaces, such as litestream/litestream:0.5.10"
	Image string `json:"image,omitempty"`

	// What a volume without a database gets. WhenEmpty: the newest state of the backup. Never:
	// nothing, so that Headscale starts with an empty database. Or a time such as
	// 2026-11-26T12:00:00Z: the state that the backup had then.
	// +optional
	// +kubebuilder:default=WhenEmpty
	// +kubebuilder:validation:MaxLength=35
	// +kubebuilder:validation:XValidation:rule="self in ['WhenEmpty', 'Never'] || self.matches('^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$')",message="backup.restore must be WhenEmpty, Never or a time such as 2026-11-26T12:00:00Z"
	Restore string `json:"restore,omitempty"`

	// How often the backup is verified: restored into an empty directory and checked. 0s: never.
	// +optional
	// +kubebuilder:default="24h"
	VerifyInterval Delay `json:"verify_interval,omitempty"`

	// Incarnation that the next empty volume is restored from, as the status of another Headscale
	// or the replica names it. Left out: the one before.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="backup.restore_from must be the name of an incarnation, as status.backup.incarnation has it"
	RestoreFrom string `json:"restore_from,omitempty"`
}

// SecretReference is a Secret in the namespace of the Headscale.
type SecretReference struct {
	// Name of the Secret.
	// +required
	Name ReferencedName `json:"name"`
}

// BackupFile is a file for Litestream.
//
// +kubebuilder:validation:XValidation:rule="has(self.config_map) != has(self.secret)",message="a file must be from either config_map or secret"
type BackupFile struct {
	// Name of the file.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && !self.startsWith('..') && self != '.'",message="the name of a file must be letters, digits, '-', '_' and '.', such as id_ed25519"
	Name string `json:"name"`
	// The ConfigMap that the file is in.
	// +optional
	ConfigMap *KeyReference `json:"config_map,omitempty"`
	// The Secret that the file is in.
	// +optional
	Secret *KeyReference `json:"secret,omitempty"`
}

// BackupCredential is a credential in the settings of a replica: the name of an entry of
// spec.backup.credentials, never the value itself.
//
// +kubebuilder:validation:MaxLength=256
// +kubebuilder:validation:XValidation:rule="self.matches('^[$][{][A-Za-z_][A-Za-z0-9_]*[}]$')",message="must not be in the spec: write it into the Secret of backup.credentials, and ${NAME} with the name of its entry here"
type BackupCredential string

// BackupReplica is a replica in Litestream's own words. It is passed through whole; the fields
// below are those that the operator must know.
//
// +kubebuilder:pruning:PreserveUnknownFields
type BackupReplica struct {
	// Kind of storage.
	// +required
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self in ['abs', 'file', 'gs', 'nats', 'oss', 's3', 'sftp', 'webdav']",message="backup.replica.type must be a kind of replica that Litestream has: abs, file, gs, nats, oss, s3, sftp or webdav"
	Type string `json:"type"`
	// Path in the storage, below which every incarnation of the database has a path of its own.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Path string `json:"path,omitempty"`
	// Litestream's short form, which is not accepted.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="false",message="backup.replica.url is not accepted, because it may contain a credential: write type, bucket or host, and path"
	URL string `json:"url,omitempty"`

	// Access key of S3.
	// +optional
	AccessKeyID BackupCredential `json:"access-key-id,omitempty"`
	// Secret key of S3.
	// +optional
	SecretAccessKey BackupCredential `json:"secret-access-key,omitempty"`
	// Key of encryption by S3.
	// +optional
	SSECustomerKey BackupCredential `json:"sse-customer-key,omitempty"`
	// Key of Azure Blob Storage.
	// +optional
	AccountKey BackupCredential `json:"account-key,omitempty"`
	// Signature of Azure Blob Storage.
	// +optional
	SASToken BackupCredential `json:"sas-token,omitempty"`
	// Password of SFTP or NATS.
	// +optional
	Password BackupCredential `json:"password,omitempty"`
	// Password of WebDAV.
	// +optional
	WebDAVPassword BackupCredential `json:"webdav-password,omitempty"`
	// Token of NATS.
	// +optional
	JWT BackupCredential `json:"jwt,omitempty"`
	// Seed of NATS.
	// +optional
	Seed BackupCredential `json:"seed,omitempty"`
	// Key of NATS.
	// +optional
	NKey BackupCredential `json:"nkey,omitempty"`
	// Token of NATS.
	// +optional
	Token BackupCredential `json:"token,omitempty"`

	// document is the replica as it was written, known fields and all.
	document []byte `json:"-"`
}

// knownReplica is BackupReplica without its methods, for the JSON packages.
type knownReplica BackupReplica

// UnmarshalJSON keeps the whole document and reads the known fields from it, to the letter.
func (r *BackupReplica) UnmarshalJSON(raw []byte) error {
	var known knownReplica
	if err := utiljson.Unmarshal(raw, &known); err != nil {
		return err
	}
	*r = BackupReplica(known)
	r.document = append([]byte(nil), raw...)
	return nil
}

// MarshalJSON returns the document as it was read; of a replica that was built in Go, its known
// fields.
func (r BackupReplica) MarshalJSON() ([]byte, error) {
	if r.document != nil {
		return r.document, nil
	}
	return json.Marshal(knownReplica(r))
}

// Document is the whole replica as a fresh map.
func (r *BackupReplica) Document() (map[string]any, error) {
	raw, err := r.MarshalJSON()
	if err != nil {
		return nil, err
	}
	document := map[string]any{}
	if err := utiljson.Unmarshal(raw, &document); err != nil {
		return nil, fmt.Errorf("decoding the replica: %w", err)
	}
	return document, nil
}

// BackupStatus says which incarnation of the database is replicated. A database that began empty
// or was restored is a new incarnation, with a path of its own in the replica.
type BackupStatus struct {
	// Name of the incarnation, and the end of its path in the replica.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Incarnation string `json:"incarnation,omitempty"`
	// Incarnation before it.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Previous string `json:"previous,omitempty"`
	// Incarnation that an empty volume is restored from. Left out: none.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	RestoredFrom string `json:"restored_from,omitempty"`
	// Point in time that an empty volume is restored to. Left out: the newest.
	// +optional
	// +kubebuilder:validation:MaxLength=35
	RestoredTo string `json:"restored_to,omitempty"`
	// When Headscale was first ready with it, or when the backup of a Headscale that ran before was
	// turned on. From then on an empty volume gets a new incarnation,
	// which is restored from this one unless spec.backup.restore is Never.
	// +optional
	StartedAt *metav1.Time `json:"started_at,omitempty"`
	// What of spec.backup was restored, and is not restored again while it stays there: the point
	// in time and the incarnation.
	// +optional
	// +kubebuilder:validation:MaxLength=100
	RestoreDone string `json:"restore_done,omitempty"`
}

// VerificationOutcome is what a verification of a backup has shown.
//
// +kubebuilder:validation:MaxLength=16
type VerificationOutcome string

// The outcomes of a verification.
const (
	// VerificationPassed says that the backup was restored, and that the database is whole.
	VerificationPassed VerificationOutcome = "Passed"
	// VerificationFailed says that Litestream could not restore the backup, or that the database is damaged.
	VerificationFailed VerificationOutcome = "Failed"
	// VerificationUnknown says that the verification could not run.
	VerificationUnknown VerificationOutcome = "Unknown"
)

// BackupVerification describes the last verification of a backup.
type BackupVerification struct {
	// Incarnation that was restored.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Incarnation string `json:"incarnation,omitempty"`
	// Passed, Failed or Unknown. One that could not run leaves a failure before it as it is.
	// +optional
	Outcome VerificationOutcome `json:"outcome,omitempty"`
	// What Litestream or Kubernetes said.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Message string `json:"message,omitempty"`
	// When the last verification ended.
	// +optional
	EndedAt *metav1.Time `json:"ended_at,omitempty"`
	// When the last verification that passed began: everything that was replicated then can be restored.
	// +optional
	VerifiedAt *metav1.Time `json:"verified_at,omitempty"`
	// Rows of the database that was restored then, as far as they could be counted.
	// +optional
	Rows *BackupRows `json:"rows,omitempty"`
	// How many verifications in a row have not passed.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`
	// UID of the Job that ended last.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Job string `json:"job,omitempty"`
}

// BackupRows are how many rows tables of a database have. Left out: a table that it does not have.
type BackupRows struct {
	// Users of Headscale.
	// +optional
	Users *int64 `json:"users,omitempty"`
	// Nodes, also those that are expired.
	// +optional
	Nodes *int64 `json:"nodes,omitempty"`
	// Pre-auth keys, also those that are used or expired.
	// +optional
	PreAuthKeys *int64 `json:"pre_auth_keys,omitempty"`
	// API keys, also those that are expired.
	// +optional
	APIKeys *int64 `json:"api_keys,omitempty"`
}

// BackupReport is what the count of a restored database's rows reports to the operator, as JSON in the
// last words of its container.
//
// +kubebuilder:object:generate=false
type BackupReport struct {
	Rows BackupRows `json:"rows"`
	// HasAPIKey is whether the database has the API key that it was asked for, nil where it was asked
	// for none.
	HasAPIKey *bool `json:"hasAPIKey,omitempty"`
}
