// Package adminserver is the admin endpoint of the API Key Manager: it serves Headscale's
// admin API, as it is on Headscale's Unix socket, over TLS to whoever holds the API key.
//
// Over TCP Headscale itself checks a key with bcrypt, which costs it 65 ms of a processor for
// each call, and with its default config, clients send the key in clear text. Here a key is
// compared with the digests of the valid keys (Keyring), clients identify the endpoint by its
// certificate (Certificate), and only the admin API is forwarded (Server).
package adminserver
