package resources

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/utils/ptr"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Kinds of objects that a Headscale refers to.
const (
	KindConfigMap = "ConfigMap"
	KindSecret    = "Secret"
)

// filesDir is where the files that a Headscale refers to are mounted.
const filesDir = "/etc/headscale-files"

// passwordVariable is how Headscale reads database.postgres.pass from its
// environment: its settings with the prefix of its name and "_" for ".".
const passwordVariable = "HEADSCALE_DATABASE_POSTGRES_PASS"

// Reference names an object, in the namespace of a Headscale, that its pod needs.
type Reference struct {
	// Field is the path below spec of the field that refers to it.
	Field string
	// Kind is KindSecret or KindConfigMap.
	Kind string
	// Name is the object's name.
	Name string
	// Keys are the entries of its data that the pod gets; none: all.
	Keys []string
	// Optional is whether the pod starts without it.
	Optional bool
}

// String names the object for people.
func (r *Reference) String() string { return r.Kind + " " + r.Name }

// fieldDNSRecords is the field of the file of DNS records.
const fieldDNSRecords = "files.extra_dns_records"

// Live reports whether Headscale notices by itself that the data changed, so that no new pod is
// needed. Every supported release watches its file of DNS records, also where the kubelet swaps
// it (test/integration/dns_records_test.go).
func (r *Reference) Live() bool { return r.Field == fieldDNSRecords }

// references is a list with one Reference for each object and field.
type references []Reference

// add adds a reference to some entries of an object, or to all where there are no keys. One to
// all does not take in one to some: those must be there.
func (r *references) add(added Reference) {
	for i := range *r {
		known := &(*r)[i]
		if known.Field == added.Field && known.Kind == added.Kind && known.Name == added.Name && known.Optional == added.Optional &&
			len(known.Keys) > 0 == (len(added.Keys) > 0) {
			known.Keys = append(known.Keys, added.Keys...)
			return
		}
	}
	*r = append(*r, added)
}

// MaxReferences is how many different objects a Headscale may refer to: each is watched and read.
const MaxReferences = 64

// CheckReferences refuses references to more than MaxReferences objects.
func CheckReferences(all []Reference) error {
	objects := map[string]bool{}
	for i := range all {
		objects[all[i].String()] = true
		if len(objects) > MaxReferences {
			return invalid(all[i].Field, "names more than %d Secrets and ConfigMaps: name fewer, and put what belongs together into one; those of all fields count", MaxReferences)
		}
	}
	return nil
}

// References lists the objects that a Headscale refers to, once for every field that does.
func References(headscale *v1beta1.Headscale) []Reference {
	var all references
	if password := headscale.Spec.Secrets.DatabasePassword; password != nil {
		all.add(Reference{Field: "secrets.database_password", Kind: KindSecret, Name: string(password.Name), Keys: []string{password.Key}})
	}
	for _, f := range referencedFiles(&headscale.Spec) {
		all.add(Reference{Field: f.field, Kind: f.kind, Name: f.name, Keys: []string{f.key}})
	}
	addBackupReferences(&all, headscale.Spec.Backup)
	addEnvReferences(&all, headscale.Spec.Pod.Env)
	addVolumeReferences(&all, headscale.Spec.Pod.Volumes)
	return all
}

// addEnvReferences adds what variables come from.
func addEnvReferences(all *references, env []corev1.EnvVar) {
	for i := range env {
		if env[i].ValueFrom == nil {
			continue
		}
		if from := env[i].ValueFrom.SecretKeyRef; from != nil {
			all.add(Reference{"pod.env", KindSecret, from.Name, []string{from.Key}, ptr.Deref(from.Optional, false)})
		}
		if from := env[i].ValueFrom.ConfigMapKeyRef; from != nil {
			all.add(Reference{"pod.env", KindConfigMap, from.Name, []string{from.Key}, ptr.Deref(from.Optional, false)})
		}
	}
}

