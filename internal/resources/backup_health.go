package resources

// BackupPort is where Litestream serves its metrics in the pod of a Headscale with a backup.
const BackupPort = backupPort

// CountsUploads reports whether Litestream's metrics count what it writes to a replica of this
// type. Litestream v0.5.10 does so for every type but a directory.
func CountsUploads(replicaType string) bool { return replicaType != replicaFile }
