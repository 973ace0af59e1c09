package v1beta1

// Condition types of a Headscale.
const (
	// ConditionReady is true when Headscale answers and, if the API key is managed,
	// the Secret holds a valid one.
	ConditionReady = "Ready"
	// ConditionAvailable is true when Headscale's container is ready.
	ConditionAvailable = "Available"
	// ConditionAPIKeyReady is true when the API key Secret holds a key that is
	// valid, and is true with the reason ReasonNotManaged when nobody asked for one.
	ConditionAPIKeyReady = "APIKeyReady"
	// ConditionProgressing is true while a change is being rolled out.
	ConditionProgressing = "Progressing"
	// ConditionReconciling is there, and true, while ConditionProgressing is true. It
	// is what kstatus looks for, and with it Argo CD and Flux.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is there, and true, while only the user can fix what is
	// wrong, or what should have recovered by itself did not. kstatus reads it, and with
	// it Argo CD and Flux.
	ConditionStalled = "Stalled"
)

// Reasons of the conditions above.
const (
	// ReasonReady says that nothing is left to do.
	ReasonReady = "Ready"
	// ReasonComplete says that the reconciliation is complete.
	ReasonComplete = "Complete"
	// ReasonScaledToZero says that spec.replicas is 0.
	ReasonScaledToZero = "ScaledToZero"
	// ReasonConflict says that an object of a name we need belongs to someone else.
	ReasonConflict = "Conflict"
	// ReasonInvalidConfig says that the spec cannot be turned into objects.
	ReasonInvalidConfig = "InvalidConfig"
	// ReasonUpgradeRefused says that Headscale cannot go from the version that ran last
	// to the one of the spec in one step.
	ReasonUpgradeRefused = "UpgradeRefused"
	// ReasonVolumeWaiting says that the data volume cannot grow yet.
	ReasonVolumeWaiting = "VolumeWaiting"
	// ReasonReconcileFailed says that the API server refused or failed.
	ReasonReconcileFailed = "ReconcileFailed"
)

// Reasons that say how Headscale's pod is.
const (
	// ReasonAvailable says that Headscale's container is ready.
	ReasonAvailable = "Available"
	// ReasonProgressing says that the pod is being started or replaced.
	ReasonProgressing = "Progressing"
	// ReasonNotAnswering says that Headscale runs and fails its health check.
	ReasonNotAnswering = "NotAnswering"
	// ReasonCrashing says that Headscale is crash-looping.
	ReasonCrashing = "Crashing"
	// ReasonImagePullFailed says that an image of the pod cannot be pulled.
	ReasonImagePullFailed = "ImagePullFailed"
	// ReasonCannotStart says that the kubelet cannot make or start the container.
	ReasonCannotStart = "CannotStart"
	// ReasonUnschedulable says that no node has room for the pod.
	ReasonUnschedulable = "Unschedulable"
	// ReasonVolumePending says that the pod waits for its data volume.
	ReasonVolumePending = "VolumePending"
	// ReasonPodMissing says that Kubernetes does not make the pod.
	ReasonPodMissing = "PodMissing"
	// ReasonPodFailed says that the node ended the pod or refused it.
	ReasonPodFailed = "PodFailed"
	// ReasonNodeLost says that the pod's node does not report to Kubernetes any more.
	ReasonNodeLost = "NodeLost"
)

// Reasons that say how the API key is.
const (
	// ReasonNotManaged says that spec.api_key.auto_manage is false.
	ReasonNotManaged = "NotManaged"
	// ReasonKeyValid says that the Secret holds a key that has not expired.
	ReasonKeyValid = "KeyValid"
	// ReasonKeyPending says that the API Key Manager has not stored a key yet.
	ReasonKeyPending = "KeyPending"
	// ReasonKeyExpired says that the stored key has expired.
	ReasonKeyExpired = "KeyExpired"
	// ReasonKeyOverdue says that the stored key is valid and should have been
	// rotated by now.
	ReasonKeyOverdue = "KeyOverdue"
	// ReasonRotationFailing says that the API Key Manager runs and does not finish what
	// it has begun: a new key does not reach the Secret, or an old one stays valid.
	ReasonRotationFailing = "RotationFailing"
	// ReasonManagerFailing says that the API Key Manager does not run, so that the key
	// will not be rotated, or was not made.
	ReasonManagerFailing = "ManagerFailing"
)

// WarningsIntro stands, in the message of a Ready that is true, before what works and should
// be otherwise.
const WarningsIntro = "; but "

// Reasons of events that are no reasons of a condition.
const (
	// EventCreated says that the StatefulSet was created.
	EventCreated = "Created"
	// EventKeyStored says that the Secret got its first key.
	EventKeyStored = "KeyStored"
	// EventKeyRotated says that the Secret's key was replaced.
	EventKeyRotated = "KeyRotated"
	// EventSecretLeft says that a Secret is no longer managed and was left as
	// it is.
	EventSecretLeft = "SecretLeft"
	// EventVolumeGrown says that a larger data volume was requested.
	EventVolumeGrown = "VolumeGrown"
	// EventReferenceChanged says for which Secret or ConfigMap with changed data the pod is
	// replaced.
	EventReferenceChanged = "ReferenceChanged"
	// EventConfigWarning says what works and should be otherwise, such as a config key that
	// Headscale ignores because it does not know it.
	EventConfigWarning = "ConfigWarning"
	// EventRecovered says that what was wrong is over.
	EventRecovered = "Recovered"
)
