// Package admin is how operators speak to a sidecar: the types, the handlers and the client of the admin API.
//
// The command line, the server and whatever shows a node share these types, so that they cannot disagree. The API
// answers with metadata; only the detail of one dead letter holds the event itself, byte for byte, and a backup holds
// all of them. It never answers with secrets.
package admin