// addVolumeReferences adds what the files of volumes come from.
func addVolumeReferences(all *references, volumes []v1beta1.PodVolume) {
	add := func(kind, name string, items []corev1.KeyToPath, optional *bool) {
		var keys []string
		for _, item := range items {
			keys = append(keys, item.Key)
		}
		all.add(Reference{"pod.volumes", kind, name, keys, ptr.Deref(optional, false)})
	}
	for i := range volumes {
		if from := volumes[i].Secret; from != nil {
			add(KindSecret, from.SecretName, from.Items, from.Optional)
		}
		if from := volumes[i].ConfigMap; from != nil {
			add(KindConfigMap, from.Name, from.Items, from.Optional)
		}
		if volumes[i].Projected == nil {
			continue
		}
		for _, source := range volumes[i].Projected.Sources {
			if from := source.Secret; from != nil {
				add(KindSecret, from.Name, from.Items, from.Optional)
			}
			if from := source.ConfigMap; from != nil {
				add(KindConfigMap, from.Name, from.Items, from.Optional)
			}
		}
	}
}

// referencedFile is an entry of an object that Headscale reads as a file.
type referencedFile struct {
	// field is the path below spec of the field that refers to it.
	field string
	// kind and name are those of the object, and key is the entry's.
	kind, name, key string
	// path is the file's path below filesDir.
	path string
	// setting is the path in config.yaml that names the file.
	setting string
}

// referencedFiles lists the files that a Headscale refers to.
func referencedFiles(spec *v1beta1.HeadscaleSpec) []referencedFile {
	var files []referencedFile
	add := func(field, kind string, from *v1beta1.KeyReference, path, setting string) {
		if from != nil {
			files = append(files, referencedFile{field, kind, string(from.Name), from.Key, path, setting})
		}
	}
	if tls := spec.Secrets.TLS; tls != nil {
		// The keys of every Secret of type kubernetes.io/tls.
		add("secrets.tls", KindSecret, &v1beta1.KeyReference{Name: tls.Name, Key: "tls.crt"}, "tls.crt", "tls_cert_path")
		add("secrets.tls", KindSecret, &v1beta1.KeyReference{Name: tls.Name, Key: "tls.key"}, "tls.key", "tls_key_path")
	}
	add("secrets.oidc_client_secret", KindSecret, spec.Secrets.OIDCClientSecret, "oidc_client_secret", "oidc.client_secret_path")
	add("secrets.noise_private_key", KindSecret, spec.Secrets.NoisePrivateKey, "noise_private.key", "noise.private_key_path")
	add("secrets.derp_private_key", KindSecret, spec.Secrets.DERPPrivateKey, "derp_server_private.key", "derp.server.private_key_path")
	for _, file := range []struct {
		field, path, setting string
		from                 *v1beta1.FileReference
	}{
		{"files.policy", "policy.hujson", "policy.path", spec.Files.Policy},
		{fieldDNSRecords, "extra_records.json", "dns.extra_records_path", spec.Files.ExtraDNSRecords},
	} {
		if file.from != nil {
			add(file.field, KindConfigMap, file.from.ConfigMap, file.path, file.setting)
			add(file.field, KindSecret, file.from.Secret, file.path, file.setting)
		}
	}
	return files
}

// addReferences gives the pod what the Headscale refers to.
func addReferences(pod *corev1ac.PodTemplateSpecApplyConfiguration, headscale *v1beta1.Headscale, digest string) {
	container := &pod.Spec.Containers[0]
	if password := headscale.Spec.Secrets.DatabasePassword; password != nil {
		container.WithEnv(corev1ac.EnvVar().WithName(passwordVariable).WithValueFrom(corev1ac.EnvVarSource().WithSecretKeyRef(
			corev1ac.SecretKeySelector().WithName(string(password.Name)).WithKey(password.Key))))
	}
	if files := referencedFiles(&headscale.Spec); len(files) > 0 {
		pod.Spec.WithVolumes(filesVolume(files))
		container.WithVolumeMounts(mount(volumeFiles, filesDir).WithReadOnly(true))
	}
	if digest != "" {
		pod.WithAnnotations(map[string]string{AnnotationReferences: digest})
	}
}

