package rotation

// Reason says in one CamelCase word why something is done or is not.
type Reason string

// Reasons for a new credential, of the policies in this package.
const (
	// ReasonSecretMissing: there is no Secret.
	ReasonSecretMissing Reason = "SecretMissing"
	// ReasonKeyMissing: the Secret holds no credential.
	ReasonKeyMissing Reason = "KeyMissing"
	// ReasonValueChanged: somebody else wrote the Secret's value.
	ReasonValueChanged Reason = "ValueChanged"
	// ReasonKeyUnknown: the backend does not list the credential.
	ReasonKeyUnknown Reason = "KeyUnknown"
	// ReasonKeyExpired: the credential has expired, or was expired by hand.
	ReasonKeyExpired Reason = "KeyExpired"
	// ReasonLifetimeShortened: the credential would live longer than the settings now allow.
	ReasonLifetimeShortened Reason = "LifetimeShortened"
	// ReasonRequested: a user asked for a rotation.
	ReasonRequested Reason = "RotationRequested"
	// ReasonDue: it is time.
	ReasonDue Reason = "RotationDue"
)

// Reasons for everything else.
const (
	// ReasonUpToDate: nothing is to be done.
	ReasonUpToDate Reason = "UpToDate"
	// ReasonNotOurs: the Secret belongs to someone else.
	ReasonNotOurs Reason = "SecretNotOurs"
	// ReasonImmutable: the Secret cannot be changed.
	ReasonImmutable Reason = "SecretImmutable"
	// ReasonUnsaved: a credential was created and is not stored yet.
	ReasonUnsaved Reason = "KeyUnsaved"
	// ReasonSettling: a replaced or forgotten credential is expired.
	ReasonSettling Reason = "Settling"
	// ReasonOrphaned: a credential of ours is in no Secret.
	ReasonOrphaned Reason = "KeyOrphaned"
	// ReasonThrottled: credentials were created too often lately.
	ReasonThrottled Reason = "MintingThrottled"
	// ReasonUnsettled: something else keeps changing what was just written.
	ReasonUnsettled Reason = "Unsettled"
	// ReasonAnnotationsDiffer: the Secret's annotations are not true.
	ReasonAnnotationsDiffer Reason = "AnnotationsDiffer"
)
