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
	// ConditionBackedUp is true when Litestream replicates every change of the database. It is
	// there only with a backup.
	ConditionBackedUp = "BackedUp"
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
	// ReasonPreflightUnknown says that it is not known yet whether Headscale starts with the
	// spec, so a pod that is ready is left as it is.
	ReasonPreflightUnknown = "PreflightUnknown"
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
	// ReasonRestoreFailed says that the data volume has no database, and that none could be
	// restored from the backup.
	ReasonRestoreFailed = "RestoreFailed"
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

// Reasons that say how the backup is.
const (
	// ReasonReplicating says that every change of the database reaches the replica.
	ReasonReplicating = "Replicating"
	// ReasonNotReplicating says that Litestream runs and changes do not reach the replica.
	ReasonNotReplicating = "NotReplicating"
	// ReasonVerified says that a backup whose replication is not measured could be restored.
	ReasonVerified = "Verified"
	// ReasonVerificationFailed says that the backup could not be restored, or is damaged.
	ReasonVerificationFailed = "VerificationFailed"
	// ReasonBackupNotRunning says that Litestream does not run.
	ReasonBackupNotRunning = "BackupNotRunning"
	// ReasonMetricsUnreachable says that the operator cannot read Litestream's metrics.
	ReasonMetricsUnreachable = "MetricsUnreachable"
	// ReasonNotMeasured says that Litestream does not count what it writes to such a replica.
	ReasonNotMeasured = "NotMeasured"
)

// Reasons of what exists within a Headscale, such as a HeadscaleUser.
const (
	// ReasonNoHeadscale says that there is no Headscale of the name that is referred to, or
	// that it is being deleted.
	ReasonNoHeadscale = "NoHeadscale"
	// ReasonNotAllowed says that the Headscale's spec.access does not let the namespace do this.
	ReasonNotAllowed = "NotAllowed"
	// ReasonManagerOff says that no API Key Manager runs next to the Headscale, so that the
	// operator has no key for it.
	ReasonManagerOff = "ManagerOff"
	// ReasonNotReady says that the Headscale does not run yet, or its key is not there yet.
	ReasonNotReady = "NotReady"
	// ReasonEndpointUnreachable says that the API Key Manager's admin endpoint cannot be reached.
	ReasonEndpointUnreachable = "EndpointUnreachable"
	// ReasonKeyRefused says that the API Key Manager's admin endpoint refuses the key.
	ReasonKeyRefused = "KeyRefused"
	// ReasonUnsupported says that the release of Headscale cannot do this.
	ReasonUnsupported = "Unsupported"
	// ReasonRefused says that Headscale refused it.
	ReasonRefused = "Refused"
	// ReasonRenamePending says that the user cannot be renamed before another one is.
	ReasonRenamePending = "RenamePending"
	// ReasonHasNodes says that a user is not deleted because it still has nodes.
	ReasonHasNodes = "HasNodes"
	// ReasonKeysAtRisk says that a user is not deleted because this release of Headscale would
	// delete all pre-auth keys with it.
	ReasonKeysAtRisk = "KeysAtRisk"
)

// Reasons of a HeadscalePreAuthKey, besides those.
const (
	// ReasonUserMissing says that the user of a pre-auth key does not exist, or not yet.
	ReasonUserMissing = "UserMissing"
	// ReasonUsed says that a pre-auth key was used up or expired, and is not to be replaced.
	ReasonUsed = "Used"
)

// Reasons of a HeadscalePolicy, besides those.
const (
	// ReasonInvalidPolicy says that a HeadscalePolicy is no policy that could be joined with others.
	ReasonInvalidPolicy = "InvalidPolicy"
	// ReasonPolicyMode says that Headscale does not read its policy from its database.
	ReasonPolicyMode = "PolicyMode"
	// ReasonTooLarge says that Headscale takes no policy of that size.
	ReasonTooLarge = "TooLarge"
	// ReasonWouldAllowAll says that the policy has no rules any more, by which Headscale would
	// allow everything.
	ReasonWouldAllowAll = "WouldAllowAll"
	// ReasonContested says that somebody else changes the policy again and again.
	ReasonContested = "Contested"
	// ReasonPolicyPending says that another HeadscalePolicy keeps the policy from being changed.
	ReasonPolicyPending = "PolicyPending"
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
	// EventPreflightSkipped says that a change is applied without a completed preflight.
	EventPreflightSkipped = "PreflightSkipped"
	// EventRecovered says that what was wrong is over.
	EventRecovered = "Recovered"
)

// Reasons of events about a HeadscaleUser that are no reasons of a condition.
const (
	// EventUserCreated says that the user was created in Headscale.
	EventUserCreated = "UserCreated"
	// EventUserAdopted says that a user that existed before was taken over.
	EventUserAdopted = "UserAdopted"
	// EventUserReplaced says that the user was deleted by somebody else, or that Headscale has
	// another database, and which user replaces it.
	EventUserReplaced = "UserReplaced"
	// EventUserRenamed says that the user was renamed in Headscale.
	EventUserRenamed = "UserRenamed"
	// EventUserDeleted says that the user was deleted from Headscale.
	EventUserDeleted = "UserDeleted"
	// EventUserLeft says that the user was left in Headscale although its HeadscaleUser is gone.
	EventUserLeft = "UserLeft"
)

// Reasons of events about HeadscalePolicies that are no reasons of a condition.
const (
	// EventPolicyApplied says that Headscale accepted a changed policy.
	EventPolicyApplied = "PolicyApplied"
	// EventPolicyCorrected says that a change of the policy by hand was reverted.
	EventPolicyCorrected = "PolicyCorrected"
	// EventPolicyLeft says that the last HeadscalePolicy of a Headscale is gone, and that what is in force
	// stays.
	EventPolicyLeft = "PolicyLeft"
	// EventPolicyWarning says what is accepted and probably not meant, such as a misspelled section.
	EventPolicyWarning = "PolicyWarning"
)

// Reasons of events about a HeadscalePreAuthKey that are no reasons of a condition. A first key is
// reported by EventKeyStored, a replaced one by EventKeyRotated.
const (
	// EventKeyLeft says that the key was left valid although its HeadscalePreAuthKey is gone.
	EventKeyLeft = "KeyLeft"
)
