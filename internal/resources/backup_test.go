package resources

import (
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// withBackup is a spec with a backup, and more of its config and its backup.
func withBackup(config, more string) string {
	return `{version: v0.29.3, config: {server_url: "http://headscale.example.com"` + config + `},
		backup: {replica: {type: s3, bucket: backups, path: /headscale/, endpoint: "https://s3.example.com"}` + more + `}}`
}

// withReplica is a spec with a backup in that replica.
func withReplica(replica string) string {
	return `{version: v0.29.3, config: {server_url: "http://headscale.example.com"}, backup: {replica: ` + replica + `}}`
}

// inDirectory is a spec with a backup in a directory, and a volume at /backups.
func inDirectory(dir, volume, mount string) string {
	return `{version: v0.29.3, config: {server_url: "http://headscale.example.com"}, backup: {replica: {type: file, path: ` + dir + `}},
		pod: {volumes: [{name: b, ` + volume + `}], volume_mounts: [{name: b, mountPath: /backups/` + mount + `}]}}`
}

// backedUp are options with an incarnation.
func backedUp(state v1beta1.BackupStatus) Options {
	options := operatorOptions
	options.Backup = state
	return options
}

func TestRestorePlan(t *testing.T) {
	started := metav1.NewTime(time.Unix(0, 0))
	for name, test := range map[string]struct {
		state v1beta1.BackupStatus
		plan  map[string]string
	}{
		"a first volume may begin empty where its own path has nothing": {
			v1beta1.BackupStatus{Incarnation: "a-1"},
			map[string]string{"target": "a-1", "source": "a-1", "config": "litestream.yml", "start-empty": "true", "restore-to": ""},
		},
		"a volume that had a database is sealed": {
			v1beta1.BackupStatus{Incarnation: "a-1", StartedAt: &started},
			map[string]string{"target": "a-1", "source": "a-1", "config": "sealed.yml", "start-empty": "false", "restore-to": ""},
		},
		"the next one must be restored": {
			v1beta1.BackupStatus{Incarnation: "a-2", RestoredFrom: "a-1"},
			map[string]string{"target": "a-2", "source": "a-1", "config": "litestream.yml", "start-empty": "false", "restore-to": ""},
		},
		"and to a point in time": {
			v1beta1.BackupStatus{Incarnation: "a-2", RestoredFrom: "a-1", RestoredTo: "2026-11-26T12:00:00Z"},
			map[string]string{"target": "a-2", "source": "a-1", "config": "litestream.yml", "start-empty": "false", "restore-to": "2026-11-26T12:00:00Z"},
		},
		"a point in time of nothing is an error": {
			v1beta1.BackupStatus{Incarnation: "a-1", RestoredTo: "2026-11-26T12:00:00Z"},
			map[string]string{"target": "a-1", "source": "a-1", "config": "litestream.yml", "start-empty": "false", "restore-to": "2026-11-26T12:00:00Z"},
		},
		"one that is restored from nothing begins empty": {
			v1beta1.BackupStatus{Incarnation: "a-2", Previous: "a-1"},
			map[string]string{"target": "a-2", "source": "a-2", "config": "litestream.yml", "start-empty": "true", "restore-to": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(RestorePlan(&test.state)).To(Equal(test.plan))
		})
	}
}

func TestReplicaIsPassedThroughWhole(t *testing.T) {
	g := NewWithT(t)
	headscale := headscaleOf(t, `{version: v0.29.3, config: {server_url: "http://headscale.example.com"}, backup: {replica: {
		type: sftp, host: "sftp.example.com:22", user: headscale, password: "${SFTP_PASSWORD}", path: /backups, sync-interval: 5s, concurrent-writes: false, new-in-0.9: [1]}}}`)
	objects, err := Build(headscale, backedUp(v1beta1.BackupStatus{Incarnation: "a-1"}))
	g.Expect(err).NotTo(HaveOccurred())
	config := map[string]any{}
	g.Expect(yaml.UnmarshalStrict([]byte(objects.BackupConfigMap.Data["litestream.yml"]), &config)).To(Succeed())
	g.Expect(config["dbs"]).To(ConsistOf(map[string]any{
		"path": "/var/lib/headscale/db.sqlite", "meta-path": "/var/lib/headscale/.litestream/${BACKUP_INCARNATION}-8d5a0d48",
		"replica": map[string]any{
			"type": "sftp", "host": "sftp.example.com:22", "user": "headscale", "password": "${SFTP_PASSWORD}",
			"path": "/backups/${BACKUP_INCARNATION}", "sync-interval": "5s", "concurrent-writes": false, "new-in-0.9": []any{1.0},
		},
	}))
}

// TestCredentialsAreNoYAML has values in Litestream's config that would be something else in YAML:
// it puts them there before it parses the config.
func TestSyncInterval(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`{"type": "s3"}`: 0, `{"type": "s3", "sync-interval": "1m30s"}`: 90 * time.Second,
		`{"type": "s3", "sync-interval": "soon"}`: 0, `{"type": "s3", "sync-interval": "-1m"}`: 0, `{"type": "s3", "sync-interval": 5}`: 0,
	} {
		g := NewWithT(t)
		replica := &v1beta1.BackupReplica{}
		g.Expect(yaml.Unmarshal([]byte(text), replica)).To(Succeed())
		g.Expect(SyncInterval(replica)).To(Equal(want), text)
	}
}

