package config

import "strings"

// A Problem is one thing that is wrong and where it was written.
type Problem struct {
	Where   string // FILE:LINE, environment variable or flag; the setting's name if it was not given at all
	Message string
}

func (p Problem) String() string { return p.Where + ": " + p.Message }

// An Error is everything that is wrong with a configuration.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
