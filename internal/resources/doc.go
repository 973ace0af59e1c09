// Package resources turns a Headscale into the objects that run it. Everything
// here is a pure function of the resource and the operator's options: there is no
// client, no context and no clock.
//
// The objects are apply configurations: they hold the fields that the operator
// wants to own and no others, so that server-side apply leaves everything else to
// whoever set it.
package resources