func TestCredentialsAreNoYAML(t *testing.T) {
	objects, err := Build(headscaleOf(t, withReplica(`{type: sftp, host: h, user: "${SFTP_USER}", password: "${SFTP_PASSWORD}", concurrent-writes: "${WRITES}"}`)),
		backedUp(v1beta1.BackupStatus{Incarnation: "a-1"}))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for written, read := range map[string]string{
		"plain": "plain", "a #b": "a #b", "a: b": "a: b", "*a": "*a", "&a": "&a", "@a": "@a", "%a": "%a", "{a": "{a", "[a": "[a", "!a": "!a", "|": "|", "> a": "> a",
		`"a`: `"a`, "'a": "'a", `a'b"c\d`: `a'b"c\d`, "- a": "- a", "? a": "? a", "---": "---", "null": "null", "true": "true", "0123": "0123", "": "",
		"a$b${SFTP_USER}": "a$b${SFTP_USER}", " a ": " a ", "\ta": "\ta", "ключ": "ключ", "a\n": "a", "a\r\n": "a",
	} {
		t.Run(written, func(t *testing.T) {
			g := NewWithT(t)
			text := os.Expand(objects.BackupConfigMap.Data["litestream.yml"], func(name string) string {
				return map[string]string{"SFTP_PASSWORD": written, "SFTP_USER": written, "WRITES": "true", "BACKUP_INCARNATION": "a-1"}[name]
			})
			var config struct {
				DBs []struct{ Replica map[string]any }
			}
			g.Expect(yaml.Unmarshal([]byte(text), &config)).To(Succeed(), text)
			g.Expect(config.DBs).To(HaveLen(1))
			g.Expect(config.DBs[0].Replica).To(Equal(map[string]any{
				"type": "sftp", "host": "h", "user": read, "password": read, "concurrent-writes": true, "path": "a-1",
			}))
		})
	}
}

// TestIncarnationMakesNoNewPod has a pod that waits for another incarnation, and gets it when its
// container is started again.
func TestIncarnationMakesNoNewPod(t *testing.T) {
	g := NewWithT(t)
	headscale := headscaleOf(t, withBackup("", ""))
	first, err := Build(headscale, backedUp(v1beta1.BackupStatus{Incarnation: "a-1"}))
	g.Expect(err).NotTo(HaveOccurred())
	next, err := Build(headscale, backedUp(v1beta1.BackupStatus{Incarnation: "a-2", RestoredFrom: "a-1"}))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(next.StatefulSet).To(Equal(first.StatefulSet))
	g.Expect(next.BackupConfigMap).NotTo(Equal(first.BackupConfigMap))
	headscale.Spec.Backup = headscaleOf(t, withBackup("", ", image: other")).Spec.Backup
	other, err := Build(headscale, backedUp(v1beta1.BackupStatus{Incarnation: "a-1"}))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(other.StatefulSet).NotTo(Equal(first.StatefulSet))
}

