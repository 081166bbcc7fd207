// Package sidecar builds a running node out of its parts.
//
// New opens the store and the listeners and wires outbox, inbox and directory together: it shows what the process is
// made of. Run starts the parts in one order and stops them in the reverse of it, in bounded time. The app listener is
// up first and closes last, so that an app that starts with us or stops with us can publish.
//
// A node that can no longer write what it promises to write ends: Run returns an error that wraps store.ErrFenced.
// Several nodes may run in one process; nothing here is global.
package sidecar
