// Package adminserver is the admin endpoint of the API Key Manager: it serves Headscale's
// admin API, as it is on Headscale's Unix socket, over TLS to whoever holds the API key.
//
// Over TCP Headscale itself checks a key with bcrypt, which costs it 65 ms of a processor for
// each call, and in its default set-up it has the key sent in clear text. Here a key is
// compared with digests of those that are valid (Keyring), who connects recognises the endpoint by
// its certificate (Certificate), and nothing but the admin API is passed on (Server).
package adminserver