func TestBackupRefuses(t *testing.T) {
	for name, test := range map[string]struct{ spec, sentence string }{
		"PostgreSQL":             {withBackup(", database: {type: postgres}", ""), "spec.backup is for SQLite only"},
		"no write-ahead log":     {withBackup(", database: {sqlite: {write_ahead_log: false}}", ""), "spec.config.database.sqlite.write_ahead_log must be true, or left out"},
		"Litestream's port":      {withBackup(", listen_addr: \"0.0.0.0:9103\"", ""), "spec.config.listen_addr has the port 9103, on which Litestream serves its metrics"},
		"a volume of its name":   {withBackup("", "}, pod: {volumes: [{name: backup, emptyDir: {}}]"), "spec.pod.volumes must not have the name backup"},
		"a mount over its files": {withBackup("", "}, pod: {volumes: [{name: a, emptyDir: {}}], volume_mounts: [{name: a, mountPath: /etc/litestream}]"), "conflicts with /etc/litestream"},
		"the variable of Headscale": {
			withBackup("", "}, pod: {env: [{name: HEADSCALE_DATABASE_SQLITE_WRITE_AHEAD_LOG, value: \"false\"}]"),
			"spec.pod.env must not have HEADSCALE_DATABASE_SQLITE_WRITE_AHEAD_LOG",
		},
		"a directory on no volume": {
			`{version: v0.29.3, config: {server_url: "http://headscale.example.com"}, backup: {replica: {type: file, path: /backups}}}`,
			"spec.backup.replica.path must be on a volume of its own",
		},
		"a directory beside the volume":            {inDirectory("/elsewhere", "persistentVolumeClaim: {claimName: b}", ""), "spec.backup.replica.path must be on a volume of its own"},
		"a directory whose name begins like one's": {inDirectory("/backups2", "persistentVolumeClaim: {claimName: b}", ""), "spec.backup.replica.path must be on a volume of its own"},
		"a directory above the volume again":       {inDirectory("/backups/../tmp", "persistentVolumeClaim: {claimName: b}", ""), "spec.backup.replica.path must be on a volume of its own"},
		"a directory that goes with the pod":       {inDirectory("/backups", "emptyDir: {}", ""), "spec.backup.replica.path must be on a volume that outlives the pod"},
		"a directory of a Secret":                  {inDirectory("/backups", "secret: {secretName: b}", ""), "spec.backup.replica.path must be on a volume that outlives the pod"},
		"a directory that is read":                 {inDirectory("/backups/x", "persistentVolumeClaim: {claimName: b}", ", readOnly: true"), "spec.backup.replica.path must be on a volume that can be written"},
		"a directory beside the database":          {inDirectory("/backups", "persistentVolumeClaim: {claimName: data-headscale-0}", ""), "spec.backup.replica.path must not be on the volume of the database"},
		"S3 without a bucket":                      {withReplica(`{type: s3}`), "spec.backup.replica.bucket must be set where the type is s3"},
		"SFTP without a user":                      {withReplica(`{type: sftp, host: h}`), "spec.backup.replica.user must be set where the type is sftp"},
		"WebDAV without an address":                {withReplica(`{type: webdav}`), "spec.backup.replica.webdav-url must be set where the type is webdav"},
		"a password in the endpoint":               {withReplica(`{type: s3, bucket: b, endpoint: "https://u:p@s3.example.com"}`), "spec.backup.replica.endpoint must not contain a user or a password"},
		"a password in the host":                   {withReplica(`{type: sftp, user: u, host: "u:p@sftp.example.com:22"}`), "spec.backup.replica.host must not contain a user or a password"},
		"a password in WebDAV's address":           {withReplica(`{type: webdav, webdav-url: "https://u:p@dav.example.com/x"}`), "spec.backup.replica.webdav-url must not contain a user or a password"},
		"a key of age":                             {withReplica(`{type: s3, bucket: b, age: {identities: [AGE-SECRET-KEY-1]}}`), "spec.backup.replica.age is not accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := Build(headscaleOf(t, test.spec), backedUp(v1beta1.BackupStatus{Incarnation: "a-1"}))
			g.Expect(err).To(MatchError(ContainSubstring(test.sentence)))
		})
	}
}
