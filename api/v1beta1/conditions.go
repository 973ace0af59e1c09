package v1beta1

// Condition types of a Headscale.
const (
	// ConditionReady is true when Headscale answers and, if the API key is managed,
	// the Secret holds a valid one.
	ConditionReady = "Ready"
	// ConditionAvailable is true when Headscale's pod is ready.
	ConditionAvailable = "Available"
	// ConditionAPIKeyReady is true when the API key Secret holds a key that is
	// valid, and is true with the reason ReasonNotManaged when nobody asked for one.
	ConditionAPIKeyReady = "APIKeyReady"
)

// Reasons of the conditions above.
const (
	// ReasonReady says that nothing is left to do.
	ReasonReady = "Ready"
	// ReasonAvailable says that Headscale's pod is ready.
	ReasonAvailable = "Available"
	// ReasonProgressing says that the pod is being started or replaced.
	ReasonProgressing = "Progressing"
	// ReasonScaledToZero says that spec.replicas is 0.
	ReasonScaledToZero = "ScaledToZero"
	// ReasonConflict says that an object of a name we need belongs to someone else.
	ReasonConflict = "Conflict"
	// ReasonInvalidConfig says that the spec cannot be turned into objects.
	ReasonInvalidConfig = "InvalidConfig"
	// ReasonReconcileFailed says that the API server refused or failed.
	ReasonReconcileFailed = "ReconcileFailed"
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
)
