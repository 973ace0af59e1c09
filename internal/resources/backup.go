package resources

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Names of the containers of a backup: all run before Headscale, and the last one goes on running.
const (
	// ContainerVolume is the name of the container that removes an empty file in the place of the
	// database, which Litestream would take for one.
	ContainerVolume = "check-volume"
	// ContainerRestore is the name of the container that lets no pod start without a database
	// unless it may begin with an empty one.
	ContainerRestore = "restore"
	// ContainerBackup is the name of the container that replicates the database.
	ContainerBackup = "litestream"
)

// AnnotationBackupHash is on the pod: the SHA-256 digest of Litestream's config in hexadecimal,
// so that a changed replica makes a new pod. The incarnation is not in it: it changes while a
// pod waits for it.
const AnnotationBackupHash = v1beta1.GroupName + "/backup-hash"

// AnnotationBackupIncarnation is on the claim of the data volume: the incarnation of its
// database. The volume outlives the Headscale, and its status.
const AnnotationBackupIncarnation = v1beta1.GroupName + "/backup-incarnation"

const (
	// backupSuffix ends the name of the ConfigMap.
	backupSuffix = "-backup"
	// componentBackup is the value of the component label.
	componentBackup = "backup"

	// volumeBackup and volumeBackupFiles are Litestream's alone.
	volumeBackup, volumeBackupFiles = "backup", "backup-files"
	// backupDir is where Litestream's config is, and backupFilesDir where spec.backup.files are.
	backupDir, backupFilesDir = "/etc/litestream", "/etc/litestream-files"

	// backupConfig is Litestream's config with the replica. sealedConfig is the one of a volume
	// that must have a database: its replica cannot be a directory, so that a restore fails and
	// says so, whatever the storage has.
	backupConfig, sealedConfig = "litestream.yml", "sealed.yml"
	noDatabase                 = "the-volume-has-no-database"
	nowhere                    = backupDir + "/" + backupConfig + "/" + noDatabase

	// replicaFile is the type of a replica in a directory.
	replicaFile = "file"

	// portBackup is the name of the port of Litestream's metrics.
	portBackup = "backup-metrics"
	// backupPort is where Litestream serves them.
	backupPort = 9103
	// shutdownSync is how long Litestream goes on trying to replicate the last changes when the
	// pod ends, within the 30 s that a pod has by default.
	shutdownSync = "10s"
	// A whole copy of the database once a day, and a week of points in time to go back to.
	// Litestream's own default is a day.
	snapshotInterval, snapshotRetention = "24h", "168h"
)

// The entries of the ConfigMap that the containers take as variables when they start: what is
// mounted may be a minute old. Litestream itself replaces them in its config.
const (
	entryConfig     = "config"
	entryStartEmpty = "start-empty"
	entryRestoreTo  = "restore-to"
	entrySource     = "source"
	entryTarget     = "target"

	variableConfig     = "BACKUP_CONFIG"
	variableStartEmpty = "BACKUP_START_EMPTY"
	variableRestoreTo  = "BACKUP_RESTORE_TO"
	variablePath       = "BACKUP_INCARNATION"
)

// ContainerNames are the names of all containers that the operator runs.
func ContainerNames() []string {
	return []string{ContainerHeadscale, ContainerManager, ContainerVolume, ContainerRestore, ContainerIdentity, ContainerBackup, ContainerCount}
}

// BackupName is the name of the ConfigMap of a backup.
func BackupName(headscale *v1beta1.Headscale) string { return headscale.Name + backupSuffix }

