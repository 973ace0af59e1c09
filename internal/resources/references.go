package resources

import (
	"cmp"

	corev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Kinds of objects that a Headscale refers to.
const (
	KindConfigMap = "ConfigMap"
	KindSecret    = "Secret"
)

// AnnotationReferences is on the pod where the Headscale refers to Secrets or
// ConfigMaps: a digest of their versions, so that a change of one makes a new pod.
const AnnotationReferences = v1beta1.GroupName + "/references-hash"

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
}

// References lists the objects that a Headscale refers to, each once for every field
// that does.
func References(headscale *v1beta1.Headscale) []Reference {
	var references []Reference
	if password := headscale.Spec.Secrets.DatabasePassword; password != nil {
		references = append(references, Reference{"secrets.database_password", KindSecret, string(password.Name)})
	}
	for _, f := range referencedFiles(&headscale.Spec) {
		if len(references) == 0 || references[len(references)-1] != f.Reference {
			references = append(references, f.Reference)
		}
	}
	return references
}

// referencedFile is an entry of an object that Headscale reads as a file.
type referencedFile struct {
	Reference
	// key is the entry's key.
	key string
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
			files = append(files, referencedFile{Reference{field, kind, string(from.Name)}, from.Key, path, setting})
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
		{"files.extra_dns_records", "extra_records.json", "dns.extra_records_path", spec.Files.ExtraDNSRecords},
	} {
		if file.from != nil {
			add(file.field, KindConfigMap, file.from.ConfigMap, file.path, file.setting)
			add(file.field, KindSecret, file.from.Secret, file.path, file.setting)
		}
	}
	return files
}

// addReferences gives the pod what the Headscale refers to.
func addReferences(pod *corev1.PodTemplateSpecApplyConfiguration, headscale *v1beta1.Headscale, digest string) {
	container := &pod.Spec.Containers[0]
	if password := headscale.Spec.Secrets.DatabasePassword; password != nil {
		container.WithEnv(corev1.EnvVar().WithName(passwordVariable).WithValueFrom(corev1.EnvVarSource().WithSecretKeyRef(
			corev1.SecretKeySelector().WithName(string(password.Name)).WithKey(password.Key))))
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
func filesVolume(files []referencedFile) *corev1.VolumeApplyConfiguration {
	volume := corev1.ProjectedVolumeSource().WithDefaultMode(0o440)
	for _, f := range files {
		item := corev1.KeyToPath().WithKey(f.key).WithPath(f.path)
		source := corev1.VolumeProjection()
		if f.Kind == KindSecret {
			source.WithSecret(corev1.SecretProjection().WithName(f.Name).WithItems(item))
		} else {
			source.WithConfigMap(corev1.ConfigMapProjection().WithName(f.Name).WithItems(item))
		}
		volume.WithSources(source)
	}
	return corev1.Volume().WithName(volumeFiles).WithProjected(volume)
}

// refer names the files in the config, and refuses a config that says otherwise.
func refer(d document, spec *v1beta1.HeadscaleSpec) error {
	for _, f := range referencedFiles(spec) {
		_, written, err := d.lookup(f.setting)
		if err != nil {
			return err
		}
		if written {
			return invalid("config."+f.setting, "must be left out where spec.%s is set, which gives it", f.Field)
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
