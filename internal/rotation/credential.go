package rotation

import "time"

// Credential is one entry of the backend's list.
type Credential[F any] struct {
	// ID identifies the credential in the backend. It is opaque here and not secret, contains
	// neither a comma nor an at sign, and is not reused while this credential is listed.
	ID string
	// Expiration is when the credential expires, UTC. Zero: never.
	Expiration time.Time
	// CreatedAt is when it was created, by the backend's clock.
	CreatedAt time.Time
	// Facts are the other fields of the list entry, for the policies of this kind.
	Facts F
}

// Text is the secret text of a credential, in a type of the caller that does not reveal it by
// accident. This package never prints it.
type Text interface {
	// Reveal returns the text, empty if there is none.
	Reveal() string
}

// reveal returns the text, empty if there is none.
func reveal(text Text) string {
	if text == nil {
		return ""
	}
	return text.Reveal()
}

// Created is a credential that the backend has just created for us.
type Created struct {
	Text       Text
	ID         string
	Expiration time.Time
	CreatedAt  time.Time
}

// Settings say how long credentials live.
type Settings struct {
	// Expiration is how long a new credential is valid.
	Expiration time.Duration
	// RotationBuffer is how long before its expiration a credential is replaced.
	RotationBuffer time.Duration
	// RevocationDelay is how long the old credential stays valid after a new one was
	// stored. Zero: it is expired at once.
	RevocationDelay time.Duration
}