// addBackup adds the backup to the objects of a Headscale that has one.
func addBackup(objects *Objects, pod *corev1ac.PodTemplateSpecApplyConfiguration, config document, headscale *v1beta1.Headscale, l *layout, state *v1beta1.BackupStatus, operatorsImage string) error {
	spec := headscale.Spec.Backup
	if spec == nil {
		return nil
	}
	if err := checkBackup(config, headscale); err != nil {
		return err
	}
	database, err := config.text("database.sqlite.path")
	if err != nil {
		return err
	}
	text, err := litestreamConfig(database, &spec.Replica)
	if err != nil {
		return err
	}
	sealed, err := yaml.Marshal(map[string]any{"dbs": []any{
		map[string]any{"path": database, "replica": map[string]any{"type": replicaFile, "path": nowhere}},
	}})
	if err != nil {
		return fmt.Errorf("encoding Litestream's config: %w", err)
	}
	data := RestorePlan(state)
	data[backupConfig], data[sealedConfig] = text, string(sealed)
	objects.BackupConfigMap = corev1ac.ConfigMap(BackupName(headscale), headscale.Namespace).
		WithLabels(labels(headscale, componentBackup)).
		WithOwnerReferences(owner(headscale)).
		WithData(data)
	digest := sha256.Sum256([]byte(text))
	pod.WithAnnotations(map[string]string{AnnotationBackupHash: hex.EncodeToString(digest[:])})
	addBackupContainers(pod.Spec, headscale, l, database)
	if err := shareMounts(pod.Spec, headscale); err != nil {
		return err
	}
	addVolumeCheck(pod.Spec, headscale, l, database, operatorsImage)
	return nil
}

// IsEmptyVolume reports whether Litestream printed that a sealed volume has no database.
func IsEmptyVolume(printed string) bool { return strings.Contains(printed, noDatabase) }

// RestorePlan is what the ConfigMap says of a volume without a database. One that had a database is
// sealed: its pod waits until the operator has seen that the volume is empty, and has named
// another incarnation. It follows from the status alone, so that what a pod is told is what the
// status says of it.
func RestorePlan(state *v1beta1.BackupStatus) map[string]string {
	plan := map[string]string{
		entryTarget: state.Incarnation, entrySource: state.Incarnation, entryConfig: backupConfig,
		entryStartEmpty: strconv.FormatBool(false), entryRestoreTo: state.RestoredTo,
	}
	switch {
	case state.StartedAt != nil:
		plan[entryConfig], plan[entryRestoreTo] = sealedConfig, ""
	case state.RestoredFrom != "":
		plan[entrySource] = state.RestoredFrom
	case state.RestoredTo == "":
		plan[entryStartEmpty] = strconv.FormatBool(true)
	}
	return plan
}

// TargetOf is the incarnation that the ConfigMap of a backup has a pod replicate, or "".
func TargetOf(plan map[string]string) string { return plan[entryTarget] }

// litestreamConfig is Litestream's config for the replica of a database.
func litestreamConfig(database string, replica *v1beta1.BackupReplica) (string, error) {
	settings, err := replica.Document()
	if err != nil {
		return "", invalid("backup.replica", "cannot be read: %v", err)
	}
	settings["path"] = path.Join(replica.Path, "${"+variablePath+"}")
	known, err := json.Marshal(settings)
	if err != nil {
		return "", fmt.Errorf("encoding the replica: %w", err)
	}
	// What Litestream keeps beside the database is of one place in one storage: with that of
	// another it would go on there and never replicate what was before.
	digest := sha256.Sum256(known)
	text, err := yaml.Marshal(map[string]any{
		"addr":                  fmt.Sprintf(":%d", backupPort),
		"shutdown-sync-timeout": shutdownSync,
		"snapshot":              map[string]any{"interval": snapshotInterval, "retention": snapshotRetention},
		"dbs": []any{map[string]any{
			"path": database, "replica": settings,
			"meta-path": fmt.Sprintf("%s/.litestream/${%s}-%.4x", path.Dir(database), variablePath, digest),
		}},
	})
	if err != nil {
		return "", fmt.Errorf("encoding Litestream's config: %w", err)
	}
	return textSettings.ReplaceAllString(string(text), "$1$2: |2-\n$1  $3"), nil
}

// textSettings are lines of Litestream's config that are a reference to a variable. Litestream
// puts its value there before it parses the config: a block takes any line as it is, such as a
// password with a quote or " #". Only settings that are text: another type must stay plain.
var textSettings = regexp.MustCompile(`(?m)^( +)(access-key-id|secret-access-key|sse-customer-key|account-name|account-key|sas-token|` +
	`user|username|password|webdav-username|webdav-password|jwt|seed|nkey|token): (\$\{[A-Za-z_][A-Za-z0-9_]*\})$`)

