// Package e2e runs the real binary end to end. It holds tests only.
//
// Each test starts sidecar processes on free loopback ports, with apps of its own beside them, kills, stops and
// freezes them, and compares what the producers were told with what the apps got:
//
//   - what was acknowledged arrives, or is a dead letter, or still waits where the test says so;
//   - what was refused never arrives, and nothing arrives that nobody posted;
//   - the bytes of data are the bytes that were posted;
//   - every repeat that an app cannot explain by its own answer is marked X-Delivery-Redelivered;
//   - events of one key arrive in the order of publishing, one at a time;
//   - the signatures on the way to the app verify.
//
// The comparison (checker_test.go) shares no code with the product, and has tests of its own that feed it broken journals.
//
// A default run is bounded to about a minute. HOOKSIDECAR_SOAK=10m makes the crash test go on for ten minutes.
// The directories and logs of a failed test are kept, and their place is printed.
package e2e
