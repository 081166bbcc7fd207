//go:build race

package store_test

// raceEnabled: Badger closes tables that it is still opening when one of them is damaged.
const raceEnabled = true