// checkBackup refuses a database that cannot be replicated.
func checkBackup(config document, headscale *v1beta1.Headscale) error {
	if kind, err := config.text("database.type"); err != nil {
		return err
	} else if kind == "postgres" {
		return invalid("backup", "is for SQLite only: back up PostgreSQL where it runs, such as with CloudNativePG or pgBackRest")
	}
	const setting = "database.sqlite.write_ahead_log"
	log, written, err := config.lookup(setting)
	if err != nil {
		return err
	}
	if on, isFlag := log.(bool); written && (!isFlag || !on) {
		return invalid("config."+setting, "must be true, or left out, where spec.backup is set: the write-ahead log is what is replicated")
	}
	for i := range headscale.Spec.Pod.Env {
		if name := headscale.Spec.Pod.Env[i].Name; name == variableOf(setting) {
			return invalid("pod.env", "must not have %s where spec.backup is set: the write-ahead log is what is replicated", name)
		}
	}
	return checkReplica(headscale)
}

// neededSettings are those without which Litestream does not start, by the type of the replica:
// Headscale's container would wait for it.
var neededSettings = map[string][]string{
	"abs": {"bucket"}, replicaFile: {"path"}, "gs": {"bucket"}, "nats": {"bucket"}, "oss": {"bucket"}, "s3": {"bucket"},
	"sftp": {"host", "user"}, "webdav": {"webdav-url"},
}

// checkReplica refuses a replica with which Litestream would not start, one that has a credential
// in an address, and one in a directory that does not outlive the pod.
func checkReplica(headscale *v1beta1.Headscale) error {
	replica := &headscale.Spec.Backup.Replica
	settings, err := replica.Document()
	if err != nil {
		return invalid("backup.replica", "cannot be read: %v", err)
	}
	for _, name := range neededSettings[replica.Type] {
		if value, isText := settings[name].(string); !isText || value == "" {
			return invalid("backup.replica."+name, "must be set where the type is %s", replica.Type)
		}
	}
	for _, name := range []string{"endpoint", "host", "webdav-url"} {
		if value, isText := settings[name].(string); isText && hasUserInfo(value) {
			return invalid("backup.replica."+name, "must not contain a user or a password, because it is in a ConfigMap: "+
				"write them into the Secret of spec.backup.credentials, and ${NAME} with the name of their entries into the settings of their own")
		}
	}
	if _, written := settings["age"]; written {
		return invalid("backup.replica.age", "is not accepted, because Litestream does not encrypt: let the storage do it")
	}
	if replica.Type == replicaFile {
		return checkDirectory(headscale)
	}
	return nil
}

// hasUserInfo reports whether an address, with or without a scheme, names a user.
func hasUserInfo(address string) bool {
	if _, after, found := strings.Cut(address, "://"); found {
		address = after
	}
	authority, _, _ := strings.Cut(address, "/")
	return strings.Contains(authority, "@")
}

// checkDirectory refuses a directory that is not on a volume of its own, or cannot be written.
func checkDirectory(headscale *v1beta1.Headscale) error {
	const field = "backup.replica.path"
	dir := path.Clean(headscale.Spec.Backup.Replica.Path)
	found := mountOf(headscale.Spec.Pod.VolumeMounts, dir)
	if found == nil {
		return invalid(field, "must be on a volume of its own where the type is file: add one to spec.pod.volumes, and to spec.pod.volume_mounts with a mountPath above %s", dir)
	}
	volumes := headscale.Spec.Pod.Volumes
	at := slices.IndexFunc(volumes, func(volume v1beta1.PodVolume) bool { return volume.Name == found.Name })
	if at < 0 {
		return nil // Its absence is refused with the mounts.
	}
	switch volume := &volumes[at]; {
	case volume.PersistentVolumeClaim == nil:
		return invalid(field, "must be on a volume that outlives the pod: make the volume %s a persistentVolumeClaim", volume.Name)
	case found.ReadOnly || volume.PersistentVolumeClaim.ReadOnly:
		return invalid(field, "must be on a volume that can be written: mount the volume %s without readOnly", volume.Name)
	case volume.PersistentVolumeClaim.ClaimName == DataClaimName(headscale):
		return invalid(field, "must not be on the volume of the database: make the volume %s another claim", volume.Name)
	}
	return nil
}

