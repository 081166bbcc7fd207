// Package store is the only durable state of a sidecar: one Badger directory, one writer.
//
// # Promises
//
//   - When Commit returns nil, or Done is called with nil, the operation is on disk: its group was one
//     transaction, and that transaction was synced. An operation is never split over transactions.
//   - When Commit returns ctx.Err(), ErrDiskLow, ErrDiskFloor or what Apply returned, nothing of it was stored.
//   - The first failed commit or sync fences the store: nothing is acknowledged after it. What the failed
//     group wrote may or may not be there on reopening; its callers are told ErrFenced, which says so.
//   - A read sees a synced state, whole groups only, and never waits for a sync.
//   - A store that holds less than it did is not opened: Open returns a *DamageError with numbers.
//     Not seen is damage by the medium to what was committed in the last second before an unclean stop,
//     as far as it hits the last group of the log: that looks like a write that was cut off.
//   - A record whose bytes changed is never handed out: each carries a CRC32C over key and value.
//   - Badger never meets a full disk through our own writes or its compactions: writing stops while there is
//     still room for what it has left to do, and a compaction that does not fit waits at a gate. What others
//     write in the milliseconds between a look at the disk and a page that is filled is beyond us.
//
// # Keys
//
// The first byte of a key says whose record it is:
//
//	a  instance; subscriptions' since                sidecar     c  subscribers                    outbox
//	d  dedup of the inbox, by day            counted inbox       e  events of the outbox log       counted outbox
//	i  ids of the outbox, by day             counted outbox      l  other outboxes' logs           inbox
//	m  state of the store after this group           store       n  events of the inbox log        counted inbox
//	p  peers and pins                                gossip      q  inbox cursor                   inbox
//	r  unsettled inbox events                counted inbox       s  set-aside events               counted outbox
//	w  ranges known to be lost                       store       x  dead letters                   counted deadletter
//	y  dead letters' events                  counted deadletter
//
// Values are crc32c(key ‖ payload) in 4 bytes, then the payload, whose first byte is the record's version.
//
// # How loss is noticed
//
// Badger cuts a damaged log off at the first bad record, drops tables that its manifest does not name, and
// makes an empty manifest where there is none; all of that in silence. So nothing of it is left to Badger.
// Every group is committed at timestamp last+1 and writes the m record. Before Badger may touch the
// directory, inspect reads the manifest, each table's newest version, and every log record by record: the
// timestamps must run without a hole from the tables through the logs up to WATERMARK's or beyond, and what
// lies behind the end of a log must look like one group that was cut off. After Badger has opened, what it
// found must be what was predicted. docs/DESIGN.md §2 has the files.
package store