// filesVolume holds the files, for the pod's group only.
func filesVolume(files []referencedFile) *corev1ac.VolumeApplyConfiguration {
	volume := corev1ac.ProjectedVolumeSource().WithDefaultMode(0o440)
	for _, f := range files {
		item := corev1ac.KeyToPath().WithKey(f.key).WithPath(f.path)
		source := corev1ac.VolumeProjection()
		if f.kind == KindSecret {
			source.WithSecret(corev1ac.SecretProjection().WithName(f.name).WithItems(item))
		} else {
			source.WithConfigMap(corev1ac.ConfigMapProjection().WithName(f.name).WithItems(item))
		}
		volume.WithSources(source)
	}
	return corev1ac.Volume().WithName(volumeFiles).WithProjected(volume)
}

// refer names the files in the config, and refuses a config that says otherwise.
func refer(d document, spec *v1beta1.HeadscaleSpec) error {
	for _, f := range referencedFiles(spec) {
		_, written, err := d.lookup(f.setting)
		if err != nil {
			return err
		}
		if written {
			return invalid("config."+f.setting, "must be left out where spec.%s is set, which gives it", f.field)
		}
		if err := d.fill(setting{f.setting, filesDir + "/" + f.path}); err != nil {
			return err
		}
	}
	return cmp.Or(referDatabase(d, spec), referOIDC(d, spec), referTLS(d, spec), referFiles(d, spec))
}

// referDatabase looks at what belongs to a database password.
func referDatabase(d document, spec *v1beta1.HeadscaleSpec) error {
	if spec.Secrets.DatabasePassword == nil {
		return nil
	}
	kind, err := d.text("database.type")
	if err != nil {
		return err
	}
	if kind != "postgres" {
		return invalid("secrets.database_password", "applies to PostgreSQL only: set spec.config.database.type to postgres, or leave it out")
	}
	return leftOut(d, "database.postgres.pass", "secrets.database_password")
}

// referOIDC looks at what belongs to an OIDC client secret.
func referOIDC(d document, spec *v1beta1.HeadscaleSpec) error {
	if spec.Secrets.OIDCClientSecret == nil {
		return nil
	}
	issuer, err := d.text("oidc.issuer")
	if err != nil {
		return err
	}
	if issuer == "" {
		return invalid("config.oidc.issuer", "must be set where spec.secrets.oidc_client_secret is")
	}
	return leftOut(d, "oidc.client_secret", "secrets.oidc_client_secret")
}

// referTLS looks at what belongs to a TLS certificate.
func referTLS(d document, spec *v1beta1.HeadscaleSpec) error {
	if spec.Secrets.TLS == nil {
		return nil
	}
	return leftOut(d, "tls_letsencrypt_hostname", "secrets.tls")
}

// referFiles looks at what belongs to a policy file and a file of DNS records.
func referFiles(d document, spec *v1beta1.HeadscaleSpec) error {
	if spec.Files.ExtraDNSRecords != nil {
		if err := leftOut(d, "dns.extra_records", "files.extra_dns_records"); err != nil {
			return err
		}
	}
	if spec.Files.Policy == nil {
		return nil
	}
	mode, err := d.text("policy.mode")
	if err != nil {
		return err
	}
	if mode != "" && mode != "file" {
		return invalid("config.policy.mode", "must be file, or left out, where spec.files.policy is set")
	}
	return d.fill(setting{"policy.mode", "file"})
}

// leftOut refuses a setting beside a field that takes its place.
func leftOut(d document, setting, field string) error {
	value, written, err := d.lookup(setting)
	if err != nil || !written || value == "" {
		return err
	}
	return invalid("config."+setting, "must be left out where spec.%s is set", field)
}

// checkRelay refuses a private key for a relay that does not run.
func checkRelay(d document, spec *v1beta1.HeadscaleSpec) error {
	if spec.Secrets.DERPPrivateKey == nil {
		return nil
	}
	enabled, err := d.flag("derp.server.enabled")
	if err != nil || enabled {
		return err
	}
	return invalid("secrets.derp_private_key", "applies to Headscale's embedded DERP server only: set spec.config.derp.server.enabled to true, or leave it out")
}