// mountOf is the mount that a directory is on, the deepest of them, or nil.
func mountOf(mounts []corev1.VolumeMount, dir string) *corev1.VolumeMount {
	var found *corev1.VolumeMount
	for i := range mounts {
		at := path.Clean(mounts[i].MountPath)
		if (dir == at || strings.HasPrefix(dir, strings.TrimSuffix(at, "/")+"/")) && (found == nil || len(at) > len(path.Clean(found.MountPath))) {
			found = &mounts[i]
		}
	}
	return found
}

// addBackupContainers puts Litestream before Headscale into a pod, twice.
func addBackupContainers(pod *corev1ac.PodSpecApplyConfiguration, headscale *v1beta1.Headscale, l *layout, database string) {
	restore := litestream(headscale, l, ContainerRestore, entrySource).
		WithArgs("restore", "-config="+backupDir+"/$("+variableConfig+")",
			"-if-db-not-exists", "-if-replica-exists=$("+variableStartEmpty+")", "-timestamp=$("+variableRestoreTo+")",
			"-integrity-check=full", database).
		WithEnv(
			fromBackup(headscale, variableConfig, entryConfig),
			fromBackup(headscale, variableStartEmpty, entryStartEmpty),
			fromBackup(headscale, variableRestoreTo, entryRestoreTo),
		)
	replicate := litestream(headscale, l, ContainerBackup, entryTarget).
		WithArgs("replicate", "-config="+backupDir+"/"+backupConfig).
		// It ends after Headscale, whose last changes it replicates.
		WithRestartPolicy(corev1.ContainerRestartPolicyAlways).
		WithPorts(corev1ac.ContainerPort().WithName(portBackup).WithContainerPort(backupPort).WithProtocol(corev1.ProtocolTCP)).
		// No readiness probe: Headscale goes on when its backup does not.
		WithLivenessProbe(corev1ac.Probe().
			WithHTTPGet(corev1ac.HTTPGetAction().
				WithPath("/metrics").WithPort(intstr.FromString(portBackup)).WithScheme(corev1.URISchemeHTTP)).
			WithPeriodSeconds(probePeriod).WithTimeoutSeconds(probeTimeout).WithFailureThreshold(probeFailures))
	pod.WithInitContainers(restore, replicate).WithVolumes(
		corev1ac.Volume().WithName(volumeBackup).WithConfigMap(corev1ac.ConfigMapVolumeSource().
			WithName(BackupName(headscale)).
			WithItems(
				corev1ac.KeyToPath().WithKey(backupConfig).WithPath(backupConfig),
				corev1ac.KeyToPath().WithKey(sealedConfig).WithPath(sealedConfig))))
	if files := headscale.Spec.Backup.Files; len(files) > 0 {
		pod.WithVolumes(backupFiles(files))
	}
}

// addVolumeCheck has the operator's image of the API Key Manager, where the pod needs it anyway, look
// at the volume before Litestream does: its image need not have a shell.
func addVolumeCheck(pod *corev1ac.PodSpecApplyConfiguration, headscale *v1beta1.Headscale, l *layout, database, operatorsImage string) {
	if !headscale.Spec.APIKey.Managed() || managerIsPinned(headscale, operatorsImage) {
		return
	}
	check := corev1ac.Container().
		WithName(ContainerVolume).
		WithImage(operatorsImage).
		WithImagePullPolicy(corev1.PullIfNotPresent).
		WithArgs("check-volume", "--database="+database).
		WithSecurityContext(containerSecurity()).
		WithResources(resourcesOf(headscale.Spec.Pod.ManagerResources, defaultManagerResources())).
		WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError).
		WithVolumeMounts(mount(volumeData, l.dataDir))
	pod.InitContainers = slices.Insert(pod.InitContainers, 0, *check)
}

