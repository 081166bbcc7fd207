// Package event is what an app published: its attributes, its data, and the forms that it takes on the wire and on disk.
//
// # What it promises
//
// The bytes of data are never changed: what was posted between the colon and the next comma is what is stored, hashed,
// sent and given to the receiving app. Unknown members of the envelope and of metadata are kept, in their order.
//
// Bodies are read in one pass and strictly. What two JSON readers could understand differently is refused, with the
// place: a repeated member name, a name that differs from another only by case, invalid UTF-8, half of a surrogate pair,
// something after the end. Names inside data are the app's own business, and are not compared.
//
// Everything that comes from outside is bounded before memory is spent on it. An error that the sender of the bytes has
// to know about is an *Error.
//
// # What it does not promise
//
// It knows nothing of stores, keys or peers, and it does not decide whether a source may be used by whoever uses it.
//
// # Forms
//
//	envelope    one JSON object with data (or dataBase64) in it        ParseEnvelope, ParseBatch, AppendEnvelope
//	attributes  the same object without the data; with it, as stored   AppendAttributes, ParseAttributes
//	batch       frames of attributes and data between two sidecars     BatchWriter, ReadBatchHeader, ReadDelivery
//	answer      what an inbox says about each event of a batch         BatchAnswer
//	pattern     which types a service wants                            ParsePatterns
package event
