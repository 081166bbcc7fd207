// Package archtest holds the package map: a test over go list, and the reason for each line of it.
package archtest
