// Package dedup remembers the ids of events for a time, in buckets of a day.
//
// A record lies in the bucket of the day on which it was last added or refreshed, under prefix + day(2) + hash(16). An id is found in
// every bucket that is live, so for at least the time that the window was made with, and at most a day and a bit longer.
// A bucket goes as a whole, without looking for single old records; what is still needed moves into today's bucket first.
//
// Days are those of the store's ageing clock. A wall clock that jumps ahead therefore makes no id forgotten.
//
// A look-up costs one read per live bucket, newest first. Nothing is held in memory but the list of the buckets.
package dedup
