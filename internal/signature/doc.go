// Package signature signs and verifies requests, answers and descriptors.
//
// It speaks Standard Webhooks 1.0: the signed content is the bytes of `id.timestamp.body`, the header is a list of
// `v1,<base64>` (HMAC-SHA256, secrets `whsec_…`) and `v1a,<base64>` (Ed25519, keys `whsk_…` and `whpk_…`).
//
// Promises:
//   - It fails closed. No header, no key, a zero key, a form that is not exactly the documented one: refused.
//   - Nothing verifies but what was signed: base64 is strict, timestamps have one form, an id cannot contain the
//     separator, degenerate Ed25519 keys (for which anybody can make signatures) do not parse.
//   - Several keys live at once on both sides, so that keys can change without downtime.
//   - A private key or secret shows itself only through Encode. Printing or logging one shows that it is there, not
//     what it is.
//
// It does not know who may say what: the caller chooses the keys.
package signature
