//go:build race

package e2e

// raceEnabled says that this test was built with the race detector; the sidecars are then built with it too.
const raceEnabled = true