// litestream is a container of Litestream, whose replica ends with an incarnation.
func litestream(headscale *v1beta1.Headscale, l *layout, name, incarnation string) *corev1ac.ContainerApplyConfiguration {
	spec := headscale.Spec.Backup
	container := corev1ac.Container().
		WithName(name).
		WithImage(cmp.Or(spec.Image, v1beta1.DefaultBackupImage)).
		WithImagePullPolicy(corev1.PullIfNotPresent).
		WithEnv(fromBackup(headscale, variablePath, incarnation)).
		WithSecurityContext(containerSecurity()).
		WithResources(resourcesOf(headscale.Spec.Pod.BackupResources, defaultBackupResources())).
		WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError).
		WithVolumeMounts(
			mount(volumeBackup, backupDir).WithReadOnly(true),
			mount(volumeData, l.dataDir),
			mount(volumeTmp, tmpDir))
	if spec.Credentials != nil {
		container.WithEnvFrom(corev1ac.EnvFromSource().WithSecretRef(corev1ac.SecretEnvSource().WithName(string(spec.Credentials.Name))))
	}
	if len(spec.Files) > 0 {
		container.WithVolumeMounts(mount(volumeBackupFiles, backupFilesDir).WithReadOnly(true))
	}
	return container
}

// fromBackup is a variable that a container takes from the ConfigMap when it starts.
func fromBackup(headscale *v1beta1.Headscale, variable, entry string) *corev1ac.EnvVarApplyConfiguration {
	return corev1ac.EnvVar().WithName(variable).WithValueFrom(corev1ac.EnvVarSource().WithConfigMapKeyRef(
		corev1ac.ConfigMapKeySelector().WithName(BackupName(headscale)).WithKey(entry)))
}

// defaultBackupResources are what Litestream gets where the user writes nothing.
func defaultBackupResources() *corev1ac.ResourceRequirementsApplyConfiguration {
	return corev1ac.ResourceRequirements().
		WithRequests(corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("10m"),
			corev1.ResourceMemory: resource.MustParse("32Mi"),
		}).
		WithLimits(corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")})
}

// backupFiles holds spec.backup.files, for the pod's group only.
func backupFiles(files []v1beta1.BackupFile) *corev1ac.VolumeApplyConfiguration {
	volume := corev1ac.ProjectedVolumeSource().WithDefaultMode(0o440)
	for i := range files {
		source := corev1ac.VolumeProjection()
		if from := files[i].Secret; from != nil {
			source.WithSecret(corev1ac.SecretProjection().WithName(string(from.Name)).
				WithItems(corev1ac.KeyToPath().WithKey(from.Key).WithPath(files[i].Name)))
		} else if from := files[i].ConfigMap; from != nil {
			source.WithConfigMap(corev1ac.ConfigMapProjection().WithName(string(from.Name)).
				WithItems(corev1ac.KeyToPath().WithKey(from.Key).WithPath(files[i].Name)))
		}
		volume.WithSources(source)
	}
	return corev1ac.Volume().WithName(volumeBackupFiles).WithProjected(volume)
}

// addBackupReferences adds what a backup refers to.
func addBackupReferences(all *references, backup *v1beta1.BackupSpec) {
	if backup == nil {
		return
	}
	if from := backup.Credentials; from != nil {
		all.add(Reference{Field: "backup.credentials", Kind: KindSecret, Name: string(from.Name)})
	}
	for i := range backup.Files {
		if from := backup.Files[i].Secret; from != nil {
			all.add(Reference{Field: "backup.files", Kind: KindSecret, Name: string(from.Name), Keys: []string{from.Key}})
		}
		if from := backup.Files[i].ConfigMap; from != nil {
			all.add(Reference{Field: "backup.files", Kind: KindConfigMap, Name: string(from.Name), Keys: []string{from.Key}})
		}
	}
}

// shareMounts gives Litestream the user's volumes where one of them has the replica.
func shareMounts(pod *corev1ac.PodSpecApplyConfiguration, headscale *v1beta1.Headscale) error {
	if headscale.Spec.Backup.Replica.Type != replicaFile {
		return nil
	}
	var mounts []corev1ac.VolumeMountApplyConfiguration
	if err := convert("pod.volume_mounts", headscale.Spec.Pod.VolumeMounts, &mounts); err != nil {
		return err
	}
	for i := range pod.InitContainers {
		pod.InitContainers[i].VolumeMounts = append(pod.InitContainers[i].VolumeMounts, mounts...)
	}
	return nil
}
