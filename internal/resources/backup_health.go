package resources

import (
	"time"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// BackupPort is where Litestream serves its metrics in the pod of a Headscale with a backup.
const BackupPort = backupPort

// CountsUploads reports whether Litestream's metrics count what it writes to a replica of this
// type. Litestream v0.5.10 does so for every type but a directory.
func CountsUploads(replicaType string) bool { return replicaType != replicaFile }

// SyncInterval is how long Litestream waits between two files that it writes to a replica; zero: it is not set, or not
// known, and Litestream's default is a second.
func SyncInterval(replica *v1beta1.BackupReplica) time.Duration {
	document, err := replica.Document()
	if err != nil {
		return 0
	}
	text, _ := document["sync-interval"].(string)
	interval, err := time.ParseDuration(text)
	if err != nil {
		return 0
	}
	return max(interval, 0)
}
